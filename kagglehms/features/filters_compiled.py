"""The filters of `kagglehms.features.filters` on sixteen signals at once, one in each lane of a vector."""

from __future__ import annotations

from typing import Any

from kagglehms.features.jit import apart
from kagglehms.features.simd import LANES, broadcast16, fma, load16, mul, splat16, store, sub

OUTPUTS = 8
"""Samples that a convolution computes at once, in as many registers on AVX-512 and twice as many on AVX2."""


@apart
def two_modes(x: Any, at: int, n_times: int, coefficients: Any) -> None:
    """Filter in place by a direct path and two rotating modes, from rest."""
    direct = broadcast16(coefficients, 0)
    a, b = broadcast16(coefficients, 1), broadcast16(coefficients, 2)
    real_out, imag_out = broadcast16(coefficients, 3), broadcast16(coefficients, 4)
    c, d = broadcast16(coefficients, 5), broadcast16(coefficients, 6)
    real_out2, imag_out2 = broadcast16(coefficients, 7), broadcast16(coefficients, 8)
    minus_b, minus_d = sub(splat16(0.0), b), sub(splat16(0.0), d)
    real = imag = real2 = imag2 = splat16(0.0)
    for t in range(n_times):
        i = at + t * LANES
        value = load16(x, i)
        first = fma(imag_out, imag, fma(real_out, real, mul(direct, value)))
        store(x, i, fma(imag_out2, imag2, fma(real_out2, real2, first)))
        real, imag = fma(minus_b, imag, fma(a, real, value)), fma(b, real, mul(a, imag))
        real2, imag2 = fma(minus_d, imag2, fma(c, real2, value)), fma(d, real2, mul(c, imag2))


@apart
def reflect(x: Any, pad: int, n_times: int) -> None:
    """Go on beyond both ends by an odd reflection, and by zeros where the signal is too short for that."""
    first, last = load16(x, pad * LANES), load16(x, (pad + n_times - 1) * LANES)
    twice_first, twice_last = mul(first, splat16(2.0)), mul(last, splat16(2.0))
    for k in range(1, pad + 1):
        before = after = splat16(0.0)
        if k < n_times:
            before = sub(twice_first, load16(x, (pad + k) * LANES))
            after = sub(twice_last, load16(x, (pad + n_times - 1 - k) * LANES))
        store(x, (pad - k) * LANES, before)
        store(x, (pad + n_times - 1 + k) * LANES, after)


@apart
def convolve(x: Any, out: Any, n_times: int, taps: Any, half: int) -> None:
    """Convolve with 2·half + 1 symmetric taps, before and after which stand seven zeros.

    `x` goes on for `half` samples on both sides of what comes out.
    """
    for first in range(0, n_times, OUTPUTS):
        start = max(min(first, n_times - OUTPUTS), 0)
        y0 = y1 = y2 = y3 = y4 = y5 = y6 = y7 = splat16(0.0)
        for k in range(2 * half + OUTPUTS):
            value = load16(x, (start + k) * LANES)
            y0 = fma(broadcast16(taps, k + 7), value, y0)
            y1 = fma(broadcast16(taps, k + 6), value, y1)
            y2 = fma(broadcast16(taps, k + 5), value, y2)
            y3 = fma(broadcast16(taps, k + 4), value, y3)
            y4 = fma(broadcast16(taps, k + 3), value, y4)
            y5 = fma(broadcast16(taps, k + 2), value, y5)
            y6 = fma(broadcast16(taps, k + 1), value, y6)
            y7 = fma(broadcast16(taps, k), value, y7)
        i = start * LANES
        store(out, i, y0)
        store(out, i + LANES, y1)
        store(out, i + 2 * LANES, y2)
        store(out, i + 3 * LANES, y3)
        store(out, i + 4 * LANES, y4)
        store(out, i + 5 * LANES, y5)
        store(out, i + 6 * LANES, y6)
        store(out, i + 7 * LANES, y7)
