"""Mel spectra with a finer centre once more in plain NumPy, where they cannot be compiled.

Same arguments as the compiled code, same answer to the last few bits of float32, many times slower.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kagglehms.features.differences_compiled import CAUSAL, NONE
from kagglehms.features.mel_compiled import AMIN
from kagglehms.features.plain import Floats, untile
from kagglehms.features.plain_signals import Wide, difference_rows
from kagglehms.features.simd import LANES


def zoom_image(
    eeg: NDArray[Any], out: Floats,
    _lanes: Floats, _folded: Floats, _kept: Floats, _power: Floats, _bands: Floats, _square: Floats, modes: Floats,
    wide_rows: Floats, wide_weights: Floats, wide_start: NDArray[np.int64], wide_weight: Floats,
    centre_rows: Floats, centre_weights: Floats, centre_start: NDArray[np.int64], centre_weight: Floats,
    before: NDArray[np.int64], after: NDArray[np.int64],
    n_times: int, pad: int, n_mels: int, width: int,
    wide_hop: int, wide_half: int, wide_rank: int, _wide_bins: int, wide_taps: int,
    n_wide: int, n_left: int, n_right: int,
    centre_hop: int, centre_half: int, centre_rank: int, _centre_bins: int, centre_taps: int, centre_first: int,
    filtered: bool, mirror: bool, clip: float, factor: float, ratio: float, per_octave: float,
) -> None:  # fmt: skip
    """Twin of `zoom_compiled.zoom_image`; it needs no scratch."""
    rows = np.empty(LANES * n_times, np.float32)
    nothing = np.empty(0, np.float32)
    difference_rows(
        eeg, rows, nothing, nothing, nothing, modes, n_times, 0, CAUSAL if filtered else NONE, 0, n_times, 1, 1,
        False, mirror, clip, factor,
    )  # fmt: skip
    x = np.pad(rows.reshape(LANES, n_times).astype(np.float64), ((0, 0), (pad, pad)))
    n_centre = width - n_left - n_right
    wide = _mel_bands(
        x,
        pad,
        wide_hop,
        n_wide,
        wide_rows,
        wide_weights,
        wide_half,
        wide_rank,
        wide_start,
        wide_weight,
        wide_taps,
    )
    centre = _mel_bands(
        x, pad + centre_first, centre_hop, n_centre, centre_rows, centre_weights, centre_half, centre_rank,
        centre_start, centre_weight, centre_taps,
    )  # fmt: skip
    sides = np.concatenate([wide[..., :n_left], wide[..., n_wide - n_right :]], axis=-1)
    left, right = np.split(_levels(sides, ratio, per_octave), [n_left], axis=-1)
    levels = np.concatenate([left, _levels(centre, ratio, per_octave), right], axis=-1)
    total = levels.sum(axis=0)
    others = (total - levels) / (len(levels) - 1)
    beside = (levels[before] + levels[after]) / 2
    out.reshape(3, -1, width)[:] = np.stack([levels, levels - others, levels - beside]).reshape(3, -1, width)


def _mel_bands(
    x: Wide, first_centre: int, hop: int, n_frames: int, rows: Floats, weights: Floats, half: int, rank: int,
    start: NDArray[np.int64], weight: Floats, n_taps: int,
) -> Wide:  # fmt: skip
    """(16, n_mels, n_frames) power in mel bands."""
    centres = first_centre + hop * np.arange(n_frames)[:, None]
    j = np.arange(half)
    after, before = x[:, centres + j], x[:, centres - j]  # (signal, frame, j)
    even_rows, odd_rows = untile(rows, half)
    even_weights, odd_weights = (part[:, :rank] for part in untile(weights, rank + 1))
    real = (after + before) @ even_rows.T @ even_weights.T
    imaginary = (after - before) @ odd_rows.T @ odd_weights.T
    bins = real**2 + imaginary**2
    taps = weight.reshape(-1, n_taps)
    bands = sum(bins[..., start + tap] * taps[:, tap] for tap in range(n_taps))
    return np.asarray(bands).transpose(0, 2, 1)


def _levels(bands: Wide, ratio: float, per_octave: float) -> Wide:
    return np.asarray(per_octave * np.log2(np.maximum(bands, max(AMIN, bands.max() * ratio))))
