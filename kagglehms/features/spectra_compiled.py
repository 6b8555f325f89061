"""One EEG window → the spectra of its differences as one image, in compiled code.

The sixteen differences of the chains are the lanes of a vector. The two of the midline would leave fourteen lanes idle;
so their columns are cut into eight runs, and lane 2·r + s holds what run r of signal s needs: the same code then
computes eight columns of both at once, and eighteen signals cost what eighteen sixteenths of sixteen cost.
All arrays are flat.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from kagglehms.data.competition import CHANNELS, MIDLINE_DIFFERENCES
from kagglehms.features.differences_compiled import (
    MIDLINE,
    N_CHANNELS,
    chains,
    load_square,
    midline,
    subtract,
)
from kagglehms.features.jit import Floats, Source, apart, helper
from kagglehms.features.panels_compiled import EPSILON
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
    store_rows,
    sub,
    upper,
    where_finite,
    widen,
)
from kagglehms.features.sliding_compiled import sliding_frames
from kagglehms.features.sliding_plan import COLUMNS
from kagglehms.features.spectra_plan import N_MIDLINE, N_RUNS, SpectraPlan
from kagglehms.features.transform_compiled import frames_less_mean

_IDLE = [0] * (8 - N_MIDLINE)
_minuends = permutation([CHANNELS.index(first) - MIDLINE for first, _ in MIDLINE_DIFFERENCES] + _IDLE)
_subtrahends = permutation([CHANNELS.index(second) - MIDLINE for _, second in MIDLINE_DIFFERENCES] + _IDLE)


class SpectraScratch(NamedTuple):
    """Arrays that a call works in, all flat.

    Attributes:
        lanes: (n_times, 16) differences of the chains, µV, clipped.
        pair: (n_times, 2) differences of the midline, clipped, and six values beyond their end.
        runs: (samples of a run, 16) the same, cut into runs.
        folded: (H, 2, 16) a frame or a hop, folded about its centre.
        kept: (FRAMES, R + 1, 2, 16) the first of two stages, see `transform_compiled`.
        sums: (M, 2, 16) what neighbouring frames share, see `sliding_compiled`.
        power: (COLUMNS, K, 16) squared magnitudes, then logarithms.
        square: (16, 16) one bin of sixteen columns of every lane.
    """

    lanes: Floats
    pair: Floats
    runs: Floats
    folded: Floats
    kept: Floats
    sums: Floats
    power: Floats
    square: Floats


# ---- logarithms


@helper
def _ln_of_one_more(power: Any, scale: Any) -> Any:
    """Return ln(1 + power · scale), within 2e-6 and 4e-6 of itself.

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


class Lanes(NamedTuple):
    """What the lanes of a vector hold, sixteen signals or the runs of fewer, and where their rows go.

    Attributes:
        x: flat (n_times, 16) samples.
        start: sample at which the first column begins.
        n_signals: number of signals in the lanes; lane n holds run n // n_signals of signal n % n_signals.
        run: columns of a run.
        at: index of the element of the image at which the block of the first signal begins.
    """

    x: Floats
    start: int
    n_signals: int
    run: int
    at: int


@apart
def _place(lanes: Any, scratch: Any, plan: Any, n_computed: int, out: Any, column: int) -> None:
    """Write sixteen columns of all lanes, from `column` of each run on."""
    power, square = scratch.power, scratch.square
    width, signal_step = plan.width, 2 * plan.n_bins * plan.width
    for k in range(plan.n_bins):
        store_rows(square, 0, LANES, load_square(power, k * LANES, n_computed * LANES))
        for lane in range(LANES):
            begin = lane // lanes.n_signals * lanes.run + column
            i = lanes.at + (lane % lanes.n_signals) * signal_step + k * width + begin
            if begin + COLUMNS <= plan.n_columns:
                store(out, i, load16(square, lane * LANES))
            else:
                for c in range(plan.n_columns - begin):
                    out[i + c] = square[lane * LANES + c]


@apart
def _block(lanes: Any, hops: Any, scratch: Any, plan: Any, out: Any) -> None:
    """Compute one block of rows of the signals in the lanes."""
    for first in range(0, lanes.run, COLUMNS):
        column = min(first, lanes.run - COLUMNS)
        if hops.n_tiles:
            sliding_frames(lanes.x, lanes.start, scratch, hops, column, plan.n_bins)
            n_computed, scale = plan.n_bins, plan.scale / 4
        else:
            centre = lanes.start + hops.period // 2 + column * hops.hop
            frames_less_mean(lanes.x, scratch, plan.transform, centre, COLUMNS, hops.hop)
            n_computed, scale = plan.transform.n_bins, plan.scale
        _take_logarithms(scratch.power, COLUMNS * n_computed, scale)
        _place(lanes, scratch, plan, n_computed, out, column)


# ---- the midline


@apart
def _pair_up(eeg: Any, pair: Any, clip: float) -> bool:
    """Write the two differences of the midline side by side, clipped; return whether all of them are finite."""
    total, low, high = splat8(0.0), splat8(-clip), splat8(clip)
    for t in range(eeg.size // N_CHANNELS):
        x = load8(eeg, t * N_CHANNELS + MIDLINE)
        x = sub(_minuends(x, x), _subtrahends(x, x))
        total = add(total, x)
        # The six lanes after these two are overwritten by those that come next.
        store(pair, t * N_MIDLINE, lower(upper(x, low), high))
    return np.isfinite(lane_sum(total))


@helper
def _write_midline(eeg: Any, scratch: Any, clip: float) -> None:
    """Write the two differences of the midline side by side, gaps filled and clipped."""
    if not _pair_up(eeg, scratch.pair, clip):
        subtract(eeg, scratch.lanes, 0, midline, False, clip, 1.0)
        for t in range(eeg.size // N_CHANNELS):
            for s in range(N_MIDLINE):
                scratch.pair[t * N_MIDLINE + s] = scratch.lanes[t * LANES + s]


@apart
def _cut(scratch: Any, block: Any, run: int, n_times: int) -> None:
    """Lay the runs of both midline signals side by side; zeros where a run extends beyond the window."""
    pair, runs, hop = scratch.pair, scratch.runs, block.hops.hop
    for t in range((run - 1) * hop + block.hops.period):
        for r in range(N_RUNS):
            source, i = block.start + r * run * hop + t, t * LANES + r * N_MIDLINE
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
    """Subtract the mean of the image and divide by its deviation, both with the zeros beside and below it."""
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


def difference_spectra(
    eeg: Source, out: Floats, scratch: SpectraScratch, plan: SpectraPlan, mirror: bool
) -> None:
    """Write the image of spectra of one window.

    Args:
        eeg: flat (n_times, 20) µV.
        out: flat (height, width) image.
        scratch: arrays to work in.
        plan: the resolution.
        mirror: whether left and right are exchanged.
    """
    x, wide, centre, block = scratch.lanes, plan.wide, plan.centre, plan.n_bins * plan.width
    subtract(eeg, x, 0, chains, mirror, plan.clip, 1.0)
    _block(Lanes(x, wide.start, LANES, plan.n_columns, 0), wide.hops, scratch, plan, out)
    _block(Lanes(x, centre.start, LANES, plan.n_columns, block), centre.hops, scratch, plan, out)
    if plan.n_signals > LANES:
        n_times, first = eeg.size // N_CHANNELS, 2 * LANES * block
        _write_midline(eeg, scratch, plan.clip)
        _cut(scratch, wide, plan.run, n_times)
        _block(Lanes(scratch.runs, 0, N_MIDLINE, plan.run, first), wide.hops, scratch, plan, out)
        _cut(scratch, centre, plan.run, n_times)
        _block(Lanes(scratch.runs, 0, N_MIDLINE, plan.run, first + block), centre.hops, scratch, plan, out)
    _normalise(out, plan.n_signals * 2 * plan.n_bins, plan.n_columns, plan.width, plan.height)
