"""Panels in compiled code: normalisation, stored rows, percentiles and summaries, on flat arrays.

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
    div,
    exponent,
    fma,
    lane_sum,
    last_lanes,
    load8,
    load16,
    load32,
    lower,
    mantissa,
    mul,
    or_zero,
    splat16,
    splat32,
    store,
    stream,
    sub,
    transpose,
    upper,
    where_finite,
    widen,
)

LANES = 32
"""Lanes of what runs over flat arrays: four registers of AVX2."""
WIDTH = 16
"""Lanes of what runs over four panels at a time."""
PART = 64 * WIDTH
"""Pixels that are looked through for gaps at once."""
BLOCK = 8192
"""Values whose statistics are taken together: a first-level cache full."""

EPSILON = plain.EPSILON
_CLIP_LOW = np.float32(math.exp(LOG_CLIP[0]))
_CLIP_HIGH = np.float32(math.exp(LOG_CLIP[1]))
_NAN = np.float32(np.nan)
_ZERO = np.float32(0)
_ONE = np.float32(1)


# ---- logarithm and normalisation
#
# Flat arrays, 32 lanes at a time: four registers of AVX2, so that four chains of dependent operations run side by
# side. The last vector of a group overlaps the one before it; it is read first, because `out` may be `source`.


@helper
def _ln(x: Any, one: Any) -> Any:
    """Natural logarithm of positive normal float32, within 1e-6 where |ln x| < 9 (half of it rounding of the result).

    x = 2^e (1 + f) with 1 + f in [√½, √2): ln x = e ln 2 + f − f²/2 + f³ P(f). P is the minimax fit of degree 5
    on that interval (error of the sum 6e-8), summed in pairs to keep the chain of dependent operations short.
    `one` is 1, or NaN where the result is to be NaN.
    """
    f = sub(mantissa(x), one)
    f2 = mul(f, f)
    p01 = fma(splat32(-0.24980571), f, splat32(0.33334691))
    p23 = fma(splat32(-0.17166959), f, splat32(0.19910245))
    p45 = fma(splat32(-0.10223938), f, splat32(0.16141125))
    p = fma(fma(p45, f2, p23), f2, p01)
    series = fma(fma(p, f, splat32(-0.5)), f2, f)
    return fma(exponent(x), splat32(0.69314718 * 2.0**-23), series)


@helper
def _read(source: Any, i: int, take_log: bool) -> Any:
    """Values, or the logarithms of clipped powers; NaN where they are not finite, because 0 · ∞ is."""
    x = load32(source, i)
    zero = splat32(_ZERO)
    if take_log:
        clipped = lower(upper(x, splat32(_CLIP_LOW)), splat32(_CLIP_HIGH))
        x = _ln(clipped, fma(x, zero, splat32(_ONE)))
    else:
        x = fma(x, zero, x)
    return x


@helper
def _copy_and_sum(source: Any, out: Any, start: int, width: int, take_log: bool) -> Any:
    """Copy a group and return its rough sum, which is not finite where a value is missing."""
    last = start + width - LANES
    tail = _read(source, last, take_log)
    total = last_lanes(tail, width % LANES, splat32(_ZERO))
    for i in range(start, last + 1, LANES):
        x = _read(source, i, take_log)
        total = add(total, x)
        store(out, i, x)
    store(out, last, tail)
    return np.float64(lane_sum(total))


@helper
def _count_and_sum(values: Any, start: int, width: int) -> Any:
    """Return how many values of a group are present, and their rough sum."""
    one, last = splat32(_ONE), start + width - LANES
    tail = last_lanes(load32(values, last), width % LANES, splat32(_NAN))
    count, total = or_zero(add(sub(tail, tail), one)), or_zero(tail)
    for i in range(start, last + 1, LANES):
        x = load32(values, i)
        count = add(count, or_zero(add(sub(x, x), one)))
        total = add(total, or_zero(x))
    return np.float64(lane_sum(count)), np.float64(lane_sum(total))


@helper
def _moments(values: Any, start: int, width: int, pivot: float, gaps: bool) -> Any:
    """Return Σ(x − pivot) and Σ(x − pivot)² of what is present: float32 for up to 16 terms, then float64."""
    pivot_, zero, last = splat32(pivot), splat32(_ZERO), start + width - LANES
    d = or_zero(sub(last_lanes(load32(values, last), width % LANES, splat32(_NAN)), pivot_))
    first, second = widen(d), widen(mul(d, d))
    for part in range(start, last + 1, 16 * LANES):
        d1 = d2 = zero
        for i in range(part, min(part + 16 * LANES, last + 1), LANES):
            d = sub(load32(values, i), pivot_)
            if gaps:
                d = or_zero(d)
            d1, d2 = add(d1, d), fma(d, d, d2)
        first, second = add(first, widen(d1)), add(second, widen(d2))
    return lane_sum(first), lane_sum(second)


@helper
def _scale(source: Any, out: Any, start: int, width: int, take_log: bool, mean: float, scale: float) -> None:
    """Write (x − mean) · scale, 0 where a value is missing."""
    mean_, scale_, last = splat32(mean), splat32(scale), start + width - LANES
    tail = or_zero(mul(sub(_read(source, last, take_log), mean_), scale_))
    for i in range(start, last + 1, LANES):
        store(out, i, or_zero(mul(sub(_read(source, i, take_log), mean_), scale_)))
    store(out, last, tail)


@helper
def _statistics(source: Any, out: Any, start: int, width: int, take_log: bool) -> Any:
    """Copy a group and return its mean and 1 / (standard deviation + 1e-6).

    Block by block, so that a block is still in the cache when its squares are summed, around a pivot near its mean, so
    that no digits cancel. Blocks are merged as T. Chan, G. Golub and R. LeVeque do (The American Statistician, 1983).
    """
    n = mean = squares = 0.0
    n_blocks = max(1, width // BLOCK)
    for block in range(n_blocks):
        first = start + width * block // n_blocks
        size = start + width * (block + 1) // n_blocks - first
        count, total = np.float64(size), _copy_and_sum(source, out, first, size, take_log)
        if np.isfinite(total):
            pivot = np.float64(np.float32(total / count))
            d1, d2 = _moments(out, first, size, pivot, False)
        else:
            count, total = _count_and_sum(out, first, size)
            pivot = np.float64(np.float32(total / max(count, 1.0)))
            d1, d2 = _moments(out, first, size, pivot, True)
        if count > 0:
            away = pivot + d1 / count - mean
            mean += away * count / (n + count)
            squares += d2 - d1 * d1 / count + away * away * n * count / (n + count)
            n += count
    return mean, 1.0 / (math.sqrt(max(squares, 0.0) / max(n, 1.0)) + EPSILON)


_FLAT = (FLOATS, *[types.int64] * 3, types.boolean, types.boolean, types.float64, types.float64)


@compiled(plain.normalise, float32=(FLOATS_IN, *_FLAT), uint16=(HALVES_IN, *_FLAT))
def normalise(
    source: Any,
    out: Any,
    image: int,
    size: int,
    width: int,
    take_log: bool,
    given: bool,
    mean: float,
    scale: float,
) -> None:
    """One image, `size` values from element `image` on, of which every `width` share their statistics."""
    for start in range(image, image + size, width):
        if given:
            _scale(source, out, start, width, take_log, mean, scale)
        else:
            mean_, scale_ = _statistics(source, out, start, width, take_log)
            _scale(out, out, start, width, False, mean_, scale_)


# ---- stored rows


@helper
def _copy_block(rows: Any, out: Any, n_times: int, n_columns: int, t: int, c: int) -> Any:
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


@helper
def _copy_columns(rows: Any, out: Any, n_times: int, n_columns: int) -> None:
    """Transpose by blocks of 8 × 8; the last of a direction overlaps the one before it, which writes the same."""
    for c in range(0, n_columns, 8):
        for t in range(0, n_times, 8):
            _copy_block(rows, out, n_times, n_columns, min(t, n_times - 8), min(c, n_columns - 8))


_ROWS = (FLOATS, *[types.int64] * 3, types.boolean, types.float64, types.float64)


@compiled(plain.normalise_rows, float32=(FLOATS_IN, *_ROWS), uint16=(HALVES_IN, *_ROWS))
def normalise_rows(
    rows: Any, out: Any, n_times: int, n_columns: int, width: int, given: bool, mean: float, scale: float
) -> None:
    """Rows of one record; every `width` columns share their statistics."""
    _copy_columns(rows, out, n_times, n_columns)
    size = width * n_times
    for start in range(0, n_columns * n_times, size):
        if given:
            _scale(out, out, start, size, False, mean, scale)
        else:
            mean_, scale_ = _statistics(out, out, start, size, False)
            _scale(out, out, start, size, False, mean_, scale_)


# ---- across the four panels
#
# A result larger than the caches (`past`) is written past them, which saves reading what will be overwritten.


@helper
def _between(low: Any, high: Any, weight: float) -> Any:
    """`numpy`'s linear interpolation, which starts from the nearer end; unfused, in float32, or bits differ."""
    if weight >= 0.5:
        return sub(high, mul(sub(high, low), splat16(np.float32(1.0 - weight))))
    return add(low, mul(sub(high, low), splat16(np.float32(weight))))


@helper
def _percentile(s: Any, quantile: float) -> Any:
    """One percentile of four sorted vectors."""
    at = 3 * quantile
    if at < 1:
        return _between(s[0], s[1], at)
    if at < 2:
        return _between(s[1], s[2], at - 1)
    return _between(s[2], s[3], at - 2)


@helper
def _percentile_of_present(s: Any, quantile: float) -> Any:
    """The same where what is missing was sorted to the end as +inf."""
    at = 2 * quantile
    three = _between(s[0], s[1], at) if at < 1 else _between(s[1], s[2], at - 1)
    two = _between(s[0], s[1], quantile)
    one = where_finite(s[0], s[0], splat16(_ZERO))
    fewer = where_finite(s[2], three, where_finite(s[1], two, one))
    return where_finite(s[3], _percentile(s, quantile), fewer)


@helper
def _sorted(a: Any, b: Any, c: Any, d: Any) -> Any:
    """Sort four vectors, lane by lane, with five comparators."""
    ab_low, ab_high, cd_low, cd_high = lower(a, b), upper(a, b), lower(c, d), upper(c, d)
    x, y = upper(ab_low, cd_low), lower(ab_high, cd_high)
    return lower(ab_low, cd_low), lower(x, y), upper(x, y), upper(ab_high, cd_high)


@helper
def _write4(out: Any, i: int, n: int, past: bool, a: Any, b: Any, c: Any, d: Any) -> None:
    """Write one vector to each of four panels, past the caches or not."""
    if past:
        stream(out, i, a)
        stream(out, i + n, b)
        stream(out, i + 2 * n, c)
        stream(out, i + 3 * n, d)
    else:
        store(out, i, a)
        store(out, i + n, b)
        store(out, i + 2 * n, c)
        store(out, i + 3 * n, d)


@helper
def _four(panels: Any, i: int, n: int) -> Any:
    return load16(panels, i), load16(panels, i + n), load16(panels, i + 2 * n), load16(panels, i + 3 * n)


@helper
def _percentiles_at(panels: Any, out: Any, i: int, n: int, past: bool, bad: Any) -> Any:
    """Percentiles of panels without gaps; `bad` + 0, or NaN where there was one."""
    a, b, c, d = _four(panels, i, n)
    s = _sorted(a, b, c, d)
    _write4(
        out, i, n, past, _percentile(s, 0.2), _percentile(s, 0.4), _percentile(s, 0.6), _percentile(s, 0.8)
    )
    return fma(add(add(a, b), add(c, d)), splat16(_ZERO), bad)


@helper
def _percentiles_of_present_at(panels: Any, out: Any, i: int, n: int, past: bool) -> None:
    infinity = splat16(np.inf)
    a, b, c, d = _four(panels, i, n)
    a, b = where_finite(a, a, infinity), where_finite(b, b, infinity)
    s = _sorted(a, b, where_finite(c, c, infinity), where_finite(d, d, infinity))
    p20, p40 = _percentile_of_present(s, 0.2), _percentile_of_present(s, 0.4)
    p60, p80 = _percentile_of_present(s, 0.6), _percentile_of_present(s, 0.8)
    _write4(out, i, n, past, p20, p40, p60, p80)


@helper
def _summaries_at(panels: Any, out: Any, i: int, n: int, past: bool, bad: Any) -> Any:
    """Summaries of panels without gaps; `bad` + 0, or NaN where there was one."""
    a, b, c, d = _four(panels, i, n)
    low, high = lower(lower(a, b), lower(c, d)), upper(upper(a, b), upper(c, d))
    total = add(add(add(a, b), c), d)  # in the order in which NumPy adds
    _write4(out, i, n, past, low, high, mul(total, splat16(0.25)), sub(high, low))
    return fma(total, splat16(_ZERO), bad)


@helper
def _summaries_of_present_at(panels: Any, out: Any, i: int, n: int, past: bool) -> None:
    zero, infinity = splat16(_ZERO), splat16(np.inf)
    low, high, total, count = infinity, splat16(-np.inf), zero, zero
    for x in _four(panels, i, n):
        low = lower(where_finite(x, x, infinity), low)
        high = upper(where_finite(x, x, splat16(-np.inf)), high)
        total = add(total, where_finite(x, x, zero))
        count = add(count, where_finite(x, splat16(_ONE), zero))
    low, high = where_finite(low, low, zero), where_finite(high, high, zero)
    _write4(out, i, n, past, low, high, div(total, upper(count, splat16(_ONE))), sub(high, low))


_ACROSS = (FLOATS, *[types.int64] * 3, types.boolean)


@compiled(plain.percentiles, float32=(FLOATS_IN, *_ACROSS), uint16=(HALVES_IN, *_ACROSS))
def percentiles(panels: Any, out: Any, first: int, stop: int, n: int, past: bool) -> None:
    """Images of four panels of `n` pixels, in elements `first` … `stop`; a part with gaps is done once more."""
    for image in range(first, stop, 4 * n):
        last = image + n - WIDTH
        for part in range(image, image + n, PART):
            bad, end = splat16(_ZERO), min(part + PART, image + n)
            for i in range(part, end, WIDTH):
                bad = _percentiles_at(panels, out, min(i, last), n, past and i <= last, bad)
            if not all_finite(bad):
                for i in range(part, end, WIDTH):
                    _percentiles_of_present_at(panels, out, min(i, last), n, past and i <= last)


@compiled(plain.summaries, float32=(FLOATS_IN, *_ACROSS), uint16=(HALVES_IN, *_ACROSS))
def summaries(panels: Any, out: Any, first: int, stop: int, n: int, past: bool) -> None:
    """Images of four panels of `n` pixels, in elements `first` … `stop`; a part with gaps is done once more."""
    for image in range(first, stop, 4 * n):
        last = image + n - WIDTH
        for part in range(image, image + n, PART):
            bad, end = splat16(_ZERO), min(part + PART, image + n)
            for i in range(part, end, WIDTH):
                bad = _summaries_at(panels, out, min(i, last), n, past and i <= last, bad)
            if not all_finite(bad):
                for i in range(part, end, WIDTH):
                    _summaries_of_present_at(panels, out, min(i, last), n, past and i <= last)
