"""Differences, filters and folded images once more in plain NumPy, for a machine where they cannot be compiled.

Same arguments as the compiled code, same answer to the last few bits of float32, many times slower.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import CHAINS, CHANNELS, PANELS
from kagglehms.features.plain import Floats, floats

Wide = NDArray[np.float64]

MIDLINE = ("Fz", "Cz", "Pz")
OTHER_SIDE = {"LL": "RL", "RL": "LL", "LP": "RP", "RP": "LP"}


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
    eeg: NDArray[Any], out: Floats, _lanes: Floats, _filtered: Floats, coefficients: Floats,
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


def _convolved(x: Wide, taps: Wide, pad: int) -> Wide:
    """Convolve with the taps, of which as many zeros on both sides as are beyond `pad` do not count."""
    reach = min(pad, x.shape[1] - 1)
    reflected = np.pad(x, ((0, 0), (reach, reach)), "reflect", reflect_type="odd")
    padded = np.pad(reflected, ((0, 0), (pad - reach, pad - reach)))
    middle = taps[len(taps) // 2 - pad : len(taps) // 2 + pad + 1]
    return np.stack([np.convolve(row, middle, "valid") for row in padded])
