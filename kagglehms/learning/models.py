"""Recipe → network, and where its first weights come from."""

from __future__ import annotations

import difflib
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from kagglehms.data.competition import CLASSES
from kagglehms.errors import DataError, UsageError
from kagglehms.learning.recipes import Recipe

if TYPE_CHECKING:
    from torch import nn

HUB = ("huggingface.co", 443)


def make_model(recipe: Recipe, pretrained: str = "none") -> tuple[nn.Module, str]:
    """Build the network of a recipe: one channel in, six logits out.

    Args:
        recipe: its backbone may be any timm model by name.
        pretrained: where ImageNet weights come from: `none`; `auto`, timm's hub when the network is there and
            from scratch otherwise; or a .safetensors file, or a folder that holds `<backbone>.safetensors`.

    Returns:
        The network, in float32 on the CPU, and one line that says where its weights came from.

    Raises:
        UsageError: no timm model of that name.
        DataError: the file is missing, or does not fit the backbone.
    """
    if pretrained == "none":
        return _create(recipe), "weights: from scratch, as asked for"
    if pretrained != "auto":
        from safetensors import SafetensorError

        path = _weights_file(Path(pretrained), recipe.backbone)
        try:
            return _create(recipe, file=path), f"weights: ImageNet, from {path}"
        except (RuntimeError, KeyError, ValueError, OSError, SafetensorError) as error:
            reason = f"does not hold weights of {recipe.backbone} ({str(error).splitlines()[0][:200]})"
            raise DataError(path, reason, "give timm's file for this very backbone") from error
    why_not = _hub_unreachable()
    if why_not is None:
        try:
            return _create(recipe, hub=True), "weights: ImageNet, from timm's hub"
        except (OSError, RuntimeError, ValueError) as error:
            why_not = (str(error).splitlines() or [type(error).__name__])[0][:160]
    return _create(recipe), f"weights: from scratch, since timm's hub gave none ({why_not})"


def _create(recipe: Recipe, file: Path | None = None, hub: bool = False) -> nn.Module:
    import timm

    # Pretrained tags ("efficientnet_b2.ra_in1k") are part of a timm name, but not of its list of models.
    if not timm.is_model(recipe.backbone.split(".")[0]):
        near = difflib.get_close_matches(recipe.backbone, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() lists them"
        raise UsageError(f"unknown backbone {recipe.backbone!r}; {hint}")
    return timm.create_model(
        recipe.backbone,
        pretrained=bool(file or hub),
        in_chans=1,
        num_classes=len(CLASSES),
        drop_rate=recipe.dropout,
        drop_path_rate=recipe.drop_path_rate,
        pretrained_cfg_overlay={"file": str(file)} if file else None,
    )


def _weights_file(path: Path, backbone: str) -> Path:
    """Resolve a file or folder to one .safetensors file; pickled weights are never opened."""
    if path.is_dir():
        found = sorted(path.glob("*.safetensors"))
        names = [backbone, backbone.split(".")[0]]
        for candidate in found:
            if candidate.stem in names or candidate.stem.split(".")[0] in names:
                return candidate
        listed = ", ".join(p.name for p in found[:8]) or "no .safetensors file"
        raise DataError(path, f"has no {backbone}.safetensors", f"it holds {listed}")
    if not path.is_file():
        raise DataError(
            path, "no such file or folder", "give timm's weights as .safetensors, `auto` or `none`"
        )
    if path.suffix != ".safetensors":
        raise DataError(
            path, "is not a .safetensors file", "pickled weights can run code: convert them first"
        )
    return path


def _hub_unreachable() -> str | None:
    """Return why the hub cannot be asked, or None: a look that costs seconds, where its client retries for minutes."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return "HF_HUB_OFFLINE is set"
    try:
        with socket.create_connection(HUB, timeout=3):
            return None
    except OSError as error:
        return f"{HUB[0]} cannot be reached: {error}"
