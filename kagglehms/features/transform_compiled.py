"""Frames of sixteen signals → power in the bins of a windowed Fourier transform; `mel` explains the mathematics.

Frames are folded about their centre, then multiplied with the rows that `transform_plan` derives, in register tiles of
six rows × 16 lanes. All arrays are flat:

    x       (n_times, 16)           the signals, with the samples that frames read beyond their ends
    folded  (H, 2, 16)              sums and differences of samples at equal distance from the centre
    kept    (FRAMES, R + 1, 2, 16)  the transform at R even and R odd rows, and the level of the frame
    power   (n_frames, K, 16)       squared magnitude of every bin

`plan` is a `Transform`; `scratch` is a named tuple with `folded`, `kept` and `power`.
"""

from __future__ import annotations

from typing import Any

from kagglehms.features.jit import apart, helper
from kagglehms.features.simd import (
    LANES,
    add,
    fma,
    fma_each,
    load16,
    mul,
    splat16,
    store,
    store_rows,
    sub,
)

FRAMES = 8
"""Frames that go through the second stage together: their intermediate values stay in the first-level cache."""


# ---- fold


@helper
def _fold_as_it_is(x: Any, centre: int, folded: Any, half: int) -> Any:
    """Write sums and differences of samples on both sides of the centre; return the sum of the sums."""
    total = splat16(0.0)
    for j in range(half):
        after, before = load16(x, (centre + j) * LANES), load16(x, (centre - j) * LANES)
        both = add(after, before)
        total = add(total, both)
        store(folded, j * 2 * LANES, both)
        store(folded, j * 2 * LANES + LANES, sub(after, before))
    return total


@helper
def _lower_sums(folded: Any, half: int, twice: Any) -> None:
    """Subtract twice a level from the sums."""
    for j in range(half):
        store(folded, j * 2 * LANES, sub(load16(folded, j * 2 * LANES), twice))


@helper
def fold(x: Any, centre: int, folded: Any, half: int) -> Any:
    """Write sums and differences of samples on both sides of the centre, less a level; return that level.

    The level is about the mean of the frame. The centre counts twice in it, which does no harm, because the transform
    of the level is added again.
    """
    twice = mul(_fold_as_it_is(x, centre, folded, half), splat16(1.0 / half))
    _lower_sums(folded, half, twice)
    return mul(twice, splat16(0.5))


@helper
def fold_less_mean(x: Any, centre: int, folded: Any, half: int) -> None:
    """Write the sums and differences of the 2 H samples from centre − H on, less their exact mean."""
    total = _fold_as_it_is(x, centre, folded, half)
    total = add(total, load16(x, (centre - half) * LANES))
    total = sub(total, load16(x, centre * LANES))
    _lower_sums(folded, half, mul(total, splat16(1.0 / half)))


# ---- one stage or two


@helper
def zeros3() -> Any:
    """Return three vectors of zeros."""
    return splat16(0.0), splat16(0.0), splat16(0.0)


@helper
def in_pairs(a: Any, b: Any) -> Any:
    """Return a[0], b[0], a[1], b[1], a[2], b[2]."""
    return a[0], b[0], a[1], b[1], a[2], b[2]


@helper
def square(real: Any, imaginary: Any) -> Any:
    """Return real² + imaginary²."""
    return fma(real, real, mul(imaginary, imaginary))


@helper
def _squares(real: Any, imaginary: Any) -> Any:
    return square(real[0], imaginary[0]), square(real[1], imaginary[1]), square(real[2], imaginary[2])


@helper
def _tile(rows: Any, row: int, values: Any, value: int, n: int) -> Any:
    """Multiply 3 even and 3 odd rows with n pairs of vectors: twelve registers of sums on AVX2."""
    even, odd = zeros3(), zeros3()
    for k in range(n):
        at, r = value + k * 2 * LANES, row + k * 6
        even = fma_each(rows, r, load16(values, at), even)
        odd = fma_each(rows, r + 3, load16(values, at + LANES), odd)
    return even, odd


@helper
def project(folded: Any, rows: Any, kept: Any, at: int, half: int, rank: int) -> None:
    """Compute the first stage of a frame: R even and R odd rows."""
    for r in range(0, rank, 3):
        even, odd = _tile(rows, r * 2 * half, folded, 0, half)
        store_rows(kept, at + r * 2 * LANES, LANES, in_pairs(even, odd))


@helper
def _project_and_square(folded: Any, rows: Any, power: Any, at: int, half: int, n_bins: int) -> None:
    """Compute the only stage of a frame: power in all bins."""
    for k in range(0, n_bins, 3):
        even, odd = _tile(rows, k * 2 * half, folded, 0, half)
        store_rows(power, at + k * LANES, LANES, _squares(even, odd))


@helper
def _transform(kept: Any, weights: Any, power: Any, at: int, n_frames: int, rank: int, n_bins: int) -> None:
    """Compute the second stage of some frames: power in all bins."""
    for k in range(0, n_bins, 3):
        for frame in range(n_frames):
            row, value = k * 2 * (rank + 1), frame * (rank + 1) * 2 * LANES
            even, odd = _tile(weights, row, kept, value, rank)
            even = fma_each(weights, row + rank * 6, load16(kept, value + rank * 2 * LANES), even)
            store_rows(power, at + (frame * n_bins + k) * LANES, LANES, _squares(even, odd))


@apart
def transform_frames(x: Any, scratch: Any, plan: Any, first: int, n_frames: int, hop: int) -> None:
    """Write the power of some frames, from frame `first` on, in two stages; at most `FRAMES` at a time."""
    folded, kept, rank = scratch.folded, scratch.kept, plan.rank
    for frame in range(n_frames):
        at = frame * (rank + 1) * 2 * LANES
        level = fold(x, plan.half + (first + frame) * hop, folded, plan.half)
        project(folded, plan.project, kept, at, plan.half, rank)
        store(kept, at + rank * 2 * LANES, level)
    at = first * plan.n_bins * LANES
    _transform(kept, plan.combine, scratch.power, at, n_frames, rank, plan.n_bins)


@apart
def frames_less_mean(x: Any, scratch: Any, plan: Any, first_centre: int, n_frames: int, hop: int) -> None:
    """Write the power of some frames, each less its mean, from the start of `power` on; in one stage if R is 0."""
    folded, kept, power = scratch.folded, scratch.kept, scratch.power
    half, rank, n_bins = plan.half, plan.rank, plan.n_bins
    if rank == 0:
        for frame in range(n_frames):
            fold_less_mean(x, first_centre + frame * hop, folded, half)
            _project_and_square(folded, plan.project, power, frame * n_bins * LANES, half, n_bins)
        return
    for first in range(0, n_frames, FRAMES):
        n = min(FRAMES, n_frames - first)
        for frame in range(n):
            at = frame * (rank + 1) * 2 * LANES
            fold_less_mean(x, first_centre + (first + frame) * hop, folded, half)
            project(folded, plan.project, kept, at, half, rank)
            store(kept, at + rank * 2 * LANES, splat16(0.0))
        _transform(kept, plan.combine, power, first * n_bins * LANES, n, rank, n_bins)
