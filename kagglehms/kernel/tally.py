"""What the passes so far say about each row of the test set, and why some rows have no prediction.

Shape legend: N rows of the test set, K the six classes, R recipes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from kagglehms.bundle.averaging import FoldMeans
from kagglehms.kernel.marker import Marker
from kagglehms.kernel.test_set import Reader
from kagglehms.runs.blends import Blend

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Tally:
    """Predictions of all rows, averaged, and the reasons for those that are missing.

    Args:
        reader: reader of the test set, which knows the recordings that cannot be used.
        blend: how recipes are combined; None for their plain mean.
    """

    def __init__(self, reader: Reader, blend: Blend | None = None) -> None:
        self._reader = reader
        self._means = FoldMeans(blend)
        self._not_finite: set[int] = set()

    def add(self, recipe: str, probabilities_NK: NDArray[np.float64]) -> None:
        """Add the probabilities of one pass; rows with a value that is not finite count as not predicted."""
        self._means.add(recipe, probabilities_NK)

    def note_not_finite(self, rows: Iterable[int]) -> None:
        """Remember rows for which a model's output was not finite."""
        self._not_finite.update(rows)

    def blended(self, prior_K: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (N, 6) probabilities of the passes so far, with the prior in rows that none predicted."""
        return self._means.blended(prior_K)

    def describe_rows(self, marker: Marker) -> None:
        """Write into `marker` which rows keep the prior, and which do without some recipes."""
        known_RN = self._means.known_RB
        some_N, all_N = known_RN.any(axis=0), known_RN.all(axis=0)
        marker.rows_with_prior = self.reasons(np.flatnonzero(~some_N))
        marker.rows_with_fewer_models = self.reasons(np.flatnonzero(some_N & ~all_N))

    def reasons(self, rows: Iterable[int], otherwise: str = "time was up") -> dict[str, str]:
        """Return why rows were not predicted.

        Args:
            rows: positions in the test set.
            otherwise: reason for rows with usable recordings and finite outputs.

        Returns:
            The reasons by row id.
        """
        found = {}
        for row in rows:
            failures = self._reader.failures.values()
            reasons = [failed[row] for failed in failures if row in failed]
            if not reasons:
                reasons = ["the model's output is not finite" if row in self._not_finite else otherwise]
            found[self._reader.rows.eeg_ids[row]] = "; ".join(reasons)
        return found
