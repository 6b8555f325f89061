"""One EEG window → the spectra of its differences as one image, in compiled code.

The sixteen differences of the chains are the lanes of a vector. The two of the midline would leave fourteen lanes idle;
so their columns are cut into eight runs, and lane 2·r + s holds what run r of signal s needs: the same code then
computes eight columns of both at once, and eighteen signals cost what eighteen sixteenths of sixteen cost.
All arrays are flat:

    lanes   (n_times, 16)          µV, clipped
    pair    (n_times, 2)           the midline's, and six values beyond its end
    runs    (≤ n_times, 16)        the same, see above
    folded, kept: see `transform_compiled`; ring, sums, part: see `sliding_compiled`
    power   (COLUMNS, K, 16)       squared magnitudes, then logarithms
    square  (16, 16)               one bin of sixteen columns of every lane
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from kagglehms.data.competition import CHANNELS, MIDLINE_DIFFERENCES
from kagglehms.features import plain_signals
from kagglehms.features.differences_compiled import (
    MIDLINE,
    N_CHANNELS,
    square_of,
    store_square,
    subtract,
)
from kagglehms.features.jit import FLOATS, FLOATS_IN, HALVES_IN, apart, compiled, helper
from kagglehms.features.plain import EPSILON
from kagglehms.features.simd import (
    LANES,
    add,
    exponent,
    fma,
    lane_sum,
    load8,
    load16,
    lower,
    mantissa,
    mul,
    permutation,
    splat8,
    splat16,
    store,
    sub,
    upper,
    where_finite,
    widen,
)
from kagglehms.features.sliding_compiled import COLUMNS, sliding_frames
from kagglehms.features.transform_compiled import frames_less_mean

N_MIDLINE = len(MIDLINE_DIFFERENCES)
N_RUNS = LANES // N_MIDLINE
"""Runs of columns that the midline is cut into."""

_minuends = permutation([CHANNELS.index(first) - MIDLINE for first, _ in MIDLINE_DIFFERENCES] + [0] * 6)
_subtrahends = permutation([CHANNELS.index(second) - MIDLINE for _, second in MIDLINE_DIFFERENCES] + [0] * 6)


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
    x: Any, out: Any, folded: Any, kept: Any, ring: Any, sums: Any, part: Any, power: Any, square: Any,
    rows: Any, weights: Any, turns: Any, angle: Any,
    start: int, hop: int, at: int, half: int, rank: int, n_bins: int, n_tiles: int, below: int,
    n_wanted: int, width: int, n_columns: int, signal_step: int, n_in_lanes: int, run: int, scale: float,
) -> None:  # fmt: skip
    """Compute the rows of one block of sixteen signals, or of the runs of the midline."""
    slots = 2 * half // hop + 2 * COLUMNS
    for first in range(0, run, COLUMNS):
        column = min(first, run - COLUMNS)
        if n_tiles:
            sliding_frames(
                x,
                start,
                ring,
                sums,
                part,
                power,
                turns,
                angle,
                column,
                hop,
                2 * half,
                n_tiles,
                slots,
                below,
                n_wanted,
            )
            n_computed, per_hz = n_wanted, scale / 4
        else:
            centre = start + half + column * hop
            frames_less_mean(x, folded, kept, power, rows, weights, centre, COLUMNS, hop, half, rank, n_bins)
            n_computed, per_hz = n_bins, scale
        _take_logarithms(power, COLUMNS * n_computed, per_hz)
        _place(
            power,
            square,
            out,
            at,
            n_computed,
            n_wanted,
            width,
            signal_step,
            n_in_lanes,
            run,
            column,
            n_columns,
        )


@apart
def _pair_up(eeg: Any, pair: Any, n_times: int, clip: float) -> bool:
    """Write the two differences of the midline side by side, clipped; return whether all of them are finite."""
    total, low, high = splat8(0.0), splat8(-clip), splat8(clip)
    for t in range(n_times):
        x = load8(eeg, t * N_CHANNELS + MIDLINE)
        x = sub(_minuends(x, x), _subtrahends(x, x))
        total = add(total, x)
        # The six lanes after these two are written over by those that come next.
        store(pair, t * N_MIDLINE, lower(upper(x, low), high))
    return np.isfinite(lane_sum(total))


@helper
def _midline(eeg: Any, lanes: Any, pair: Any, n_times: int, clip: float) -> None:
    """The same, with what is missing filled."""
    if not _pair_up(eeg, pair, n_times, clip):
        subtract(eeg, lanes, 0, n_times, True, False, clip, 1.0)
        for t in range(n_times):
            for s in range(N_MIDLINE):
                pair[t * N_MIDLINE + s] = lanes[t * LANES + s]


@apart
def _cut(pair: Any, runs: Any, start: int, hop: int, half: int, run: int, n_times: int) -> None:
    """Lay the runs of both midline signals side by side; zeros where a run goes on beyond the window."""
    for t in range((run - 1) * hop + 2 * half):
        for r in range(N_RUNS):
            source, i = start + r * run * hop + t, t * LANES + r * N_MIDLINE
            for s in range(N_MIDLINE):
                runs[i + s] = pair[source * N_MIDLINE + s] if source < n_times else np.float32(0)


# ---- mean and deviation of the image


@apart
def _row_sums(out: Any, at: int, n_columns: int, less: float) -> Any:
    """Return Σ(x − less) and Σ(x − less)² of a row, in float32 within a lane."""
    lesses, pairs, whole = splat16(less), n_columns - n_columns % (2 * LANES), n_columns - n_columns % LANES
    d1 = d2 = e1 = e2 = splat16(0.0)
    for i in range(at, at + pairs, 2 * LANES):
        d, e = sub(load16(out, i), lesses), sub(load16(out, i + LANES), lesses)
        d1, d2 = add(d1, d), fma(d, d, d2)
        e1, e2 = add(e1, e), fma(e, e, e2)
    if pairs < whole:
        d = sub(load16(out, at + pairs), lesses)
        d1, d2 = add(d1, d), fma(d, d, d2)
    total1, total2 = lane_sum(widen(add(d1, e1))), lane_sum(widen(add(d2, e2)))
    for i in range(at + whole, at + n_columns):
        rest = np.float64(out[i]) - less
        total1, total2 = total1 + rest, total2 + rest * rest
    return total1, total2


@apart
def _normalise(out: Any, n_rows: int, n_columns: int, width: int, height: int) -> None:
    """Take off the mean of the image, divide by its deviation, both with the zeros beside and below it."""
    n, n_zeros = width * height, width * height - n_rows * n_columns
    # About a value among them, so that no digits cancel in the squares.
    about = np.float64(np.float32(_row_sums(out, n_rows // 2 * width, n_columns, 0.0)[0] / n_columns))
    total1 = total2 = 0.0
    for row in range(n_rows):
        d1, d2 = _row_sums(out, row * width, n_columns, about)
        total1, total2 = total1 + d1, total2 + d2
    total1, total2 = total1 - n_zeros * about, total2 + n_zeros * about * about
    deviation = np.sqrt(max(total2 / n - (total1 / n) ** 2, 0.0))
    _scale(out, n_rows, n_columns, width, height, about + total1 / n, 1.0 / (deviation + EPSILON))


@apart
def _scale(
    out: Any, n_rows: int, n_columns: int, width: int, height: int, mean: float, factor: float
) -> None:
    means, factors, whole = splat16(mean), splat16(factor), n_columns - n_columns % LANES
    nothing = (np.float32(0) - np.float32(mean)) * np.float32(factor)
    for row in range(n_rows):
        at = row * width
        for i in range(at, at + whole, LANES):
            store(out, i, mul(sub(load16(out, i), means), factors))
        for i in range(at + whole, at + n_columns):
            out[i] = (out[i] - np.float32(mean)) * np.float32(factor)
        for i in range(at + n_columns, at + width):
            out[i] = nothing
    for i in range(n_rows * width, height * width):
        out[i] = nothing


# ---- the whole

_ARGUMENTS = (
    *[FLOATS] * 11,
    *[FLOATS_IN] * 6,
    *[types.int64] * 17,
    types.boolean,
    types.boolean,
    types.float64,
    types.float64,
)


@compiled(plain_signals.difference_spectra, float32=(FLOATS_IN, *_ARGUMENTS), uint16=(HALVES_IN, *_ARGUMENTS))
def difference_spectra(
    eeg: Any, out: Any,
    lanes: Any, pair: Any, runs: Any, folded: Any, kept: Any, ring: Any, sums: Any, part: Any, power: Any, square: Any,
    rows: Any, weights: Any, wide_turns: Any, wide_angle: Any, centre_turns: Any, centre_angle: Any,
    n_times: int, half: int, rank: int, n_bins: int, below: int, n_wanted: int, n_columns: int, run: int,
    width: int, height: int, wide_start: int, wide_hop: int, wide_tiles: int,
    centre_start: int, centre_hop: int, centre_tiles: int, n_signals: int,
    midline: bool, mirror: bool, clip: float, scale: float,
) -> None:  # fmt: skip
    """(n_times, 20) µV → (height, width), both flat; ten arrays of scratch, six of coefficients.

    A block's rows of one signal are `n_wanted`; `start` is the first sample of its first column, `tiles` are 0 where
    its frames are multiplied out; `scale` turns squared magnitudes into µV² per Hz.
    """
    block, signal_step = n_wanted * width, 2 * n_wanted * width
    subtract(eeg, lanes, 0, n_times, False, mirror, clip, 1.0)
    for group in range(1 + midline):
        x, per_run, n_in_lanes, first_row = lanes, n_columns, LANES, 0
        if group == 1:
            x, per_run, n_in_lanes, first_row = runs, run, N_MIDLINE, LANES * signal_step
            _midline(eeg, lanes, pair, n_times, clip)
            _cut(pair, runs, wide_start, wide_hop, half, run, n_times)
        _block(
            x, out, folded, kept, ring, sums, part, power, square, rows, weights, wide_turns, wide_angle,
            0 if group else wide_start, wide_hop, first_row, half, rank, n_bins, wide_tiles, below,
            n_wanted, width, n_columns, signal_step, n_in_lanes, per_run, scale,
        )  # fmt: skip
        if group == 1:
            _cut(pair, runs, centre_start, centre_hop, half, run, n_times)
        _block(
            x, out, folded, kept, ring, sums, part, power, square, rows, weights, centre_turns, centre_angle,
            0 if group else centre_start, centre_hop, first_row + block, half, rank, n_bins, centre_tiles, below,
            n_wanted, width, n_columns, signal_step, n_in_lanes, per_run, scale,
        )  # fmt: skip
    _normalise(out, n_signals * 2 * n_wanted, n_columns, width, height)
