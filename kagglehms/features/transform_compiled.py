"""Frames of sixteen signals → power in the bins of a windowed Fourier transform; the mathematics stands in `mel`.

Frames are folded about their centre, then multiplied with the rows that `transform_plan` derives, in register tiles of
six rows × 16 lanes. All arrays are flat:

    differences  (n_times, 16)           the signals, with whatever frames need beyond their ends
    folded       (H, 2, 16)              sums and differences of samples at equal distance from the centre
    kept         (FRAMES, R + 1, 2, 16)  the transform at R even and R odd rows, and the level of the frame
    power        (n_frames, K, 16)       squared magnitude of every bin
"""

from __future__ import annotations

from typing import Any

from kagglehms.features.jit import apart, helper
from kagglehms.features.simd import LANES, add, broadcast16, fma, load16, mul, splat16, store, sub

FRAMES = 8
"""Frames that go through the second stage together: their intermediate values stay in the first-level cache."""


@helper
def _fold_as_it_is(differences: Any, centre: int, folded: Any, half: int) -> Any:
    """Write sums and differences of samples on both sides of the centre; return the sum of the sums."""
    total = splat16(0.0)
    for j in range(half):
        after, before = load16(differences, (centre + j) * LANES), load16(differences, (centre - j) * LANES)
        both = add(after, before)
        total = add(total, both)
        store(folded, j * 2 * LANES, both)
        store(folded, j * 2 * LANES + LANES, sub(after, before))
    return total


@helper
def _lower_sums(folded: Any, half: int, twice: Any) -> None:
    """Take twice a level off the sums."""
    for j in range(half):
        store(folded, j * 2 * LANES, sub(load16(folded, j * 2 * LANES), twice))


@helper
def fold(differences: Any, centre: int, folded: Any, half: int) -> Any:
    """Write sums and differences of samples on both sides of the centre, less a level near their mean: returned.

    The centre counts twice in it, which does not matter where the level is put back.
    """
    twice = mul(_fold_as_it_is(differences, centre, folded, half), splat16(1.0 / half))
    _lower_sums(folded, half, twice)
    return mul(twice, splat16(0.5))


@helper
def fold_less_mean(differences: Any, centre: int, folded: Any, half: int) -> None:
    """The same less the mean of the 2 H samples from centre − H on, for good."""
    total = _fold_as_it_is(differences, centre, folded, half)
    total = add(total, load16(differences, (centre - half) * LANES))
    total = sub(total, load16(differences, centre * LANES))
    _lower_sums(folded, half, mul(total, splat16(1.0 / half)))


@helper
def _tile(rows: Any, row: int, values: Any, value: int, n: int) -> Any:
    """Multiply 3 even and 3 odd rows with n pairs of vectors: twelve registers of sums on AVX2."""
    even0 = even1 = even2 = odd0 = odd1 = odd2 = splat16(0.0)
    for k in range(n):
        even, odd = load16(values, value + k * 2 * LANES), load16(values, value + k * 2 * LANES + LANES)
        r = row + k * 6
        even0 = fma(broadcast16(rows, r), even, even0)
        even1 = fma(broadcast16(rows, r + 1), even, even1)
        even2 = fma(broadcast16(rows, r + 2), even, even2)
        odd0 = fma(broadcast16(rows, r + 3), odd, odd0)
        odd1 = fma(broadcast16(rows, r + 4), odd, odd1)
        odd2 = fma(broadcast16(rows, r + 5), odd, odd2)
    return even0, even1, even2, odd0, odd1, odd2


@helper
def project(folded: Any, rows: Any, kept: Any, at: int, half: int, rank: int) -> None:
    """First stage: R even and R odd rows."""
    for r in range(0, rank, 3):
        even0, even1, even2, odd0, odd1, odd2 = _tile(rows, r * 2 * half, folded, 0, half)
        i = at + r * 2 * LANES
        store(kept, i, even0)
        store(kept, i + LANES, odd0)
        store(kept, i + 2 * LANES, even1)
        store(kept, i + 3 * LANES, odd1)
        store(kept, i + 4 * LANES, even2)
        store(kept, i + 5 * LANES, odd2)


@helper
def square(real: Any, imaginary: Any) -> Any:
    return fma(real, real, mul(imaginary, imaginary))


@helper
def _project_and_square(folded: Any, rows: Any, power: Any, at: int, half: int, n_bins: int) -> None:
    """The only stage: power in all bins of a frame."""
    for k in range(0, n_bins, 3):
        even0, even1, even2, odd0, odd1, odd2 = _tile(rows, k * 2 * half, folded, 0, half)
        i = at + k * LANES
        store(power, i, square(even0, odd0))
        store(power, i + LANES, square(even1, odd1))
        store(power, i + 2 * LANES, square(even2, odd2))


@helper
def _transform(kept: Any, weights: Any, power: Any, at: int, n_frames: int, rank: int, n_bins: int) -> None:
    """Second stage: power in all bins of some frames."""
    for k in range(0, n_bins, 3):
        for frame in range(n_frames):
            row, value = k * 2 * (rank + 1), frame * (rank + 1) * 2 * LANES
            even0, even1, even2, odd0, odd1, odd2 = _tile(weights, row, kept, value, rank)
            level = load16(kept, value + rank * 2 * LANES)
            even0 = fma(broadcast16(weights, row + rank * 6), level, even0)
            even1 = fma(broadcast16(weights, row + rank * 6 + 1), level, even1)
            even2 = fma(broadcast16(weights, row + rank * 6 + 2), level, even2)
            i = at + (frame * n_bins + k) * LANES
            store(power, i, square(even0, odd0))
            store(power, i + LANES, square(even1, odd1))
            store(power, i + 2 * LANES, square(even2, odd2))


@apart
def transform_frames(
    differences: Any, folded: Any, kept: Any, power: Any, rows: Any, weights: Any,
    first: int, n_frames: int, hop: int, half: int, rank: int, n_bins: int,
) -> None:  # fmt: skip
    """Fold and both stages, for some frames from `first` on."""
    for frame in range(n_frames):
        at = frame * (rank + 1) * 2 * LANES
        level = fold(differences, half + (first + frame) * hop, folded, half)
        project(folded, rows, kept, at, half, rank)
        store(kept, at + rank * 2 * LANES, level)
    _transform(kept, weights, power, first * n_bins * LANES, n_frames, rank, n_bins)


@apart
def frames_less_mean(
    differences: Any, folded: Any, kept: Any, power: Any, rows: Any, weights: Any,
    first_centre: int, n_frames: int, hop: int, half: int, rank: int, n_bins: int,
) -> None:  # fmt: skip
    """Power of some frames, each less its mean, from the start of `power` on; one stage where `rank` is 0."""
    if rank == 0:
        for frame in range(n_frames):
            fold_less_mean(differences, first_centre + frame * hop, folded, half)
            _project_and_square(folded, rows, power, frame * n_bins * LANES, half, n_bins)
        return
    for first in range(0, n_frames, FRAMES):
        n = min(FRAMES, n_frames - first)
        for frame in range(n):
            at = frame * (rank + 1) * 2 * LANES
            fold_less_mean(differences, first_centre + (first + frame) * hop, folded, half)
            project(folded, rows, kept, at, half, rank)
            store(kept, at + rank * 2 * LANES, splat16(0.0))
        _transform(kept, weights, power, first * n_bins * LANES, n, rank, n_bins)
