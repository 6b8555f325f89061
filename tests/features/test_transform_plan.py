"""Coefficients of windowed transforms in one stage and in two, and what it takes to choose between them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from kagglehms.errors import UsageError
from kagglehms.features.plain import untile
from kagglehms.features.transform_plan import Bins, Transform, cheapest, low_rank, sliding

CASES = {
    "far apart": Bins(144, 144, 1, 14, 2e-6, "here"),
    "close": Bins(1024, 144, 3, 102, 2e-6, "here"),
    "close and exact": Bins(512, 128, 1, 51, 3e-7, "here"),
    "a single bin": Bins(200, 200, 8, 8, 2e-6, "here"),
}


def rebuilt(found: Transform) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(K, H) cosine and sine matrices that one stage, or two, amount to; the centre counts half."""
    rows = untile(found.project, found.half)
    if not found.rank:
        return rows
    weights = untile(found.transform, found.rank + 1)
    return weights[0][:, :-1] @ rows[0], weights[1][:, :-1] @ rows[1]


@pytest.mark.parametrize("make", [cheapest, low_rank])
@pytest.mark.parametrize("name", CASES)
def test_stages_amount_to_the_transform_within_the_stated_error(name: str, make: object) -> None:
    bins = CASES[name]
    found = (cheapest if make is cheapest else low_rank)(bins)
    assert found.error <= bins.tolerance
    j, k = np.arange(bins.win_length // 2), np.arange(bins.first, bins.last + 1)
    centre_twice = np.where(j == 0, 2, 1)
    window = np.cos(np.pi * j / bins.win_length) ** 2
    angle = 2 * np.pi * np.outer(k, j) / bins.n_fft
    size = max(np.linalg.norm(np.cos(angle) * window, axis=1).max(), 1e-9)
    for approximate, wanted in zip(rebuilt(found), (np.cos(angle), np.sin(angle)), strict=True):
        error = approximate[: len(k)] * centre_twice - wanted * window
        assert np.linalg.norm(error, axis=1).max() <= 2 * found.error * size + 1e-9
        np.testing.assert_array_equal(approximate[len(k) :], 0)


def test_two_stages_only_where_they_are_fewer_products() -> None:
    assert cheapest(CASES["far apart"]).rank == 0
    assert cheapest(CASES["a single bin"]).rank == 0
    close = cheapest(CASES["close"])
    assert 0 < close.rank * (close.half + close.n_bins) < close.half * close.n_bins


@pytest.mark.parametrize("make", [cheapest, low_rank])
def test_what_float32_cannot_reach_is_refused_by_name(make: object) -> None:
    bins = Bins(144, 144, 1, 14, 1e-10, "SomeSpec.tolerance")
    with pytest.raises(UsageError, match=r"SomeSpec\.tolerance: expected .* or more, got 1\.0e-10"):
        (cheapest if make is cheapest else low_rank)(bins)


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
