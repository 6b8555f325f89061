"""What the passes so far say about each row of the test set, and why some rows have no prediction.

Shape legend: N rows of the test set, K the six classes, R recipes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kagglehms.bundle.averaging import FoldMeans
from kagglehms.kernel.marker import Marker
from kagglehms.kernel.test_set import Missing
from kagglehms.runs.blends import Blend

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Tally:
    """Predictions of all rows, averaged, and the reasons for those that are missing.

    Args:
        eeg_ids: N ids of the rows, as the marker names them.
        blend: how recipes are combined; None for their plain mean.
    """

    def __init__(self, eeg_ids: Sequence[str], blend: Blend | None = None) -> None:
        self._eeg_ids = eeg_ids
        self._means = FoldMeans(blend)
        self._reasons: dict[int, list[str]] = {}

    def add(self, recipe: str, probabilities_NK: NDArray[np.float64]) -> None:
        """Add the probabilities of one pass; rows with a value that is not finite count as not predicted."""
        self._means.add(recipe, probabilities_NK)

    def note(self, missing: Iterable[Missing]) -> None:
        """Remember why a pass did not predict some rows; a reason that several passes give counts once."""
        for row, reason in missing:
            reasons = self._reasons.setdefault(row, [])
            if reason not in reasons:
                reasons.append(reason)

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
            otherwise: reason for rows of which no pass gave one.

        Returns:
            The reasons by row id.
        """
        return {self._eeg_ids[row]: "; ".join(self._reasons.get(row, [otherwise])) for row in rows}
