"""One EEG window → its differences in the sixteen lanes of vectors, and from there the rows of an image.

Lane 4·c + p is the p-th difference of chain c, which is the order of the rows. The two differences of the midline go
through the same code in the first two lanes of a second run. All arrays are flat.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from kagglehms.data.competition import CHANNELS, DIFFERENCES, MIDLINE_DIFFERENCES, OTHER_SIDE, PANELS
from kagglehms.features.differences_plan import Rows, Signal
from kagglehms.features.filters import CAUSAL, LINEAR
from kagglehms.features.filters_compiled import linear, reflect, two_modes
from kagglehms.features.jit import Floats, Source, apart, helper
from kagglehms.features.simd import (
    LANES,
    add,
    div,
    lane_sum,
    load8,
    load16,
    load_rows16,
    lower,
    mul,
    narrow,
    permutation,
    splat16,
    store,
    store_rows,
    sub,
    transpose,
    upper,
    where_finite,
    widen,
)

N_CHANNELS = len(CHANNELS)
RIGHT = CHANNELS.index("Fp2")
"""Index of the first of the eight electrodes of the right hemisphere; those of the left are the first channels."""
PAIRS = [name for pair in zip(CHANNELS[:8], CHANNELS[RIGHT : RIGHT + 8], strict=True) for name in pair]
"""The electrodes once the hemispheres are zipped, so that neighbours on the head are neighbours in a vector."""
MIDLINE = CHANNELS.index("Fz") - 4
"""Index of the first of eight channels among which are those of the midline."""
MIRRORED = [4 * PANELS.index(OTHER_SIDE[panel]) + p for panel in PANELS for p in range(4)]
"""The lane whose difference each lane shows once left and right are exchanged."""

_SIXTEEN = [MIDLINE_DIFFERENCES[min(lane, 1)] for lane in range(LANES)]

_zip = permutation([side * 8 + i for i in range(8) for side in (0, 1)])
_minuends = permutation([PAIRS.index(first) for first, _ in DIFFERENCES])
_subtrahends = permutation([PAIRS.index(second) for _, second in DIFFERENCES])
_mirror = permutation(MIRRORED)
_midline_minuends = permutation([CHANNELS.index(first) - MIDLINE for first, _ in _SIXTEEN])
_midline_subtrahends = permutation([CHANNELS.index(second) - MIDLINE for _, second in _SIXTEEN])


# ---- differences


@helper
def electrode_pairs(eeg: Any, t: int) -> Any:
    """Return the sixteen electrodes of the chains at sample t, in the order of `PAIRS`."""
    return _zip(load8(eeg, t * N_CHANNELS), load8(eeg, t * N_CHANNELS + RIGHT))


@helper
def chains(eeg: Any, t: int, mirror: bool) -> Any:
    """Return the sixteen differences of the chains at sample t."""
    pairs = electrode_pairs(eeg, t)
    x = sub(_minuends(pairs, pairs), _subtrahends(pairs, pairs))
    return _mirror(x, x) if mirror else x


@helper
def midline(eeg: Any, t: int, mirror: bool) -> Any:
    """Return the two differences of the midline at sample t; the other lanes repeat the second."""
    x = load8(eeg, t * N_CHANNELS + MIDLINE)
    return sub(_midline_minuends(x, x), _midline_subtrahends(x, x))


@helper
def _limited(x: Any, clip: Any, factor: Any) -> Any:
    return mul(lower(upper(x, sub(splat16(0.0), clip)), clip), factor)


@apart
def write_differences(eeg: Any, lanes: Any, pad: int, difference: Any, mirror: bool) -> bool:
    """Write `difference(eeg, t, mirror)` of every sample t; return whether all of them are finite."""
    total = splat16(0.0)
    for t in range(eeg.size // N_CHANNELS):
        x = difference(eeg, t, mirror)
        total = add(total, x)
        store(lanes, (pad + t) * LANES, x)
    return np.isfinite(lane_sum(total))


@apart
def _write_limited(
    eeg: Any, lanes: Any, pad: int, difference: Any, mirror: bool, clip: float, factor: float
) -> bool:
    """Write `difference(eeg, t, mirror)`, clipped and multiplied; return whether all were finite before that."""
    total, clips, factors = splat16(0.0), splat16(clip), splat16(factor)
    for t in range(eeg.size // N_CHANNELS):
        x = difference(eeg, t, mirror)
        total = add(total, x)
        store(lanes, (pad + t) * LANES, _limited(x, clips, factors))
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
    eeg: Any, lanes: Any, pad: int, difference: Any, mirror: bool, clip: float, factor: float
) -> None:
    """Write `difference` of every sample, of the chains or of the midline, gaps filled, clipped and multiplied.

    Most windows have no gaps, so the first pass assumes that; its result is discarded where there are some.
    """
    if not _write_limited(eeg, lanes, pad, difference, mirror, clip, factor):
        n_times = eeg.size // N_CHANNELS
        write_differences(eeg, lanes, pad, difference, mirror)
        fill_missing(lanes, pad, n_times)
        _limit(lanes, pad, n_times, clip, factor)


# ---- rows of an image


@helper
def load_square(source: Any, at: int, step: int) -> Any:
    """Load sixteen vectors, `step` apart, and exchange vectors and lanes."""
    return transpose(load_rows16(source, at, step))


@apart
def _write_rows(source: Any, at: int, step: int, out: Any, rows: Any) -> None:
    """Write the rows of sixteen lanes, of which every `step`-th sample is kept."""
    width, phases = rows.width, rows.phases
    for column in range(0, width, LANES):
        w = min(column, width - LANES)
        for p in range(phases):
            square = load_square(source, at + (w * phases + p) * step * LANES, phases * step * LANES)
            store_rows(out, p * width + w, phases * width, square)


@apart
def _write_few_rows(source: Any, at: int, step: int, out: Any, rows: Any, first: int, n_lanes: int) -> None:
    """Write the rows of the first lanes, value by value, as those of differences `first`, `first` + 1, …"""
    width, phases = rows.width, rows.phases
    for c in range(n_lanes):
        for p in range(phases):
            for w in range(width):
                value = source[at + (w * phases + p) * step * LANES + c]
                out[((first + c) * phases + p) * width + w] = value


# ---- the whole


class DifferenceScratch(NamedTuple):
    """Arrays that a call works in.

    Attributes:
        lanes: flat (pad + n_times + pad + BLOCK, 16), µV, then clipped and scaled, then filtered where that can be done
            in place.
        filtered: flat (n_times + BLOCK, 16), the result of the linear filter.
        moments: flat (blocks, RANK, 16), see `filters_compiled.linear`.
    """

    lanes: Floats
    filtered: Floats
    moments: Floats


@helper
def _prepare(eeg: Any, scratch: Any, signal: Any, of_midline: bool, mirror: bool) -> Any:
    """Prepare sixteen differences; return the array that holds them, and where they begin."""
    lanes, pad, n_times = scratch.lanes, signal.filter.pad, eeg.size // N_CHANNELS
    if of_midline:
        subtract(eeg, lanes, pad, midline, mirror, signal.clip, signal.factor)
    else:
        subtract(eeg, lanes, pad, chains, mirror, signal.clip, signal.factor)
    if signal.filter.kind == LINEAR:
        reflect(lanes, pad, n_times)
        linear(lanes, scratch.filtered, scratch.moments, n_times, signal.filter)
        return scratch.filtered, 0
    if signal.filter.kind == CAUSAL:
        two_modes(lanes, pad * LANES, n_times, signal.filter.modes)
    return lanes, pad * LANES


def difference_rows(
    eeg: Source,
    out: Floats,
    scratch: DifferenceScratch,
    signal: Signal,
    rows: Rows,
    mirror: bool,
) -> None:
    """Write differences as rows of an image.

    Args:
        eeg: flat (n_times, 20) µV.
        out: flat (rows, width) image.
        scratch: arrays to work in.
        signal: what is done to a difference.
        rows: how the differences become rows.
        mirror: whether left and right are exchanged.
    """
    for group in range(1 + rows.with_midline):
        of_midline = group == 1
        source, at = _prepare(eeg, scratch, signal, of_midline, mirror)
        if of_midline:
            _write_few_rows(source, at, signal.step, out, rows, LANES, len(MIDLINE_DIFFERENCES))
        elif rows.width < LANES:
            _write_few_rows(source, at, signal.step, out, rows, 0, LANES)
        else:
            _write_rows(source, at, signal.step, out, rows)
