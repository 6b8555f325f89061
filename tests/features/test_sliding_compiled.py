"""Frames that share their sums, against one Fourier transform for each of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from kagglehms.features.sliding_compiled import RENEWED, sliding_frames
from kagglehms.features.sliding_plan import COLUMNS, sliding
from kagglehms.features.transform_plan import Bins

pytestmark = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="vectors exist in compiled code only")

START = 5
N_FRAMES = 150
"""More than twice as many as share their sums before these are summed anew."""


class Scratch(NamedTuple):
    sums: NDArray[np.float32]
    folded: NDArray[np.float32]
    power: NDArray[np.float32]


def powers(x: NDArray[np.float32], bins: Bins, hop: int) -> NDArray[np.float32]:
    """(n_times, 16) → (N_FRAMES, K, 16) squared magnitudes."""
    hops = sliding(bins, hop)
    n_wanted = bins.last - bins.first + 1
    sizes = (hops.n_tiles * 6 * 16, bins.n_fft * 16, COLUMNS * n_wanted * 16)
    scratch = Scratch(*(np.zeros(size, np.float32) for size in sizes))
    frames = numba.njit(lambda *given: sliding_frames(*given))
    found = np.empty((N_FRAMES, n_wanted, 16), np.float32)
    for first in range(0, N_FRAMES, COLUMNS):
        column = min(first, N_FRAMES - COLUMNS)  # the last frames come again
        frames(x.reshape(-1), START, scratch, hops, column, n_wanted)
        found[column : column + COLUMNS] = scratch.power.reshape(COLUMNS, n_wanted, 16) / 4
    return found


@pytest.mark.parametrize("hop", [1, 4, 12, 21, 50, 72])
@pytest.mark.parametrize("last", [14, 3, 71])
@pytest.mark.parametrize("first", [1, 3])
def test_agrees_with_a_transform_of_each_frame(first: int, last: int, hop: int) -> None:
    rng = np.random.default_rng(hop)
    x = (rng.normal(0, 30, (N_FRAMES * hop + 400, 16)) + rng.normal(0, 300, 16)).astype(np.float32)
    bins = Bins(144, 144, first, last, 1e-6, "here")
    assert N_FRAMES > 2 * RENEWED
    frames: Any = np.lib.stride_tricks.sliding_window_view(x[START:].astype(np.float64), 144, axis=0)
    frames = frames[::hop][:N_FRAMES]
    less_mean = frames - frames.mean(axis=-1, keepdims=True)
    spectrum = np.fft.rfft(less_mean * np.sin(np.pi * np.arange(144) / 144) ** 2, axis=-1)
    wanted = np.abs(spectrum[:, :, first : last + 1].transpose(0, 2, 1)) ** 2
    np.testing.assert_allclose(powers(x, bins, hop), wanted, rtol=1e-4, atol=1e-5 * wanted.max())


@pytest.mark.parametrize("hop", [4, 21])
def test_an_artefact_leaves_no_trace_once_it_has_left_the_frames(hop: int) -> None:
    """What rounding left of millivolts in the shared sums is gone when they are summed anew."""
    rng = np.random.default_rng(0)
    quiet = rng.normal(0, 1, (N_FRAMES * hop + 400, 16)).astype(np.float32)
    loud = quiet.copy()
    loud[START : START + 20 * hop] *= 5000
    bins = Bins(144, 144, 1, 14, 1e-6, "here")
    first = -(-(20 + 144 // hop) // RENEWED) * RENEWED
    np.testing.assert_array_equal(powers(loud, bins, hop)[first:], powers(quiet, bins, hop)[first:])
