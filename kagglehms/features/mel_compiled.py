"""One EEG window → four mel images, in compiled code. The mathematics stands at the top of `kagglehms.features.mel`.

Sixteen lanes are the sixteen differences of the double banana: lane 4·p + c is the p-th difference of chain c, so that
the four quarters of a vector, multiplied, leave one value per chain. All arrays are flat:

    differences  (pad + n_times + pad, 16)   µV, zeros in the padding
    folded       (H, 2, 16)                  sums and differences of samples at equal distance from the centre
    kept         (FRAMES, R + 1, 2, 16)      the transform at R even and R odd rows, and the level of the frame
    power        (n_all_frames, K, 16)       µV² in every bin
    bands        (n_all_frames, M + 1, 16)   µV² in every mel band, where one is of more than two bins
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types

from kagglehms.data.competition import CHAINS, PANELS
from kagglehms.features import plain
from kagglehms.features.differences_compiled import N_CHANNELS, PAIRS, RIGHT, fill_missing, pair_up
from kagglehms.features.jit import FLOATS, FLOATS_IN, HALVES_IN, apart, compiled, helper
from kagglehms.features.simd import (
    LANES,
    add,
    broadcast16,
    div,
    exponent,
    fma,
    lane_sum,
    load8,
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
"""What lies further below the loudest is raised to that distance (librosa's `top_db`)."""
FLOOR = 10 ** (-TOP_DB / 10)
LEVEL_PER_OCTAVE = 10 * math.log10(2) / len(PANELS) / 40
"""The mean of 4 values (decibels + 40) / 40, when the product of their powers doubles."""

STEPS = tuple((CHAINS[panel][p], CHAINS[panel][p + 1]) for p in range(4) for panel in PANELS)
"""The two electrodes that each lane subtracts."""

_minuends = permutation([PAIRS.index(first) for first, _ in STEPS])
_subtrahends = permutation([PAIRS.index(second) for _, second in STEPS])

_low8, _high8 = permutation(range(8)), permutation(range(8, 16))
_low4, _high4 = permutation(range(4)), permutation(range(4, 8))
_both4, _both8 = permutation(range(8)), permutation(range(16))
_zip_low = permutation([LANES * v + 4 * g + i for g in range(4) for i in (0, 1) for v in (0, 1)])
_zip_high = permutation([LANES * v + 4 * g + i for g in range(4) for i in (2, 3) for v in (0, 1)])
_pair_low = permutation([LANES * v + 4 * g + i for g in range(4) for v in (0, 1) for i in (0, 1)])
_pair_high = permutation([LANES * v + 4 * g + i for g in range(4) for v in (0, 1) for i in (2, 3)])


# ---- differences


@apart
def _subtract(eeg: Any, differences: Any, pad: int, n_times: int) -> bool:
    """Write the differences; return whether all of them are finite."""
    total = splat16(0.0)
    for t in range(n_times):
        pairs = pair_up(load8(eeg, t * N_CHANNELS), load8(eeg, t * N_CHANNELS + RIGHT))
        x = sub(_minuends(pairs, pairs), _subtrahends(pairs, pairs))
        total = add(total, x)
        store(differences, (pad + t) * LANES, x)
    return np.isfinite(lane_sum(total))


# ---- mel bands


@apart
def _sum_wide_bands(
    power: Any, bands: Any, first: int, n_frames: int, n_bins: int, start: Any, weight: Any, n_mels: int, n_taps: int
) -> None:  # fmt: skip
    """Power in mel bands of more than two bins, for some frames from `first` on."""
    for frame in range(first, first + n_frames):
        for m in range(n_mels):
            band = splat16(0.0)
            for tap in range(n_taps):
                bin_ = load16(power, (frame * n_bins + start[m] + tap) * LANES)
                band = fma(broadcast16(weight, m * n_taps + tap), bin_, band)
            store(bands, (frame * (n_mels + 1) + m) * LANES, band)


@helper
def _band(power: Any, at: int, weight0: Any, weight1: Any) -> Any:
    """Power in one mel band of two bins."""
    return fma(weight1, load16(power, at + LANES), mul(weight0, load16(power, at)))


@apart
def _loudest(
    power: Any, at: int, n_frames: int, n_bins: int, start: Any, weight: Any, n_mels: int, loudest: Any
) -> Any:
    """Return the greatest band power so far, per lane."""
    for m in range(n_mels):
        weight0, weight1 = broadcast16(weight, 2 * m), broadcast16(weight, 2 * m + 1)
        for frame in range(n_frames):
            i = at + (frame * n_bins + start[m]) * LANES
            loudest = upper(_band(power, i, weight0, weight1), loudest)
    return loudest


# ---- decibels


@helper
def _level(product: Any) -> Any:
    """The mean of four (decibels + 40) / 40, out of the product of four ratios of power, positive and normal.

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
    """Band power, not below the floor, multiplied along each of the four chains."""
    relative = upper(_band(power, at, weight0, weight1), floor)
    pairs = mul(_low8(relative, relative), _high8(relative, relative))
    return mul(_low4(pairs, pairs), _high4(pairs, pairs))


@helper
def _four_products(power: Any, at: int, step: int, weight0: Any, weight1: Any, floor: Any) -> Any:
    """Products of four frames, `step` apart, end to end."""
    a = _product(power, at, weight0, weight1, floor)
    b = _product(power, at + step, weight0, weight1, floor)
    c = _product(power, at + 2 * step, weight0, weight1, floor)
    d = _product(power, at + 3 * step, weight0, weight1, floor)
    return _both8(_both4(a, b), _both4(c, d))


@apart
def _write_block(
    power: Any, out: Any, frame: int, n_bins: int, start: Any, weight: Any,
    n_mels: int, n_frames: int, scale: Any, floor: Any,
) -> None:  # fmt: skip
    """BLOCK frames: 16 pixels of each row of each image, of band power times a scale.

    Vector v holds frames v, v + 4, v + 8 and v + 12, four chains each, so that transposing squares of 4 × 4, which
    needs no lane to leave its quarter, brings frames in order.
    """
    image, step = n_mels * n_frames, n_bins * LANES
    for m in range(n_mels):
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


_INTEGERS_IN = types.Array(types.int64, 1, "C", readonly=True)
_ARGUMENTS = (
    *[FLOATS] * 6,
    FLOATS_IN,
    FLOATS_IN,
    _INTEGERS_IN,
    FLOATS_IN,
    _INTEGERS_IN,
    FLOATS_IN,
    *[types.int64] * 8,
)


@compiled(plain.mel_image, float32=(FLOATS_IN, *_ARGUMENTS), uint16=(HALVES_IN, *_ARGUMENTS))
def mel_image(
    eeg: Any, out: Any,
    differences: Any, folded: Any, kept: Any, power: Any, bands: Any,
    rows: Any, weights: Any, start: Any, weight: Any, pair_start: Any, pair_weight: Any,
    n_times: int, hop: int, n_frames: int, half: int, rank: int, n_bins: int, n_mels: int, n_taps: int,
) -> None:  # fmt: skip
    """(n_times, 20) µV → (4, n_mels, n_frames), both flat; five arrays of scratch, six of coefficients.

    A band is made of a pair of neighbours in what precedes it: bins, or, where bands are of more bins than two, bands
    already, the second of which counts nothing.
    """
    if not _subtract(eeg, differences, half, n_times):
        fill_missing(differences, half, n_times)
    n_all, wide = 1 + n_times // hop, n_taps > 2
    source, n_source = (bands, n_mels + 1) if wide else (power, n_bins)
    loudest = splat16(AMIN)
    for first in range(0, n_all, FRAMES):
        n = min(FRAMES, n_all - first)
        transform_frames(differences, folded, kept, power, rows, weights, first, n, hop, half, rank, n_bins)
        if wide:
            _sum_wide_bands(power, bands, first, n, n_bins, start, weight, n_mels, n_taps)
        at = first * n_source * LANES
        loudest = _loudest(source, at, n, n_source, pair_start, pair_weight, n_mels, loudest)
    scale = div(splat16(1.0), loudest)
    floor = upper(mul(splat16(AMIN), scale), splat16(FLOOR))
    for first in range(0, n_frames, BLOCK):
        frame = min(first, n_frames - BLOCK)
        _write_block(source, out, frame, n_source, pair_start, pair_weight, n_mels, n_frames, scale, floor)
