"""Across four panels in compiled code, pixel by pixel: percentiles and summaries, on flat arrays.

`kagglehms.features.panels` has the public functions and says what they promise. A result larger than the caches is
written past them (`past`), which saves reading what will be overwritten.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kagglehms.features.jit import Floats, Source, helper
from kagglehms.features.simd import (
    add,
    all_finite,
    div,
    fma,
    load16,
    lower,
    mul,
    splat16,
    store_rows,
    stream,
    sub,
    upper,
    where_finite,
)

WIDTH = 16
"""Pixels of each panel that are computed at a time."""
PART = 64 * WIDTH
"""Pixels that are searched for gaps at a time."""

_ZERO = np.float32(0)
_ONE = np.float32(1)


# ---- four panels at a time


@helper
def _load4(panels: Any, i: int, n: int) -> Any:
    return load16(panels, i), load16(panels, i + n), load16(panels, i + 2 * n), load16(panels, i + 3 * n)


@helper
def _write4(out: Any, i: int, n: int, past: bool, rows: Any) -> None:
    """Write one vector to each of four panels, past the caches or not."""
    if past:
        stream(out, i, rows[0])
        stream(out, i + n, rows[1])
        stream(out, i + 2 * n, rows[2])
        stream(out, i + 3 * n, rows[3])
    else:
        store_rows(out, i, n, rows)


@helper
def _for_each(
    panels: Any, out: Any, first: int, size: int, n: int, past: bool, complete: Any, present: Any
) -> None:
    """Fill images of four panels of `n` pixels, `size` elements from `first` on.

    Args:
        panels: the images, flat.
        out: the result, flat.
        first: index of the first element.
        size: number of elements.
        n: pixels of a panel.
        past: whether the result is written past the caches.
        complete: computes one vector of pixels for four panels without gaps, and marks those with gaps.
        present: computes one vector of pixels from the panels that are present; for parts in which there are gaps.
    """
    for image in range(first, first + size, 4 * n):
        last = image + n - WIDTH
        for part in range(image, image + n, PART):
            gaps, end = splat16(_ZERO), min(part + PART, image + n)
            for i in range(part, end, WIDTH):
                panel_rows = _load4(panels, min(i, last), n)
                result, gaps = complete(panel_rows, gaps)
                _write4(out, min(i, last), n, past and i <= last, result)
            if not all_finite(gaps):
                for i in range(part, end, WIDTH):
                    result = present(_load4(panels, min(i, last), n))
                    _write4(out, min(i, last), n, past and i <= last, result)


# ---- percentiles


@helper
def _between(low: Any, high: Any, weight: float) -> Any:
    """Interpolate as `numpy` does, starting from the nearer end; unfused, in float32, or bits differ."""
    if weight >= 0.5:
        return sub(high, mul(sub(high, low), splat16(np.float32(1.0 - weight))))
    return add(low, mul(sub(high, low), splat16(np.float32(weight))))


@helper
def _percentile(s: Any, quantile: float) -> Any:
    """Return one percentile of four sorted vectors."""
    at = 3 * quantile
    if at < 1:
        return _between(s[0], s[1], at)
    if at < 2:
        return _between(s[1], s[2], at - 1)
    return _between(s[2], s[3], at - 2)


@helper
def _percentile_of_present(s: Any, quantile: float) -> Any:
    """Return one percentile where what is missing was sorted to the end as +inf."""
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
def _percentiles(panels: Any, gaps: Any) -> Any:
    """Return the percentiles of panels without gaps, and `gaps` + 0, or NaN where there is one."""
    a, b, c, d = panels
    s = _sorted(a, b, c, d)
    result = _percentile(s, 0.2), _percentile(s, 0.4), _percentile(s, 0.6), _percentile(s, 0.8)
    return result, fma(add(add(a, b), add(c, d)), splat16(_ZERO), gaps)


@helper
def _percentiles_of_present(panels: Any) -> Any:
    infinity = splat16(np.inf)
    a, b, c, d = panels
    a, b = where_finite(a, a, infinity), where_finite(b, b, infinity)
    s = _sorted(a, b, where_finite(c, c, infinity), where_finite(d, d, infinity))
    p20, p40 = _percentile_of_present(s, 0.2), _percentile_of_present(s, 0.4)
    return p20, p40, _percentile_of_present(s, 0.6), _percentile_of_present(s, 0.8)


def percentiles(panels: Source, out: Floats, first: int, size: int, n: int, past: bool) -> None:
    """Write percentiles of images of four panels of `n` pixels, `size` elements from `first` on."""
    _for_each(panels, out, first, size, n, past, _percentiles, _percentiles_of_present)


# ---- summaries


@helper
def _summaries(panels: Any, gaps: Any) -> Any:
    """Return the summaries of panels without gaps, and `gaps` + 0, or NaN where there is one."""
    a, b, c, d = panels
    low, high = lower(lower(a, b), lower(c, d)), upper(upper(a, b), upper(c, d))
    total = add(add(add(a, b), c), d)  # in the order in which NumPy adds
    return (low, high, mul(total, splat16(0.25)), sub(high, low)), fma(total, splat16(_ZERO), gaps)


@helper
def _summaries_of_present(panels: Any) -> Any:
    zero, infinity = splat16(_ZERO), splat16(np.inf)
    low, high, total, count = infinity, splat16(-np.inf), zero, zero
    for x in panels:
        low = lower(where_finite(x, x, infinity), low)
        high = upper(where_finite(x, x, splat16(-np.inf)), high)
        total = add(total, where_finite(x, x, zero))
        count = add(count, where_finite(x, splat16(_ONE), zero))
    low, high = where_finite(low, low, zero), where_finite(high, high, zero)
    return low, high, div(total, upper(count, splat16(_ONE))), sub(high, low)


def summaries(panels: Source, out: Floats, first: int, size: int, n: int, past: bool) -> None:
    """Write summaries of images of four panels of `n` pixels, `size` elements from `first` on."""
    _for_each(panels, out, first, size, n, past, _summaries, _summaries_of_present)
