"""Panels in compiled code: logarithm, normalisation and stored rows, on flat arrays.

The public functions, and what they promise, stand in `kagglehms.features.panels`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types

from kagglehms.data.competition import LOG_CLIP
from kagglehms.features import plain
from kagglehms.features.jit import FLOATS, FLOATS_IN, HALVES_IN, compiled, helper
from kagglehms.features.simd import (
    add,
    all_finite,
    between,
    exponent,
    fma,
    lane_sum,
    last_lanes,
    load8,
    load32,
    mantissa,
    mul,
    or_zero,
    splat32,
    store,
    sub,
    transpose,
    widen,
)

LANES = 32
"""Lanes of what runs over flat arrays: four registers of AVX2."""
BLOCK = 4096
"""Values whose statistics are taken together: with their copy, a first-level cache."""

EPSILON = plain.EPSILON
_CLIP_LOW = np.float32(math.exp(LOG_CLIP[0]))
_CLIP_HIGH = np.float32(math.exp(LOG_CLIP[1]))
_NAN = np.float32(np.nan)
_ZERO = np.float32(0)
_ONE = np.float32(1)
_NOTHING = np.float32(-0.0)
"""What changes no number when it is added."""


# ---- logarithm and normalisation
#
# Flat arrays, 32 lanes at a time: four registers of AVX2, so that four chains of dependent operations run side by
# side. The last vector of a group overlaps the one before it; it is read first, because `out` may be `source`.
# Statistics are taken block by block, while a block is in the first-level cache.


@helper
def _parts(source: Any, i: int) -> Any:
    """f and 2^23 e of powers 2^e (1 + f), clipped, with 1 + f in [√½, √2)."""
    x = between(load32(source, i), splat32(_CLIP_LOW), splat32(_CLIP_HIGH))
    return sub(mantissa(x), splat32(_ONE)), exponent(x)


@helper
def _ln(parts: Any, gap: Any) -> Any:
    """Natural logarithm of what has these parts, plus `gap`; within 6e-7, most of it rounding.

    ln x = e ln 2 + f + f² P(f). P is the minimax fit of degree 6 on that interval (error of the sum 4e-8). Horner's
    scheme, slow by itself, leaves the four chains enough registers.
    """
    f, e = parts
    p = fma(splat32(-0.10034618), f, splat32(0.16335642))
    p = fma(p, f, splat32(-0.17325994))
    p = fma(p, f, splat32(0.19888277))
    p = fma(p, f, splat32(-0.24961466))
    p = fma(p, f, splat32(0.33335263))
    p = fma(p, f, splat32(-0.50000584))
    return fma(e, splat32(0.69314718 * 2.0**-23), fma(p, mul(f, f), add(f, gap)))


@helper
def _read(source: Any, i: int, take_log: bool, gaps: bool) -> Any:
    """Values, or the logarithms of clipped powers; NaN where they are not finite, if there may be such."""
    x = load32(source, i)
    gap = splat32(_NOTHING)
    if gaps:
        gap = sub(x, x)
    if take_log:
        return _ln(_parts(source, i), gap)
    return add(x, gap)


@helper
def _present(x: Any) -> Any:
    """1 where `x` is not NaN, else 0."""
    return or_zero(add(sub(x, x), splat32(_ONE)))


@helper
def _all_present(source: Any, start: int, width: int) -> bool:
    """Whether no value of a group is missing; may say no where the sum of finite values overflows."""
    last = start + width - LANES
    total = load32(source, last)
    for i in range(start, last, LANES):
        total = add(total, load32(source, i))
    return all_finite(total)


@helper
def _about(source: Any, i: int, take_log: bool) -> float:
    """Return about what the values of a group are: the mean of its first that are present."""
    x = _read(source, i, take_log, True)
    return np.float64(lane_sum(or_zero(x)) / max(lane_sum(_present(x)), _ONE))


@helper
def _moments(
    source: Any, out: Any, start: int, width: int, take_log: bool, copy: bool, gaps: bool, pivot: float
) -> Any:
    """Copy a block; return how many values are present, Σ(x − pivot) and Σ(x − pivot)² (float32 within a lane)."""
    pivot_, last = splat32(pivot), start + width - LANES
    tail = _read(source, last, take_log, gaps)
    x = last_lanes(tail, width % LANES, splat32(_NAN))
    count, d1 = _present(x), or_zero(sub(x, pivot_))
    d2 = mul(d1, d1)
    for i in range(start, last + 1, LANES):
        x = _read(source, i, take_log, gaps)
        if copy:
            store(out, i, x)
        d = sub(x, pivot_)
        if gaps:
            count, d = add(count, _present(x)), or_zero(d)
        d1, d2 = add(d1, d), fma(d, d, d2)
    if copy:
        store(out, last, tail)
    n = np.float64(lane_sum(count)) if gaps else np.float64(width)
    return n, lane_sum(widen(d1)), lane_sum(widen(d2))


@helper
def _log_moments(source: Any, out: Any, start: int, width: int, pivot: float) -> Any:
    """Do what `_moments` does to logarithms without gaps.

    A polynomial is one long chain of dependent operations. So each vector's parts are taken while the one before is
    still in its polynomial.
    """
    pivot_, last = splat32(pivot), start + width - LANES
    tail = _read(source, last, True, False)
    d1 = or_zero(sub(last_lanes(tail, width % LANES, splat32(_NAN)), pivot_))
    d2 = mul(d1, d1)
    parts = _parts(source, start)
    for i in range(start, last + 1, LANES):
        coming = _parts(source, min(i + LANES, last))
        x = _ln(parts, splat32(_NOTHING))
        store(out, i, x)
        d = sub(x, pivot_)
        d1, d2, parts = add(d1, d), fma(d, d, d2), coming
    store(out, last, tail)
    return np.float64(width), lane_sum(widen(d1)), lane_sum(widen(d2))


@helper
def _add_group(source: Any, out: Any, start: int, width: int, take_log: bool, copy: bool, known: Any) -> Any:
    """Copy a group and add it to what is known: how many values, their mean, the sum of squares around it.

    Squares are taken around a pivot near the mean, so that no digits cancel. Blocks are merged as T. Chan, G. Golub
    and R. LeVeque do (The American Statistician, 1983).
    """
    n, mean, squares = known
    n_blocks = max(1, width // BLOCK)
    for block in range(n_blocks):
        first = start + block * BLOCK
        size = BLOCK if block < n_blocks - 1 else start + width - first
        pivot = np.float64(np.float32(mean)) if n > 0 else _about(source, first, take_log)
        if not _all_present(source, first, size):
            count, d1, d2 = _moments(source, out, first, size, take_log, copy, True, pivot)
        elif take_log and copy:
            count, d1, d2 = _log_moments(source, out, first, size, pivot)
        else:
            count, d1, d2 = _moments(source, out, first, size, take_log, copy, False, pivot)
        if d1 * d1 > 0.8 * count * d2:  # the pivot lies more than two standard deviations off
            pivot = np.float64(np.float32(pivot + d1 / count))
            count, d1, d2 = _moments(out, out, first, size, False, False, True, pivot)
        if count > 0:
            away = pivot + d1 / count - mean
            mean += away * count / (n + count)
            squares += d2 - d1 * d1 / count + away * away * n * count / (n + count)
            n += count
    return n, mean, squares


@helper
def _scale(
    source: Any, out: Any, start: int, width: int, take_log: bool, gaps: bool, mean: float, scale: float
) -> None:
    """Write (x − mean) · scale, 0 where a value is missing; from the end on, which is still in a cache."""
    mean_, scale_, last = splat32(mean), splat32(scale), start + width - LANES
    tail = or_zero(mul(sub(_read(source, last, take_log, gaps), mean_), scale_))
    for i in range(start + width // LANES * LANES - LANES, start - 1, -LANES):
        x = mul(sub(_read(source, i, take_log, gaps), mean_), scale_)
        store(out, i, or_zero(x))
    store(out, last, tail)


@helper
def _normalise(
    source: Any, out: Any, start: int, width: int, take_log: bool, given: bool, mean: float, scale: float
) -> None:
    if given:
        _scale(source, out, start, width, take_log, True, mean, scale)
    else:
        n, mean_, squares = _add_group(source, out, start, width, take_log, True, (0.0, 0.0, 0.0))
        _scale(out, out, start, width, False, False, mean_, _one_over(n, squares))


@helper
def _one_over(n: float, squares: float) -> float:
    """1 / (standard deviation + 1e-6)"""
    return 1.0 / (math.sqrt(max(squares, 0.0) / max(n, 1.0)) + EPSILON)


_FLAT = (FLOATS, *[types.int64] * 3, types.boolean, types.float64, types.float64)


@compiled(plain.log_normalise, float32=(FLOATS_IN, *_FLAT), uint16=(HALVES_IN, *_FLAT))
def log_normalise(
    power: Any, out: Any, first: int, size: int, width: int, given: bool, mean: float, scale: float
) -> None:
    """Some images, `size` powers from element `first` on, of which every `width` share their statistics."""
    for start in range(first, first + size, width):
        _normalise(power, out, start, width, True, given, mean, scale)


@compiled(plain.normalise, float32=(FLOATS_IN, *_FLAT), uint16=(HALVES_IN, *_FLAT))
def normalise(
    source: Any, out: Any, first: int, size: int, width: int, given: bool, mean: float, scale: float
) -> None:
    """The same for logarithms of power."""
    for start in range(first, first + size, width):
        _normalise(source, out, start, width, False, given, mean, scale)


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
        known, stop = (0.0, 0.0, 0.0), group + width
        for column in range(group, stop, 8):
            c = min(column, stop - 8)
            for t in range(0, n_times, 8):
                _copy_block(rows, out, n_times, n_columns, min(t, n_times - 8), c)
            if not given:
                known = _add_group(
                    out, out, column * n_times, (c + 8 - column) * n_times, False, False, known
                )
        if given:
            mean_, scale_ = mean, scale
        else:
            mean_, scale_ = known[1], _one_over(known[0], known[2])
        _scale(out, out, group * n_times, width * n_times, False, True, mean_, scale_)
