"""Panels in compiled code: normalisation and stored rows, on flat arrays.

The public functions, and what they promise, stand in `kagglehms.features.panels`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types

from kagglehms.features import plain
from kagglehms.features.jit import FLOATS, FLOATS_IN, HALVES_IN, compiled, helper
from kagglehms.features.simd import (
    add,
    fma,
    lane_sum,
    last_lanes,
    load8,
    load32,
    mul,
    splat8,
    splat32,
    store,
    sub,
    transpose,
    where_finite,
    widen,
)

LANES = 32
"""Lanes of what runs over flat arrays: four registers of AVX2."""
BLOCK = 4096
"""Values that are summed in float32, 128 in a lane; sums of blocks are float64."""

EPSILON = plain.EPSILON
_NAN = np.float32(np.nan)
_ZERO = np.float32(0)
_ONE = np.float32(1)


# The last vector of a group overlaps the one before it. It is read before anything is written, because `out` may be
# `source`.


# ---- statistics
#
# 32 lanes at a time: four registers of AVX2, so that four chains of dependent additions run side by side. Sums are
# around a pivot near the mean, so that no digits cancel, and float32 only within a block and a lane.


@helper
def _about(source: Any, start: int, width: int, n_rows: int, row: int) -> float:
    """Return about what the values of a group are: the mean of some here and there, a float32.

    A group is `width` neighbours in each of `n_rows`, which begin `row` values apart.
    """
    total = count = splat8(_ZERO)
    for k in range(8):
        x = load8(source, start + (width - 8) * k // 7 + (n_rows - 1) * k // 7 * row)
        total = add(total, where_finite(x, x, splat8(_ZERO)))
        count = add(count, where_finite(x, splat8(_ONE), splat8(_ZERO)))
    return np.float64(np.float32(lane_sum(total) / max(lane_sum(count), _ONE)))


@helper
def _copy(source: Any, out: Any, start: int, width: int, pivot: float) -> Any:
    """Copy a group; return Σ(x − pivot) and Σ(x − pivot)², not finite if a value is not."""
    pivot_, zero, last = splat32(pivot), splat32(_ZERO), start + width - LANES
    tail = load32(source, last)
    d = last_lanes(sub(tail, pivot_), width % LANES, zero)
    total1, total2 = lane_sum(widen(d)), lane_sum(widen(mul(d, d)))
    for block in range(start, last + 1, BLOCK):
        d1 = d2 = zero
        for i in range(block, min(block + BLOCK, last + 1), LANES):
            x = load32(source, i)
            store(out, i, x)
            d = sub(x, pivot_)
            d1, d2 = add(d1, d), fma(d, d, d2)
        total1, total2 = total1 + lane_sum(widen(d1)), total2 + lane_sum(widen(d2))
    store(out, last, tail)
    return total1, total2


@helper
def _sums_of_present(values: Any, start: int, width: int, pivot: float) -> Any:
    """Return how many values of a group are finite, Σ(x − pivot) and Σ(x − pivot)² of these."""
    pivot_, zero, one, last = splat32(pivot), splat32(_ZERO), splat32(_ONE), start + width - LANES
    x = last_lanes(load32(values, last), width % LANES, splat32(_NAN))
    d = where_finite(x, sub(x, pivot_), zero)
    n = lane_sum(widen(where_finite(x, one, zero)))
    total1, total2 = lane_sum(widen(d)), lane_sum(widen(mul(d, d)))
    for block in range(start, last + 1, BLOCK):
        count = d1 = d2 = zero
        for i in range(block, min(block + BLOCK, last + 1), LANES):
            x = load32(values, i)
            d = where_finite(x, sub(x, pivot_), zero)
            count = add(count, where_finite(x, one, zero))
            d1, d2 = add(d1, d), fma(d, d, d2)
        n, total1 = n + lane_sum(widen(count)), total1 + lane_sum(widen(d1))
        total2 += lane_sum(widen(d2))
    return n, total1, total2


@helper
def _sums(source: Any, out: Any, start: int, width: int, pivot: float) -> Any:
    """Write a group; return n, Σ(x − pivot), Σ(x − pivot)² of what is there.

    Where `out` is `source`, the compiler leaves out the writing.
    """
    d1, d2 = _copy(source, out, start, width, pivot)
    if math.isfinite(d2):
        return np.float64(width), d1, d2
    return _sums_of_present(out, start, width, pivot)


@helper
def _mean_and_scale(out: Any, start: int, width: int, sums: Any, pivot: float) -> Any:
    """Return mean and 1 / (standard deviation + 1e-6) of the values in `out`, of which `_sums` returned `sums`."""
    n, d1, d2 = sums
    if d1 * d1 > 0.8 * n * d2:  # the pivot lies more than two standard deviations off
        pivot = np.float64(np.float32(pivot + d1 / n))
        n, d1, d2 = _sums(out, out, start, width, pivot)
    n = max(n, 1.0)
    return pivot + d1 / n, 1.0 / (math.sqrt(max(d2 - d1 * d1 / n, 0.0) / n) + EPSILON)


# ---- normalisation


@helper
def _scale(source: Any, out: Any, start: int, width: int, mean: float, scale: float) -> None:
    """Write (x − mean) · scale, 0 where that is not finite; from the end on, which is still in a cache."""
    mean_, scale_, zero, last = splat32(mean), splat32(scale), splat32(_ZERO), start + width - LANES
    tail = mul(sub(load32(source, last), mean_), scale_)
    for i in range(start + width // LANES * LANES - LANES, start - 1, -LANES):
        x = mul(sub(load32(source, i), mean_), scale_)
        store(out, i, where_finite(x, x, zero))
    store(out, last, where_finite(tail, tail, zero))


_FLAT = (FLOATS, *[types.int64] * 3, types.boolean, types.float64, types.float64)


@compiled(plain.normalise, float32=(FLOATS_IN, *_FLAT), uint16=(HALVES_IN, *_FLAT))
def normalise(
    source: Any, out: Any, first: int, size: int, width: int, given: bool, mean: float, scale: float
) -> None:
    """Some images, `size` values from element `first` on, of which every `width` share their statistics."""
    for start in range(first, first + size, width):
        if given:
            _scale(source, out, start, width, mean, scale)
        else:
            pivot = _about(source, start, width, 1, 0)
            sums = _sums(source, out, start, width, pivot)
            mean_, scale_ = _mean_and_scale(out, start, width, sums, pivot)
            _scale(out, out, start, width, mean_, scale_)


# ---- stored rows


@helper
def _copy_block(rows: Any, out: Any, n_times: int, n_columns: int, t: int, c: int) -> None:
    """Write 8 rows × 8 columns as 8 columns × 8 rows."""
    i = t * n_columns + c
    block = transpose(
        (
            load8(rows, i),
            load8(rows, i + n_columns),
            load8(rows, i + 2 * n_columns),
            load8(rows, i + 3 * n_columns),
            load8(rows, i + 4 * n_columns),
            load8(rows, i + 5 * n_columns),
            load8(rows, i + 6 * n_columns),
            load8(rows, i + 7 * n_columns),
        )
    )
    i = c * n_times + t
    store(out, i, block[0])
    store(out, i + n_times, block[1])
    store(out, i + 2 * n_times, block[2])
    store(out, i + 3 * n_times, block[3])
    store(out, i + 4 * n_times, block[4])
    store(out, i + 5 * n_times, block[5])
    store(out, i + 6 * n_times, block[6])
    store(out, i + 7 * n_times, block[7])


_ROWS = (FLOATS, *[types.int64] * 3, types.boolean, types.float64, types.float64)


@compiled(plain.normalise_rows, float32=(FLOATS_IN, *_ROWS), uint16=(HALVES_IN, *_ROWS))
def normalise_rows(
    rows: Any, out: Any, n_times: int, n_columns: int, width: int, given: bool, mean: float, scale: float
) -> None:
    """Rows of one record; every `width` columns share their statistics.

    Transposed by blocks of 8 × 8; the last of a direction overlaps the one before it, which writes the same.
    """
    for group in range(0, n_columns, width):
        pivot = 0.0 if given else _about(rows, group, width, n_times, n_columns)
        n, d1, d2, stop = 0.0, 0.0, 0.0, group + width
        for column in range(group, stop, 8):
            c = min(column, stop - 8)
            for t in range(0, n_times, 8):
                _copy_block(rows, out, n_times, n_columns, min(t, n_times - 8), c)
            if not given:
                start, size = column * n_times, (c + 8 - column) * n_times
                b0, b1, b2 = _sums(out, out, start, size, pivot)
                n, d1, d2 = n + b0, d1 + b1, d2 + b2
        start, size = group * n_times, width * n_times
        if given:
            _scale(out, out, start, size, mean, scale)
        else:
            mean_, scale_ = _mean_and_scale(out, start, size, (n, d1, d2), pivot)
            _scale(out, out, start, size, mean_, scale_)
