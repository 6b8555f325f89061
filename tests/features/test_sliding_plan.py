"""Coefficients by which frames share their sums, and when they cannot."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from kagglehms.features.sliding_plan import Fold, sliding
from kagglehms.features.transform_plan import Bins

PERIOD = 60


def turns(table: NDArray[np.float32], n_tiles: int) -> NDArray[np.complex128]:
    """Tiles of (n, 3 cosines, 3 sines) → (n, bins) cosine + i sine."""
    parts = table.astype(np.float64).reshape(n_tiles, -1, 2, 3).transpose(1, 2, 0, 3)
    parts = parts.reshape(parts.shape[0], 2, -1)
    return parts[:, 0] + 1j * parts[:, 1]


def transformed(x: NDArray[np.float64], begin: int, fold: Fold, n_tiles: int) -> NDArray[np.complex128]:
    """The transform of a stretch by way of its fold, as the tables are meant to be used."""
    half = (len(x) + 1) // 2
    after, before = x[len(x) // 2 :], x[:half][::-1]
    pairs = turns(fold.pairs, n_tiles)
    product = (after + before) @ pairs.real + 1j * ((after - before) @ pairs.imag)
    return product * turns(fold.centres, n_tiles)[begin].conj()


@pytest.mark.parametrize("hop", [7, 8, 1])
@pytest.mark.parametrize(("first", "lowest"), [(1, 1), (2, 1), (5, 4)])
def test_tables_transform_frames_and_hops(first: int, lowest: int, hop: int) -> None:
    found = sliding(Bins(PERIOD, PERIOD, first, first + 6, 1e-6, "here"), hop)
    assert found.below == first - lowest
    assert found.n_tiles * 3 >= first + 6 + 1 - lowest + 1
    k = lowest + np.arange(found.n_tiles * 3)
    assert (found.frame.length, found.step.length) == (PERIOD, hop)
    for fold in (found.frame, found.step):
        x = np.random.default_rng(hop).normal(size=fold.length)
        for begin in (0, 11, PERIOD - 1):
            n = begin + np.arange(fold.length)
            wanted = np.exp(-2j * np.pi * np.outer(k, n) / PERIOD) @ x
            np.testing.assert_allclose(transformed(x, begin, fold, found.n_tiles), wanted, rtol=0, atol=1e-5)
    angle = 2 * np.pi * np.arange(PERIOD) / PERIOD
    wanted_angles = np.stack([-np.cos(angle), -np.sin(angle), np.sin(angle)], axis=1) / 2
    np.testing.assert_allclose(found.angle.reshape(PERIOD, 3), wanted_angles, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("n_fft", "hop"), [(120, 7), (60, 31)])
def test_closer_bins_and_long_hops_share_nothing(n_fft: int, hop: int) -> None:
    found = sliding(Bins(n_fft, PERIOD, 1, 7, 1e-6, "here"), hop)
    assert (found.n_tiles, found.hop, found.period) == (0, hop, PERIOD)
