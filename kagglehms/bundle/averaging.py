"""One prediction from those of many models: folds are averaged within a recipe, then recipes are combined.

Shape legend: B recordings, K the six classes, R recipes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kagglehms.runs.blends import Blend

if TYPE_CHECKING:
    from numpy.typing import NDArray


class FoldMeans:
    """A running average in which a recipe with more folds has no more weight.

    Args:
        blend: how recipes are combined; None for their plain mean.
    """

    def __init__(self, blend: Blend | None = None) -> None:
        self.blend = blend
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._counts: dict[str, NDArray[np.int64]] = {}

    def add(self, recipe: str, probabilities_BK: NDArray[np.float64]) -> None:
        """Add the probabilities of one model.

        Args:
            recipe: name of the model's recipe.
            probabilities_BK: (B, 6) float64; a row with a value that is not finite counts as not predicted.
        """
        known_B = np.logical_and.reduce(np.isfinite(probabilities_BK), axis=1)
        sums_BK = np.where(known_B[:, None], probabilities_BK, 0.0)
        if recipe not in self._sums:
            self._sums[recipe] = np.zeros_like(sums_BK)
            self._counts[recipe] = np.zeros(len(known_B), np.int64)
        self._sums[recipe] += sums_BK
        self._counts[recipe] += known_B

    @property
    def known_RB(self) -> NDArray[np.bool_]:
        """Whether each recipe, in the order in which they were added, has predicted each row."""
        return np.stack([counts > 0 for counts in self._counts.values()])

    def blended(self, otherwise_K: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Combine everything added so far; rows that some recipes did not predict use the others.

        Args:
            otherwise_K: (6,) probabilities for rows that no model predicted; NaN when None.

        Returns:
            (B, 6) float64 probabilities, each row with sum 1.
        """
        recipes, known_RB = list(self._counts), self.known_RB
        blended_BK = np.full(self._sums[recipes[0]].shape, np.nan)
        if otherwise_K is not None:
            blended_BK[:] = otherwise_K
        for pattern_R in np.unique(known_RB, axis=1).T:
            names = [name for name, known in zip(recipes, pattern_R, strict=True) if known]
            rows_B = (known_RB == pattern_R[:, None]).all(axis=0)
            if names:
                blended_BK[rows_B] = self._mix(names, rows_B)
        return blended_BK

    def _mix(self, names: list[str], rows_B: NDArray[np.bool_]) -> NDArray[np.float64]:
        means = {name: self._sums[name][rows_B] / self._counts[name][rows_B][:, None] for name in names}
        blend = self.blend
        mean_BK = np.mean(list(means.values()), axis=0) if blend is None else blend.only(names).apply(means)
        return mean_BK / mean_BK.sum(axis=1, keepdims=True)
