"""Across four panels in compiled code, pixel by pixel: percentiles and summaries, on flat arrays.

The public functions, and what they promise, stand in `kagglehms.features.panels`. A result larger than the caches
(`past`) is written past them, which saves reading what will be overwritten.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from kagglehms.features import plain
from kagglehms.features.jit import FLOATS, FLOATS_IN, HALVES_IN, compiled, helper
from kagglehms.features.simd import (
    add,
    all_finite,
    div,
    fma,
    load16,
    lower,
    mul,
    splat16,
    store,
    stream,
    sub,
    upper,
    where_finite,
)

WIDTH = 16
"""Lanes of what runs over four panels at a time."""
PART = 64 * WIDTH
"""Pixels that are looked through for gaps at once."""

_ZERO = np.float32(0)
_ONE = np.float32(1)


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
def percentiles(panels: Any, out: Any, first: int, size: int, n: int, past: bool) -> None:
    """Images of four panels of `n` pixels, `size` elements from `first` on; a part with gaps is done once more."""
    for image in range(first, first + size, 4 * n):
        last = image + n - WIDTH
        for part in range(image, image + n, PART):
            bad, end = splat16(_ZERO), min(part + PART, image + n)
            for i in range(part, end, WIDTH):
                bad = _percentiles_at(panels, out, min(i, last), n, past and i <= last, bad)
            if not all_finite(bad):
                for i in range(part, end, WIDTH):
                    _percentiles_of_present_at(panels, out, min(i, last), n, past and i <= last)


@compiled(plain.summaries, float32=(FLOATS_IN, *_ACROSS), uint16=(HALVES_IN, *_ACROSS))
def summaries(panels: Any, out: Any, first: int, size: int, n: int, past: bool) -> None:
    """Images of four panels of `n` pixels, `size` elements from `first` on; a part with gaps is done once more."""
    for image in range(first, first + size, 4 * n):
        last = image + n - WIDTH
        for part in range(image, image + n, PART):
            bad, end = splat16(_ZERO), min(part + PART, image + n)
            for i in range(part, end, WIDTH):
                bad = _summaries_at(panels, out, min(i, last), n, past and i <= last, bad)
            if not all_finite(bad):
                for i in range(part, end, WIDTH):
                    _summaries_of_present_at(panels, out, min(i, last), n, past and i <= last)
