"""The competition's score: the Kullback–Leibler divergence of the predictions from the vote fractions, in nats.

A score means little by itself. It is therefore reported with its floors, the scores on the same rows of two predictions
that do not use the recordings: the rows' class means (the class prior), and a uniform prediction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kagglehms.data.competition import CLASSES
from kagglehms.errors import UsageError

CLIP = 1e-15


def kl_terms(targets_NK: ArrayLike, predictions_NK: ArrayLike) -> NDArray[np.float64]:
    """Score each row like the competition.

    The score is Σ_K target · ln(target / prediction), with predictions clipped to [1e-15, 1 − 1e-15] and terms with a
    target of 0 left out. Source: "Kaggle KL Divergence", the metric's public notebook.

    Args:
        targets_NK: (n, 6) vote fractions.
        predictions_NK: (n, 6) probabilities, whose rows must sum to 1 by the standards of `numpy.allclose`.

    Returns:
        (n,) float64 scores in nats.

    Raises:
        UsageError: shapes differ, predictions are negative or not finite, or their rows do not sum to 1.
    """
    targets = np.asarray(targets_NK, dtype=np.float64)
    predictions = np.asarray(predictions_NK, dtype=np.float64)
    if targets.shape != predictions.shape or targets.ndim != 2 or targets.shape[1] != len(CLASSES):
        raise UsageError(
            f"targets and predictions must both be (n, 6), but got {targets.shape}, {predictions.shape}"
        )
    check_probabilities(predictions)
    clipped = np.clip(predictions, CLIP, 1 - CLIP)
    voted = targets != 0
    ratio = np.divide(targets, clipped, out=np.ones_like(targets), where=voted)
    return (targets * np.log(ratio)).sum(axis=1)


def kl_score(targets_NK: ArrayLike, predictions_NK: ArrayLike) -> float:
    """Return the competition's score, the mean of `kl_terms` over rows; lower is better, and 0 is perfect.

    Raises:
        UsageError: as in `kl_terms`, or there are no rows.
    """
    terms = kl_terms(targets_NK, predictions_NK)
    if not len(terms):
        raise UsageError("there is nothing to score: no rows")
    return float(terms.mean())


def mean_scores(
    targets_NK: NDArray[np.float64], predictions_NK: NDArray[np.float64], many_N: NDArray[np.bool_]
) -> tuple[float, float | None]:
    """Return the score on all rows, and that on the rows with many votes (None if there are none)."""
    terms = kl_terms(targets_NK, predictions_NK)
    return float(terms.mean()), float(terms[many_N].mean()) if many_N.any() else None


@dataclass(frozen=True)
class Standing:
    """A score with its floors.

    Attributes:
        score: score of the predictions.
        prior: score of the rows' mean target as prediction.
        uniform: score of one sixth for each class as prediction.
    """

    score: float
    prior: float
    uniform: float

    @classmethod
    def of(cls, *numbers: float | None) -> Standing | None:
        """Return the standing of these three numbers; None if one of them is missing."""
        score, prior, uniform = numbers
        return None if score is None or prior is None or uniform is None else cls(score, prior, uniform)

    @property
    def text(self) -> str:
        """The three scores as text."""
        return f"{self.score:.4f} (class prior {self.prior:.4f}, uniform {self.uniform:.4f})"

    @property
    def verdict(self) -> str:
        """The floors that the score is worse than, in words; empty if it is better than both."""
        worse = {"the class prior": self.prior, "a uniform guess": self.uniform}
        return " and ".join(name for name, floor in worse.items() if self.score > floor)


def floors(targets_NK: NDArray[np.float64]) -> tuple[float, float]:
    """Return the scores of the rows' mean target, and of one sixth for each class, as predictions."""
    prior_NK = np.tile(targets_NK.mean(axis=0), (len(targets_NK), 1))
    return kl_score(targets_NK, prior_NK), kl_score(targets_NK, np.full(targets_NK.shape, 1 / len(CLASSES)))


def standings(
    targets_NK: NDArray[np.float64], predictions_NK: NDArray[np.float64], many_N: NDArray[np.bool_]
) -> tuple[Standing, Standing | None]:
    """Return the score on all rows, and that on the rows with many votes, each with its floors.

    Args:
        targets_NK: vote fractions.
        predictions_NK: predicted probabilities.
        many_N: True for the rows with many votes.
    """
    score, score_many = mean_scores(targets_NK, predictions_NK, many_N)
    of_all = Standing(score, *floors(targets_NK))
    return of_all, None if score_many is None else Standing(score_many, *floors(targets_NK[many_N]))


def standing_text(of_all: Standing, of_many: Standing | None) -> str:
    """Return both scores with their floors as text, in the form of all commands."""
    many = "" if of_many is None else f", {of_many.text} on those with many (≥ 10) votes"
    return f"{of_all.text} on all records{many}"


def shortcoming(
    of_all: Standing | None, of_many: Standing | None = None, of_settled: Standing | None = None
) -> str:
    """Say which scores are worse than their floors; empty if none is.

    Args:
        of_all: score on all records.
        of_many: score on those with many votes.
        of_settled: score on the settled ones.
    """
    of = {"all records": of_all, "those with many votes": of_many, "the settled ones": of_settled}
    found = [f"{s.verdict} on {records}" for records, s in of.items() if s is not None and s.verdict]
    return f"worse than {', and than '.join(found)}" if found else ""


def check_probabilities(predictions_NK: NDArray[np.float64]) -> None:
    """Refuse predictions that the competition would refuse.

    Raises:
        UsageError: a value is negative or not finite, or a row does not sum to 1; the message names the first one.
    """
    bad = ~np.isfinite(predictions_NK).all(axis=1) | (predictions_NK < 0).any(axis=1)
    if bad.any():
        raise UsageError(
            f"row {int(bad.argmax())} of the predictions has a value that is negative or not finite"
        )
    sums = predictions_NK.sum(axis=1)
    off = ~np.isclose(sums, 1)
    if off.any():
        row = int(off.argmax())
        raise UsageError(f"row {row} of the predictions sums to {sums[row]:.6f} instead of 1")
