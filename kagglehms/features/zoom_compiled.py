"""One EEG window → mel spectra of its sixteen differences, the centre finer than the rest, in compiled code.

What is computed stands at the top of `kagglehms.features.zoom`. Sixteen lanes are the sixteen differences, in the order
of the rows of the image. All arrays are flat:

    lanes   (pad + n_times + pad, 16)  the differences, zeros in the padding
    folded, kept: see `transform_compiled`
    power   (FRAMES, K, 16)            squared magnitudes of the bins of a few frames
    bands   (M, width, 16)             power in every mel band, in the columns of the image
    square  (16, 16)                   one band of sixteen columns, signal by signal
"""

from __future__ import annotations

from typing import Any

from numba import types

from kagglehms.features import plain_zoom
from kagglehms.features.differences_compiled import square_of, store_square, subtract
from kagglehms.features.filters_compiled import two_modes
from kagglehms.features.jit import FLOATS, FLOATS_IN, HALVES_IN, apart, compiled, helper
from kagglehms.features.mel_compiled import AMIN
from kagglehms.features.simd import (
    LANES,
    add,
    broadcast16,
    exponent,
    fma,
    load16,
    mantissa,
    mul,
    permutation,
    splat16,
    store,
    sub,
    upper,
)
from kagglehms.features.transform_compiled import FRAMES, transform_frames

COLUMNS = LANES
"""Columns that are finished together: a cache line of the image."""

_by_8, _by_4, _by_2, _by_1 = (
    permutation([(lane + by) % LANES for lane in range(LANES)]) for by in (8, 4, 2, 1)
)


# ---- mel bands


@apart
def _sum_bands(
    power: Any, bands: Any, column: int, n_frames: int, n_bins: int, start: Any, weight: Any,
    n_mels: int, n_taps: int, width: int, loudest: Any,
) -> Any:  # fmt: skip
    """Write the power in the mel bands of a few frames; return the greatest so far, per lane."""
    for m in range(n_mels):
        for frame in range(n_frames):
            at, band = (frame * n_bins + start[m]) * LANES, splat16(0.0)
            for tap in range(n_taps):
                band = fma(broadcast16(weight, m * n_taps + tap), load16(power, at + tap * LANES), band)
            store(bands, (m * width + column + frame) * LANES, band)
            loudest = upper(band, loudest)
    return loudest


@helper
def _greatest(x: Any) -> Any:
    """The greatest lane in all lanes."""
    x = upper(_by_8(x, x), x)
    x = upper(_by_4(x, x), x)
    x = upper(_by_2(x, x), x)
    return upper(_by_1(x, x), x)


@helper
def _spectrum(
    lanes: Any, folded: Any, kept: Any, power: Any, bands: Any, rows: Any, weights: Any, start: Any, weight: Any,
    first_centre: int, hop: int, half: int, rank: int, n_bins: int, n_taps: int,
    n_mels: int, width: int, column: int, n_columns: int, loudest: Any,
) -> Any:  # fmt: skip
    """Write the mel bands of `n_columns` frames from `column` on; return the greatest so far, per lane."""
    for first in range(0, n_columns, FRAMES):
        n = min(FRAMES, n_columns - first)
        begin = (first_centre + first * hop - half) * LANES
        transform_frames(lanes[begin:], folded, kept, power, rows, weights, 0, n, hop, half, rank, n_bins)
        loudest = _sum_bands(
            power, bands, column + first, n, n_bins, start, weight, n_mels, n_taps, width, loudest
        )
    return loudest


# ---- decibels and planes


@helper
def _octaves(x: Any) -> Any:
    """log2 of positive normal numbers, within 5e-8 and their own rounding.

    With x = 2^e (1 + f), 1 + f in [√½, √2): e and the minimax polynomial of degree 7 in f.
    """
    f = sub(mantissa(x), splat16(1.0))
    p = fma(splat16(-0.145741117), f, splat16(0.236889062))
    p = fma(p, f, splat16(-0.250069625))
    p = fma(p, f, splat16(0.286707656))
    p = fma(p, f, splat16(-0.360087181))
    p = fma(p, f, splat16(0.480939437))
    p = fma(p, f, splat16(-0.72135715))
    p = fma(p, f, splat16(1.44269477))
    return fma(p, f, mul(exponent(x), splat16(2.0**-23)))


@apart
def _write_planes(
    bands: Any, at: int, floor: Any, per_octave: float, square: Any, out: Any, place: int, row: int, plane: int,
    before: Any, after: Any,
) -> None:  # fmt: skip
    """Write sixteen columns of one band of all signals, in three planes.

    Args:
        bands: power.
        at: where the first of sixteen vectors of it is.
        floor: power below which all is raised to it.
        per_octave: the level of a power of 2.
        square: scratch.
        out: the image.
        place: where the sixteen columns of the first signal begin in it.
        row: from the row of one signal to that of the next.
        plane: from one plane to the next.
        before: of each signal, the neighbour on one side.
        after: of each signal, the neighbour on the other side.
    """
    units = splat16(per_octave)
    for column in range(0, COLUMNS * LANES, LANES):
        store(square, column, mul(_octaves(upper(load16(bands, at + column), floor)), units))
    store_square(square, 0, LANES, square_of(square, 0, LANES))
    total = splat16(0.0)
    for signal in range(LANES):
        total = add(total, load16(square, signal * LANES))
    others = mul(total, splat16(-1.0 / (LANES - 1)))
    for signal in range(LANES):
        x, i = load16(square, signal * LANES), place + signal * row
        beside = add(load16(square, before[signal] * LANES), load16(square, after[signal] * LANES))
        store(out, i, x)
        store(out, i + plane, fma(x, splat16(LANES / (LANES - 1)), others))
        store(out, i + 2 * plane, fma(beside, splat16(-0.5), x))


@helper
def _write(
    bands: Any, floor: Any, per_octave: float, square: Any, out: Any, first_column: int, n_columns: int,
    n_mels: int, width: int, before: Any, after: Any,
) -> None:  # fmt: skip
    """Write `n_columns` columns of the image, from `first_column` on, in all planes.

    The last sixteen overlap those before them where their number is no multiple of sixteen.
    """
    row, plane = n_mels * width, LANES * n_mels * width
    for m in range(n_mels):
        for first in range(0, n_columns, COLUMNS):
            i = m * width + first_column + min(first, n_columns - COLUMNS)
            _write_planes(bands, i * LANES, floor, per_octave, square, out, i, row, plane, before, after)


# ---- the whole

_INTEGERS_IN = types.Array(types.int64, 1, "C", readonly=True)
_COEFFICIENTS = (FLOATS_IN, FLOATS_IN, _INTEGERS_IN, FLOATS_IN)
_ARGUMENTS = (
    *[FLOATS] * 7,
    FLOATS_IN,
    *_COEFFICIENTS,
    *_COEFFICIENTS,
    _INTEGERS_IN,
    _INTEGERS_IN,
    *[types.int64] * 18,
    types.boolean,
    types.boolean,
    *[types.float64] * 4,
)


@compiled(plain_zoom.zoom_image, float32=(FLOATS_IN, *_ARGUMENTS), uint16=(HALVES_IN, *_ARGUMENTS))
def zoom_image(
    eeg: Any, out: Any, lanes: Any, folded: Any, kept: Any, power: Any, bands: Any, square: Any, modes: Any,
    wide_rows: Any, wide_weights: Any, wide_start: Any, wide_weight: Any,
    centre_rows: Any, centre_weights: Any, centre_start: Any, centre_weight: Any, before: Any, after: Any,
    n_times: int, pad: int, n_mels: int, width: int,
    wide_hop: int, wide_half: int, wide_rank: int, wide_bins: int, wide_taps: int,
    n_wide: int, n_left: int, n_right: int,
    centre_hop: int, centre_half: int, centre_rank: int, centre_bins: int, centre_taps: int, centre_first: int,
    filtered: bool, mirror: bool, clip: float, factor: float, ratio: float, per_octave: float,
) -> None:  # fmt: skip
    """(n_times, 20) µV → (3, 16 · n_mels, width), both flat; six arrays of scratch, eleven of coefficients.

    `n_left` and `n_right` columns of the wide spectrum are kept beside the centre; `ratio` is the least power that
    counts, in those of the loudest.
    """
    subtract(eeg, lanes, pad, n_times, False, mirror, clip, factor)
    if filtered:
        two_modes(lanes, pad * LANES, n_times, modes)
    right, n_centre, nothing = width - n_right, width - n_left - n_right, splat16(0.0)
    wide = _spectrum(
        lanes, folded, kept, power, bands, wide_rows, wide_weights, wide_start, wide_weight,
        pad, wide_hop, wide_half, wide_rank, wide_bins, wide_taps, n_mels, width, 0, n_left, nothing,
    )  # fmt: skip
    wide = _spectrum(
        lanes, folded, kept, power, bands, wide_rows, wide_weights, wide_start, wide_weight,
        pad + (n_wide - n_right) * wide_hop, wide_hop, wide_half, wide_rank, wide_bins, wide_taps,
        n_mels, width, right, n_right, wide,
    )  # fmt: skip
    centre = _spectrum(
        lanes, folded, kept, power, bands, centre_rows, centre_weights, centre_start, centre_weight,
        pad + centre_first, centre_hop, centre_half, centre_rank, centre_bins, centre_taps,
        n_mels, width, n_left, n_centre, nothing,
    )  # fmt: skip
    wide_floor = upper(mul(_greatest(wide), splat16(ratio)), splat16(AMIN))
    centre_floor = upper(mul(_greatest(centre), splat16(ratio)), splat16(AMIN))
    _write(bands, wide_floor, per_octave, square, out, 0, n_left, n_mels, width, before, after)
    _write(bands, centre_floor, per_octave, square, out, n_left, n_centre, n_mels, width, before, after)
    _write(bands, wide_floor, per_octave, square, out, right, n_right, n_mels, width, before, after)
