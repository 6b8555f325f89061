"""Recipes of the winners' kind: their own inputs, stages and augmentations, and a network that trains in seconds."""

from __future__ import annotations

from dataclasses import replace

from kagglehms.training.front_ends.options import (
    EffNet1dOptions,
    FrontEnd,
    PanelResNetOptions,
    ResNet1dOptions,
    SqueezeOptions,
    WaveStackOptions,
)
from kagglehms.training.recipes import Recipe, get_recipe

WINNERS = (
    "raw-fold",
    "raw-fold-hgnet",
    "stft-50-10",
    "stft-30-10",
    "stft-50-10-maxvit",
    "mel-zoom",
    "two-views",
    "raw-fold-pseudo",
    "wave-stack",
    "squeeze-1d",
    "effnet1d",
    "resnet1d",
    "resnet1d+panels",
    "raw+spectrogram",
)


def stand_in(name: str) -> Recipe:
    """The recipe with one epoch in each stage, batches of four and a tiny network."""
    recipe = get_recipe(name).changed(epochs=1, batch_size=4)
    if recipe.backbone:
        recipe = recipe.changed(backbone="half:test_efficientnet")
    stages = tuple(replace(stage, warm_up_steps=min(stage.warm_up_steps, 2)) for stage in recipe.stages)
    panels = recipe.panel_encoder and PanelResNetOptions(widths=(4, 8), layers=(0, 1))
    return replace(recipe, stages=stages, front_end=small(recipe.front_end), panel_encoder=panels)


def small(front_end: FrontEnd | None) -> FrontEnd | None:
    """The front end with few features, if it is learned."""
    match front_end:
        case WaveStackOptions():
            return WaveStackOptions(widths=(2,), layers=(2,), n_columns=64)
        case SqueezeOptions():
            return SqueezeOptions(width=16, n_blocks=1, kernel=7)
        case EffNet1dOptions():
            return EffNet1dOptions(stem_width=8, widths=(8, 16), kernels=(3, 5), layers=(1, 1))
        case ResNet1dOptions():
            return ResNet1dOptions(widths=(8, 16), kernels=(5, 3), layers=(1, 1), n_shared=1)
        case _:
            return front_end
