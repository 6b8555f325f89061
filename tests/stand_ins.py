"""Recipes of the winners' kind: their own inputs, stages and augmentations, and a network that trains in seconds."""

from __future__ import annotations

from dataclasses import replace

from kagglehms.training.front_ends.options import WaveStackOptions
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
)


def stand_in(name: str) -> Recipe:
    """The recipe with one epoch in each stage, batches of four and a tiny network."""
    recipe = get_recipe(name).changed(epochs=1, batch_size=4, backbone="half:test_efficientnet")
    stages = tuple(replace(stage, warm_up_steps=min(stage.warm_up_steps, 2)) for stage in recipe.stages)
    small = WaveStackOptions(widths=(2,), layers=(2,), n_columns=64)
    return replace(recipe, stages=stages, front_end=None if recipe.front_end is None else small)
