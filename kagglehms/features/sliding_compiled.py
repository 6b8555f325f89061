"""Frames of sixteen signals → power in their bins, where bins are as far apart as the window is long.

With n_fft = win_length = N a Hann window is a combination of three bins of a rectangular one,

    X(k) = ½ R(k) − ¼ R(k − 1) − ¼ R(k + 1),    R(k) = Σ x(n) w(k n) over the frame,    w(m) = exp(−2πi m / N),

and subtracting a frame's mean is setting R(0) to 0. R needs no window, so neighbouring frames can share its sums. With
n counted from the first frame on, w(k n) repeats itself after N samples: the samples that leave a frame and those that
enter it have the same factors, and only their differences d(n) = x(n + N) − x(n) are multiplied, for every sample n of
the hop between two frames. They are folded about the centre c of the hop. With s(m) = d(c + m) + d(c − m) and
a(m) = d(c + m) − d(c − m) at each distance m from it, R(k) grows from one frame to the next by

    w(k c) (Σ cos(2πk m / N) s(m) − i Σ sin(2πk m / N) a(m)).

A frame that begins at t has R(k) turned by w(k t), which affects power only through the angle between neighbours, the
same for all k: with u = w(t)

    |X(k)| = |½ R(k) − ¼ u R(k − 1) − ¼ ū R(k + 1)|.

R is summed anew every `RENEWED` frames, so that rounding does not accumulate: a frame is folded about its centre as a
hop is. For 14 bins, N = 144 and a hop of 21 this takes about 500 products a frame; the matrix products of
`transform_compiled` take 2,160, a Fourier transform of 144 about as many, of which few run side by side.

All arrays are flat; M is the number of R's, those of the bins and of their neighbours without k = 0, in whole tiles:

    sums    (M, 2, 16)         R of a frame
    folded  (⌈N / 2⌉, 2, 16)   s and a of a hop, or of a frame

`hops` is what `sliding_plan` derives; `scratch` is a named tuple with `sums`, `folded` and `power`.
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
    sub,
)
from kagglehms.features.sliding_plan import COLUMNS
from kagglehms.features.transform_compiled import zeros3

RENEWED = 4 * COLUMNS
"""Frames after which the sums are computed anew."""


# ---- sums of a frame, and from a frame to the next


@helper
def _changes(x: Any, at: int, period: int) -> Any:
    """Return the sample that enters a frame less the one that leaves it."""
    return sub(load16(x, at + period * LANES), load16(x, at))


@helper
def _fold_hop(x: Any, at: int, hops: Any, folded: Any) -> None:
    """Fold the changes over the hop that begins at `at`."""
    hop = hops.hop
    for m in range((hop + 1) // 2):
        after = _changes(x, at + (hop // 2 + m) * LANES, hops.period)
        before = _changes(x, at + ((hop - 1) // 2 - m) * LANES, hops.period)
        store(folded, m * 2 * LANES, add(after, before))
        store(folded, m * 2 * LANES + LANES, sub(after, before))


@helper
def _fold_frame(x: Any, at: int, hops: Any, folded: Any) -> None:
    """Fold the frame that begins at `at`."""
    half = hops.period // 2
    for m in range(half):
        after, before = load16(x, at + (half + m) * LANES), load16(x, at + (half - 1 - m) * LANES)
        store(folded, m * 2 * LANES, add(after, before))
        store(folded, m * 2 * LANES + LANES, sub(after, before))


@helper
def _add_turned(sums: Any, at: int, centres: Any, row: int, even: Any, odd: Any) -> None:
    """Add even + i odd, turned back by the angle of the centre, to one bin."""
    cosine, sine = broadcast16(centres, row), broadcast16(centres, row + 3)
    real, imag = load16(sums, at), load16(sums, at + LANES)
    store(sums, at, fma(cosine, even, fma(sine, odd, real)))
    store(sums, at + LANES, fma(cosine, odd, sub(imag, mul(sine, even))))


@helper
def _add_folded(folded: Any, fold: Any, phase: int, hops: Any, sums: Any) -> None:
    """Add a folded stretch, which begins `phase` samples after the beginning of a period, to the sums."""
    n_pairs = (fold.length + 1) // 2
    for tile in range(hops.n_tiles):
        even, odd = zeros3(), zeros3()
        for m in range(n_pairs):
            row = (tile * n_pairs + m) * 6
            even = fma_each(fold.pairs, row, load16(folded, m * 2 * LANES), even)
            odd = fma_each(fold.pairs, row + 3, load16(folded, m * 2 * LANES + LANES), odd)
        at, row = tile * 6 * LANES, (tile * hops.period + phase) * 6
        _add_turned(sums, at, fold.centres, row, even[0], odd[0])
        _add_turned(sums, at + 2 * LANES, fold.centres, row + 1, even[1], odd[1])
        _add_turned(sums, at + 4 * LANES, fold.centres, row + 2, even[2], odd[2])


# ---- power


@helper
def _powers(sums: Any, hops: Any, phase: int, power: Any, out_at: int, n_wanted: int) -> None:
    """Write 4 |X|² of a frame that begins `phase` samples after the beginning of a period.

    A bin is finished when its neighbour above arrives.
    """
    minus_cosine, minus_sine = broadcast16(hops.angle, 3 * phase), broadcast16(hops.angle, 3 * phase + 1)
    sine = broadcast16(hops.angle, 3 * phase + 2)
    lower_real = lower_imag = real = imag = splat16(0.0)
    for place in range(n_wanted + 1 + hops.below):
        upper_real, upper_imag = load16(sums, place * 2 * LANES), load16(sums, place * 2 * LANES + LANES)
        k = place - hops.below - 1
        if k >= 0:
            x = fma(minus_sine, sub(lower_imag, upper_imag), real)
            x = fma(minus_cosine, add(lower_real, upper_real), x)
            y = fma(sine, sub(lower_real, upper_real), imag)
            y = fma(minus_cosine, add(lower_imag, upper_imag), y)
            store(power, out_at + k * LANES, fma(x, x, mul(y, y)))
        lower_real, lower_imag, real, imag = real, imag, upper_real, upper_imag


@apart
def sliding_frames(x: Any, start: int, scratch: Any, hops: Any, column: int, n_wanted: int) -> None:
    """Write 4 |X|² of `COLUMNS` frames from `column` on, (COLUMNS, n_wanted, 16), to the start of `power`.

    Frame 0 begins at sample `start`. Frames must come in order, `COLUMNS` at a time from frame 0 on; only the last time
    some of them may come again.
    """
    folded, sums = scratch.folded, scratch.sums
    if column % RENEWED == 0 or column % COLUMNS:
        for i in range(0, hops.n_tiles * 6 * LANES, LANES):
            store(sums, i, splat16(0.0))
        first = column * hops.hop
        _fold_frame(x, (start + first) * LANES, hops, folded)
        _add_folded(folded, hops.frame, first % hops.period, hops, sums)
    for c in range(COLUMNS):
        first = (column + c) * hops.hop
        phase = first % hops.period
        _powers(sums, hops, phase, scratch.power, c * n_wanted * LANES, n_wanted)
        _fold_hop(x, (start + first) * LANES, hops, folded)
        _add_folded(folded, hops.step, phase, hops, sums)
