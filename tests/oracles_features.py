"""The features once more, in plain NumPy float64, straight from their definitions and without a shared line."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def finite_or_nan(values: NDArray[Any]) -> F64:
    """float64 with NaN for what is not finite."""
    wide = np.asarray(values, np.float64)
    return np.where(np.isfinite(wide), wide, np.nan)


def normalise(
    log_power: NDArray[Any], mean: float | None = None, std: float | None = None, over: str = "image"
) -> F64:
    """(…, 4, F, T) log power → normalised, NaN → 0."""
    values = finite_or_nan(log_power)
    axes = (-3, -2, -1) if over == "image" else (-2, -1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # means of nothing
        centre = np.nanmean(values, axis=axes, keepdims=True) if mean is None else mean
        spread = np.nanstd(values, axis=axes, keepdims=True) if std is None else std
    return np.nan_to_num((values - centre) / (spread + 1e-6), nan=0.0)


def panels_of_rows(rows: NDArray[Any]) -> NDArray[Any]:
    """(T, 4·F) stored rows → (4, F, T)."""
    n_times, n_columns = rows.shape
    return np.moveaxis(rows.reshape(n_times, 4, n_columns // 4), 0, -1)


def percentiles(panels: NDArray[Any]) -> F64:
    """(…, 4, F, T) → 20th, 40th, 60th and 80th percentile of the panels present; 0 where there is none."""
    values = finite_or_nan(panels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nan_to_num(
            np.stack([np.nanpercentile(values, q, axis=-3) for q in (20, 40, 60, 80)], axis=-3)
        )


def summaries(panels: NDArray[Any]) -> F64:
    """(…, 4, F, T) → minimum, maximum, mean and range of the panels present; 0 where there is none."""
    values = finite_or_nan(panels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        low, high = np.nanmin(values, axis=-3), np.nanmax(values, axis=-3)
        return np.nan_to_num(np.stack([low, high, np.nanmean(values, axis=-3), high - low], axis=-3))


# ---- mel images, from the definition in the public notebook

CHANNELS = (
    "Fp1", "F3", "C3", "P3", "F7", "T3", "T5", "O1", "Fz",
    "Cz", "Pz", "Fp2", "F4", "C4", "P4", "F8", "T4", "T6", "O2", "EKG",
)  # fmt: skip
CHAINS = ("Fp1 F7 T3 T5 O1", "Fp2 F8 T4 T6 O2", "Fp1 F3 C3 P3 O1", "Fp2 F4 C4 P4 O2")


def chain_differences(eeg_uv: NDArray[Any]) -> NDArray[Any]:
    """(n_times, 20) → (4, 4, n_times) differences of a chain's neighbours, gaps filled with the mean of each.

    They keep the input's precision, as the notebook's do.
    """
    differences = np.empty((4, 4, len(eeg_uv)), eeg_uv.dtype)
    for chain, names in zip(differences, CHAINS, strict=True):
        electrodes = [CHANNELS.index(name) for name in names.split()]
        for x, first, second in zip(chain, electrodes[:-1], electrodes[1:], strict=True):
            with np.errstate(invalid="ignore"):
                x[:] = eeg_uv[:, first] - eeg_uv[:, second]
            finite = np.isfinite(x)
            x[~finite] = x[finite].astype(np.float64).mean() if finite.any() else 0
    return differences


def mel_bands(sfreq: float, n_fft: int, n_mels: int, fmin: float, fmax: float) -> F64:
    """(n_mels, 1 + n_fft/2) triangles of unit area with equidistant corners: Slaney's scale is linear below 1 kHz."""
    assert fmax <= 1000
    corners = np.linspace(fmin, fmax, n_mels + 2)
    bins = np.arange(1 + n_fft // 2) * sfreq / n_fft
    bands = np.empty((n_mels, bins.size))
    for band, (low, middle, high) in zip(
        bands, zip(corners, corners[1:], corners[2:], strict=False), strict=True
    ):
        triangle = np.interp(bins, [low, middle, high], [0, 1, 0], left=0, right=0)
        band[:] = triangle * 2 / (high - low)
    return bands


def mel_image(
    eeg_uv: NDArray[Any], n_fft: int = 1024, win_length: int = 128, n_mels: int = 128, fmin: float = 0.0,
    fmax: float = 20.0, sfreq: float = 200.0, n_frames: int = 256,
) -> F64:  # fmt: skip
    """(n_times, 20) µV → (4, n_mels, n_frames) by full FFTs, a dense mel matrix and sixteen logarithms, in float64."""
    n_times = len(eeg_uv)
    hop = n_times // n_frames
    window = np.zeros(n_fft)
    at = (n_fft - win_length) // 2
    window[at : at + win_length] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(win_length) / win_length)
    bands = mel_bands(sfreq, n_fft, n_mels, fmin, fmax)
    image = np.zeros((4, n_mels, n_frames))
    for panel, chain in zip(image, chain_differences(eeg_uv), strict=True):
        for x in chain:
            padded = np.pad(x.astype(np.float64), n_fft // 2)
            frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop]
            power = np.abs(np.fft.rfft(frames * window)) ** 2 @ bands.T
            level = 10 * np.log10(np.maximum(power, 1e-10)) - 10 * np.log10(max(power.max(), 1e-10))
            level = np.maximum(level, level.max() - 80)
            panel += (level[:n_frames].T + 40) / 40 / 4
    return image
