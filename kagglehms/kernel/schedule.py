"""What a scored run does in which order, and what it leaves out when time is short.

A step is one pass of one fold's model over the test set. Steps come in rounds: the best fold of every recipe, then
the second best of every recipe, and so on; last the same once more on mirrored recordings (test-time augmentation).
So the first steps gain most, and what is dropped first is what gains least. Within a round the order is by value:
the recipe's weight divided by its cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kagglehms.bundle.manifest import Model
from kagglehms.runs.blends import Blend
from kagglehms.training.recipes import Recipe

_UNKNOWN_SCORE = 10.0
"""Counts as the score of a fold without one: worse than any."""
SAFETY = 1.15
"""What a projection is multiplied with, before it is believed."""


@dataclass(frozen=True)
class Step:
    """One pass of one model over the test set.

    Attributes:
        model: of the manifest.
        mirror: whether left and right are swapped.
        cost: bytes of weights × pixels of the image, which multiplications are about proportional to.
    """

    model: Model
    mirror: bool
    cost: float

    @property
    def name(self) -> str:
        return f"{self.model.recipe} fold {self.model.fold}{' mirrored' * self.mirror}"


def plan(
    models: Sequence[Model],
    recipes: Mapping[str, Recipe],
    sizes: Mapping[str, int],
    blend: Blend | None = None,
    mirror: bool = True,
) -> list[Step]:
    """Put the passes into the order in which a run that is cut short is best off.

    Args:
        models: of the manifest.
        recipes: by name; models of others are left out.
        sizes: bytes of each weights file.
        blend: recipes without a weight in it are left out. Without a blend a recipe weighs the more, the better its
            out-of-fold score: 1 / score.
        mirror: whether to pass once more over mirrored recordings, where that makes a difference.
    """
    steps: list[Step] = []
    for again in (False, True)[: 1 + mirror]:
        rounds: dict[int, list[tuple[float, Step]]] = {}
        for name, recipe in recipes.items():
            weight = _weight(name, models, blend)
            if weight == 0 or (again and not recipe.layout.sees_sides):
                continue
            folds = sorted((m for m in models if m.recipe == name), key=lambda m: (score_of(m), m.fold))
            for number, model in enumerate(folds):
                height, width = recipe.image_shape
                step = Step(model, again, float(sizes[model.weights] * height * width))
                rounds.setdefault(number, []).append((weight / step.cost, step))
        for number in sorted(rounds):
            in_order = sorted(rounds[number], key=lambda item: (-item[0], item[1].name))
            steps += [step for _, step in in_order]
    return steps


def score_of(model: Model) -> float:
    """The fold's out-of-fold score on many votes, which the leaderboard resembles, or on all records."""
    scores = [model.scores.get(name) for name in ("votes10", "all")]
    return next((score for score in scores if score is not None), _UNKNOWN_SCORE)


def _weight(recipe: str, models: Sequence[Model], blend: Blend | None) -> float:
    if blend is not None:
        return dict(zip(blend.members, blend.weights, strict=True)).get(recipe, 0.0)
    scores = [score_of(model) for model in models if model.recipe == recipe]
    return len(scores) / max(sum(scores), 1e-6) if scores else 0.0


class Projection:
    """How long a step will take, by those before it."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._rates: list[float] = []

    def observe(self, step: Step, seconds: float) -> None:
        """Take note of a step that went over all rows."""
        self._seconds[step.model.recipe] = seconds
        self._rates.append(seconds / step.cost)

    def of(self, step: Step) -> float:
        """Seconds, on the safe side; 0 as long as nothing is known, since a first step is always worth a try.

        A recipe that has run takes what it took last. Another takes its cost times the worst rate so far.
        """
        known = self._seconds.get(step.model.recipe)
        if known is None:
            known = step.cost * max(self._rates, default=0.0)
        return SAFETY * known
