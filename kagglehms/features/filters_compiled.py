"""The filters of `kagglehms.features.filters` on sixteen signals at once, one in each lane of a vector."""

from __future__ import annotations

from typing import Any

from kagglehms.features.filters import BLOCK, MARGIN, N_SHORT, PAD, RANK, REACH
from kagglehms.features.jit import apart, helper
from kagglehms.features.simd import (
    LANES,
    broadcast16,
    fma,
    fma_each,
    load16,
    mul,
    splat16,
    store,
    store_rows,
    sub,
)

OUTPUTS = MARGIN + 1
"""Samples that a convolution computes at once, in as many registers on AVX-512 and twice as many on AVX2."""


@apart
def two_modes(x: Any, at: int, n_times: int, modes: Any) -> None:
    """Filter in place by a direct path and two rotating modes, from rest."""
    direct = broadcast16(modes, 0)
    a, b = broadcast16(modes, 1), broadcast16(modes, 2)
    real_out, imag_out = broadcast16(modes, 3), broadcast16(modes, 4)
    c, d = broadcast16(modes, 5), broadcast16(modes, 6)
    real_out2, imag_out2 = broadcast16(modes, 7), broadcast16(modes, 8)
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
    """Extend the signals beyond both ends by an odd reflection, and by zeros where they are too short for that."""
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


@helper
def _zeros4() -> Any:
    return splat16(0.0), splat16(0.0), splat16(0.0), splat16(0.0)


@apart
def convolve(x: Any, first_sample: int, out: Any, n_times: int, taps: Any) -> None:
    """Write Σ taps(k) x(t + k), `N_SHORT` of them with a margin of zeros on both sides, for t from `first_sample` on.

    The last samples are computed twice where their number is no multiple of `OUTPUTS`, and some more than there are
    where there are fewer.
    """
    for first in range(0, n_times, OUTPUTS):
        start = max(min(first, n_times - OUTPUTS), 0)
        # The last sample first: of each value that is read, it uses the tap before those that the others use.
        sums = _zeros4() + _zeros4()
        for k in range(N_SHORT + MARGIN):
            sums = fma_each(taps, k, load16(x, (first_sample + start + k) * LANES), sums)
        store_rows(out, (start + MARGIN) * LANES, -LANES, sums)


@apart
def _moments(x: Any, moments: Any, n_blocks: int, basis: Any) -> None:
    """Write the four products of each block of samples with the basis."""
    for block in range(n_blocks):
        sums = _zeros4()
        for j in range(BLOCK):
            sums = fma_each(basis, j * RANK, load16(x, (block * BLOCK + j) * LANES), sums)
        store_rows(moments, block * RANK * LANES, LANES, sums)


@helper
def _weigh(moments: Any, block: int, coupling: Any) -> Any:
    """Return the four coordinates of what the blocks around one contribute to it, itself in their middle."""
    sums = _zeros4()
    for k in range((2 * REACH - 1) * RANK):
        sums = fma_each(coupling, k * RANK, load16(moments, ((block + 1) * RANK + k) * LANES), sums)
    return sums


@helper
def _in_basis(basis: Any, i: int, z: Any) -> Any:
    """Return sample i of a block that has the coordinates z."""
    at = i * RANK
    y = fma(broadcast16(basis, at + 1), z[1], mul(broadcast16(basis, at), z[0]))
    return fma(broadcast16(basis, at + 3), z[3], fma(broadcast16(basis, at + 2), z[2], y))


@apart
def _subtract_long(x: Any, moments: Any, out: Any, block: int, filter_: Any) -> None:
    """Subtract the long low-pass from one block of `out`: by low rank inside, tap by tap where the window ends."""
    basis, end = filter_.basis, filter_.end
    z = _weigh(moments, block, filter_.coupling)
    before, after = block * BLOCK, (block + 2 * REACH) * BLOCK
    for i in range(0, BLOCK, 3):
        y0, y1, y2 = _in_basis(basis, i, z), _in_basis(basis, i + 1, z), _in_basis(basis, i + 2, z)
        for j in range(i, BLOCK):
            y2, y1, y0 = fma_each(end, j - i, load16(x, (before + j) * LANES), (y2, y1, y0))
        for j in range(i + 3):
            y0, y1, y2 = fma_each(end, 2 + i - j, load16(x, (after + j) * LANES), (y0, y1, y2))
        o = (block * BLOCK + i) * LANES
        store(out, o, sub(load16(out, o), y0))
        store(out, o + LANES, sub(load16(out, o + LANES), y1))
        store(out, o + 2 * LANES, sub(load16(out, o + 2 * LANES), y2))


@helper
def linear(x: Any, out: Any, moments: Any, n_times: int, filter_: Any) -> None:
    """Filter with linear phase.

    Args:
        x: flat (PAD + n_times + PAD + BLOCK, 16) signals, reflected.
        out: flat (n_times + BLOCK, 16) result; what comes after n_times means nothing.
        moments: flat (blocks + 2 · REACH, RANK, 16) scratch.
        n_times: number of samples that are filtered.
        filter_: the linear filter, see `filters.design`.
    """
    n_blocks = (n_times + BLOCK - 1) // BLOCK
    convolve(x, PAD - N_SHORT // 2, out, n_times, filter_.short)
    _moments(x, moments, n_blocks + 2 * REACH, filter_.basis)
    for block in range(n_blocks):
        _subtract_long(x, moments, out, block, filter_)
