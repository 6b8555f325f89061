"""One record after the other in NumPy and SciPy, as the notebooks of the competition make what their networks see.

`ITEMS` has a way for each kind of input: given recordings, it prepares what the notebooks load, and returns the
function that makes the array of record `i` from it.

Shape suffixes: C difference, F frequency, T time.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from kagglehms.data.competition import CHAINS, CHANNELS, N_TIMES, SFREQ_HZ
from kagglehms.features import mel_images

F32 = NDArray[np.float32]
Item = Callable[[int], F32]

N_DISTINCT = 8
"""Recordings that are really different; noise is as dear to compute with as EEG."""


class InMemory:
    """Recordings as a store holds them, made of noise: no feed looks at what they say."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._rows = rng.normal(1, 2, (N_DISTINCT, 320, 400)).clip(-4, 8).astype(np.float16)
        self._eeg_uv = rng.normal(0, 40, (N_DISTINCT, 12_000, 20)).astype(np.float16)

    def spectrogram(self, spectrogram_id: int) -> NDArray[np.float16]:
        return self._rows[spectrogram_id % N_DISTINCT]

    def eeg(self, eeg_id: int) -> NDArray[np.float16]:
        return self._eeg_uv[eeg_id % N_DISTINCT]


def panels(recordings: InMemory) -> Item:
    """Four panels, each normalised by itself, of spectrogram files as pandas gives them: power, in float32."""
    powers = [np.exp(recordings.spectrogram(i).astype(np.float32)) for i in range(N_DISTINCT)]

    def item(i: int) -> F32:
        drawn = []
        for panel in range(4):
            image = powers[i % N_DISTINCT][:300, 100 * panel : 100 * (panel + 1)].T
            image = np.log(np.clip(image, np.exp(-4), np.exp(8)))
            mean, std = np.nanmean(image.flatten()), np.nanstd(image.flatten())
            drawn.append(np.nan_to_num((image - mean) / (std + 1e-6), nan=0.0))
        return np.concatenate(drawn)[None].astype(np.float32)

    return item


def eeg_and_percentiles(recordings: InMemory) -> Item:
    """Percentiles beside mel images, which the notebooks load from files that were made and stored before."""
    eeg_uv = np.stack([recordings.eeg(i)[:N_TIMES] for i in range(N_DISTINCT)])
    stored = list(mel_images(eeg_uv.astype(np.float32)))

    def item(i: int) -> F32:
        mel = stored[i % N_DISTINCT]
        percentiles = [np.percentile(mel, q, axis=0) for q in (20, 40, 60, 80)]
        image = np.concatenate([np.concatenate(list(mel)), np.concatenate(percentiles)], axis=1)
        return image[None].astype(np.float32)

    return item


def raw_fold(recordings: InMemory) -> Item:
    """Sixteen differences, causal 0.5 to 20 Hz; ten phases of each, one upon the other: 160 × 1000."""
    item_CT = signals(recordings)

    def item(i: int) -> F32:
        signals_CT = item_CT(i)
        folded = signals_CT.reshape(len(signals_CT), -1, 10).transpose(0, 2, 1)
        return np.ascontiguousarray(folded.reshape(1, -1, folded.shape[-1]))

    return item


def spectra(recordings: InMemory) -> Item:
    """Spectrograms of eighteen differences over 50 s, each above a finer one of the middle 10 s: 512 × 512."""

    def power(uv_CT: F32, hop: int) -> NDArray[np.floating]:
        freqs_F, _, power_CFT = signal.spectrogram(uv_CT, SFREQ_HZ, "hann", 144, 144 - hop)
        return np.log1p(power_CFT[:, (freqs_F >= 0.5) & (freqs_F <= 20)])

    def item(i: int) -> F32:
        uv_CT = np.clip(differences(_window(recordings, i), midline=True), -1024, 1024)
        wide, fine = power(uv_CT, 21)[..., 3:467], power(uv_CT[:, 4000:6000], 4)[..., :464]
        stacked = np.concatenate([wide, fine], axis=1).reshape(-1, 464)
        image = np.zeros((1, 512, 512), np.float32)
        image[0, : len(stacked), :464] = stacked
        return (image - image.mean()) / (image.std() + np.float32(1e-6))

    return item


def signals(recordings: InMemory) -> Item:
    """Sixteen differences in 1/32 µV, clipped, causal 0.5 to 20 Hz: 16 × 10,000."""
    sections = signal.butter(2, (0.5, 20), "bandpass", fs=SFREQ_HZ, output="sos")

    def item(i: int) -> F32:
        uv_CT = differences(_window(recordings, i))
        return signal.sosfilt(sections, np.clip(uv_CT, -1024, 1024) / 32).astype(np.float32)

    return item


ITEMS: dict[str, Callable[[InMemory], Item]] = {
    "baseline": panels,
    "eeg+percentiles": eeg_and_percentiles,
    "raw-fold": raw_fold,
    "stft-50-10": spectra,
    "wave-stack": signals,
}
"""By the recipe whose network is given such arrays."""

_PAIRS = [pair for chain in CHAINS.values() for pair in pairwise(chain)]
_MIDLINE = [("Fz", "Cz"), ("Cz", "Pz")]


def differences(uv_TC: NDArray[Any], midline: bool = False) -> F32:
    """(C, T) µV between neighbours of the double banana, chain by chain; missing samples are their channel's mean."""
    filled_TC = uv_TC.astype(np.float32)
    filled_TC = np.where(np.isnan(filled_TC), np.nanmean(filled_TC, axis=0), filled_TC)
    pairs = _PAIRS + _MIDLINE * midline
    return np.stack([filled_TC[:, CHANNELS.index(a)] - filled_TC[:, CHANNELS.index(b)] for a, b in pairs])


def _window(recordings: InMemory, i: int) -> NDArray[np.float16]:
    return recordings.eeg(i)[:N_TIMES]
