"""One EEG window → mel spectra of its sixteen differences, the centre finer than the rest, in compiled code.

`kagglehms.features.zoom` explains what is computed. Sixteen lanes are the sixteen differences, in the order of the rows
of the image.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from kagglehms.features.differences_compiled import N_CHANNELS, chains, load_square, subtract
from kagglehms.features.filters import CAUSAL, Filter
from kagglehms.features.filters_compiled import two_modes
from kagglehms.features.jit import Floats, Source, apart, helper
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
    store_rows,
    sub,
    upper,
)
from kagglehms.features.transform_compiled import FRAMES, transform_frames
from kagglehms.features.zoom_plan import ZoomPlan

COLUMNS = LANES
"""Columns that are finished together: a cache line of the image."""

_by_8, _by_4, _by_2, _by_1 = (
    permutation([(lane + by) % LANES for lane in range(LANES)]) for by in (8, 4, 2, 1)
)


class ZoomScratch(NamedTuple):
    """Arrays that a call works in, all flat.

    Attributes:
        lanes: (pad + n_times + pad, 16) the differences, zeros in the padding.
        folded: (H, 2, 16) a frame, folded about its centre.
        kept: (FRAMES, R + 1, 2, 16) the first of two stages, see `transform_compiled`.
        power: (FRAMES, K, 16) squared magnitudes of the bins of a few frames.
        bands: (M, width, 16) power in every mel band, in the columns of the image.
        square: (16, 16) one band of sixteen columns, signal by signal.
    """

    lanes: Floats
    folded: Floats
    kept: Floats
    power: Floats
    bands: Floats
    square: Floats


# ---- mel bands


@apart
def _sum_bands(scratch: Any, mel: Any, column: int, n_frames: int, width: int, loudest: Any) -> Any:
    """Write the power in the mel bands of a few frames; return the greatest so far, per lane."""
    start, weight, n_taps = mel.band_start, mel.band_weight, mel.n_taps
    for m in range(start.size):
        for frame in range(n_frames):
            at, band = (frame * mel.transform.n_bins + start[m]) * LANES, splat16(0.0)
            for tap in range(n_taps):
                bin_ = load16(scratch.power, at + tap * LANES)
                band = fma(broadcast16(weight, m * n_taps + tap), bin_, band)
            store(scratch.bands, (m * width + column + frame) * LANES, band)
            loudest = upper(band, loudest)
    return loudest


@helper
def _sum_stretch(scratch: Any, plan: Any, stretch: Any, loudest: Any) -> Any:
    """Write the mel bands of a stretch; return the greatest so far, per lane."""
    mel, transform = stretch.mel, stretch.mel.transform
    for first in range(0, stretch.n_columns, FRAMES):
        n = min(FRAMES, stretch.n_columns - first)
        begin = (plan.pad + stretch.first_centre + first * stretch.hop - transform.half) * LANES
        transform_frames(scratch.lanes[begin:], scratch, transform, 0, n, stretch.hop)
        loudest = _sum_bands(scratch, mel, stretch.column + first, n, plan.width, loudest)
    return loudest


@helper
def _greatest(x: Any) -> Any:
    """Return the greatest lane in all lanes."""
    x = upper(_by_8(x, x), x)
    x = upper(_by_4(x, x), x)
    x = upper(_by_2(x, x), x)
    return upper(_by_1(x, x), x)


# ---- decibels and planes


@helper
def _octaves(x: Any) -> Any:
    """Return log2 of positive normal numbers, within 5e-8 and their own rounding.

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
def _write_planes(scratch: Any, plan: Any, i: int, floor: Any, out: Any) -> None:
    """Write sixteen columns of one band of all signals, in three planes, from pixel i of the first signal on.

    Power below `floor` is raised to it.
    """
    square, units = scratch.square, splat16(plan.per_octave)
    for column in range(0, COLUMNS * LANES, LANES):
        power = upper(load16(scratch.bands, i * LANES + column), floor)
        store(square, column, mul(_octaves(power), units))
    store_rows(square, 0, LANES, load_square(square, 0, LANES))
    total = splat16(0.0)
    for signal in range(LANES):
        total = add(total, load16(square, signal * LANES))
    others = mul(total, splat16(-1.0 / (LANES - 1)))
    row = plan.left.mel.band_start.size * plan.width
    plane = LANES * row
    for signal in range(LANES):
        x, o = load16(square, signal * LANES), i + signal * row
        before, after = plan.before[signal] * LANES, plan.after[signal] * LANES
        beside = add(load16(square, before), load16(square, after))
        store(out, o, x)
        store(out, o + plane, fma(x, splat16(LANES / (LANES - 1)), others))
        store(out, o + 2 * plane, fma(beside, splat16(-0.5), x))


@helper
def _write(scratch: Any, plan: Any, stretch: Any, floor: Any, out: Any) -> None:
    """Write the columns of a stretch in all planes.

    The last sixteen overlap those before them where their number is no multiple of sixteen.
    """
    for m in range(stretch.mel.band_start.size):
        for first in range(0, stretch.n_columns, COLUMNS):
            column = stretch.column + min(first, stretch.n_columns - COLUMNS)
            _write_planes(scratch, plan, m * plan.width + column, floor, out)


# ---- the whole


def zoom_image(
    eeg: Source, out: Floats, scratch: ZoomScratch, plan: ZoomPlan, filter_: Filter, mirror: bool
) -> None:
    """Write the image of one window.

    Args:
        eeg: flat (n_times, 20) µV.
        out: flat (3, 16 · n_mels, columns) image.
        scratch: arrays to work in; the padding of `lanes` holds zeros.
        plan: the resolution.
        filter_: a causal filter that the differences pass first, or none.
        mirror: whether left and right are exchanged.
    """
    subtract(eeg, scratch.lanes, plan.pad, chains, mirror, plan.clip, plan.factor)
    if filter_.kind == CAUSAL:
        two_modes(scratch.lanes, plan.pad * LANES, eeg.size // N_CHANNELS, filter_.modes)
    nothing, least = splat16(0.0), splat16(plan.least)
    wide = _sum_stretch(scratch, plan, plan.right, _sum_stretch(scratch, plan, plan.left, nothing))
    centre = _sum_stretch(scratch, plan, plan.centre, nothing)
    wide_floor = upper(mul(_greatest(wide), least), splat16(AMIN))
    _write(scratch, plan, plan.left, wide_floor, out)
    _write(scratch, plan, plan.centre, upper(mul(_greatest(centre), least), splat16(AMIN)), out)
    _write(scratch, plan, plan.right, wide_floor, out)
