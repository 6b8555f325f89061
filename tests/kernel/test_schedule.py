"""The order of passes is that in which a run that is cut short is best off."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kagglehms.bundle.manifest import Model
from kagglehms.kernel.schedule import SAFETY, Projection, Step, Trial, make_schedule, score_of
from kagglehms.runs.blends import Blend
from kagglehms.training.recipes import RECIPES

BIG, SMALL, STATS = "global-norm", "mosaic-xloss", "mosaic-xloss-stats"
SIZES = {BIG: 70_000_000, SMALL: 16_000_000, STATS: 16_000_000}


def model(recipe: str, fold: int, score: float | None, many: float | None = None) -> Model:
    return Model(recipe, fold, f"{recipe}.{fold}", f"{recipe}.json", {"all": score, "votes10": many})


MODELS = [
    model(BIG, 0, 0.64, 0.40),
    model(BIG, 1, 0.62, 0.41),
    model(SMALL, 0, 0.63, 0.42),
    model(SMALL, 1, 0.60, 0.36),
    model(STATS, 0, 0.64, 0.40),
]


def names(models: list[Model] = MODELS, blend: Blend | None = None, mirror: bool = True) -> list[str]:
    recipes = {m.recipe: RECIPES[m.recipe] for m in models}
    return [
        s.name
        for s in make_schedule(models, recipes, {m.weights: SIZES[m.recipe] for m in models}, blend, mirror)
    ]


def test_the_best_fold_of_every_recipe_comes_before_a_second_one_of_any() -> None:
    order = names(mirror=False)
    assert order[:3] == [f"{SMALL} fold 1", f"{STATS} fold 0", f"{BIG} fold 0"]
    assert order[3:] == [f"{SMALL} fold 0", f"{BIG} fold 1"]


def test_mirrored_passes_come_last_and_only_where_sides_can_be_seen() -> None:
    order = names()
    assert order[:5] == names(mirror=False)
    assert order[5:] == [f"{SMALL} fold 1 mirrored", f"{BIG} fold 0 mirrored", f"{SMALL} fold 0 mirrored",
                         f"{BIG} fold 1 mirrored"]  # fmt: skip


def test_a_blend_decides_what_a_recipe_is_worth() -> None:
    heavy = Blend("b", (BIG, SMALL), (0.9, 0.1))
    assert names(blend=heavy, mirror=False)[:2] == [f"{BIG} fold 0", f"{SMALL} fold 1"]
    even = Blend("b", (BIG, SMALL, STATS), (0.5, 0.5, 0.0))
    order = names(blend=even, mirror=False)
    assert order[:2] == [f"{SMALL} fold 1", f"{BIG} fold 0"]
    assert not any(STATS in name for name in order)


def test_the_order_does_not_depend_on_that_of_the_manifest() -> None:
    assert names(MODELS[::-1]) == names()


@pytest.mark.parametrize(
    ("scores", "expected"),
    [({"all": 0.7, "votes10": 0.4}, 0.4), ({"all": 0.7, "votes10": None}, 0.7), ({"all": 0.7}, 0.7)],
)
def test_folds_are_compared_by_the_score_on_many_votes(
    scores: dict[str, float | None], expected: float
) -> None:
    assert score_of(Model("r", 0, "w", "f", scores)) == expected
    assert score_of(Model("r", 0, "w", "f", {})) > 5


def test_a_step_costs_what_the_networks_of_all_its_views_do() -> None:
    """Two networks that share 32 MB evenly cost as much as one of 16 MB for each of their views; signals count, too."""

    def cost(name: str, size: int) -> float:
        (step,) = make_schedule(
            [model(name, 0, 0.5)], {name: RECIPES[name]}, {f"{name}.0": size}, mirror=False
        )
        return step.cost

    half = 16_000_000
    panels = half * 400 * 300
    assert cost("global-norm", half) == panels
    assert cost("raw-fold", half) == half * 160 * 1000
    assert cost("two-views", 2 * half) == half * 160 * 1000 + panels
    assert cost("squeeze-1d", half) == half * 16 * 10_000
    assert cost("raw+spectrogram", 2 * half) == half * 16 * 10_000 + panels
    assert cost("resnet1d+panels", 2 * half) == half * 16 * 2500 + panels
    # The image that a front end makes of signals is what costs.
    height, width = RECIPES["wave-stack"].image_shapes[0]
    assert cost("wave-stack", half) == half * height * width


def test_a_step_will_take_what_its_recipe_took_or_what_its_cost_says() -> None:
    first, other = Step(MODELS[2], False, 100.0), Step(MODELS[0], False, 400.0)
    projection = Projection()
    assert projection.of(first) == 0
    projection.observe(first, 30)
    assert projection.of(replace(first, mirror=True)) == pytest.approx(SAFETY * 30)
    assert projection.of(other) == pytest.approx(SAFETY * 120)
    projection.observe(other, 80)
    projection.observe(first, 10)
    assert projection.of(first) == pytest.approx(SAFETY * 10)
    third = Step(MODELS[4], False, 100.0)
    assert projection.of(third) == pytest.approx(SAFETY * 30)
    assert [projection.guesses(step) for step in (first, other, third)] == [False, False, True]
    projection.expect(third, 2)
    assert projection.of(third) == pytest.approx(SAFETY * 2)
    assert not projection.guesses(third)
    assert not Projection().guesses(first)


def test_a_trial_ends_with_its_fifth_batch_and_does_not_count_the_first() -> None:
    trial = Trial(40)
    assert [trial.after(number, 100 + 10 * number**2) for number in range(6)] == [None] * 4 + [40, None]
    assert trial.share == 1 / 8
    assert Trial(3).share == 1
