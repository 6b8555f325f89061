"""The filters of `kagglehms.features.filters` on sixteen signals at once, one in each lane of a vector."""

from __future__ import annotations

from typing import Any

from kagglehms.features.filters import BASIS_AT, BLOCK, COUPLING_AT, END_AT, N_SHORT, PAD, RANK, REACH
from kagglehms.features.jit import apart, helper
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


# ---- the linear filter: a short low-pass, of which every tap is used, less a long one of low rank


@apart
def convolve(x: Any, first_sample: int, out: Any, n_times: int, taps: Any, n_taps: int) -> None:
    """Write Σ taps(k) x(t + k), `n_taps` of them with seven zeros on both sides, for t from `first_sample` on.

    The last samples are computed twice where their number is no multiple of `OUTPUTS`, and some more than there are
    where there are fewer.
    """
    for first in range(0, n_times, OUTPUTS):
        start = max(min(first, n_times - OUTPUTS), 0)
        y0 = y1 = y2 = y3 = y4 = y5 = y6 = y7 = splat16(0.0)
        for k in range(n_taps + OUTPUTS - 1):
            value = load16(x, (first_sample + start + k) * LANES)
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


@apart
def _moments(x: Any, moments: Any, n_blocks: int, coefficients: Any) -> None:
    """Four products of each block of samples with the basis."""
    for block in range(n_blocks):
        m0 = m1 = m2 = m3 = splat16(0.0)
        for j in range(BLOCK):
            value, at = load16(x, (block * BLOCK + j) * LANES), BASIS_AT + j * RANK
            m0 = fma(broadcast16(coefficients, at), value, m0)
            m1 = fma(broadcast16(coefficients, at + 1), value, m1)
            m2 = fma(broadcast16(coefficients, at + 2), value, m2)
            m3 = fma(broadcast16(coefficients, at + 3), value, m3)
        i = block * RANK * LANES
        store(moments, i, m0)
        store(moments, i + LANES, m1)
        store(moments, i + 2 * LANES, m2)
        store(moments, i + 3 * LANES, m3)


@helper
def _weigh(moments: Any, block: int, coefficients: Any) -> Any:
    """The four coordinates, in the basis, of what the blocks around one contribute to it, itself in their middle."""
    z0 = z1 = z2 = z3 = splat16(0.0)
    for k in range((2 * REACH - 1) * RANK):
        value, at = load16(moments, ((block + 1) * RANK + k) * LANES), COUPLING_AT + k * RANK
        z0 = fma(broadcast16(coefficients, at), value, z0)
        z1 = fma(broadcast16(coefficients, at + 1), value, z1)
        z2 = fma(broadcast16(coefficients, at + 2), value, z2)
        z3 = fma(broadcast16(coefficients, at + 3), value, z3)
    return z0, z1, z2, z3


@helper
def _in_basis(coefficients: Any, i: int, z0: Any, z1: Any, z2: Any, z3: Any) -> Any:
    """Sample i of a block that has these coordinates."""
    at = BASIS_AT + i * RANK
    y = fma(broadcast16(coefficients, at + 1), z1, mul(broadcast16(coefficients, at), z0))
    return fma(broadcast16(coefficients, at + 3), z3, fma(broadcast16(coefficients, at + 2), z2, y))


@apart
def _take_off(x: Any, moments: Any, out: Any, block: int, coefficients: Any) -> None:
    """Take the long low-pass off one block of `out`: from low rank inside, tap by tap where the window ends."""
    z0, z1, z2, z3 = _weigh(moments, block, coefficients)
    before, after = block * BLOCK, (block + 2 * REACH) * BLOCK
    for i in range(0, BLOCK, 3):
        y0 = _in_basis(coefficients, i, z0, z1, z2, z3)
        y1 = _in_basis(coefficients, i + 1, z0, z1, z2, z3)
        y2 = _in_basis(coefficients, i + 2, z0, z1, z2, z3)
        for j in range(i, BLOCK):
            value, at = load16(x, (before + j) * LANES), END_AT + j - i
            y0 = fma(broadcast16(coefficients, at), value, y0)
            y1 = fma(broadcast16(coefficients, at - 1), value, y1)
            y2 = fma(broadcast16(coefficients, at - 2), value, y2)
        for j in range(i + 3):
            value, at = load16(x, (after + j) * LANES), END_AT + i - j
            y0 = fma(broadcast16(coefficients, at), value, y0)
            y1 = fma(broadcast16(coefficients, at + 1), value, y1)
            y2 = fma(broadcast16(coefficients, at + 2), value, y2)
        o = (block * BLOCK + i) * LANES
        store(out, o, sub(load16(out, o), y0))
        store(out, o + LANES, sub(load16(out, o + LANES), y1))
        store(out, o + 2 * LANES, sub(load16(out, o + 2 * LANES), y2))


@helper
def linear(x: Any, out: Any, moments: Any, n_times: int, coefficients: Any) -> None:
    """Filter with linear phase.

    Args:
        x: (PAD + n_times + PAD + BLOCK, 16), reflected.
        out: (n_times + BLOCK, 16); what comes after n_times means nothing.
        moments: (blocks + 2 · REACH, RANK, 16) scratch.
        n_times: samples that are wanted.
        coefficients: what `filters.linear_coefficients` returns.
    """
    n_blocks = (n_times + BLOCK - 1) // BLOCK
    convolve(x, PAD - N_SHORT // 2, out, n_times, coefficients, N_SHORT)
    _moments(x, moments, n_blocks + 2 * REACH, coefficients)
    for block in range(n_blocks):
        _take_off(x, moments, out, block, coefficients)
