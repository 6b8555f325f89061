"""Other ways to the same mel images, each as fast as its library allows. All take (B, 10000, 20) float32, no gaps."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import CHAINS, CHANNELS
from kagglehms.features import MelSpec
from kagglehms.features.mel_plan import mel_filters, plan
from kagglehms.features.transform_plan import untile

F32 = NDArray[np.float32]
Images = Callable[[F32], Any]

PAIRS = [(CHANNELS.index(a), CHANNELS.index(b)) for chain in CHAINS.values() for a, b in pairwise(chain)]
FIRST, SECOND = [a for a, _ in PAIRS], [b for _, b in PAIRS]
N_BINS = 103
"""Bins 0 … 102: nothing above reaches a band."""
HOP, N_FRAMES = 39, 256


def librosa_notebook() -> Images:
    """The public notebook, to the letter."""
    import librosa

    def image(window: F32) -> F32:
        panels = np.zeros((4, 128, 256), np.float32)
        for panel, chain in zip(panels, CHAINS.values(), strict=True):
            for a, b in pairwise(chain):
                x = window[:, CHANNELS.index(a)] - window[:, CHANNELS.index(b)]
                m = np.nanmean(x)
                x = np.nan_to_num(x, nan=m) if np.isnan(x).mean() < 1 else np.zeros_like(x)
                mel = librosa.feature.melspectrogram(
                    y=x,
                    sr=200,
                    hop_length=len(x) // 256,
                    n_fft=1024,
                    n_mels=128,
                    fmin=0,
                    fmax=20,
                    win_length=128,
                )
                width = (mel.shape[1] // 32) * 32
                panel += (librosa.power_to_db(mel, ref=np.max).astype(np.float32)[:, :width] + 40) / 40
        return panels / 4

    return lambda windows: np.stack([image(window) for window in windows])


def _torch_images(mel: Any) -> Any:
    """(B·16, 128, 257) mel power → (B, 4, 128, 256)."""
    import torch

    loudest = mel.amax((1, 2), keepdim=True).clamp_min(1e-10)
    level = 10 * torch.log10(mel.clamp_min(1e-10) / loudest)
    return ((level.clamp_min(-80)[:, :, :N_FRAMES] + 40) / 40).unflatten(0, (-1, 4, 4)).mean(2)


def _torch_differences(windows: F32) -> Any:
    import torch

    x = torch.from_numpy(windows)
    return (x[:, :, FIRST] - x[:, :, SECOND]).transpose(1, 2).reshape(-1, windows.shape[1])


def torch_stft(chunk: int) -> Images:
    import torch

    hann = torch.hann_window(128, periodic=True)
    bands = torch.from_numpy(mel_filters(MelSpec())[:, :N_BINS].astype(np.float32))

    def images(windows: F32) -> Any:
        parts = []
        for i in range(0, len(windows), chunk):
            x = _torch_differences(windows[i : i + chunk])
            spectrum = torch.stft(
                x, 1024, HOP, 128, hann, center=True, pad_mode="constant", return_complex=True
            )
            used = spectrum[:, :N_BINS]
            parts.append(_torch_images(bands @ (used.real.square() + used.imag.square())))
        return torch.cat(parts)

    return images


def torch_low_rank(chunk: int) -> Images:
    """The very factors of `kagglehms.features.mel_plan`, as matrix products of BLAS."""
    import torch

    p = plan(MelSpec()).transform
    even_rows, odd_rows = (torch.from_numpy(part.T.astype(np.float32)) for part in untile(p.project, p.half))
    even_weights, odd_weights = (
        torch.from_numpy(part[:, : p.rank].T.astype(np.float32)) for part in untile(p.combine, p.rank + 1)
    )
    bands = torch.from_numpy(mel_filters(MelSpec())[:, 1:N_BINS].T.astype(np.float32).copy())

    def images(windows: F32) -> Any:
        parts = []
        for i in range(0, len(windows), chunk):
            x = torch.nn.functional.pad(_torch_differences(windows[i : i + chunk]), (p.half - 1, p.half))
            frames = x.unfold(1, 2 * p.half - 1, HOP)
            after, before = frames[..., p.half - 1 :], frames[..., : p.half].flip(-1)
            real = (after + before) @ even_rows @ even_weights
            imaginary = (after - before) @ odd_rows @ odd_weights
            mel = (real.square_().addcmul_(imaginary, imaginary)) @ bands
            parts.append(_torch_images(mel.transpose(1, 2)))
        return torch.cat(parts)

    return images


def rocket_fft(threads: int = 1) -> Images:
    """Full FFTs by pocketfft inside Numba, everything after them as lean as plain Numba makes it."""
    import numba

    importlib.import_module("rocket_fft")  # registers np.fft with Numba
    spec = MelSpec()
    p = plan(spec)
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(128) / 128)).astype(np.float32)
    start, weight = p.band_start + 1, p.band_weight.reshape(-1, 2)
    pairs = np.array(PAIRS)

    @numba.njit(nogil=True, fastmath=True)
    def image(window, out, frames, mel):  # type: ignore[no-untyped-def]
        n = window.shape[0]
        for lane in range(16):
            for t in range(257):
                for j in range(128):
                    s = t * 39 - 64 + j
                    inside = 0 <= s < n
                    x = window[s, pairs[lane, 0]] - window[s, pairs[lane, 1]] if inside else np.float32(0)
                    frames[t, j] = hann[j] * x
            spectrum = np.fft.rfft(frames)
            loudest = np.float32(1e-10)
            for t in range(257):
                for m in range(128):
                    a, b = spectrum[t, start[m]], spectrum[t, start[m] + 1]
                    power = weight[m, 0] * (a.real**2 + a.imag**2) + weight[m, 1] * (b.real**2 + b.imag**2)
                    mel[t, m] = power
                    loudest = max(loudest, power)
            for m in range(128):
                for t in range(256):
                    ratio = max(mel[t, m] / loudest, np.float32(1e-8), np.float32(1e-10) / loudest)
                    level = (np.float32(10) * np.log10(ratio) + np.float32(40)) / np.float32(160)
                    out[lane // 4, m, t] = level + (out[lane // 4, m, t] if lane % 4 else np.float32(0))

    def images(windows: F32) -> F32:
        out = np.empty((len(windows), 4, 128, 256), np.float32)

        def work(part: range) -> None:
            frames, mel = np.zeros((257, 1024), np.float32), np.empty((257, 128), np.float32)
            for i in part:
                image(windows[i], out[i], frames, mel)

        if threads == 1:
            work(range(len(windows)))
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(work, [range(k, len(windows), threads) for k in range(threads)]))
        return out

    return images


def best_chunk(
    make: Callable[[int], Images], windows: F32, chunks: tuple[int, ...] = (1, 2, 4, 8, 16, 64)
) -> int:
    """Return how many windows at a time are fastest."""
    seconds = {}
    for chunk in chunks:
        images = make(chunk)
        images(windows)
        runs = []
        for _ in range(3):
            begin = time.perf_counter()
            images(windows)
            runs.append(time.perf_counter() - begin)
        seconds[chunk] = min(runs)
    return min(seconds, key=seconds.__getitem__)
