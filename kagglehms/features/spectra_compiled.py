"""One EEG window → the spectra of its differences as one image, in compiled code.

The sixteen differences of the chains are the lanes of a vector. The two of the midline would leave fourteen lanes idle;
so their columns are cut into eight runs, and lane 2·r + s holds what run r of signal s needs: the same code then
computes eight columns of both at once, and eighteen signals cost what eighteen sixteenths of sixteen cost.
All arrays are flat:

    lanes   (n_times, 16)          µV, clipped
    runs    (≤ n_times, 16)        the midline's, see above
    folded  (H, 2, 16), kept (FRAMES, R + 1, 2, 16), power (COLUMNS, K, 16): see `transform_compiled`
    square  (16, 16)               one bin of sixteen columns of every lane
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from kagglehms.features import plain_signals
from kagglehms.features.differences_compiled import MIDLINE_STEPS, limit, square_of, store_square, subtract
from kagglehms.features.jit import FLOATS, FLOATS_IN, HALVES_IN, apart, compiled, helper
from kagglehms.features.plain import EPSILON
from kagglehms.features.simd import (
    LANES,
    add,
    exponent,
    fma,
    lane_sum,
    load16,
    mantissa,
    mul,
    splat16,
    store,
    sub,
    where_finite,
    widen,
)
from kagglehms.features.transform_compiled import frames_less_mean

COLUMNS = 16
"""Columns that are finished together: a cache line of the image."""
N_MIDLINE = len(MIDLINE_STEPS)
N_RUNS = LANES // N_MIDLINE
"""Runs of columns that the midline is cut into."""


# ---- logarithms


@helper
def _ln_of_one_more(power: Any, scale: Any) -> Any:
    """ln(1 + power · scale), within 2e-6 and 4e-6 of itself.

    With 1 + power · scale = 2^e (1 + f) and 1 + f in [√½, √2): e ln 2 and the minimax polynomial of degree 7 in f.
    Where e is 0, f is power · scale, without the digits that adding 1 takes from it.
    """
    more = mul(power, scale)
    x = add(more, splat16(1.0))
    octaves = exponent(x)
    whole = mul(octaves, splat16(0.69314718 * 2.0**-23))
    f = where_finite(mul(octaves, splat16(3e38)), more, sub(mantissa(x), splat16(1.0)))
    p = fma(splat16(0.118614055), f, splat16(-0.18967959))
    p = fma(p, f, splat16(0.20616911))
    p = fma(p, f, splat16(-0.24870455))
    p = fma(p, f, splat16(0.33301252))
    p = fma(p, f, splat16(-0.50002539))
    p = fma(p, f, splat16(1.0000039))
    return fma(p, f, whole)


@apart
def _take_logarithms(power: Any, n: int, scale: float) -> None:
    scales = splat16(scale)
    for i in range(0, n * LANES, LANES):
        store(power, i, _ln_of_one_more(load16(power, i), scales))


# ---- one block of rows


@apart
def _place(
    power: Any, square: Any, out: Any, at: int, n_bins: int, n_wanted: int, width: int,
    signal_step: int, n_in_lanes: int, run: int, column: int, n_columns: int,
) -> None:  # fmt: skip
    """Write sixteen columns of all lanes, from `column` of each run on, to rows that begin at `at`."""
    for k in range(n_wanted):
        store_square(square, 0, LANES, square_of(power, k * LANES, n_bins * LANES))
        for lane in range(LANES):
            begin = lane // n_in_lanes * run + column
            i = at + (lane % n_in_lanes) * signal_step + k * width + begin
            if begin + COLUMNS <= n_columns:
                store(out, i, load16(square, lane * LANES))
            else:
                for c in range(n_columns - begin):
                    out[i + c] = square[lane * LANES + c]


@apart
def _block(
    x: Any, out: Any, folded: Any, kept: Any, power: Any, square: Any, rows: Any, weights: Any,
    start: int, hop: int, at: int, half: int, rank: int, n_bins: int, n_wanted: int, width: int, n_columns: int,
    signal_step: int, n_in_lanes: int, run: int, scale: float,
) -> None:  # fmt: skip
    """Compute the rows of one block of sixteen signals, or of the runs of the midline."""
    for first in range(0, run, COLUMNS):
        column = min(first, run - COLUMNS)
        centre = start + half + column * hop
        frames_less_mean(x, folded, kept, power, rows, weights, centre, COLUMNS, hop, half, rank, n_bins)
        _take_logarithms(power, COLUMNS * n_bins, scale)
        _place(
            power, square, out, at, n_bins, n_wanted, width, signal_step, n_in_lanes, run, column, n_columns
        )


@apart
def _cut(lanes: Any, runs: Any, start: int, hop: int, half: int, run: int, n_times: int) -> None:
    """Lay the runs of both midline signals side by side; zeros where a run goes on beyond the window."""
    for t in range((run - 1) * hop + 2 * half):
        for r in range(N_RUNS):
            source, i = start + r * run * hop + t, t * LANES + r * N_MIDLINE
            for s in range(N_MIDLINE):
                runs[i + s] = lanes[source * LANES + s] if source < n_times else np.float32(0)


# ---- mean and deviation of the image


@apart
def _row_sums(out: Any, at: int, n_columns: int, less: float) -> Any:
    """Return Σ(x − less) and Σ(x − less)² of a row, 16 partial sums each in float32."""
    lesses, whole = splat16(less), n_columns - n_columns % LANES
    d1 = d2 = splat16(0.0)
    for i in range(at, at + whole, LANES):
        d = sub(load16(out, i), lesses)
        d1, d2 = add(d1, d), fma(d, d, d2)
    total1, total2 = lane_sum(widen(d1)), lane_sum(widen(d2))
    for i in range(at + whole, at + n_columns):
        rest = np.float64(out[i]) - less
        total1, total2 = total1 + rest, total2 + rest * rest
    return total1, total2


@apart
def _normalise(out: Any, n_rows: int, n_columns: int, width: int, height: int) -> None:
    """Take off the mean of the image, divide by its deviation; zeros beside and below it."""
    n = n_rows * n_columns
    # First about the mean of the first row, then about the mean: no digits cancel in the squares.
    about = np.float64(np.float32(_row_sums(out, 0, n_columns, 0.0)[0] / n_columns))
    total = 0.0
    for row in range(n_rows):
        total += _row_sums(out, row * width, n_columns, about)[0]
    mean = np.float64(np.float32(about + total / n))
    total1 = total2 = 0.0
    for row in range(n_rows):
        d1, d2 = _row_sums(out, row * width, n_columns, mean)
        total1, total2 = total1 + d1, total2 + d2
    deviation = np.sqrt(max(total2 / n - (total1 / n) ** 2, 0.0))
    _scale(out, n_rows, n_columns, width, height, mean, 1.0 / (deviation + EPSILON))


@apart
def _scale(
    out: Any, n_rows: int, n_columns: int, width: int, height: int, mean: float, factor: float
) -> None:
    means, factors, whole = splat16(mean), splat16(factor), n_columns - n_columns % LANES
    for row in range(n_rows):
        at = row * width
        for i in range(at, at + whole, LANES):
            store(out, i, mul(sub(load16(out, i), means), factors))
        for i in range(at + whole, at + n_columns):
            out[i] = (out[i] - np.float32(mean)) * np.float32(factor)
        for i in range(at + n_columns, at + width):
            out[i] = 0
    for i in range(n_rows * width, height * width):
        out[i] = 0


# ---- the whole

_ARGUMENTS = (
    *[FLOATS] * 7,
    FLOATS_IN,
    FLOATS_IN,
    *[types.int64] * 14,
    types.boolean,
    types.boolean,
    types.float64,
    types.float64,
)


@compiled(plain_signals.difference_spectra, float32=(FLOATS_IN, *_ARGUMENTS), uint16=(HALVES_IN, *_ARGUMENTS))
def difference_spectra(
    eeg: Any, out: Any,
    lanes: Any, runs: Any, folded: Any, kept: Any, power: Any, square: Any, rows: Any, weights: Any,
    n_times: int, half: int, rank: int, n_bins: int, n_wanted: int, n_columns: int, run: int,
    width: int, height: int, wide_start: int, wide_hop: int, centre_start: int, centre_hop: int, n_signals: int,
    midline: bool, mirror: bool, clip: float, scale: float,
) -> None:  # fmt: skip
    """(n_times, 20) µV → (height, width), both flat; six arrays of scratch, two of coefficients.

    A block's rows of one signal are `n_wanted`, of the `n_bins` that are computed; `start` is the first sample of its
    first column, `scale` turns squared magnitudes into µV² per Hz.
    """
    block, signal_step = n_wanted * width, 2 * n_wanted * width
    subtract(eeg, lanes, 0, n_times, False, mirror)
    limit(lanes, 0, n_times, clip, 1.0)
    for b in range(2):
        start, hop = (centre_start, centre_hop) if b else (wide_start, wide_hop)
        _block(
            lanes, out, folded, kept, power, square, rows, weights, start, hop, b * block, half, rank, n_bins,
            n_wanted, width, n_columns, signal_step, LANES, n_columns, scale,
        )  # fmt: skip
    if midline:
        subtract(eeg, lanes, 0, n_times, True, mirror)
        limit(lanes, 0, n_times, clip, 1.0)
        for b in range(2):
            start, hop = (centre_start, centre_hop) if b else (wide_start, wide_hop)
            _cut(lanes, runs, start, hop, half, run, n_times)
            _block(
                runs, out, folded, kept, power, square, rows, weights, 0, hop, LANES * signal_step + b * block,
                half, rank, n_bins, n_wanted, width, n_columns, signal_step, N_MIDLINE, run, scale,
            )  # fmt: skip
    _normalise(out, n_signals * 2 * n_wanted, n_columns, width, height)
