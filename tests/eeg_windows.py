"""EEG-like windows, what goes wrong with them in recordings, and one call of each feature."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]


def eeg(n_times: int = 10_000, seed: int = 0) -> F32:
    """(n_times, 20) µV: a 1/f background shared by neighbours, an alpha rhythm, discharges once a second."""
    rng = np.random.default_rng(seed)
    t = np.arange(n_times) / 200
    slow = rng.normal(0, 1, (n_times, 6)).cumsum(axis=0)
    slow -= np.linspace(0, 1, n_times)[:, None] * slow[-1]
    mixed = slow @ rng.normal(0, 3, (6, 20)) / 10
    alpha = np.sin(2 * np.pi * 10 * t)[:, None] * rng.uniform(0, 20, 20)
    spikes = (np.exp(-(((t % 1) - 0.5) ** 2) / 0.0008) * 80)[:, None] * rng.uniform(-1, 1, 20)
    return (mixed + alpha + spikes + rng.normal(0, 4, (n_times, 20))).astype(np.float32)


def _artefact() -> F32:
    window = eeg(seed=1)
    window[4000:4300] += 2000 * np.random.default_rng(1).normal(0, 1, (300, 20)).astype(np.float32)
    return window


def _pops() -> F32:
    window = eeg(seed=2)
    window[3000:, ::3] += 2000
    window[7000:7003, ::2] -= 20_000
    return window


def _offsets() -> F32:
    return eeg(seed=3) + 3000 * np.random.default_rng(3).normal(0, 1, 20).astype(np.float32)


def _gaps() -> F32:
    window = eeg(seed=4) + 300
    rng = np.random.default_rng(4)
    for channel in range(20):
        start = rng.integers(0, 9000)
        window[start : start + rng.integers(1, 900), channel] = np.nan
    window[:5, 3] = np.nan
    window[-5:, 0] = np.nan
    return window


def _dead_channels() -> F32:
    window = eeg(seed=5)
    window[:, [0, 12, 18]] = np.nan
    return window


def _infinities() -> F32:
    window = eeg(seed=6)
    window[100, 0], window[200:260, 5], window[9999, 7] = np.inf, -np.inf, np.inf
    window[500, :] = np.inf
    return window


def _one_constant_channel() -> F32:
    window = eeg(seed=7)
    window[:, 1] = 77.7
    window[:, 2] = 77.7
    return window


def _denormals() -> F32:
    window = eeg(seed=8)
    window[:, [4, 5]] *= np.float32(1e-41)
    return window


def _line_noise() -> F32:
    t = np.arange(10_000)[:, None] / 200
    return (
        eeg(seed=9) + 500 * np.sin(2 * np.pi * 60 * t) * np.random.default_rng(9).uniform(0, 1, 20)
    ).astype(np.float32)


NASTY = {
    "plain": eeg(),
    "2 mV artefact": _artefact(),
    "electrode pops": _pops(),
    "offsets": _offsets(),
    "gaps": _gaps(),
    "dead channels": _dead_channels(),
    "infinities": _infinities(),
    "a constant difference": _one_constant_channel(),
    "denormals": _denormals(),
    "line noise": _line_noise(),
    "1e5 µV": eeg(seed=10) * np.float32(1e5 / 80),
    "0.01 µV": eeg(seed=11) * np.float32(1e-4),
    "constants": np.tile(np.linspace(-100, 100, 20, dtype=np.float32) ** 3, (10_000, 1)),
    "white": np.random.default_rng(12).normal(0, 50, (10_000, 20)).astype(np.float32),
    "step": np.where(np.arange(10_000)[:, None] > 5000, np.linspace(-9e3, 9e3, 20) ** 3 / 1e8, 0).astype(
        np.float32
    ),
}
"""Windows by what is wrong with them, (10000, 20) µV each."""

EMPTY = {
    "zeros": np.zeros((10_000, 20), np.float32),
    "all NaN": np.full((10_000, 20), np.nan, np.float32),
    "all denormal": np.full((10_000, 20), 1e-41, np.float32) * np.arange(20, dtype=np.float32),
}


def sample_features() -> dict[str, NDArray[Any]]:
    """One result of each feature, on data with gaps; the same in every process."""
    from kagglehms import features

    power = np.exp(np.random.default_rng(0).normal(1, 3, (4, 20, 30))).astype(np.float32)
    power[1, 3], power[:, 5, 6], power[2, 7, 8] = np.nan, np.nan, np.inf
    rows = np.log(power).reshape(80, 30).T.astype(np.float16).copy()
    return {
        "mel": features.mel_images(NASTY["gaps"][None, :4000]),
        "normalised": features.normalise(np.log(power)),
        "rows": features.normalise_rows(rows, np.empty((4, 20, 30), np.float32), over="panel"),
        "rows given": features.normalise_rows(rows, np.empty((80, 30), np.float32), 1.0, 2.0),
        "percentiles": features.percentiles(power),
        "summaries": features.summaries(power),
        **{
            f"folded {name}": features.folded_image(
                NASTY["gaps"][:2000], spec=features.FoldSpec(filter=name, step=2, phases=5), mirror=True
            )
            for name in ("none", "causal", "linear")
        },
        "spectra": features.difference_spectra(NASTY["gaps"], mirror=True),
        "zoomed": features.zoomed_image(NASTY["gaps"], mirror=True)[:, :, ::25].copy(),
        "zoomed filtered": features.zoomed_image(
            NASTY["plain"][3000:7000], spec=features.ZoomSpec(n_mels=4), band_hz=(1.0, 30.0)
        ),
        "differences": features.difference_signals(
            NASTY["infinities"][:300], spec=features.DifferenceSpec(step=3, midline=True)
        ),
    }
