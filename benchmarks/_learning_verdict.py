"""What `learning_check.py` concludes from a few seeds and the reference: has learning become worse?

A way is that from the class prior (0) to the perfect predictor (1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from scipy.stats import t as student_t

FALSE_ALARMS = 0.005
"""Probability that a recipe fails by chance alone."""

Ways = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Verdict:
    """What is to be said of a recipe.

    Attributes:
        recipe: name of the recipe.
        way: mean way over this check's seeds.
        usual: mean way over the reference's seeds.
        scatter: standard deviation of the way over the reference's seeds.
        least: smallest way that is still within the scatter, see `least_expected`.
    """

    recipe: str
    way: float
    usual: float
    scatter: float
    least: float

    @property
    def failed(self) -> bool:
        # A way that is not a number fails as well.
        return not self.way >= self.least

    @property
    def improved(self) -> bool:
        """Whether the way grew by more than what would be a failure if it had shrunk."""
        return self.way > 2 * self.usual - self.least


def least_expected(reference: Sequence[float], n_seeds: int, false_alarms: float = FALSE_ALARMS) -> float:
    """Return the lower limit of the mean way over new seeds, if nothing but the seeds has changed.

    It is the one-sided prediction limit of a normal distribution of which mean and deviation are only known from the
    reference: mean − t · s · √(1/n_seeds + 1/n_reference), t of Student's distribution with n_reference − 1 degrees.

    Args:
        reference: ways of the reference's seeds, at least two.
        n_seeds: number of new seeds whose mean is judged.
        false_alarms: probability that this mean is below the limit by chance.
    """
    n = len(reference)
    quantile = float(student_t.ppf(1 - false_alarms, n - 1))
    return mean(reference) - quantile * stdev(reference) * math.sqrt(1 / n_seeds + 1 / n)


def judge(ways: Ways, reference: Ways) -> list[Verdict]:
    """Compare the ways of each recipe's seeds with the reference's."""
    return [
        Verdict(
            recipe,
            mean(found),
            mean(reference[recipe]),
            stdev(reference[recipe]),
            least_expected(reference[recipe], len(found)),
        )
        for recipe, found in ways.items()
    ]


def complaint(verdicts: Sequence[Verdict]) -> str:
    """The one line that says which recipes learn less than they did; empty if none does."""
    failed = [
        f"{v.recipe} comes {v.way:.1%} of the way from prior to perfect instead of at least {v.least:.1%} "
        f"(reference {v.usual:.1%} ± {v.scatter:.1%})"
        for v in verdicts
        if v.failed
    ]
    return f"learning has become worse: {'; '.join(failed)}" if failed else ""


def differences(facts: Mapping[str, Any], of_reference: Mapping[str, Any]) -> str:
    """Say in which facts of set and recipes this check differs from the reference; empty if in none."""
    names = sorted(facts.keys() | of_reference.keys())
    return ", ".join(
        f"{name} {of_reference.get(name)} → {facts.get(name)}"
        for name in names
        if not _same(facts.get(name), of_reference.get(name))
    )


def _same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, abs_tol=1e-6)
    return one == other
