"""A model of the experts' votes, fitted to the real table.

A *kind* of window has a Dirichlet distribution of true class probabilities. Ten or more experts vote independently, so
the votes on windows of a kind are Dirichlet-multinomial. Fewer experts agree more often than that. Their votes are
therefore drawn from probabilities that vary around the truth, by a Dirichlet distribution with the concentration
`RATER_CONCENTRATION`, and vary less the more votes there are. The frequency of each kind also depends on the number of
votes, as in the table.

All numbers here were fitted by `benchmarks/fit_votes.py` (expectation–maximisation) to the vote vectors of 20,125
records: those of 106,624 rows of the competition's train.csv.

Shape suffixes: M kind, K class, G vote group.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.records import MANY_VOTES

F64 = NDArray[np.float64]

CLASS_MEANS = (0.184, 0.154, 0.102, 0.069, 0.103, 0.388)
"""Mean target of the real records."""
RECORDS_BY_VOTES = {
    1: 3442, 2: 2075, 3: 6246, 4: 747, 5: 1144, 6: 141, 7: 1,
    10: 116, 11: 382, 12: 725, 13: 1355, 14: 639, 15: 1441, 16: 683, 17: 304, 18: 307, 19: 73, 20: 209,
    21: 49, 22: 24, 23: 10, 24: 3, 25: 5, 26: 2, 27: 1, 28: 1,
}  # fmt: skip
"""Number of real records with each number of votes; there are none with 8 or 9."""
VOTE_GROUPS = ((1, 1), (2, 2), (3, 3), (4, 7), (10, 16), (17, 28))
"""Groups of numbers of votes, first and last, that share a row of `KIND_SHARES_GM`."""
RATER_CONCENTRATION = {3: 4.0, 7: 16.0}
"""Concentration of the raters' probabilities around the truth, by the largest number of votes it applies to; with more
votes they are the truth."""

KINDS_MK: F64 = np.array(
    [
        (1.30, 0.40, 0.10, 0.33, 0.10, 0.60),
        (14.72, 0.24, 0.16, 0.11, 0.16, 0.61),
        (0.38, 7.67, 0.25, 0.15, 0.05, 0.69),
        (0.44, 10.64, 0.09, 7.41, 0.32, 4.06),
        (0.28, 14.72, 0.15, 0.10, 0.16, 0.59),
        (0.27, 0.37, 4.23, 0.04, 0.15, 0.87),
        (5.10, 0.09, 5.60, 0.04, 0.12, 0.81),
        (0.26, 0.22, 14.72, 0.10, 0.15, 0.55),
        (0.25, 0.21, 0.14, 14.72, 0.14, 0.53),
        (0.26, 0.22, 0.15, 0.10, 14.72, 0.55),
        (0.28, 3.90, 0.43, 0.78, 0.36, 5.72),
        (0.23, 0.85, 3.01, 0.23, 1.18, 3.50),
        (0.08, 0.18, 0.39, 0.41, 2.97, 3.27),
        (0.21, 0.53, 0.06, 2.27, 0.52, 3.60),
        (0.15, 0.21, 0.23, 0.29, 0.51, 12.89),
        (0.38, 0.32, 0.21, 0.14, 0.22, 14.72),
    ]
)
"""(16, 6) Dirichlet parameters: ten kinds fitted to records with ten or more votes, and one clear kind per class,
ordered by their most probable class."""
KIND_SHARES_GM: F64 = np.array(
    [
        (.003, .001, .054, .027, .063, .071, .004, .080, .004, .020, .095, .087, .066, .040, .194, .188),
        (.039, .038, .093, .038, 0, .067, .025, .001, 0, 0, .085, .001, .094, 0, .396, .122),
        (0, .390, .056, .013, 0, .036, 0, 0, .024, .151, .034, .032, .002, .158, .103, 0),
        (.391, .130, .135, .023, 0, .058, .057, 0, 0, 0, .044, .074, .048, .039, 0, 0),
        (.042, .003, .123, .066, .006, .112, .024, 0, .001, .001, .075, .085, .156, .140, .165, 0),
        (.038, 0, .065, .030, 0, .007, .024, .001, 0, 0, .049, .015, .041, .014, .289, .426),
    ]
)  # fmt: skip
"""(6, 16) relative frequency of each kind in each of `VOTE_GROUPS`."""
KIND_SHARES_GM /= KIND_SHARES_GM.sum(axis=1, keepdims=True)


EASY_SHARES_M: F64 = (
    np.where(np.isclose(KINDS_MK.sum(axis=1), 16, atol=0.05), 0.8 / 6, 0.0) + 0.2 * KIND_SHARES_GM[4]
)
"""(16,) relative frequency of each kind in an easy competition: four of five windows are clear, with equal classes."""
EASY_SHARES_M /= EASY_SHARES_M.sum()


def vote_group(n_votes: int) -> int:
    """Return the index in `VOTE_GROUPS` of a number of votes."""
    return next(i for i, (_, last) in enumerate(VOTE_GROUPS) if n_votes <= last)


def draw_n_votes(many: bool | None, rng: np.random.Generator) -> int:
    """Draw a number of votes with the frequencies of the real records.

    Args:
        many: whether to draw from records with many votes (True), with fewer (False), or from all (None).
        rng: random generator.
    """
    numbers = [n for n in RECORDS_BY_VOTES if many is None or (n >= MANY_VOTES) == many]
    weights = np.array([RECORDS_BY_VOTES[n] for n in numbers], np.float64)
    return int(rng.choice(numbers, p=weights / weights.sum()))


def draw_truth(kind: int, rng: np.random.Generator) -> F64:
    """Draw the (6,) true class probabilities of a window of a kind."""
    return rng.dirichlet(KINDS_MK[kind])


def draw_votes(
    truth_K: F64, n_votes: int, raters: np.random.Generator, rng: np.random.Generator
) -> tuple[int, ...]:
    """Draw votes; the fewer there are, the further they deviate from the truth together.

    Args:
        truth_K: true class probabilities.
        n_votes: number of votes.
        raters: random generator of the common deviation of few raters.
        rng: random generator of the votes.

    Returns:
        Number of votes for each class.
    """
    seen_K = truth_K
    for most, concentration in RATER_CONCENTRATION.items():
        if n_votes <= most:
            seen_K = raters.dirichlet(concentration * np.maximum(truth_K, 1e-4))
            break
    return tuple(rng.multinomial(n_votes, seen_K).tolist())
