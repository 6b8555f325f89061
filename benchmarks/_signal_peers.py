"""Other ways to the same filtered signals, folded images and spectra, each as its library does it best, in float32."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, signal

from kagglehms.data.competition import CHAINS, CHANNELS

F32 = NDArray[np.float32]

STEPS = [(a, b) for chain in (*CHAINS.values(), ("Fz", "Cz", "Pz")) for a, b in pairwise(chain)]
FIRST, SECOND = [CHANNELS.index(a) for a, _ in STEPS], [CHANNELS.index(b) for _, b in STEPS]
SECTIONS = signal.butter(2, (0.5, 20), "bandpass", fs=200, output="sos")
BLOCKS = ((0, 10_000, 21, 3), (4000, 6000, 4, 0))
"""First and last sample, hop and columns left out at either end, of both blocks of an image of spectra."""
WIN, N_COLUMNS = 144, 464


def differences(window: NDArray[Any], n_signals: int) -> F32:
    """(n_times, 20) float16 or float32 → (n_signals, n_times) float32, clipped, gaps filled."""
    wide = window.astype(np.float32)
    x = np.ascontiguousarray((wide[:, FIRST[:n_signals]] - wide[:, SECOND[:n_signals]]).T)
    missing = ~np.isfinite(x)
    if missing.any():
        for row, gone in zip(x, missing, strict=True):
            row[gone] = row[~gone].mean() if not gone.all() else 0
    return np.clip(x, -1024, 1024, out=x)


def causal(x: F32) -> NDArray[Any]:
    """Filter (n_signals, n_times); SciPy computes in float64 whatever it is given."""
    return np.asarray(signal.sosfilt(SECTIONS, x, axis=-1))


def linear_by(taps: NDArray[Any]) -> Callable[[F32], F32]:
    """Convolution by one long Fourier transform, all rows at once: quicker here than `fftconvolve`."""
    half = len(taps) // 2
    length = fft.next_fast_len(10_000 + 2 * half, real=True)
    answer = fft.rfft(taps.astype(np.float32), length)

    def linear(x: F32) -> F32:
        padded = np.pad(x, ((0, 0), (half, half)), "reflect", reflect_type="odd")
        whole = fft.irfft(fft.rfft(padded, length, axis=-1) * answer, length, axis=-1)
        return np.asarray(whole[:, 2 * half : 2 * half + x.shape[1]])

    return linear


def folded(window: NDArray[Any], filter_: Callable[[F32], NDArray[Any]]) -> F32:
    """(10000, 20) → (160, 1000)"""
    x = filter_(differences(window, 16) / np.float32(32))
    return np.ascontiguousarray(x.reshape(16, 1000, 10).transpose(0, 2, 1), np.float32).reshape(160, 1000)


def _image(blocks: list[NDArray[Any]]) -> F32:
    """Two (18, 14, 464) blocks of power per Hz → (512, 512)."""
    values = np.log1p(np.concatenate(blocks, axis=1)).reshape(504, N_COLUMNS)
    image = np.zeros((512, 512), np.float32)
    image[:504, :N_COLUMNS] = values
    return (image - image.mean()) / (image.std() + np.float32(1e-6))


def spectra_scipy(window: NDArray[Any]) -> F32:
    """`scipy.signal.spectrogram`, as the published solution."""
    x, blocks = differences(window, 18), []
    for first, last, hop, trim in BLOCKS:
        _, _, power = signal.spectrogram(
            x[:, first:last], 200, window="hann", nperseg=WIN, noverlap=WIN - hop, detrend="constant"
        )
        blocks.append(power[:, 1:15, trim : trim + N_COLUMNS])
    return _image(blocks)


HANN = signal.windows.hann(WIN, sym=False).astype(np.float32)
PER_HZ = np.float32(2 / (200 * (HANN**2).sum()))


def spectra_strided(window: NDArray[Any]) -> F32:
    """Strided frames and one `scipy.fft.rfft` a block, in float32: what one writes by hand to be quick."""
    x, blocks = differences(window, 18), []
    for first, last, hop, trim in BLOCKS:
        frames = np.lib.stride_tricks.sliding_window_view(x[:, first:last], WIN, axis=-1)[:, ::hop]
        frames = frames[:, trim : trim + N_COLUMNS]
        bins = fft.rfft((frames - frames.mean(axis=-1, keepdims=True)) * HANN, axis=-1)[:, :, 1:15]
        blocks.append((PER_HZ * (bins.real**2 + bins.imag**2)).transpose(0, 2, 1))
    return _image(blocks)


def spectra_librosa() -> Callable[[NDArray[Any]], F32]:
    """`librosa.stft`, which does not take off a frame's mean: the result is another in the lowest bin."""
    import librosa

    def image(window: NDArray[Any]) -> F32:
        x, blocks = differences(window, 18), []
        for first, last, hop, trim in BLOCKS:
            bins = librosa.stft(x[:, first:last], n_fft=WIN, hop_length=hop, center=False)[:, 1:15]
            bins = bins[:, :, trim : trim + N_COLUMNS]
            blocks.append(PER_HZ * (bins.real**2 + bins.imag**2))
        return _image(blocks)

    return image


# ---- mel spectra with a finer centre

RING_OF_EIGHT = np.array([0, 1, 2, 3, 11, 10, 9, 8])
"""Differences of the left hemisphere, once round; those of the right are four on."""
NEIGHBOURS = np.empty((2, 16), np.intp)
for _side in (0, 4):
    NEIGHBOURS[:, RING_OF_EIGHT + _side] = [np.roll(RING_OF_EIGHT, by) + _side for by in (1, -1)]


def _planes(wide_db: NDArray[Any], centre_db: NDArray[Any]) -> F32:
    """(16, 64, 313) and (16, 64, 601) dB → (3, 1024, 852)."""
    x = np.concatenate([wide_db[..., :125], centre_db, wide_db[..., 187:]], axis=-1) / np.float32(20)
    others = (x.sum(axis=0) - x) / np.float32(15)
    beside = (x[NEIGHBOURS[0]] + x[NEIGHBOURS[1]]) / np.float32(2)
    return np.asarray(np.stack([x, x - others, x - beside]).reshape(3, 1024, 852))


def zoom_librosa() -> Callable[[NDArray[Any]], F32]:
    """`librosa.feature.melspectrogram` and `power_to_db` in float32, all differences in one call."""
    import librosa

    mels = {"sr": 200, "n_mels": 64, "fmin": 0.53, "fmax": 30}

    def image(window: NDArray[Any]) -> F32:
        x = differences(window, 16) / np.float32(32)
        wide = librosa.feature.melspectrogram(y=x, n_fft=512, win_length=128, hop_length=32, **mels)
        centre = librosa.feature.melspectrogram(
            y=x[:, 3800 - 1024 : 6200 + 1024],
            n_fft=2048,
            win_length=16,
            hop_length=4,
            center=False,
            **mels,
        )
        return _planes(*(librosa.power_to_db(power, top_db=100.0) for power in (wide, centre)))

    return image


def zoom_scipy() -> Callable[[NDArray[Any]], F32]:
    """Strided frames, one `scipy.fft.rfft` and one matrix product a spectrum, in float32: written to be quick.

    A frame is as long as its window, so that the transform pads with zeros and no product with them is made.
    """
    from kagglehms.features.mel import MelSpec
    from kagglehms.features.mel_plan import mel_filters

    def spectrum(x: F32, n_fft: int, win: int, hop: int) -> F32:
        bands = mel_filters(MelSpec(n_fft, win, 64, 0.53, 30.0)).astype(np.float32)
        last = np.flatnonzero(bands.any(axis=0))[-1] + 1
        window = signal.windows.hann(win, sym=False).astype(np.float32)
        frames = np.lib.stride_tricks.sliding_window_view(x, win, axis=-1)[:, ::hop]
        bins = fft.rfft(frames * window, n_fft, axis=-1)[..., :last]
        power = (bins.real**2 + bins.imag**2) @ bands[:, :last].T
        db = 10 * np.log10(np.maximum(power, np.float32(1e-10)))
        return np.asarray(np.maximum(db, db.max() - 100).transpose(0, 2, 1))

    def image(window: NDArray[Any]) -> F32:
        x = differences(window, 16) / np.float32(32)
        wide = spectrum(np.pad(x, ((0, 0), (64, 64))), 512, 128, 32)
        centre = spectrum(x[:, 3800 - 8 : 6200 + 8], 2048, 16, 4)
        return _planes(wide, centre)

    return image
