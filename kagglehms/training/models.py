"""Recipe → network, and where its first weights come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kagglehms.data.competition import CLASSES
from kagglehms.errors import UsageError, first_line
from kagglehms.training.backbones import AST, HALF, timm_name
from kagglehms.training.first_weights import NONE, FirstWeights, fill, find_weights
from kagglehms.training.front_ends.options import FrontEnd
from kagglehms.training.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor, nn

AST_STRIDE = 10
PAD_TO = 32
"""Transformers with a fixed input size get images padded with zeros to multiples of it (a 300-column image has no
whole number of patches, windows or grids)."""


def make_model(recipe: Recipe, pretrained: str | FirstWeights = NONE) -> tuple[nn.Module, str]:
    """Build the network of a recipe: one channel, or signals, in; six logits out.

    Args:
        recipe: its backbone may be any timm model by name.
        pretrained: its first weights: what `first_weights.find_weights` found, or what it is to look for.

    Returns:
        The network, in float32 on the CPU, and one line that says where its weights came from.

    Raises:
        UsageError: no timm model of that name, one that cannot take the images or classifies nothing, or first
            weights that the hub does not give.
        DataError: the file is missing, or does not hold weights of the backbone.
    """
    first = find_weights(recipe.backbone, pretrained) if isinstance(pretrained, str) else pretrained
    model = _create(recipe)
    fill(model, first, recipe.backbone, classifier_layers(model, recipe.backbone))
    line = f"weights: {first.origin}"
    return model if recipe.front_end is None else _behind_front_end(model, recipe.front_end), line


def check_model(recipe: Recipe, first: FirstWeights) -> None:
    """Build the network of a recipe once and show it an input, so that what cannot work ends before it has begun.

    Args:
        recipe: see `make_model`.
        first: its first weights.

    Raises:
        UsageError, DataError: see `make_model`; or the network cannot take inputs of this size.
    """
    import torch

    model, _ = make_model(recipe, first)
    shape = recipe.layout.shape
    inputs = torch.zeros(1, 1, *shape) if recipe.front_end is None else torch.zeros(1, *shape)
    try:
        with torch.inference_mode():
            logits_BK = model.eval()(inputs)
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        raise _cannot_take(recipe, shape, first_line(error)) from error
    if logits_BK.shape != (1, len(CLASSES)):
        raise _cannot_take(recipe, shape, f"it makes {tuple(logits_BK.shape)} of one")


def _cannot_take(recipe: Recipe, shape: tuple[int, int], reason: str) -> UsageError:
    return UsageError(f"backbone {recipe.backbone!r} cannot take {shape} images: {reason}")


def _create(recipe: Recipe) -> nn.Module:
    import timm

    name = timm_name(recipe.backbone)
    halved, overlapping = recipe.backbone.startswith(HALF), AST in recipe.backbone
    shape = _halved(recipe.image_shape) if halved else recipe.image_shape
    options: dict[str, Any] = {}
    fixed = timm.get_pretrained_cfg_value(name, "fixed_input_size")
    if overlapping:
        options = {"img_size": shape, "embed_layer": _overlapping_patches()}
    elif fixed:
        options = {"img_size": _padded(shape)}
    try:
        model = timm.create_model(
            name,
            in_chans=1,
            num_classes=len(CLASSES),
            drop_rate=recipe.dropout,
            drop_path_rate=recipe.drop_path_rate,
            **options,
        )
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        reason = first_line(error) if str(error).strip() else "its constructor refuses the image size"
        raise _cannot_take(recipe, shape, reason) from error
    reset_classifier(model, recipe.backbone)
    # Hooks, so that tensors keep timm's own names; they run in this order.
    if halved:
        model.register_forward_pre_hook(_halve_input)
    if fixed and not overlapping:
        model.register_forward_pre_hook(_pad_input)
    return model


def _behind_front_end(model: nn.Module, options: FrontEnd) -> nn.Module:
    from kagglehms.training.front_ends.network import SignalNetwork, make_front_end

    return SignalNetwork(make_front_end(options), model)


def reset_classifier(model: nn.Module, backbone: str) -> None:
    """Start the layers that make the logits as `nn.Linear` starts, uniform in ±1 / √n_inputs.

    Many networks of timm start them in ±1 / √n_classes instead, which is meant for 1000 classes: with six, the
    first logits are so far apart that the first epochs go into unlearning them.

    Args:
        model: of timm, with six classes.
        backbone: its name, for the error.

    Raises:
        UsageError: it has no such layer.
    """
    for layer in classifier_layers(model, backbone):
        layer.reset_parameters()


def classifier_layers(model: nn.Module, backbone: str) -> list[nn.Linear | nn.Conv2d]:
    """The layers of a timm model that make its logits: one, or several where a network has several heads.

    Args:
        model: of timm, with six classes.
        backbone: its name, for the error.

    Raises:
        UsageError: there are none; timm also has encoders that classify nothing.
    """
    from torch import nn

    # timm names them twice, and neither list is always complete: auxiliary heads stand only in the first one,
    # blocks around the layer only in the second.
    named: Any = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    heads = [model.get_submodule(name) for name in ([named] if isinstance(named, str) else named)]
    own: Any = getattr(model, "get_classifier", lambda: None)()
    heads += [head for head in (own if isinstance(own, tuple | list) else [own]) if head is not None]
    layers = {layer: None for head in heads for layer in head.modules()}
    found: list[nn.Linear | nn.Conv2d] = []
    for layer in layers:
        if isinstance(layer, nn.Linear | nn.Conv2d) and layer.weight.shape[0] == len(CLASSES):
            found.append(layer)
    if not found:
        raise UsageError(f"backbone {backbone!r} has no classifier, it only encodes images; choose another")
    return found


def _halved(shape: tuple[int, int]) -> tuple[int, int]:
    return -(-shape[0] // 2), -(-shape[1] // 2)


def _halve_input(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """Means of 2 × 2 pixels of (B, 1, H, W); of what there is, at an odd end."""
    from torch.nn import functional

    return (functional.avg_pool2d(inputs[0], 2, ceil_mode=True, count_include_pad=False),)


def _padded(shape: tuple[int, int]) -> tuple[int, int]:
    return (-(-shape[0] // PAD_TO) * PAD_TO, -(-shape[1] // PAD_TO) * PAD_TO)


def _pad_input(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """Pad (B, 1, H, W) with zeros on the right and below."""
    from torch.nn import functional

    (images_BCHW,) = inputs
    height, width = images_BCHW.shape[-2:]
    padded_height, padded_width = _padded((height, width))
    return (functional.pad(images_BCHW, (0, padded_width - width, 0, padded_height - height)),)


def _overlapping_patches() -> type[nn.Module]:
    """timm's patch embedding with overlapping patches; no padding, so the last pixels of an axis may be left out.

    Source: Gong, Chung & Glass (2021), "AST: Audio Spectrogram Transformer", section 2.1.
    """
    import torch
    from timm.layers.patch_embed import PatchEmbed

    class OverlappingPatchEmbed(PatchEmbed):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **(options | {"strict_img_size": False}))
            self.proj.stride = (AST_STRIDE, AST_STRIDE)
            assert self.img_size is not None
            height, width = (
                (n - p) // AST_STRIDE + 1 for n, p in zip(self.img_size, self.patch_size, strict=True)
            )
            self.grid_size = (height, width)
            self.num_patches = height * width

        def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
            patches_BDHW = self.proj(images_BCHW)
            return self.norm(patches_BDHW.flatten(2).transpose(1, 2))

    return OverlappingPatchEmbed
