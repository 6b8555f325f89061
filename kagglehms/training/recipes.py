"""Every recipe by name. Variants are made with `dataclasses.replace`."""

from __future__ import annotations

from dataclasses import replace

from kagglehms.errors import one_of
from kagglehms.inputs import kinds, layouts
from kagglehms.inputs.kinds import Input
from kagglehms.training.front_ends.options import (
    EffNet1dOptions,
    PanelResNetOptions,
    ResNet1dOptions,
    SqueezeOptions,
    WaveStackOptions,
)
from kagglehms.training.options import (
    BandPass,
    DropDifferences,
    FrequencyMask,
    HorizontalFlip,
    Mirror,
    Mixup,
    PseudoLabels,
    SameClassCutMix,
    Shift,
    SignFlip,
    TimeMask,
    VerticalFlip,
)
from kagglehms.training.published import SUFFIX, as_published
from kagglehms.training.recipe import Recipe, recipe_from_json
from kagglehms.training.stages import Stage

__all__ = ["RECIPES", "Recipe", "Stage", "get_recipe", "recipe_from_json"]

_CUTMIX = (SameClassCutMix(probability=0.4),)
_LOG_VOTES = (Stage(loss="kl-log-votes"),)
_MOSAIC = (Stage(epochs=8, mosaic_epochs=3, loss="kl-capped-votes"),)
_FEW_THEN_MANY = (
    Stage(mosaic_epochs=2, records="unsettled", loss="kl-capped-votes"),
    Stage(records="settled", loss="kl-capped-votes"),
)
_FEW_THEN_MANY_SHORTER = (_FEW_THEN_MANY[0], replace(_FEW_THEN_MANY[1], epochs=5))
_FEW_THEN_WEIGHTED = (_FEW_THEN_MANY[0], replace(_FEW_THEN_MANY[1], loss="kl-two-stage"))


def _transformer(name: str, backbone: str, layout: Input) -> Recipe:
    return Recipe(name, layout, backbone=backbone, stages=_LOG_VOTES, lr=1e-4)


def _raw_fold(name: str, backbone: str, layout: Input) -> Recipe:
    """Return a recipe of the second place: all records, weighted by votes, then those with many votes; mirrored."""
    stages = (
        Stage(epochs=15, loss="kl-votes", warm_up_steps=800, last_lr=1e-7, lr=1e-3, judged_by="many"),
        Stage(epochs=5, records="many", warm_up_steps=0, last_lr=1e-7, lr=1e-4),
    )
    return Recipe(
        name,
        layout,
        backbone=backbone,
        stages=stages,
        augmentations=(Mirror(),),
        dropout=0.5,
        weight_decay=2e-2,
        schedule="cosine",
        windows="random",
        evaluations_per_epoch=1,
    )


def _taught(recipe: Recipe, labels: PseudoLabels) -> Recipe:
    """Return a recipe whose first stage learns from pseudo labels."""
    first, *others = recipe.stages
    return replace(recipe, stages=(replace(first, pseudo_labels=labels), *others))


def _spectra(name: str, backbone: str, layout: Input, last_stage_lr: float = 1e-4) -> Recipe:
    """Return a recipe of the seventh place: all records, then those with many votes, with flips and mixup.

    The seventh place used the cross-entropy with vote fractions, which has the same gradient as `kl`.
    """
    flips = (Mirror(), HorizontalFlip(), VerticalFlip(), Mixup(probability=0.05, least=0.4, most=0.6))
    stages = (
        Stage(epochs=5, last_lr=1e-5, judged_by="many"),
        Stage(epochs=10, records="many", lr=last_stage_lr, last_lr=1e-5, augmentations=flips),
    )
    return Recipe(
        name,
        layout,
        backbone=backbone,
        stages=stages,
        augmentations=(Mirror(),),
        drop_path_rate=0.1,
        dropout=0.0,
        batch_size=16,
        lr=2.5e-4,
        weight_decay=1e-4,
        schedule="cosine",
        evaluations_per_epoch=1,
    )


def _resnet1d(
    name: str,
    layout: Input,
    epochs: tuple[int, int],
    mask: TimeMask | FrequencyMask,
    panel_encoder: PanelResNetOptions | None = None,
) -> Recipe:
    """Return a recipe of our own small networks: all records, then those with many votes."""
    stages = (
        Stage(epochs=epochs[0], loss="kl-log-votes", warm_up_steps=200, clip_norm=2.0),
        Stage(epochs=epochs[1], records="many", lr=3e-4, clip_norm=2.0),
    )
    return Recipe(
        name,
        layout,
        backbone="",
        front_end=ResNet1dOptions(),
        panel_encoder=panel_encoder,
        view_loss=0.3 if panel_encoder else 0.0,
        stages=stages,
        augmentations=(
            Mirror(),
            SignFlip(),
            HorizontalFlip(),
            DropDifferences(most=5),
            mask,
            Mixup(probability=0.3, least=0.7, most=1.0),
            Shift(seconds=3.0),
        ),
        drop_path_rate=0.0,
        dropout=0.4,
        lr=2e-3,
        weight_decay=5e-2,
        ema=0.995,
        schedule="cosine",
        windows="random",
        evaluations_per_epoch=1,
    )


_ALL = (
    Recipe("baseline", layouts.PANELS_BY_THEMSELVES),
    Recipe("global-stats", layouts.SUMMARIES, drop_path_rate=0.0, dropout=0.0),
    Recipe("percentiles", layouts.PERCENTILES, drop_path_rate=0.0, dropout=0.0),
    Recipe("panels+global", layouts.PANELS_AND_SUMMARIES),
    Recipe("eeg-panels", layouts.EEG_PANELS),
    Recipe("eeg+percentiles", layouts.EEG_PANELS_AND_PERCENTILES),
    Recipe("eeg-global-stats", layouts.EEG_SUMMARIES),
    Recipe("vote-weighted-only", layouts.PANELS_BY_THEMSELVES, stages=_LOG_VOTES),
    Recipe("vote-weighted", layouts.PANELS_AND_PERCENTILES, stages=_LOG_VOTES, augmentations=_CUTMIX),
    Recipe("vote-weighted-global", layouts.SUMMARIES, stages=_LOG_VOTES, augmentations=_CUTMIX),
    Recipe("global-norm", layouts.GLOBAL_PANELS, "efficientnet_b4", stages=_LOG_VOTES),
    Recipe("global-norm-stats", layouts.GLOBAL_SUMMARIES, stages=_LOG_VOTES, augmentations=_CUTMIX),
    Recipe("mosaic-xloss", layouts.GLOBAL_PANELS, "efficientnet_b0", stages=_MOSAIC),
    Recipe("mosaic-xloss-stats", layouts.GLOBAL_SUMMARIES, "efficientnet_b0", stages=_MOSAIC),
    Recipe("two-stage", layouts.GLOBAL_PANELS, "efficientnet_b0", stages=_FEW_THEN_MANY),
    Recipe("two-stage-weighted", layouts.GLOBAL_PANELS, "efficientnet_b0", stages=_FEW_THEN_WEIGHTED),
    Recipe("two-stage-stats", layouts.GLOBAL_SUMMARIES, "efficientnet_b0", stages=_FEW_THEN_MANY_SHORTER),
    # The source only gives the joint score of its two models on EEG: these apply its rule to its two EEG images.
    Recipe("eeg-two-stage", layouts.EEG_PANELS_AND_PERCENTILES, "efficientnet_b0", stages=_FEW_THEN_MANY),
    Recipe("eeg-two-stage-stats", layouts.EEG_SUMMARIES, "efficientnet_b0", stages=_FEW_THEN_MANY),
    _transformer("transformer-vit", "vit_small_patch16_224", layouts.GLOBAL_PANELS),
    _transformer("transformer-swin", "swin_tiny_patch4_window7_224", layouts.GLOBAL_PANELS),
    _transformer("transformer-maxvit", "maxvit_tiny_tf_224", layouts.GLOBAL_PANELS),
    _transformer("transformer-ast", "ast:deit_base_distilled_patch16_224", layouts.GLOBAL_PANELS),
    # Beyond the source: both recordings in one image.
    Recipe("kaggle+eeg", layouts.KAGGLE_AND_EEG, stages=_LOG_VOTES),
    # Beyond the source: the methods of the best public solutions, see docs/ladder.md.
    _raw_fold("raw-fold", "tf_efficientnet_b5", kinds.FOLDED_CAUSAL),
    _raw_fold("raw-fold-hgnet", "hgnetv2_b5", kinds.FOLDED_LINEAR),
    _spectra("stft-50-10", "convnext_base", kinds.SPECTRA_50_AND_10_S),
    _spectra("stft-30-10", "convnext_base", kinds.SPECTRA_30_AND_10_S),
    _spectra("stft-50-10-maxvit", "maxvit_tiny_rw_224", kinds.SPECTRA_50_AND_10_S, last_stage_lr=2.5e-4),
    # The third place's: mel spectra with a finer centre, records of many votes alone.
    Recipe(
        "mel-zoom",
        kinds.MEL_ZOOM,
        backbone="mixnet_xl",
        pooling="gem",
        stages=(Stage(epochs=16, records="many", clip_norm=20.0),),
        augmentations=(Mirror(), DropDifferences(), Shift(), BandPass()),
        drop_path_rate=0.2,
        dropout=0.2,
        optimizer="adam",
        lr=1.2e-3,
        weight_decay=0.0,
        schedule="cosine",
        evaluations_per_epoch=1,
    ),
    # The second place's way of fusing: raw EEG beside ten minutes of spectrogram, one head.
    _raw_fold("two-views", "efficientnet_b0", kinds.FOLDED_AND_PANELS),
    # The eighth place's pseudo labels: three models each for 0.3 of a target, the votes for the rest.
    _taught(
        _raw_fold("raw-fold-pseudo", "tf_efficientnet_b5", kinds.FOLDED_CAUSAL),
        PseudoLabels(("raw-fold", "raw-fold-hgnet", "stft-50-10"), share=0.9),
    ),
    Recipe(
        "wave-stack",
        kinds.SIXTEEN_SIGNALS,
        backbone="maxxvitv2_nano_rw_256",
        front_end=WaveStackOptions(),
        stages=(
            Stage(epochs=50, warm_up_steps=1500, judged_by="many", smoothing=0.05, clip_norm=0.1),
            Stage(epochs=30, records="many", lr=1e-4, clip_norm=0.1),
        ),
        augmentations=(Mirror(), SignFlip(), HorizontalFlip(), TimeMask(probability=0.2, max_width=1000)),
        weight_decay=1e-2,
        schedule="cosine",
        windows="random",
        evaluations_per_epoch=1,
    ),
    # The third place's encoder. It saw three sub-windows of each of 64 records in a step; here it sees one.
    Recipe(
        "squeeze-1d",
        kinds.SIXTEEN_SIGNALS,
        backbone="",
        front_end=SqueezeOptions(),
        stages=(Stage(epochs=30, weights="groups", judged_by="many", clip_norm=4.0),),
        augmentations=(Mirror(), DropDifferences(), Shift()),
        drop_path_rate=0.0,
        dropout=0.1,
        batch_size=64,
        optimizer="adam",
        lr=1e-3,
        weight_decay=0.0,
        schedule="cosine",
        windows="random",
        evaluations_per_epoch=1,
    ),
    # The fourth place's network, with its two learning rates and its moving average; its epochs are not known.
    Recipe(
        "effnet1d",
        kinds.SIXTEEN_SIGNALS,
        backbone="",
        front_end=EffNet1dOptions(drop_path_rate=0.1),
        stages=(Stage(epochs=30, loss="kl-votes", judged_by="many", clip_norm=4.0),),
        augmentations=(Mirror(), SignFlip(), HorizontalFlip(), Mixup(probability=0.5)),
        drop_path_rate=0.0,
        dropout=0.5,
        lr=5e-4,
        head_lr=1e-3,
        ema=0.998,
        schedule="cosine",
        windows="random",
        evaluations_per_epoch=1,
    ),
    # Of no solution: small, and dense enough for a CPU, from nothing; the augmentations are those of the winners.
    _resnet1d("resnet1d", kinds.SIXTEEN_SIGNALS_50_HZ, (16, 8), TimeMask(probability=0.3, max_width=300)),
    # The same beside a network of its kind for the ten minutes' panels, each of which also learns by itself.
    _resnet1d(
        "resnet1d+panels",
        kinds.SIGNALS_50_HZ_AND_PANELS,
        (20, 6),
        FrequencyMask(max_height=16),
        PanelResNetOptions(),
    ),
    # Late fusion across two kinds of inputs: an encoder of the signals beside an image network of the spectrogram.
    replace(
        _raw_fold("raw+spectrogram", "efficientnet_b0", kinds.FOLDED_AND_PANELS),
        layout=kinds.SIGNALS_AND_PANELS,
        front_end=SqueezeOptions(),
    ),
    # Not part of the ladder: small enough to learn something within a minute on two CPU cores.
    Recipe(
        "demo",
        layouts.GLOBAL_PANELS,
        backbone="half:test_efficientnet",
        stages=_LOG_VOTES,
        drop_path_rate=0.0,
        dropout=0.1,
        batch_size=8,
        lr=2e-3,
        evaluations_per_epoch=1,
    ),
)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _ALL}
"""Every recipe by name."""


def get_recipe(name: str) -> Recipe:
    """Look up a recipe by name; with `-as-published` after it, the run of its notebook, see `published`.

    Raises:
        UsageError: unknown; the message lists what exists.
    """
    if name.endswith(SUFFIX):
        return as_published(get_recipe(name.removesuffix(SUFFIX)))
    one_of("recipe", name, RECIPES)
    return RECIPES[name]
