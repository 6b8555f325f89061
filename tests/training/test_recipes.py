"""Recipes are found by name, travel as strict JSON, and refuse nonsense."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from math import inf, nan
from typing import Any

import pytest

from kagglehms.errors import DataError, UsageError
from kagglehms.inputs.layouts import Layout
from kagglehms.training.front_ends.options import ResNet1dOptions
from kagglehms.training.options import Augmentation, BandPass, Mirror, PseudoLabels
from kagglehms.training.recipes import RECIPES, Recipe, Stage, get_recipe, recipe_from_json

BASELINE = get_recipe("baseline")
DIGESTS = {"baseline": "17d3350f26b992c0", "raw-fold": "0753eb129eac5f0e", "wave-stack": "18e66f6cad560ede"}
"""First digits of what these recipes' runs state."""


@pytest.mark.parametrize("name", RECIPES)
def test_json_and_back(name: str) -> None:
    recipe = get_recipe(name)
    assert recipe_from_json(recipe.to_json()) == recipe
    assert recipe_from_json(recipe.to_json()).digest == recipe.digest


def test_a_changed_recipe_has_another_digest() -> None:
    baseline = get_recipe("baseline")
    assert len({baseline.digest, replace(baseline, seed=1).digest, replace(baseline, lr=2e-3).digest}) == 3


def test_what_a_recipe_does_not_use_is_not_in_its_json() -> None:
    """Or every run of an earlier version would be one of another recipe."""
    later = {"second_backbone", "pooling", "panel_encoder", "view_loss"}
    assert not later & json.loads(get_recipe("baseline").to_json()).keys()
    assert json.loads(get_recipe("mel-zoom").to_json())["pooling"] == "gem"
    assert "second_backbone" not in json.loads(get_recipe("two-views").to_json())
    both = replace(get_recipe("two-views"), second_backbone="resnet10t")
    assert json.loads(both.to_json())["second_backbone"] == "resnet10t"
    assert recipe_from_json(both.to_json()) == both
    panels = json.loads(get_recipe("resnet1d+panels").to_json())
    assert (panels["panel_encoder"]["widths"], panels["view_loss"]) == ([32, 64, 128, 192], 0.3)
    stages = json.loads(get_recipe("raw-fold-pseudo").to_json())["stages"]
    assert stages[0]["pseudo_labels"]["share"] == 0.9
    assert "pseudo_labels" not in stages[1]
    assert all(
        "pseudo_labels" not in stage for stage in json.loads(get_recipe("raw-fold").to_json())["stages"]
    )


def test_digests_of_earlier_versions_stay() -> None:
    """Runs of these recipes go on with this version."""
    digests = {name: get_recipe(name).digest[:16] for name in ("baseline", "raw-fold", "wave-stack")}
    assert digests == DIGESTS


def test_pseudo_labels_are_the_eighth_places() -> None:
    recipe, folded = get_recipe("raw-fold-pseudo"), get_recipe("raw-fold")
    assert recipe.teachers == ("raw-fold", "raw-fold-hgnet", "stft-50-10")
    labels = recipe.stages[0].pseudo_labels
    assert labels is not None
    assert labels.share / len(labels.teachers) == pytest.approx(0.3)
    plain = tuple(replace(stage, pseudo_labels=None) for stage in recipe.stages)
    assert replace(recipe, name=folded.name, stages=plain) == folded


def test_a_run_cannot_teach_itself() -> None:
    stage = Stage(pseudo_labels=PseudoLabels(("raw-fold", "raw-fold-pseudo")))
    with pytest.raises(UsageError, match="a run cannot be its own teacher, but raw-fold-pseudo names itself"):
        replace(get_recipe("raw-fold-pseudo"), stages=(stage,))


def test_mel_zoom_is_the_third_places() -> None:
    recipe = get_recipe("mel-zoom")
    assert recipe.layout.array_shape == (3, 1024, 852)
    assert (recipe.backbone, recipe.pooling) == ("mixnet_xl", "gem")
    assert (recipe.dropout, recipe.drop_path_rate) == (0.2, 0.2)
    assert (recipe.optimizer, recipe.lr, recipe.weight_decay) == ("adam", 1.2e-3, 0.0)
    assert (recipe.schedule, recipe.batch_size) == ("cosine", 32)
    (stage,) = recipe.stages
    assert (stage.records, stage.epochs, stage.clip_norm) == ("many", 16, 20.0)
    assert {a.kind for a in recipe.augmentations} == {"mirror", "drop-differences", "shift", "band-pass"}


def test_two_views_are_trained_as_the_folded_recording_is() -> None:
    views, folded, panels = (get_recipe(name) for name in ("two-views", "raw-fold", "global-norm"))
    assert views.layout.parts == (folded.layout, panels.layout)
    assert views.backbones == ("efficientnet_b0", "efficientnet_b0")
    same = replace(views, name=folded.name, layout=folded.layout, backbone=folded.backbone)
    assert same == folded


def test_another_backbone_takes_the_place_of_both() -> None:
    two = replace(get_recipe("two-views"), second_backbone="resnet10t")
    assert two.changed(backbone="test_vit").backbones == ("test_vit", "test_vit")
    assert two.changed(epochs=1).backbones == ("efficientnet_b0", "resnet10t")


def test_baseline_is_the_rung_of_the_ladder() -> None:
    recipe = get_recipe("baseline")
    assert recipe.layout.shape == (400, 300)
    assert (recipe.backbone, recipe.drop_path_rate, recipe.dropout) == ("efficientnet_b2", 0.2, 0.3)
    assert (recipe.batch_size, recipe.epochs, recipe.lr, recipe.weight_decay) == (32, 6, 1e-3, 1e-2)
    assert (recipe.schedule, recipe.evaluations_per_epoch, recipe.stages[0].loss) == ("one-cycle", 2, "kl")


@pytest.mark.parametrize("name", ["global-stats", "percentiles"])
def test_two_rungs_are_without_dropout(name: str) -> None:
    """Their notebooks create the network with timm's defaults, where all others ask for 0.3 and 0.2."""
    assert (get_recipe(name).dropout, get_recipe(name).drop_path_rate) == (0, 0)


def test_vote_weighting_alone_changes_the_loss_of_the_baseline_and_nothing_else() -> None:
    only = get_recipe("vote-weighted-only")
    assert replace(only, name="baseline", stages=get_recipe("baseline").stages) == get_recipe("baseline")
    assert [stage.loss for stage in only.stages] == ["kl-log-votes"]


def test_eeg_panels_are_the_left_half_of_the_image_with_percentiles() -> None:
    recipe = get_recipe("eeg-panels")
    assert recipe.layout.shape == (512, 256)
    assert recipe.layout.tiles == get_recipe("eeg+percentiles").layout.tiles[:1]


@pytest.mark.parametrize(
    ("name", "image", "epochs"),
    [
        ("two-stage", "mosaic-xloss", (6, 6)),
        ("two-stage-stats", "mosaic-xloss-stats", (6, 5)),
        ("eeg-two-stage", "eeg+percentiles", (6, 6)),
        ("eeg-two-stage-stats", "eeg-global-stats", (6, 6)),
    ],
)
def test_two_stages_part_the_records_by_the_sources_rule(
    name: str, image: str, epochs: tuple[int, int]
) -> None:
    recipe = get_recipe(name)
    assert recipe.layout == get_recipe(image).layout
    assert recipe.backbone == "efficientnet_b0"
    assert tuple(stage.epochs for stage in recipe.stages) == epochs
    assert [(s.records, s.mosaic_epochs, s.loss) for s in recipe.stages] == [
        ("unsettled", 2, "kl-capped-votes"),
        ("settled", 0, "kl-capped-votes"),
    ]


def test_a_changed_recipe_keeps_the_rest() -> None:
    recipe = get_recipe("mosaic-xloss")
    assert recipe.changed() == recipe
    assert recipe.changed(batch_size=4, backbone="half:test_efficientnet") == replace(
        recipe, batch_size=4, backbone="half:test_efficientnet"
    )
    assert recipe.changed(epochs=2) == recipe.with_epochs(2)
    with pytest.raises(UsageError, match="batch_size must be at least 1"):
        recipe.changed(batch_size=0)


def test_recipes_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        get_recipe("baseline").lr = 1.0  # type: ignore[misc]


def test_an_unknown_name_lists_what_exists() -> None:
    with pytest.raises(UsageError, match="unknown recipe 'basline'; did you mean 'baseline'[?]$"):
        get_recipe("basline")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": 3}, "epoch: Unexpected"),
        ({"batch_size": "3"}, "batch_size: Input should be a valid integer"),
        ({"schedule": "cosinus"}, "schedule: Input should be 'one-cycle'"),
        ({"stages": [{"epochs": 0}]}, "epochs must be at least 1"),
        ({"stages": []}, "at least one stage"),
        ({"stages": [{"epochs": 2, "mosaic_epochs": 2}]}, "mosaic_epochs must be less than epochs"),
        ({"augmentations": [{"kind": "cutmux"}]}, "augmentations"),
        ({"layout": {"tiles": []}}, "layout"),
    ],
)
def test_json_that_is_no_recipe_is_refused(change: dict[str, object], message: str) -> None:
    content = json.loads(get_recipe("baseline").to_json()) | change
    with pytest.raises(DataError, match=message) as caught:
        recipe_from_json(json.dumps(content).encode(), "x.recipe.json")
    assert str(caught.value).startswith("x.recipe.json: is no recipe of this version")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}"])
def test_broken_json_is_refused(content: bytes) -> None:
    with pytest.raises(DataError, match="is no recipe"):
        recipe_from_json(content)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "a/b"},
        {"name": ""},
        {"batch_size": 0},
        {"lr": 0.0},
        {"dropout": 1.0},
        {"weight_decay": -1.0},
        {"seed": -1},
        {"ema": 1.0},
        {"second_backbone": "resnet10t"},
    ],
)
def test_nonsense_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        replace(get_recipe("baseline"), **change)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replace(BASELINE, stages=[Stage()]), "^stages must be a tuple, but got a list"),
        (lambda: replace(BASELINE, augmentations=[Mirror()]), "^augmentations must be a tuple"),
        (lambda: replace(BASELINE, augmentations=iter(())), "^augmentations must be a tuple"),
        (lambda: Stage(augmentations=[Mirror()]), "^augmentations must be a tuple"),
        (lambda: _taught_by(["a", "b"]), r"^pseudo_labels\.teachers must be a tuple"),
        (lambda: _augmented(BandPass(low_hz=[0.5, 1.0])), r"^augmentations\.0\.low_hz must be a tuple"),
        (lambda: _with_front_end(ResNet1dOptions(widths=[8, 8, 8])), r"^front_end\.widths must be a tuple"),
        (lambda: _with_front_end(ResNet1dOptions(knee=inf)), r"^front_end\.knee must be finite, but got inf"),
        (
            lambda: replace(BASELINE, layout=Layout([*BASELINE.layout.tiles])),
            r"^layout\.tiles must be a tuple",
        ),
        *(
            (lambda name=name, value=value: replace(BASELINE, **{name: value}), f"^{name} must be finite")
            for name in ("lr", "head_lr", "weight_decay", "dropout", "drop_path_rate", "ema", "view_loss")
            for value in (nan, inf, -inf)
        ),
        *(
            (lambda name=name, value=value: Stage(**{name: value}), f"^{name} must be finite")
            for name in ("lr", "head_lr", "weight_decay", "clip_norm", "last_lr", "smoothing")
            for value in (nan, inf, -inf)
        ),
    ],
)
def test_what_json_would_not_give_back_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


def _taught_by(teachers: Any) -> Stage:
    return Stage(pseudo_labels=PseudoLabels(teachers))


def _augmented(augmentation: Augmentation) -> Recipe:
    return replace(get_recipe("raw-fold"), augmentations=(augmentation,))


def _with_front_end(options: ResNet1dOptions) -> Recipe:
    return replace(get_recipe("resnet1d"), front_end=options)
