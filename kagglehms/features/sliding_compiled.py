"""Frames of sixteen signals → power in their bins, where bins are as far apart as the window is long.

With n_fft = win_length = N a Hann window is three bins of a rectangular one,

    X(k) = ½ R(k) − ¼ R(k − 1) − ¼ R(k + 1),    R(k) = Σ x(n) exp(−2πi k n / N) over the frame,

and taking off a frame's mean is setting R(0) to 0. R needs no window, so what neighbouring frames share is summed
once: samples are multiplied with exp(−2πi k n / N), n counted from the first frame on, and summed over one hop at a
time; a frame is a sum of hops and, where the hop does not divide N, of the first part of one more. Its beginning t
turns R(k) by k t, which power does not see but for the angle between neighbours, one for all k: with
u = exp(−2πi t / N)

    |X(k)| = |½ R(k) − ¼ u R(k − 1) − ¼ ū R(k + 1)|.

From frame to frame the sum of hops gains one and loses one; it is made anew every `COLUMNS` frames, so that rounding
does not pile up. For 14 bins, N = 144 and a hop of 21 this takes 630 products and 350 other operations a frame; the
matrix products of `transform_compiled` take 2,160, a Fourier transform of 144 about as many, of which few run side by
side.

All arrays are flat; M is the number of R's, those of the bins and of their neighbours without k = 0, in whole tiles:

    turns  (M / 3, N + hop, 3 cosines and 3 negative sines)   the factors of the samples
    angle  (N, 3)                                             −½ cos, −½ sin and ½ sin of 2π t / N
    ring   (slots, M, 2, 16)                                  sums of single hops
    sums   (M, 2, 16)                                         the sum of a frame's hops
    part   (M, 2, 16)                                         the sum of what follows its last whole hop
"""

from __future__ import annotations

from typing import Any

from kagglehms.features.jit import apart, helper
from kagglehms.features.simd import LANES, add, broadcast16, fma, load16, mul, splat16, store, sub

COLUMNS = 16
"""Frames that are finished together, and that a sum of hops lasts."""


@helper
def _turn(
    x: Any, at: int, turns: Any, row: int, n: int, c0: Any, c1: Any, c2: Any, s0: Any, s1: Any, s2: Any
) -> Any:
    """Add `n` samples to the sums of three bins: twelve registers of AVX2."""
    for i in range(n):
        value, r = load16(x, at + i * LANES), row + i * 6
        c0 = fma(broadcast16(turns, r), value, c0)
        c1 = fma(broadcast16(turns, r + 1), value, c1)
        c2 = fma(broadcast16(turns, r + 2), value, c2)
        s0 = fma(broadcast16(turns, r + 3), value, s0)
        s1 = fma(broadcast16(turns, r + 4), value, s1)
        s2 = fma(broadcast16(turns, r + 5), value, s2)
    return c0, c1, c2, s0, s1, s2


@helper
def _keep(out: Any, at: int, c0: Any, c1: Any, c2: Any, s0: Any, s1: Any, s2: Any) -> None:
    store(out, at, c0)
    store(out, at + LANES, s0)
    store(out, at + 2 * LANES, c1)
    store(out, at + 3 * LANES, s1)
    store(out, at + 4 * LANES, c2)
    store(out, at + 5 * LANES, s2)


@helper
def _sum_hop(
    x: Any, at: int, turns: Any, phase: int, ring: Any, slot: int, part: Any,
    hop: int, rest: int, period: int, n_tiles: int,
) -> None:  # fmt: skip
    """Write the sums over a hop, and those over the first `rest` of its samples."""
    for tile in range(n_tiles):
        row, o = (tile * (period + hop) + phase) * 6, tile * 6 * LANES
        c0 = c1 = c2 = s0 = s1 = s2 = splat16(0.0)
        c0, c1, c2, s0, s1, s2 = _turn(x, at, turns, row, rest, c0, c1, c2, s0, s1, s2)
        if rest:
            _keep(part, o, c0, c1, c2, s0, s1, s2)
        c0, c1, c2, s0, s1, s2 = _turn(
            x, at + rest * LANES, turns, row + rest * 6, hop - rest, c0, c1, c2, s0, s1, s2
        )
        _keep(ring, slot + o, c0, c1, c2, s0, s1, s2)


@helper
def _sum_hops(ring: Any, first: int, n_hops: int, slots: int, width: int, sums: Any) -> None:
    """Add up the hops of a frame."""
    # Six vectors at a time: as many chains of additions hide their latency.
    oldest, end = first % slots * width, slots * width
    for i in range(0, width, 6 * LANES):
        slot = oldest
        t0 = t1 = t2 = t3 = t4 = t5 = splat16(0.0)
        for _ in range(n_hops):
            t0, t1 = add(t0, load16(ring, slot + i)), add(t1, load16(ring, slot + i + LANES))
            t2, t3 = add(t2, load16(ring, slot + i + 2 * LANES)), add(t3, load16(ring, slot + i + 3 * LANES))
            t4, t5 = add(t4, load16(ring, slot + i + 4 * LANES)), add(t5, load16(ring, slot + i + 5 * LANES))
            slot += width
            slot = 0 if slot == end else slot
        store(sums, i, t0)
        store(sums, i + LANES, t1)
        store(sums, i + 2 * LANES, t2)
        store(sums, i + 3 * LANES, t3)
        store(sums, i + 4 * LANES, t4)
        store(sums, i + 5 * LANES, t5)


@helper
def _powers_and_next(
    sums: Any, part: Any, rest: int, ring: Any, newest: int, oldest: int, angle: Any, t: int,
    power: Any, out_at: int, n_places: int, below: int, n_wanted: int,
) -> None:  # fmt: skip
    """Write 4 |X|² of a frame that begins at `t`, and move the sum of its hops on by one, in one reading.

    A bin is done when its neighbour above arrives.
    """
    minus_cosine, minus_sine = broadcast16(angle, 3 * t), broadcast16(angle, 3 * t + 1)
    sine = broadcast16(angle, 3 * t + 2)
    lower_real = lower_imag = real = imag = splat16(0.0)
    for place in range(n_places):
        i = place * 2 * LANES
        upper_real, upper_imag = load16(sums, i), load16(sums, i + LANES)
        more = sub(load16(ring, newest + i), load16(ring, oldest + i))
        more_imag = sub(load16(ring, newest + i + LANES), load16(ring, oldest + i + LANES))
        store(sums, i, add(upper_real, more))
        store(sums, i + LANES, add(upper_imag, more_imag))
        if rest:
            upper_real = add(upper_real, load16(part, i))
            upper_imag = add(upper_imag, load16(part, i + LANES))
        k = place - below - 1
        if 0 <= k < n_wanted:
            x = fma(
                minus_cosine, add(lower_real, upper_real), fma(minus_sine, sub(lower_imag, upper_imag), real)
            )
            y = fma(minus_cosine, add(lower_imag, upper_imag), fma(sine, sub(lower_real, upper_real), imag))
            store(power, out_at + k * LANES, fma(x, x, mul(y, y)))
        lower_real, lower_imag, real, imag = real, imag, upper_real, upper_imag


@apart
def sliding_frames(
    x: Any, start: int, ring: Any, sums: Any, part: Any, power: Any, turns: Any, angle: Any,
    column: int, hop: int, period: int, n_tiles: int, slots: int, below: int, n_wanted: int,
) -> None:  # fmt: skip
    """Write 4 |X|² of `COLUMNS` frames from `column` on, (COLUMNS, n_wanted, 16).

    Frames must come in order, from column 0 on; some of them may come again. `below` tells whether the first bin has a
    neighbour below it that counts.
    """
    n_hops, rest, width = period // hop, period % hop, n_tiles * 6 * LANES
    if column == 0:
        for j in range(n_hops):
            at, phase = (start + j * hop) * LANES, j * hop % period
            _sum_hop(x, at, turns, phase, ring, j % slots * width, part, hop, 0, period, n_tiles)
    _sum_hops(ring, column, n_hops, slots, width, sums)
    for c in range(COLUMNS):
        j = column + c
        newest, oldest = (j + n_hops) % slots * width, j % slots * width
        at, phase = (start + (j + n_hops) * hop) * LANES, (j + n_hops) * hop % period
        _sum_hop(x, at, turns, phase, ring, newest, part, hop, rest, period, n_tiles)
        _powers_and_next(
            sums, part, rest, ring, newest, oldest, angle, j * hop % period,
            power, c * n_wanted * LANES, n_tiles * 3, below, n_wanted,
        )  # fmt: skip
