"""Recipe → network, and where its first weights come from."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kagglehms.data.competition import CLASSES
from kagglehms.errors import UsageError, first_line
from kagglehms.inputs.kinds import Image, Views
from kagglehms.training.backbones import AST, HALF, timm_name
from kagglehms.training.first_weights import NONE, FirstWeights, fill, find_all
from kagglehms.training.front_ends.options import FrontEnd, PoolingName
from kagglehms.training.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor, nn

AST_STRIDE = 10
PAD_TO = 32
"""Transformers with a fixed input size get images padded with zeros to multiples of it (a 300-column image has no
whole number of patches, windows or grids)."""


def make_model(recipe: Recipe, pretrained: str | FirstWeights = NONE) -> tuple[nn.Module, str]:
    """Build the network of a recipe: an image, signals or two images in; six logits out.

    Args:
        recipe: its backbones may be any timm models by name.
        pretrained: its first weights: what `first_weights.find_all` found, or what it is to look for.

    Returns:
        The network, in float32 on the CPU, and one line that says where its weights came from.

    Raises:
        UsageError: no timm model of that name, one that cannot take the images or classifies nothing, or first
            weights that the hub does not give.
        DataError: the file is missing, or does not hold weights of the backbone.
    """
    first = find_all(recipe.backbones, pretrained) if isinstance(pretrained, str) else pretrained
    line = f"weights: {first.origin}"
    if isinstance(recipe.layout, Views):
        return _two_views(recipe, recipe.layout.parts, first), line
    model = _image_network(recipe, 0, recipe.layout.array_shape[0] if recipe.front_end is None else 1, first)
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
    inputs = torch.zeros(1, *recipe.layout.array_shape)
    shapes = recipe.image_shapes
    shape = recipe.layout.shape if len(shapes) == 1 else " and ".join(map(str, shapes))
    try:
        with torch.inference_mode():
            logits_BK = model.eval()(inputs)
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        raise _cannot_take(recipe.network, shape, first_line(error)) from error
    if logits_BK.shape != (1, len(CLASSES)):
        raise _cannot_take(recipe.network, shape, f"it makes {tuple(logits_BK.shape)} of one")


def _cannot_take(backbone: str, shape: object, reason: str) -> UsageError:
    return UsageError(f"backbone {backbone!r} cannot take {shape} images: {reason}")


def _image_network(recipe: Recipe, view: int, n_planes: int, first: FirstWeights) -> nn.Module:
    """The timm network that sees one of a recipe's images, with its first weights, its pooling and six logits."""
    backbone = recipe.backbones[view]
    model = _create(recipe, backbone, recipe.image_shapes[view], n_planes)
    fill(model, first.of(view), backbone, classifier_layers(model, backbone))
    if recipe.pooling is not None:
        _set_pooling(model, recipe.pooling, backbone)
    return model


def _create(recipe: Recipe, backbone: str, image_shape: tuple[int, int], n_planes: int) -> nn.Module:
    import timm

    name = timm_name(backbone)
    halved, overlapping = backbone.startswith(HALF), AST in backbone
    shape = _halved(image_shape) if halved else image_shape
    options: dict[str, Any] = {}
    fixed = timm.get_pretrained_cfg_value(name, "fixed_input_size")
    if overlapping:
        options = {"img_size": shape, "embed_layer": _overlapping_patches()}
    elif fixed:
        options = {"img_size": _padded(shape)}
    try:
        model = timm.create_model(
            name,
            in_chans=n_planes,
            num_classes=len(CLASSES),
            drop_rate=recipe.dropout,
            drop_path_rate=recipe.drop_path_rate,
            **options,
        )
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        reason = first_line(error) if str(error).strip() else "its constructor refuses the image size"
        raise _cannot_take(backbone, shape, reason) from error
    reset_classifier(model, backbone)
    # Hooks, so that tensors keep timm's own names; they run in this order.
    if halved:
        model.register_forward_pre_hook(_halve_input)
    if fixed and not overlapping:
        model.register_forward_pre_hook(_pad_input)
    return model


def _set_pooling(model: nn.Module, name: PoolingName, backbone: str) -> None:
    """Put another pooling in the place of a timm network's own.

    Raises:
        UsageError: it has none, or one that something else than the classifier comes after.
    """
    from timm.layers.adaptive_avgmax_pool import SelectAdaptivePool2d
    from torch import nn

    from kagglehms.training.front_ends.pooling import make_pooling

    for owner in (model, getattr(model, "head", None)):
        own = getattr(owner, "global_pool", None)
        if (
            owner is not None
            and isinstance(own, SelectAdaptivePool2d)
            and isinstance(own.flatten, nn.Flatten)
        ):
            owner.global_pool = make_pooling(name)
            return
    raise UsageError(f"backbone {backbone!r} has no pooling that could be {name!r}; choose another backbone")


def _two_views(recipe: Recipe, parts: tuple[Image, Image], first: FirstWeights) -> nn.Module:
    """Two image networks without classifiers of their own, and the layer that makes the logits."""
    from kagglehms.training.views import TwoViews

    without = replace(recipe, dropout=0.0)  # which comes once, after both
    networks = [_image_network(without, view, part.array_shape[0], first) for view, part in enumerate(parts)]
    widths = [_without_classifier(network, recipe) for network in networks]
    one, other = networks
    shapes = [part.array_shape for part in parts]
    return TwoViews(one, other, (widths[0], widths[1]), shapes, recipe.dropout)


def _without_classifier(model: Any, recipe: Recipe) -> int:
    """Take the classifier off a timm network, so that it returns what it classifies by; return how much that is."""
    model.reset_classifier(0)
    if recipe.pooling is not None:  # for timm makes its own again
        _set_pooling(model, recipe.pooling, recipe.network)
    return int(getattr(model, "head_hidden_size", model.num_features))


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


def head_layers(model: nn.Module, recipe: Recipe) -> list[nn.Linear | nn.Conv2d]:
    """The layers of a recipe's whole network that make its logits."""
    from kagglehms.training.front_ends.network import SignalNetwork
    from kagglehms.training.views import TwoViews

    if isinstance(model, TwoViews):
        return [model.head]
    return classifier_layers(model.backbone if isinstance(model, SignalNetwork) else model, recipe.backbone)


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
