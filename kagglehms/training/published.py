"""The source's notebooks as they really ran, which is how the published scores came about.

A recipe of the ladder follows the text and settings of the source's notebook. Where the notebook did something else
when it ran, `as_published` returns a recipe that does that as well. The remaining differences are listed in
docs/ladder.md.
"""

from __future__ import annotations

from dataclasses import replace

from kagglehms.errors import UsageError, closest
from kagglehms.training.options import Augmentation, SameClassCutMix
from kagglehms.training.recipe import Recipe
from kagglehms.training.stages import Stage

SUFFIX = "-as-published"
"""Suffix of a recipe's name for the run of its notebook."""

NOTEBOOKS = {
    "baseline": "baseline",
    "global-stats": "spectrogram_stat_image-nb",
    "percentiles": "hbac-spec-img-percentiles-nb",
    "eeg+percentiles": "eeg-percentiles-nb",
    "eeg-global-stats": "eeg-global-features-nb",
    "vote-weighted": "vote-weighted-kldiv-loss-cutmix-nb",
    "vote-weighted-global": "vote-weighted-kldiv-loss-global-cutmix-nb",
    "global-norm": "effb4_global_normalization_nb_(1)",
    "global-norm-stats": "effb2-global-cutmix-nb",
    "mosaic-xloss": "mosaic-xloss-nb",
    "mosaic-xloss-stats": "mosaic-xloss-global-nb",
    "two-stage": "effb0-2-stage-training-4conf-nb",
    "two-stage-weighted": "effb0-2-stage-training-modified-loss-nb",
    "two-stage-stats": "effb0-global-2-stage-training-nb",
}
"""The notebook of each recipe, in the source's folder `CNN`; the other recipes have none."""

_EPOCHS = {"global-norm-stats": (5,), "two-stage-weighted": (6, 5)}
"""Epochs per stage in the output of the notebooks whose settings say otherwise."""


def as_published(recipe: Recipe) -> Recipe:
    """Return the recipe of what a notebook really ran, under a name of its own.

    The learning rate and beta1 are constant, CutMix exchanges rows, each stage has as many epochs as it ran, and
    after a warm-up the best evaluation is reset throughout the first epoch. Dropout does not change.

    Args:
        recipe: recipe of the ladder.

    Raises:
        UsageError: no notebook was published for this recipe.
    """
    if recipe.name not in NOTEBOOKS:
        raise UsageError(f"no notebook of {recipe.name!r} was published; {closest(recipe.name, NOTEBOOKS)}")
    epochs = _EPOCHS.get(recipe.name, tuple(stage.epochs for stage in recipe.stages))
    stages = [_as_run(stage, n) for stage, n in zip(recipe.stages, epochs, strict=True)]
    if recipe.name == "two-stage-weighted":  # its second stage started from the weights of another run
        stages[0] = replace(stages[0], records="few")
    return replace(
        recipe,
        name=recipe.name + SUFFIX,
        schedule="constant",
        augmentations=tuple(_on_rows(augmentation) for augmentation in recipe.augmentations),
        stages=tuple(stages),
    )


def _as_run(stage: Stage, epochs: int) -> Stage:
    return replace(stage, epochs=epochs, reset_all_epoch=stage.mosaic_epochs > 0)


def _on_rows(augmentation: Augmentation) -> Augmentation:
    if isinstance(augmentation, SameClassCutMix):
        return replace(augmentation, axis="rows")
    return augmentation
