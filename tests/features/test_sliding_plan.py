"""Coefficients by which frames share their sums, and when they cannot."""

from __future__ import annotations

import numpy as np
import pytest

from kagglehms.features.sliding_plan import sliding
from kagglehms.features.transform_plan import Bins


def test_factors_of_the_samples() -> None:
    for first, lowest in ((1, 1), (2, 1), (5, 4)):
        bins, hop = Bins(60, 60, first, first + 6, 1e-6, "here"), 7
        found = sliding(bins, hop)
        assert found.below == first - lowest
        assert found.n_tiles * 3 >= first + 6 + 1 - lowest + 1
        turns = found.turns.reshape(found.n_tiles, 67, 2, 3).transpose(1, 2, 0, 3).reshape(67, 2, -1)
        k, n = lowest + np.arange(found.n_tiles * 3), np.arange(67)
        wanted = np.exp(-2j * np.pi * np.outer(n, k) / 60)
        np.testing.assert_allclose(turns[:, 0] + 1j * turns[:, 1], wanted, rtol=0, atol=1e-7)
        np.testing.assert_allclose(
            found.angle.reshape(60, 3)[:, 2], np.sin(2 * np.pi * n[:60] / 60) / 2, rtol=0, atol=1e-7
        )


@pytest.mark.parametrize(("n_fft", "hop"), [(120, 7), (60, 31)])
def test_closer_bins_and_long_hops_share_nothing(n_fft: int, hop: int) -> None:
    found = sliding(Bins(n_fft, 60, 1, 7, 1e-6, "here"), hop)
    assert (found.n_tiles, found.hop, found.period) == (0, hop, 60)
