"""Image networks of timm, for images of any size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kagglehms.data.competition import CLASSES
from kagglehms.errors import UsageError, first_line
from kagglehms.training.backbones import AST, HALF, timm_name
from kagglehms.training.classifiers import reset_classifier
from kagglehms.training.front_ends.options import PoolingName
from kagglehms.training.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor, nn

AST_STRIDE = 10
PAD_TO = 32
"""Images for transformers with a fixed input size are padded with zeros to multiples of this, since 300 columns, for
example, cannot be divided into whole patches, windows or grids."""


def create_network(recipe: Recipe, backbone: str, image_shape: tuple[int, int], n_planes: int) -> nn.Module:
    """Create the timm network of an image.

    Args:
        recipe: recipe of the run.
        backbone: name of the backbone, with its prefixes.
        image_shape: (height, width) of the image.
        n_planes: number of planes of the image.

    Raises:
        UsageError: timm has no such network, or it cannot take such images.
    """
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
        raise cannot_take(backbone, shape, reason) from error
    reset_classifier(model, backbone)
    # Hooks keep timm's names of the tensors; they run in this order.
    if halved:
        model.register_forward_pre_hook(_halve_input)
    if fixed and not overlapping:
        model.register_forward_pre_hook(_pad_input)
    return model


def set_pooling(model: nn.Module, name: PoolingName, backbone: str) -> None:
    """Replace the pooling of a timm network.

    Args:
        model: timm network.
        name: name of the pooling, see `front_ends.pooling`.
        backbone: name of the backbone, for error messages.

    Raises:
        UsageError: the network has no pooling, or one that is not directly before the classifier.
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


def cannot_take(backbone: str, shape: object, reason: str) -> UsageError:
    """Return the error for images that a backbone cannot take."""
    return UsageError(f"backbone {backbone!r} cannot take {shape} images: {reason}")


def _halved(shape: tuple[int, int]) -> tuple[int, int]:
    return -(-shape[0] // 2), -(-shape[1] // 2)


def _halve_input(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """Average 2 × 2 pixels of (B, 1, H, W), or fewer at the end of an odd axis."""
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
    """Return timm's patch embedding with overlapping patches; without padding, the last pixels may be ignored.

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
