"""Frames of sixteen signals → power in their bins, where bins are as far apart as the window is long.

With n_fft = win_length = N a Hann window is a combination of three bins of a rectangular one,

    X(k) = ½ R(k) − ¼ R(k − 1) − ¼ R(k + 1),    R(k) = Σ x(n) exp(−2πi k n / N) over the frame,

and subtracting a frame's mean is setting R(0) to 0. R needs no window, so what neighbouring frames share is summed
once: samples are multiplied with exp(−2πi k n / N), n counted from the first frame on, and summed over one hop at a
time; a frame is a sum of hops and, where the hop does not divide N, of the first part of one more. A frame that begins
at t has R(k) turned by k t, which power does not see but for the angle between neighbours, one for all k: with
u = exp(−2πi t / N)

    |X(k)| = |½ R(k) − ¼ u R(k − 1) − ¼ ū R(k + 1)|.

From frame to frame the sum of hops gains one and loses one; it is computed anew every `COLUMNS` frames, so that
rounding does not accumulate. For 14 bins, N = 144 and a hop of 21 this takes 630 products and 350 other operations a
frame; the matrix products of `transform_compiled` take 2,160, a Fourier transform of 144 about as many, of which few
run side by side.

All arrays are flat; M is the number of R's, those of the bins and of their neighbours without k = 0, in whole tiles:

    turns  (M / 3, N + hop, 3 cosines and 3 negative sines)   the factors of the samples
    angle  (N, 3)                                             −½ cos, −½ sin and ½ sin of 2π t / N
    ring   (slots, M, 2, 16)                                  sums of single hops
    sums   (M, 2, 16)                                         the sum of a frame's hops
    part   (M, 2, 16)                                         the sum of what follows its last whole hop

`hops` is what `sliding_plan` derives; `scratch` is a named tuple with `ring`, `sums`, `part` and `power`.
"""

from __future__ import annotations

from typing import Any

from kagglehms.features.jit import apart, helper
from kagglehms.features.simd import (
    LANES,
    add,
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
from kagglehms.features.sliding_plan import COLUMNS
from kagglehms.features.transform_compiled import in_pairs, zeros3


@helper
def _width(hops: Any) -> int:
    """Return the size of the sums of one hop."""
    return hops.n_tiles * 6 * LANES


@helper
def _slot(hops: Any, hop: int) -> int:
    """Return where in the ring the sums of a hop begin."""
    return hop % hops.slots * _width(hops)


@helper
def _turn(x: Any, at: int, turns: Any, row: int, n: int, cosines: Any, sines: Any) -> Any:
    """Add `n` samples to the sums of three bins: twelve registers of AVX2."""
    for i in range(n):
        value = load16(x, at + i * LANES)
        cosines = fma_each(turns, row + i * 6, value, cosines)
        sines = fma_each(turns, row + i * 6 + 3, value, sines)
    return cosines, sines


@helper
def _sum_hop(x: Any, start: int, hops: Any, number: int, scratch: Any) -> None:
    """Write the sums over hop `number`, and those over its first samples that complete a frame."""
    hop, period, rest = hops.hop, hops.period, hops.rest
    at, phase, slot = (start + number * hop) * LANES, number * hop % period, _slot(hops, number)
    for tile in range(hops.n_tiles):
        row, o = (tile * (period + hop) + phase) * 6, tile * 6 * LANES
        cosines, sines = _turn(x, at, hops.turns, row, rest, zeros3(), zeros3())
        if rest:
            store_rows(scratch.part, o, LANES, in_pairs(cosines, sines))
        after, row = at + rest * LANES, row + rest * 6
        cosines, sines = _turn(x, after, hops.turns, row, hop - rest, cosines, sines)
        store_rows(scratch.ring, slot + o, LANES, in_pairs(cosines, sines))


@helper
def _sum_hops(scratch: Any, hops: Any, first: int) -> None:
    """Add up the hops of a frame."""
    ring, width = scratch.ring, _width(hops)
    oldest, end = _slot(hops, first), hops.slots * width
    # Six vectors at a time: as many chains of additions hide their latency.
    for i in range(0, width, 6 * LANES):
        slot = oldest
        t0 = t1 = t2 = t3 = t4 = t5 = splat16(0.0)
        for _ in range(hops.n_hops):
            t0, t1 = add(t0, load16(ring, slot + i)), add(t1, load16(ring, slot + i + LANES))
            t2, t3 = add(t2, load16(ring, slot + i + 2 * LANES)), add(t3, load16(ring, slot + i + 3 * LANES))
            t4, t5 = add(t4, load16(ring, slot + i + 4 * LANES)), add(t5, load16(ring, slot + i + 5 * LANES))
            slot += width
            if slot == end:
                slot = 0
        store_rows(scratch.sums, i, LANES, (t0, t1, t2, t3, t4, t5))


@helper
def _powers_and_next(scratch: Any, hops: Any, number: int, out_at: int, n_wanted: int) -> None:
    """Write 4 |X|² of frame `number`, and move the sum of its hops on by one, in one reading.

    A bin is finished when its neighbour above arrives.
    """
    ring, sums, part = scratch.ring, scratch.sums, scratch.part
    newest, oldest = _slot(hops, number + hops.n_hops), _slot(hops, number)
    t = 3 * (number * hops.hop % hops.period)
    minus_cosine, minus_sine = broadcast16(hops.angle, t), broadcast16(hops.angle, t + 1)
    sine = broadcast16(hops.angle, t + 2)
    lower_real = lower_imag = real = imag = splat16(0.0)
    for place in range(hops.n_tiles * 3):
        i = place * 2 * LANES
        upper_real, upper_imag = load16(sums, i), load16(sums, i + LANES)
        more = sub(load16(ring, newest + i), load16(ring, oldest + i))
        more_imag = sub(load16(ring, newest + i + LANES), load16(ring, oldest + i + LANES))
        store(sums, i, add(upper_real, more))
        store(sums, i + LANES, add(upper_imag, more_imag))
        if hops.rest:
            upper_real = add(upper_real, load16(part, i))
            upper_imag = add(upper_imag, load16(part, i + LANES))
        k = place - hops.below - 1
        if 0 <= k < n_wanted:
            x = fma(minus_sine, sub(lower_imag, upper_imag), real)
            x = fma(minus_cosine, add(lower_real, upper_real), x)
            y = fma(sine, sub(lower_real, upper_real), imag)
            y = fma(minus_cosine, add(lower_imag, upper_imag), y)
            store(scratch.power, out_at + k * LANES, fma(x, x, mul(y, y)))
        lower_real, lower_imag, real, imag = real, imag, upper_real, upper_imag


@apart
def sliding_frames(x: Any, start: int, scratch: Any, hops: Any, column: int, n_wanted: int) -> None:
    """Write 4 |X|² of `COLUMNS` frames from `column` on, (COLUMNS, n_wanted, 16), to the start of `power`.

    Frames must come in order, from column 0 on, which begins at sample `start`; some of them may come again.
    """
    if column == 0:
        for number in range(hops.n_hops):
            _sum_hop(x, start, hops, number, scratch)
    _sum_hops(scratch, hops, column)
    for c in range(COLUMNS):
        _sum_hop(x, start, hops, column + c + hops.n_hops, scratch)
        _powers_and_next(scratch, hops, column + c, c * n_wanted * LANES, n_wanted)
