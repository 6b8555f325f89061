"""The order in which a scored run does its work, and what it leaves out when time is short.

A step is one pass of one fold's model over the test set. Steps come in rounds: the best fold of every recipe, then the
second best of every recipe, and so on; finally the same again on mirrored recordings (test-time augmentation). So the
first steps gain most, and those that time does not allow gain least. Within a round, steps are ordered by the recipe's
weight divided by the step's cost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from kagglehms.bundle.manifest import Model
from kagglehms.runs.blends import Blend
from kagglehms.training.recipes import Recipe

_UNKNOWN_SCORE = 10.0
"""Stands in for the score of a fold that has none; worse than any real score."""
SAFETY = 1.15
"""Safety factor on projected durations."""


@dataclass(frozen=True)
class Step:
    """One pass of one model over the test set.

    Attributes:
        model: the model's entry in the manifest.
        mirror: whether left and right are swapped.
        cost: bytes of weights × pixels or samples that they see, the mean of two views, roughly proportional to the
            number of multiplications.
    """

    model: Model
    mirror: bool
    cost: float

    @property
    def name(self) -> str:
        mirrored = " mirrored" if self.mirror else ""
        return f"{self.model.recipe} fold {self.model.fold}{mirrored}"


def make_schedule(
    models: Sequence[Model],
    recipes: Mapping[str, Recipe],
    sizes: Mapping[str, int],
    blend: Blend | None = None,
    mirror: bool = True,
) -> list[Step]:
    """Order the passes so that a run that is cut short at any point has gained as much as possible.

    Args:
        models: entries of the manifest.
        recipes: recipes by name; models of other recipes are left out.
        sizes: bytes of each weights file by name.
        blend: how recipes are combined; recipes without a weight in it are left out. Without a blend, the weight of a
            recipe is 1 / its out-of-fold score.
        mirror: whether to add passes over mirrored recordings, for inputs that tell left from right.
    """
    steps: list[Step] = []
    for again in (False, True) if mirror else (False,):
        rounds: dict[int, list[tuple[float, Step]]] = {}
        for name, recipe in recipes.items():
            weight = _weight(name, models, blend)
            if weight == 0 or (again and not recipe.layout.sees_sides):
                continue
            n_values = fmean(map(math.prod, recipe.seen_shapes))
            folds = sorted((m for m in models if m.recipe == name), key=lambda m: (score_of(m), m.fold))
            for number, model in enumerate(folds):
                step = Step(model, again, sizes[model.weights] * n_values)
                rounds.setdefault(number, []).append((weight / step.cost, step))
        for number in sorted(rounds):
            in_order = sorted(rounds[number], key=lambda item: (-item[0], item[1].name))
            steps += [step for _, step in in_order]
    return steps


def score_of(model: Model) -> float:
    """Return a fold's out-of-fold score on records with many votes, which resemble the leaderboard, or else on all."""
    scores = [model.scores.get(name) for name in ("votes10", "all")]
    return next((score for score in scores if score is not None), _UNKNOWN_SCORE)


def _weight(recipe: str, models: Sequence[Model], blend: Blend | None) -> float:
    if blend is not None:
        return dict(zip(blend.members, blend.weights, strict=True)).get(recipe, 0.0)
    scores = [score_of(model) for model in models if model.recipe == recipe]
    return len(scores) / max(sum(scores), 1e-6) if scores else 0.0


class Projection:
    """Projects how long a step will take from the steps before it."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._rates: list[float] = []

    def observe(self, step: Step, seconds: float) -> None:
        """Learn from a step that covered all rows."""
        self.expect(step, seconds)
        self._rates.append(seconds / step.cost)

    def expect(self, step: Step, seconds: float) -> None:
        """Learn what the steps of a recipe will take, as its first batches tell."""
        self._seconds[step.model.recipe] = seconds

    def guesses(self, step: Step) -> bool:
        """Return whether the step's recipe has not been measured, only others."""
        return bool(self._rates) and step.model.recipe not in self._seconds

    def of(self, step: Step) -> float:
        """Return the projected seconds, on the safe side; 0 before the first step, which is always worth a try.

        A recipe that has run is expected to take as long as it did last time; any other one, its cost times the
        slowest rate so far. That is often far too long: the first pass reads the files as well, and a small network
        leaves most of a GPU idle.
        """
        known = self._seconds.get(step.model.recipe)
        if known is None:
            known = step.cost * max(self._rates, default=0.0)
        return SAFETY * known


class Trial:
    """The first batches of a pass for which a guess leaves no time: they tell whether there is time for the others.

    Args:
        n_batches: number of batches in the pass.
    """

    BATCHES = 4
    """Number of batches that are timed, after a first one that does not count."""

    def __init__(self, n_batches: int) -> None:
        self.n_batches = n_batches
        self._first_s = 0.0

    @property
    def share(self) -> float:
        """The share of the pass that has been computed when the trial ends."""
        return min(1.0, (1 + self.BATCHES) / max(self.n_batches, 1))

    def after(self, number: int, passed_s: float) -> float | None:
        """Return the projected seconds of a batch, if the trial ends with this one.

        Args:
            number: number of the batch, counted from 0.
            passed_s: seconds on a clock that runs.
        """
        if number == 0:
            self._first_s = passed_s
        return (passed_s - self._first_s) / self.BATCHES if number == self.BATCHES else None
