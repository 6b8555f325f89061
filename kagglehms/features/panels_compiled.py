"""Panels in compiled code: normalisation and stored rows, on flat arrays.

`kagglehms.features.panels` has the public functions and says what they promise.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from kagglehms.features.jit import Floats, Source, helper
from kagglehms.features.simd import (
    add,
    fma,
    lane_sum,
    last_lanes,
    load8,
    load32,
    load_rows8,
    mul,
    splat8,
    splat32,
    store,
    store_rows,
    sub,
    transpose,
    where_finite,
    widen,
)

LANES = 32
"""Lanes of what runs over flat arrays: four registers of AVX2."""
BLOCK = 4096
"""Values that are summed in float32, 128 in a lane; sums of blocks are float64."""
SIDE = 8
"""Rows and columns of the squares in which stored rows are transposed."""
EPSILON = 1e-6
"""Added to a standard deviation before it is divided by, as the source does."""

_NAN = np.float32(np.nan)
_ZERO = np.float32(0)
_ONE = np.float32(1)


class Statistics(NamedTuple):
    """What a group is normalised by.

    Attributes:
        given: whether `mean` and `scale` are used; if not, each group is normalised by its own.
        mean: value that is subtracted.
        scale: factor after that, 1 / (standard deviation + `EPSILON`).
    """

    given: bool
    mean: float
    scale: float


# ---- statistics
#
# 32 lanes at a time: four registers of AVX2, so that four chains of dependent additions run side by side. Sums are
# around a pivot near the mean, so that no digits cancel, and float32 only within a block and a lane. The last vector of
# a group overlaps the one before it; it is read before anything is written, because `out` may be `source`.


@helper
def _about(source: Any, start: int, width: int, n_rows: int, row: int) -> float:
    """Return roughly the mean of a group: that of eight short stretches of it, a float32.

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
    """Return the number of finite values of a group, their Σ(x − pivot) and Σ(x − pivot)²."""
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
    """Copy a group; return the number of its finite values, their Σ(x − pivot) and Σ(x − pivot)².

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


def normalise(source: Source, out: Floats, first: int, size: int, width: int, by: Statistics) -> None:
    """Write `size` normalised values, from element `first` on, of which every `width` are a group."""
    for start in range(first, first + size, width):
        if by.given:
            _scale(source, out, start, width, by.mean, by.scale)
        else:
            pivot = _about(source, start, width, 1, 0)
            sums = _sums(source, out, start, width, pivot)
            mean, scale = _mean_and_scale(out, start, width, sums, pivot)
            _scale(out, out, start, width, mean, scale)


# ---- stored rows


@helper
def _transpose_square(rows: Any, out: Any, n_times: int, n_columns: int, t: int, c: int) -> None:
    """Write 8 rows × 8 columns, from row t and column c on, as 8 columns × 8 rows."""
    square = transpose(load_rows8(rows, t * n_columns + c, n_columns))
    store_rows(out, c * n_times + t, n_times, square)


def normalise_rows(
    rows: Source, out: Floats, n_times: int, n_columns: int, width: int, by: Statistics
) -> None:
    """Write the normalised columns of (n_times, n_columns) `rows`, of which every `width` are a group.

    They are transposed in squares of 8 × 8; the last of a direction overlaps the one before it, which writes the same.
    """
    for group in range(0, n_columns, width):
        pivot = 0.0 if by.given else _about(rows, group, width, n_times, n_columns)
        n, d1, d2, stop = 0.0, 0.0, 0.0, group + width
        for column in range(group, stop, SIDE):
            c = min(column, stop - SIDE)
            for t in range(0, n_times, SIDE):
                _transpose_square(rows, out, n_times, n_columns, min(t, n_times - SIDE), c)
            if not by.given:
                start, size = column * n_times, (c + SIDE - column) * n_times
                b0, b1, b2 = _sums(out, out, start, size, pivot)
                n, d1, d2 = n + b0, d1 + b1, d2 + b2
        start, size = group * n_times, width * n_times
        if by.given:
            _scale(out, out, start, size, by.mean, by.scale)
        else:
            mean, scale = _mean_and_scale(out, start, size, (n, d1, d2), pivot)
            _scale(out, out, start, size, mean, scale)
