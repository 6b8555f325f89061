"""Differences, filters, folded images and spectra once more in plain NumPy, where they cannot be compiled.

Same arguments as the compiled code, same answer to the last few bits of float32, many times slower.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import CHAINS, CHANNELS, OTHER_SIDE, PANELS
from kagglehms.features.filters import linear_taps
from kagglehms.features.plain import EPSILON, Floats, floats, untile

Wide = NDArray[np.float64]

MIDLINE = ("Fz", "Cz", "Pz")


def signals(eeg: Wide, midline: bool, mirror: bool) -> Wide:
    """(n_times, 20) µV → (n_signals, n_times): sixteen differences, or the two of the midline; gaps filled."""
    sides = OTHER_SIDE if mirror else dict(zip(PANELS, PANELS, strict=True))
    chains = [MIDLINE] if midline else [CHAINS[sides[panel]] for panel in PANELS]
    rows = []
    for chain in chains:
        for first, second in itertools.pairwise(chain):
            difference = eeg[:, CHANNELS.index(first)] - eeg[:, CHANNELS.index(second)]
            present = difference[np.isfinite(difference)]
            mean = present.mean() if present.size else 0.0
            rows.append(np.where(np.isfinite(difference), difference, mean))
    return np.stack(rows)


def difference_rows(
    eeg: NDArray[Any], out: Floats, _lanes: Floats, _filtered: Floats, _moments: Floats, coefficients: Floats,
    n_times: int, pad: int, filter_: int, first_row: int, width: int, phases: int, step: int,
    midline: bool, mirror: bool, clip: float, factor: float,
) -> None:  # fmt: skip
    """Twin of `differences_compiled.difference_rows`; it needs no scratch."""
    x = signals(floats(eeg).reshape(n_times, -1), midline, mirror)
    x = np.clip(x, -clip, clip) * factor
    filtered = (_unfiltered, _two_modes, _convolved)[filter_](x, coefficients.astype(np.float64), pad)
    kept = filtered[:, : width * phases * step : step]
    rows = kept.reshape(len(kept), width, phases).transpose(0, 2, 1)
    out.reshape(-1, width)[first_row : first_row + len(kept) * phases] = rows.reshape(-1, width)


def _unfiltered(x: Wide, _coefficients: Wide, _pad: int) -> Wide:
    return x


def _two_modes(x: Wide, coefficients: Wide, _pad: int) -> Wide:
    """Run the direct path and both modes, sample by sample."""
    direct, modes = coefficients[0], coefficients[1:].reshape(2, 4)
    poles = (modes[:, 0] + 1j * modes[:, 1])[:, None]
    weights = (modes[:, 2] - 1j * modes[:, 3])[
        :, None
    ]  # Re(weight · state) = Σ of both parts, each by its weight
    state = np.zeros((2, len(x)), np.complex128)
    filtered = np.empty_like(x)
    for t in range(x.shape[1]):
        filtered[:, t] = direct * x[:, t] + (weights * state).real.sum(axis=0)
        state = poles * state + x[:, t]
    return filtered


def _convolved(x: Wide, _coefficients: Wide, pad: int) -> Wide:
    reach = min(pad, x.shape[1] - 1)
    reflected = np.pad(x, ((0, 0), (reach, reach)), "reflect", reflect_type="odd")
    padded = np.pad(reflected, ((0, 0), (pad - reach, pad - reach)))
    return np.stack([np.convolve(row, linear_taps(), "valid") for row in padded])


def difference_spectra(
    eeg: NDArray[Any], out: Floats,
    _lanes: Floats, _pair: Floats, _runs: Floats, _folded: Floats, _kept: Floats, _ring: Floats, _sums: Floats,
    _part: Floats, _power: Floats, _square: Floats, rows: Floats, weights: Floats,
    _wide_turns: Floats, _wide_angle: Floats, _centre_turns: Floats, _centre_angle: Floats,
    n_times: int, half: int, rank: int, n_bins: int, _below: int, n_wanted: int, n_columns: int, _run: int,
    width: int, height: int, wide_start: int, wide_hop: int, _wide_tiles: int,
    centre_start: int, centre_hop: int, _centre_tiles: int, n_signals: int,
    midline: bool, mirror: bool, clip: float, scale: float,
) -> None:  # fmt: skip
    """Twin of `spectra_compiled.difference_spectra`; it needs no scratch."""
    wide = floats(eeg).reshape(n_times, -1)
    x = signals(wide, False, mirror)
    x = np.clip(np.vstack([x, signals(wide, True, mirror)]) if midline else x, -clip, clip)
    blocks = []
    for start, hop in ((wide_start, wide_hop), (centre_start, centre_hop)):
        frames = x[:, start + hop * np.arange(n_columns)[:, None] + np.arange(2 * half)]
        power = _squared_magnitudes(frames - frames.mean(axis=-1, keepdims=True), rows, weights, half, rank)
        blocks.append(np.log1p(power[:, :, :n_wanted] * scale).transpose(0, 2, 1))
    image = np.stack(blocks, axis=1).reshape(2 * n_wanted * n_signals, n_columns)
    whole = np.zeros((height, width))
    whole[: len(image), :n_columns] = image
    out.reshape(height, width)[:] = (whole - whole.mean()) / (whole.std() + EPSILON)


def _squared_magnitudes(frames: Wide, rows: Floats, weights: Floats, half: int, rank: int) -> Wide:
    """(…, 2 H) samples of frames → (…, K) squared magnitudes of their bins."""
    after, before = frames[..., half:], frames[..., half:0:-1]
    even, odd = untile(rows, half)
    real, imaginary = (after + before) @ even.T, (after - before) @ odd.T
    if rank:
        even, odd = (part[:, :rank] for part in untile(weights, rank + 1))
        real, imaginary = real @ even.T, imaginary @ odd.T
    return real**2 + imaginary**2
