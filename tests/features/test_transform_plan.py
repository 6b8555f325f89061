"""Coefficients of windowed transforms in one stage and in two, and what it takes to choose between them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from kagglehms.errors import UsageError
from kagglehms.features.transform_plan import (
    Bins,
    Transform,
    _most_independent_first,
    bins_within,
    cheapest,
    low_rank,
    n_frames,
    untile,
)

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
    weights = untile(found.combine, found.rank + 1)
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


@pytest.mark.parametrize(
    ("band_hz", "bin_hz", "wanted"),
    [
        ((0.5, 20.0), 200 / 144, (1, 14)),
        ((2.0, 10.0), 0.1, (20, 100)),
        ((0.3, 0.7), 0.1, (3, 7)),
        ((4.5, 4.8), 1, (5, 4)),
    ],
)
def test_bins_within_a_band(band_hz: tuple[float, float], bin_hz: float, wanted: tuple[int, int]) -> None:
    """An edge that is a bin's own frequency is within, whatever its quotient is rounded to."""
    assert bins_within(band_hz, bin_hz) == wanted


@pytest.mark.parametrize(("n_times", "hop"), [(10_000, 21), (2000, 4), (6000, 12), (145, 1), (165, 21)])
def test_frames_of_a_window_of_144_span_145_samples(n_times: int, hop: int) -> None:
    last_samples = [start + 144 for start in range(0, n_times, hop)]
    assert n_frames(n_times, 144, hop) == sum(last < n_times for last in last_samples)


@pytest.mark.parametrize("name", CASES)
def test_rows_are_chosen_as_pivoted_gram_schmidt_chooses_them(name: str) -> None:
    """Each row has the greatest part outside the span of those before it."""
    bins = CASES[name]
    j = np.arange(bins.win_length // 2)
    angle = 2 * np.pi / bins.n_fft * np.outer(np.arange(0.0, bins.last + 0.25, 0.25), j)
    rows = np.cos(angle) * np.cos(np.pi * j / bins.win_length) ** 2
    order, parts = _most_independent_first(rows)
    for n in range(min(len(order), 20)):
        basis = np.linalg.qr(rows[order[:n]].T)[0]
        outside = np.linalg.norm(rows - rows @ basis @ basis.T, axis=1)
        np.testing.assert_allclose(parts[n], outside.max(), rtol=1e-4, atol=1e-9)
        np.testing.assert_allclose(parts[n], outside[order[n]], rtol=1e-4, atol=1e-9)
