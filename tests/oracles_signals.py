"""Differences, filters and folded images in float64, by NumPy and SciPy, straight from their definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, firwin, sosfilt, spectrogram
from scipy.signal.windows import hann

F64 = NDArray[np.float64]

CHANNELS = [
    "Fp1", "F3", "C3", "P3", "F7", "T3", "T5", "O1", "Fz", "Cz", "Pz",
    "Fp2", "F4", "C4", "P4", "F8", "T4", "T6", "O2", "EKG",
]  # fmt: skip
ROWS = [
    "Fp1-F7", "F7-T3", "T3-T5", "T5-O1", "Fp2-F8", "F8-T4", "T4-T6", "T6-O2", "Fp1-F3", "F3-C3", "C3-P3", "P3-O1",
    "Fp2-F4", "F4-C4", "C4-P4", "P4-O2", "Fz-Cz", "Cz-Pz",
]  # fmt: skip
SWAPPED = {
    "Fp1": "Fp2", "F3": "F4", "C3": "C4", "P3": "P4", "F7": "F8", "T3": "T4", "T5": "T6", "O1": "O2",
}  # fmt: skip
SWAPPED |= {right: left for left, right in SWAPPED.items()}


def mirrored(eeg_uv: NDArray[Any]) -> NDArray[Any]:
    """(n_times, 20) with the electrodes of left and right exchanged, midline and EKG as they are."""
    return eeg_uv[:, [CHANNELS.index(SWAPPED.get(name, name)) for name in CHANNELS]]


def differences(eeg_uv: NDArray[Any], n_signals: int = 16) -> F64:
    """(n_times, 20) µV → (n_signals, n_times), gaps filled with the mean of each difference, in float64.

    A difference is taken in the precision of float32, as an EEG comes; what overflows there is missing.
    """
    eeg = np.asarray(eeg_uv, np.float32)
    rows = np.empty((n_signals, len(eeg)))
    for row, name in zip(rows, ROWS[:n_signals], strict=True):
        first, second = (eeg[:, CHANNELS.index(electrode)] for electrode in name.split("-"))
        with np.errstate(invalid="ignore", over="ignore"):
            row[:] = first - second
        finite = np.isfinite(row)
        row[~finite] = row[finite].mean() if finite.any() else 0
    return rows


def causal(x: F64) -> F64:
    """Butterworth band-pass of order 2, 0.5–20 Hz, from rest."""
    return np.asarray(sosfilt(butter(2, (0.5, 20), "bandpass", fs=200, output="sos"), x, axis=-1))


def linear_taps() -> F64:
    """MNE's `firwin` design of 0.5–20 Hz at 200 Hz with transitions of 0.5 and 5 Hz, re-stated.

    Corners in Hz and the gain there, from Nyquist down: 100: 0, 25: 0, 20: 1, 0.5: 1, 0: 0. Wherever the gain changes,
    a Hamming low-pass of that transition's own length is added (gain rises, going down) or subtracted.
    """
    n_taps = 1321  # 3.3 / 0.5 Hz · 200 Hz, made odd
    taps = np.zeros(n_taps)
    for upper_hz, lower_hz, sign in ((25.0, 20.0, 1), (0.5, 0.0, -1)):
        length = round(3.3 / (upper_hz - lower_hz) * 200)
        length += 1 - length % 2
        margin = (n_taps - length) // 2
        low_pass = firwin(length, (upper_hz + lower_hz) / 2 / 100, window="hamming", pass_zero=True)
        taps[margin : n_taps - margin] += sign * low_pass
    return taps


def linear(x: F64) -> F64:
    """Zero-phase convolution; beyond the ends 2 x(0) − x(k), and zeros where the signal is too short for that."""
    half = 660
    reach = min(half, x.shape[-1] - 1)
    rows = []
    for row in x:
        left = 2 * row[0] - row[1 : reach + 1][::-1]
        right = 2 * row[-1] - row[-reach - 1 : -1][::-1]
        zeros = np.zeros(half - reach)
        rows.append(np.convolve(np.concatenate([zeros, left, row, right, zeros]), linear_taps(), "valid"))
    return np.array(rows)


FILTERS = {"none": lambda x: x, "causal": causal, "linear": linear}


def signals(
    eeg_uv: NDArray[Any], filter: str = "causal", step: int = 1, clip_uv: float = 1024.0, scale_uv: float = 32.0,
    n_signals: int = 16,
) -> F64:  # fmt: skip
    """(n_times, 20) µV → (n_signals, ⌈n_times / step⌉)"""
    x = np.clip(differences(eeg_uv, n_signals), -clip_uv, clip_uv) / scale_uv
    return FILTERS[filter](x)[:, ::step]


def folded(eeg_uv: NDArray[Any], phases: int = 10, **how: Any) -> F64:
    """I[phases · c + p, w] = x[c, phases · w + p], pixel by pixel."""
    x = signals(eeg_uv, **how)
    image = np.empty((len(x) * phases, x.shape[1] // phases))
    for c in range(len(x)):
        for p in range(phases):
            image[phases * c + p] = x[c, p::phases]
    return image


def spectra(
    eeg_uv: NDArray[Any], wide_s: int = 50, wide_hop: int = 21, wide_trim: int = 3, centre_s: int = 10,
    centre_hop: int = 4, centre_trim: int = 0, win_length: int = 144, n_fft: int = 144, fmin: float = 0.5,
    fmax: float = 20.0, midline: bool = True, clip_uv: float = 1024.0, height: int = 512, width: int = 512,
) -> F64:  # fmt: skip
    """(n_times, 20) µV → the image without its padding, by `scipy.signal.spectrogram` in float64.

    Of the frames that SciPy finds, 144 samples each, one at the end is left out if sample 145 is not there.
    """
    x = np.clip(differences(eeg_uv, 18 if midline else 16), -clip_uv, clip_uv)
    blocks = []
    for seconds, hop, trim in ((wide_s, wide_hop, wide_trim), (centre_s, centre_hop, centre_trim)):
        first = (x.shape[1] - seconds * 200) // 2
        block = x[:, first : first + seconds * 200]
        hz, _, power = spectrogram(
            block, 200, window=hann(win_length, sym=False), nperseg=win_length, noverlap=win_length - hop,
            nfft=n_fft, detrend="constant", scaling="density", mode="psd",
        )  # fmt: skip
        n_frames = (seconds * 200 - win_length - 1) // hop + 1
        kept = power[:, (hz >= fmin) & (hz <= fmax), trim : n_frames - trim]
        blocks.append(np.log1p(kept))
    image = np.concatenate(blocks, axis=1).reshape(-1, blocks[0].shape[-1])
    whole = np.pad(image, ((0, height - image.shape[0]), (0, width - image.shape[1])))
    return np.asarray((image - whole.mean()) / (whole.std() + 1e-6))


RINGS = (("Fp1", "F7", "T3", "T5", "O1", "P3", "C3", "F3"), ("Fp2", "F8", "T4", "T6", "O2", "P4", "C4", "F4"))
"""Electrodes of each hemisphere, once round: neighbours are subtracted, either way."""


def zoomed(
    eeg_uv: NDArray[Any], wide_n_fft: int = 512, wide_win: int = 128, wide_hop: int = 32, cut: int = 62,
    centre_samples: int = 2400, centre_n_fft: int = 2048, centre_win: int = 16, centre_hop: int = 4, n_mels: int = 64,
    fmin: float = 0.53, fmax: float = 30.0, clip_uv: float = 1024.0, scale_uv: float = 32.0, top_db: float = 100.0,
    unit_db: float = 20.0, band_hz: tuple[float, float] | None = None,
) -> F64:  # fmt: skip
    """(n_times, 20) µV → (3, 16 · n_mels, columns), by librosa in float64."""
    import librosa

    x = np.clip(differences(eeg_uv), -clip_uv, clip_uv) / scale_uv
    if band_hz is not None:
        x = np.asarray(sosfilt(butter(2, band_hz, "bandpass", fs=200, output="sos"), x, axis=-1))
    mels = {"sr": 200, "n_mels": n_mels, "fmin": fmin, "fmax": fmax}
    wide = librosa.feature.melspectrogram(
        y=x, n_fft=wide_n_fft, win_length=wide_win, hop_length=wide_hop, **mels
    )
    # The centre with half a transform of what really lies beside it; librosa's frames then need no padding.
    reach, first = centre_n_fft // 2, (x.shape[1] - centre_samples) // 2
    around = np.pad(x, ((0, 0), (reach, reach)))[:, first : first + centre_samples + 2 * reach]
    centre = librosa.feature.melspectrogram(
        y=around, n_fft=centre_n_fft, win_length=centre_win, hop_length=centre_hop, center=False, **mels
    )
    left = (wide.shape[-1] - cut) // 2
    sides = np.concatenate([wide[..., :left], wide[..., left + cut :]], axis=-1)
    sides, centre = (
        librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=top_db) / unit_db for power in (sides, centre)
    )
    levels = np.concatenate([sides[..., :left], centre, sides[..., left:]], axis=-1)
    by_pair = {frozenset(name.split("-")): signal for signal, name in enumerate(ROWS[:16])}
    less_others, less_neighbours = np.empty_like(levels), np.empty_like(levels)
    for signal, name in enumerate(ROWS[:16]):
        less_others[signal] = levels[signal] - np.delete(levels, signal, axis=0).mean(axis=0)
        ring = next(ring for ring in RINGS if name.split("-")[0] in ring)
        steps = [frozenset((ring[i - 1], ring[i])) for i in range(8)]
        at = steps.index(frozenset(name.split("-")))
        beside = [levels[by_pair[steps[(at + by) % 8]]] for by in (-1, 1)]
        less_neighbours[signal] = levels[signal] - np.mean(beside, axis=0)
    return np.stack([levels, less_others, less_neighbours]).reshape(3, 16 * n_mels, -1)
