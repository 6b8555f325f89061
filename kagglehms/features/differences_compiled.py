"""One EEG window → its differences in the sixteen lanes of vectors, and from there the rows of an image.

Lane 4·c + p is the p-th difference of chain c, which is the order of the rows. The two differences of the midline go
through the same code in the first two lanes of a second run. All arrays are flat:

    lanes     (pad + n_times + pad, 16)   µV, then clipped and scaled, then filtered where that can be done in place
    filtered  (n_times + BLOCK, 16)       what the linear filter writes
    moments   (blocks, RANK, 16)          see `filters_compiled.linear`
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from kagglehms.data.competition import CHANNELS, DIFFERENCES, MIDLINE_DIFFERENCES, OTHER_SIDE, PANELS
from kagglehms.features import plain_signals
from kagglehms.features.filters_compiled import linear, reflect, two_modes
from kagglehms.features.jit import FLOATS, FLOATS_IN, HALVES_IN, apart, compiled, helper
from kagglehms.features.simd import (
    LANES,
    add,
    div,
    lane_sum,
    load8,
    load16,
    lower,
    mul,
    narrow,
    permutation,
    splat16,
    store,
    sub,
    transpose,
    upper,
    where_finite,
    widen,
)

N_CHANNELS = len(CHANNELS)
NONE, CAUSAL, LINEAR = range(3)
"""Filters as compiled code knows them."""

RIGHT = CHANNELS.index("Fp2")
"""Where the eight electrodes of the right hemisphere begin; those of the left are the first eight channels."""
PAIRS = [name for pair in zip(CHANNELS[:8], CHANNELS[RIGHT : RIGHT + 8], strict=True) for name in pair]
"""The electrodes once the hemispheres are zipped, so that neighbours on the head are neighbours in a vector."""

pair_up = permutation([side * 8 + i for i in range(8) for side in (0, 1)])
"""Zip the hemispheres."""

MIRRORED = [4 * PANELS.index(OTHER_SIDE[panel]) + p for panel in PANELS for p in range(4)]
"""Which lane stands where once left and right are exchanged."""

_minuends = permutation([PAIRS.index(first) for first, _ in DIFFERENCES])
_subtrahends = permutation([PAIRS.index(second) for _, second in DIFFERENCES])
_mirrored = permutation(MIRRORED)

MIDLINE = CHANNELS.index("Fz") - 4
"""Eight channels from here on hold the midline."""
_midline_minuends = permutation(
    [CHANNELS.index(MIDLINE_DIFFERENCES[min(i, 1)][0]) - MIDLINE for i in range(16)]
)
_midline_subtrahends = permutation(
    [CHANNELS.index(MIDLINE_DIFFERENCES[min(i, 1)][1]) - MIDLINE for i in range(16)]
)


# ---- differences


@helper
def _limited(x: Any, clip: Any, factor: Any) -> Any:
    return mul(lower(upper(x, sub(splat16(0.0), clip)), clip), factor)


@apart
def _subtract(
    eeg: Any, lanes: Any, pad: int, n_times: int, mirror: bool, limited: bool, clip: float, factor: float
) -> bool:
    """Write the sixteen differences, clipped and scaled if `limited`; return whether all of them are finite."""
    total, clips, factors = splat16(0.0), splat16(clip), splat16(factor)
    for t in range(n_times):
        pairs = pair_up(load8(eeg, t * N_CHANNELS), load8(eeg, t * N_CHANNELS + RIGHT))
        x = sub(_minuends(pairs, pairs), _subtrahends(pairs, pairs))
        if mirror:
            x = _mirrored(x, x)
        total = add(total, x)
        store(lanes, (pad + t) * LANES, _limited(x, clips, factors) if limited else x)
    return np.isfinite(lane_sum(total))


@apart
def _subtract_midline(
    eeg: Any, lanes: Any, pad: int, n_times: int, limited: bool, clip: float, factor: float
) -> bool:
    """The same for the two differences of the midline; the other lanes repeat the second."""
    total, clips, factors = splat16(0.0), splat16(clip), splat16(factor)
    for t in range(n_times):
        x = load8(eeg, t * N_CHANNELS + MIDLINE)
        x = sub(_midline_minuends(x, x), _midline_subtrahends(x, x))
        total = add(total, x)
        store(lanes, (pad + t) * LANES, _limited(x, clips, factors) if limited else x)
    return np.isfinite(lane_sum(total))


@helper
def fill_missing(lanes: Any, pad: int, n_times: int) -> None:
    """Put the mean of each difference where it is missing; 0 where all of it is."""
    zero, one = splat16(0.0), splat16(1.0)
    count, total = zero, widen(zero)
    for t in range(n_times):
        x = load16(lanes, (pad + t) * LANES)
        count = add(count, where_finite(x, one, zero))
        total = add(total, widen(where_finite(x, x, zero)))
    mean = narrow(div(total, widen(upper(count, one))))
    for t in range(n_times):
        x = load16(lanes, (pad + t) * LANES)
        store(lanes, (pad + t) * LANES, where_finite(x, x, mean))


@apart
def _limit(lanes: Any, pad: int, n_times: int, clip: float, factor: float) -> None:
    """Clip to ±clip and multiply."""
    clips, factors = splat16(clip), splat16(factor)
    for i in range(pad * LANES, (pad + n_times) * LANES, LANES):
        store(lanes, i, _limited(load16(lanes, i), clips, factors))


@helper
def subtract(
    eeg: Any, lanes: Any, pad: int, n_times: int, midline: bool, mirror: bool, clip: float, factor: float
) -> None:
    """Write the differences, none of them missing, clipped to ±clip and multiplied.

    Most windows are complete, so that is what is tried first, in one pass.
    """
    if midline:
        if not _subtract_midline(eeg, lanes, pad, n_times, True, clip, factor):
            _subtract_midline(eeg, lanes, pad, n_times, False, clip, factor)
            fill_missing(lanes, pad, n_times)
            _limit(lanes, pad, n_times, clip, factor)
    elif not _subtract(eeg, lanes, pad, n_times, mirror, True, clip, factor):
        _subtract(eeg, lanes, pad, n_times, mirror, False, clip, factor)
        fill_missing(lanes, pad, n_times)
        _limit(lanes, pad, n_times, clip, factor)


# ---- rows of an image


@helper
def square_of(source: Any, at: int, step: int) -> Any:
    """Sixteen vectors, `step` apart, with vectors and lanes exchanged."""
    return transpose(
        (
            load16(source, at), load16(source, at + step), load16(source, at + 2 * step),
            load16(source, at + 3 * step), load16(source, at + 4 * step), load16(source, at + 5 * step),
            load16(source, at + 6 * step), load16(source, at + 7 * step), load16(source, at + 8 * step),
            load16(source, at + 9 * step), load16(source, at + 10 * step), load16(source, at + 11 * step),
            load16(source, at + 12 * step), load16(source, at + 13 * step), load16(source, at + 14 * step),
            load16(source, at + 15 * step),
        )
    )  # fmt: skip


@helper
def store_square(out: Any, at: int, step: int, rows: Any) -> None:
    """Sixteen vectors to places `step` apart."""
    store(out, at, rows[0])
    store(out, at + step, rows[1])
    store(out, at + 2 * step, rows[2])
    store(out, at + 3 * step, rows[3])
    store(out, at + 4 * step, rows[4])
    store(out, at + 5 * step, rows[5])
    store(out, at + 6 * step, rows[6])
    store(out, at + 7 * step, rows[7])
    store(out, at + 8 * step, rows[8])
    store(out, at + 9 * step, rows[9])
    store(out, at + 10 * step, rows[10])
    store(out, at + 11 * step, rows[11])
    store(out, at + 12 * step, rows[12])
    store(out, at + 13 * step, rows[13])
    store(out, at + 14 * step, rows[14])
    store(out, at + 15 * step, rows[15])


@apart
def _write_rows(source: Any, at: int, out: Any, first_row: int, width: int, phases: int, step: int) -> None:
    """Row `phases`·c + p, column w: sample `phases`·w + p, counted in steps, of lane c."""
    row = phases * width
    for column in range(0, width, LANES):
        w = min(column, width - LANES)
        for p in range(phases):
            square = square_of(source, at + (w * phases + p) * step * LANES, phases * step * LANES)
            store_square(out, (first_row + p) * width + w, row, square)


@apart
def _write_few_rows(
    source: Any, at: int, out: Any, first_row: int, width: int, phases: int, step: int, n_lanes: int
) -> None:
    """The same for the first lanes only, or for an image that is narrower than a vector."""
    for c in range(n_lanes):
        for p in range(phases):
            for w in range(width):
                value = source[at + (w * phases + p) * step * LANES + c]
                out[(first_row + c * phases + p) * width + w] = value


# ---- the whole

_ARGUMENTS = (
    *[FLOATS] * 4,
    FLOATS_IN,
    *[types.int64] * 7,
    types.boolean,
    types.boolean,
    types.float64,
    types.float64,
)


@compiled(
    plain_signals.difference_rows,
    float32=(FLOATS_IN, *_ARGUMENTS),
    uint16=(HALVES_IN, *_ARGUMENTS),
)
def difference_rows(
    eeg: Any, out: Any, lanes: Any, filtered: Any, moments: Any, coefficients: Any,
    n_times: int, pad: int, filter_: int, first_row: int, width: int, phases: int, step: int,
    midline: bool, mirror: bool, clip: float, factor: float,
) -> None:  # fmt: skip
    """(n_times, 20) µV → rows of the image, both flat; three arrays of scratch, one of coefficients."""
    subtract(eeg, lanes, pad, n_times, midline, mirror, clip, factor)
    source, at = lanes, pad * LANES
    if filter_ == CAUSAL:
        two_modes(lanes, at, n_times, coefficients)
    elif filter_ == LINEAR:
        reflect(lanes, pad, n_times)
        linear(lanes, filtered, moments, n_times, coefficients)
        source, at = filtered, 0
    if midline:
        _write_few_rows(source, at, out, first_row, width, phases, step, len(MIDLINE_DIFFERENCES))
    elif width < LANES:
        _write_few_rows(source, at, out, first_row, width, phases, step, LANES)
    else:
        _write_rows(source, at, out, first_row, width, phases, step)
