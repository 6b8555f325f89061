"""Weights to and from safetensors files; nothing is ever unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kagglehms.errors import DataError
from kagglehms.runtime import write_bytes

if TYPE_CHECKING:
    from torch import Tensor, nn

_WRAPPERS = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before the names of a model's tensors."""


def save_weights(model: nn.Module, path: Path) -> None:
    """Write all parameters and buffers, atomically, under their plain names."""
    from safetensors.torch import save

    # Cloning parts tensors that share memory (tied weights), which safetensors refuses.
    state = {_plain(name): t.detach().cpu().contiguous().clone() for name, t in model.state_dict().items()}
    write_bytes(path, save(state))


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill `model` in place; every tensor must be there, have its shape, and be wanted.

    Raises:
        DataError: missing, truncated, or the weights of another model; the message names the first differences.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise DataError(path, "no such file", "train the recipe, or copy its run folder whole")
    try:
        state = {_plain(name): tensor for name, tensor in load_file(path).items()}
    except (SafetensorError, OSError) as error:
        raise DataError(
            path, f"cannot be read ({error})", "copy it again, it is truncated or no weights"
        ) from error
    problems = _differences(model.state_dict(), state)
    if problems:
        raise DataError(
            path, "holds weights of another model: " + "; ".join(problems), "check recipe and backbone"
        )
    target = {_plain(name): name for name in model.state_dict()}
    model.load_state_dict({target[name]: tensor for name, tensor in state.items()})


def _plain(name: str) -> str:
    for prefix in _WRAPPERS:
        name = name.removeprefix(prefix)
    return name


def _differences(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> list[str]:
    shapes = {_plain(name): tuple(tensor.shape) for name, tensor in wanted.items()}
    missing = [name for name in shapes if name not in found]
    extra = [name for name in found if name not in shapes]
    other = [
        f"{name} is {tuple(found[name].shape)} instead of {shape}"
        for name, shape in shapes.items()
        if name in found and tuple(found[name].shape) != shape
    ]
    problems = []
    if missing:
        problems.append(f"{len(missing)} tensor(s) missing, such as {missing[0]}")
    if extra:
        problems.append(f"{len(extra)} unknown, such as {extra[0]}")
    return problems + other[:2]
