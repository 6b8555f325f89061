"""One EEG window → four mel images, in compiled code; `kagglehms.features.mel` explains the mathematics.

Sixteen lanes are the sixteen differences of the double banana: lane 4·p + c is the p-th difference of chain c, so that
the four quarters of a vector, multiplied, leave one value per chain.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from kagglehms.data.competition import CHAINS, PANELS
from kagglehms.features.differences_compiled import (
    N_CHANNELS,
    PAIRS,
    electrode_pairs,
    fill_missing,
    write_differences,
)
from kagglehms.features.jit import Floats, Source, apart, helper
from kagglehms.features.mel_plan import MelPlan
from kagglehms.features.simd import (
    LANES,
    broadcast16,
    div,
    exponent,
    fma,
    fma_each,
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

N_PANELS = len(PANELS)
BLOCK = 16
"""Frames that are finished together: a cache line of the image."""
AMIN = 1e-10
"""Least power that has a logarithm (librosa's `amin`)."""
TOP_DB = 80.0
"""Greatest distance below the loudest; what is quieter is raised to it (librosa's `top_db`)."""
FLOOR = 10 ** (-TOP_DB / 10)
LEVEL_PER_OCTAVE = 10 * math.log10(2) / len(PANELS) / 40
"""The mean of 4 values (decibels + 40) / 40, when the product of their powers doubles."""

STEPS = tuple((CHAINS[panel][p], CHAINS[panel][p + 1]) for p in range(4) for panel in PANELS)
"""The two electrodes whose difference each lane holds."""

_minuends = permutation([PAIRS.index(first) for first, _ in STEPS])
_subtrahends = permutation([PAIRS.index(second) for _, second in STEPS])

_low8, _high8 = permutation(range(8)), permutation(range(8, 16))
_low4, _high4 = permutation(range(4)), permutation(range(4, 8))
_both4, _both8 = permutation(range(8)), permutation(range(16))
_zip_low = permutation([LANES * v + 4 * g + i for g in range(4) for i in (0, 1) for v in (0, 1)])
_zip_high = permutation([LANES * v + 4 * g + i for g in range(4) for i in (2, 3) for v in (0, 1)])
_pair_low = permutation([LANES * v + 4 * g + i for g in range(4) for v in (0, 1) for i in (0, 1)])
_pair_high = permutation([LANES * v + 4 * g + i for g in range(4) for v in (0, 1) for i in (2, 3)])


class MelScratch(NamedTuple):
    """Arrays that a call works in, all flat.

    Attributes:
        differences: (H + n_times + H, 16) µV, zeros in the padding.
        folded: (H, 2, 16) sums and differences of samples at equal distance from the centre.
        kept: (FRAMES, R + 1, 2, 16) the transform at R even and R odd rows, and the level of the frame.
        power: (n_all_frames, K, 16) µV² in every bin.
        bands: (n_all_frames, M + 1, 16) µV² in every mel band, if bands read more than two bins.
    """

    differences: Floats
    folded: Floats
    kept: Floats
    power: Floats
    bands: Floats


@helper
def _by_place(eeg: Any, t: int, mirror: bool) -> Any:
    """Return the sixteen differences at sample t: the first of each chain, then the second of each, …"""
    pairs = electrode_pairs(eeg, t)
    return sub(_minuends(pairs, pairs), _subtrahends(pairs, pairs))


# ---- mel bands


@apart
def _sum_wide_bands(scratch: Any, plan: Any, first: int, n_frames: int) -> None:
    """Write the power in mel bands of more than two bins, for some frames from `first` on."""
    start, weight, n_mels, n_taps = plan.band_start, plan.band_weight, plan.band_start.size, plan.n_taps
    for frame in range(first, first + n_frames):
        for m in range(n_mels):
            band = (splat16(0.0),)
            for tap in range(n_taps):
                bin_ = load16(scratch.power, (frame * plan.transform.n_bins + start[m] + tap) * LANES)
                band = fma_each(weight, m * n_taps + tap, bin_, band)
            store(scratch.bands, (frame * (n_mels + 1) + m) * LANES, band[0])


@helper
def _band(power: Any, at: int, weight0: Any, weight1: Any) -> Any:
    """Return the power in one mel band of two bins."""
    return fma(weight1, load16(power, at + LANES), mul(weight0, load16(power, at)))


@apart
def _loudest(power: Any, at: int, n_frames: int, n_bins: int, plan: Any, loudest: Any) -> Any:
    """Return the greatest band power so far, per lane."""
    start, weight = plan.pair_start, plan.pair_weight
    for m in range(start.size):
        weight0, weight1 = broadcast16(weight, 2 * m), broadcast16(weight, 2 * m + 1)
        for frame in range(n_frames):
            i = at + (frame * n_bins + start[m]) * LANES
            loudest = upper(_band(power, i, weight0, weight1), loudest)
    return loudest


# ---- decibels


@helper
def _level(product: Any) -> Any:
    """Return the mean of four (decibels + 40) / 40 from the product of four ratios of power, positive and normal.

    With x = 2^e (1 + f), 1 + f in [√½, √2): e octaves and f P(f), the minimax polynomial of degree 6, within 4e-8.
    """
    f = sub(mantissa(product), splat16(1.0))
    p = fma(splat16(-0.00388689614), f, splat16(0.00606114203))
    p = fma(p, f, splat16(-0.00691409403))
    p = fma(p, f, splat16(0.00901863317))
    p = fma(p, f, splat16(-0.013567645))
    p = fma(p, f, splat16(0.0271437521))
    return fma(p, f, fma(exponent(product), splat16(LEVEL_PER_OCTAVE * 2.0**-23), splat16(1.0)))


@helper
def _product(power: Any, at: int, weight0: Any, weight1: Any, floor: Any) -> Any:
    """Return band power, raised to the floor, multiplied along each of the four chains."""
    relative = upper(_band(power, at, weight0, weight1), floor)
    pairs = mul(_low8(relative, relative), _high8(relative, relative))
    return mul(_low4(pairs, pairs), _high4(pairs, pairs))


@helper
def _four_products(power: Any, at: int, step: int, weight0: Any, weight1: Any, floor: Any) -> Any:
    """Return the products of four frames, `step` apart, end to end."""
    a = _product(power, at, weight0, weight1, floor)
    b = _product(power, at + step, weight0, weight1, floor)
    c = _product(power, at + 2 * step, weight0, weight1, floor)
    d = _product(power, at + 3 * step, weight0, weight1, floor)
    return _both8(_both4(a, b), _both4(c, d))


@apart
def _write_block(
    power: Any, n_bins: int, out: Any, frame: int, n_frames: int, plan: Any, scale: Any, floor: Any
) -> None:
    """Write BLOCK frames, 16 pixels of each row of each image, of band power times a scale.

    Vector v holds frames v, v + 4, v + 8 and v + 12, four chains each, so that transposing squares of 4 × 4, which
    needs no lane to leave its quarter, brings frames in order.
    """
    start, weight = plan.pair_start, plan.pair_weight
    image, step = start.size * n_frames, n_bins * LANES
    for m in range(start.size):
        i = frame * step + start[m] * LANES
        weight0, weight1 = mul(broadcast16(weight, 2 * m), scale), mul(broadcast16(weight, 2 * m + 1), scale)
        a = _four_products(power, i, 4 * step, weight0, weight1, floor)
        b = _four_products(power, i + step, 4 * step, weight0, weight1, floor)
        c = _four_products(power, i + 2 * step, 4 * step, weight0, weight1, floor)
        d = _four_products(power, i + 3 * step, 4 * step, weight0, weight1, floor)
        ab_low, ab_high, cd_low, cd_high = _zip_low(a, b), _zip_high(a, b), _zip_low(c, d), _zip_high(c, d)
        o = m * n_frames + frame
        store(out, o, _level(_pair_low(ab_low, cd_low)))
        store(out, o + image, _level(_pair_high(ab_low, cd_low)))
        store(out, o + 2 * image, _level(_pair_low(ab_high, cd_high)))
        store(out, o + 3 * image, _level(_pair_high(ab_high, cd_high)))


# ---- the whole


def mel_image(eeg: Source, out: Floats, scratch: MelScratch, plan: MelPlan, n_frames: int) -> None:
    """Write the four mel images of one window.

    Args:
        eeg: flat (n_times, 20) µV.
        out: flat (4, M, n_frames) images.
        scratch: arrays to work in; the padding of `differences` holds zeros.
        plan: the resolution.
        n_frames: frames of an image, `BLOCK` or more.
    """
    n_times, n_mels = eeg.size // N_CHANNELS, plan.band_start.size
    hop, half = n_times // n_frames, plan.transform.half
    if not write_differences(eeg, scratch.differences, half, _by_place, False):
        fill_missing(scratch.differences, half, n_times)
    n_all, wide = 1 + n_times // hop, plan.n_taps > 2
    source, n_source = (scratch.bands, n_mels + 1) if wide else (scratch.power, plan.transform.n_bins)
    loudest = splat16(AMIN)
    for first in range(0, n_all, FRAMES):
        n = min(FRAMES, n_all - first)
        transform_frames(scratch.differences, scratch, plan.transform, first, n, hop)
        if wide:
            _sum_wide_bands(scratch, plan, first, n)
        loudest = _loudest(source, first * n_source * LANES, n, n_source, plan, loudest)
    scale = div(splat16(1.0), loudest)
    floor = upper(mul(splat16(AMIN), scale), splat16(FLOOR))
    for first in range(0, n_frames, BLOCK):
        frame = min(first, n_frames - BLOCK)
        _write_block(source, n_source, out, frame, n_frames, plan, scale, floor)
