"""The coefficients of the mel images: from the numbers of a spectrogram to the tables that the compiled code reads.

Everything is in closed form or a small linear fit, in float64 with NumPy alone, in a few milliseconds. The mathematics
stands at the top of `kagglehms.features.mel`.

Letters: K bins of the transform, H half a window (H = win_length / 2), R rank, M mel bands.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kagglehms.features.transform_plan import Bins, low_rank

if TYPE_CHECKING:
    from kagglehms.features.mel import MelSpec

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class MelPlan:
    """What the compiled code needs to know.

    Attributes:
        half: H, samples on each side of a frame's centre, itself included.
        rank: R, rows that are kept of each parity.
        n_bins: K, bins that are computed, in whole tiles; the last ones may be empty.
        n_taps: bins that a mel band reads.
        project: flat float32, R/3 tiles of (H, 3 even rows and 3 odd rows).
        transform: flat float32, K/3 tiles of (R + 1, 3 even rows and 3 odd rows); the last of R + 1 belongs to the
            level that is taken off a frame.
        band_start: (M,) int64, the first bin that each mel band reads.
        band_weight: flat float32 (M, n_taps).
        error: greatest error of a bin for a window of unit energy, relative to the energy of a bin's own row.
    """

    half: int
    rank: int
    n_bins: int
    n_taps: int
    project: F32
    transform: F32
    band_start: NDArray[np.int64]
    band_weight: F32
    error: float


@functools.lru_cache(maxsize=8)
def plan(spec: MelSpec) -> MelPlan:
    """Derive the coefficients of `spec`.

    Raises:
        UsageError: `spec.tolerance` is below what float32 coefficients can reach.
    """
    bands = mel_filters(spec)
    used = np.flatnonzero(bands.any(axis=0))
    first, last = (int(used[0]), int(used[-1])) if used.size else (0, 0)
    transform = low_rank(
        Bins(spec.n_fft, spec.win_length, first, last, spec.tolerance, asked_by="MelSpec.tolerance")
    )
    start, weight = _taps(bands[:, first : last + 1], transform.n_bins)
    return MelPlan(
        half=transform.half,
        rank=transform.rank,
        n_bins=transform.n_bins,
        n_taps=weight.shape[1],
        project=transform.project,
        transform=transform.transform,
        band_start=start,
        band_weight=weight.reshape(-1),
        error=transform.error,
    )


# ---- the mel bands


def mel_filters(spec: MelSpec) -> F64:
    """(M, n_fft/2 + 1) triangular filters of unit area on Slaney's mel scale, as `librosa.filters.mel` defines them.

    Source: M. Slaney, Auditory Toolbox (1998); B. McFee et al., librosa, `librosa/filters.py`.
    """
    edges_hz = mel_to_hz(np.linspace(hz_to_mel(spec.fmin), hz_to_mel(spec.fmax), spec.n_mels + 2))
    bins_hz = np.arange(spec.n_fft // 2 + 1) * (spec.sfreq / spec.n_fft)
    width = np.diff(edges_hz)
    rising = (bins_hz - edges_hz[:-2, None]) / width[:-1, None]
    falling = (edges_hz[2:, None] - bins_hz) / width[1:, None]
    area = 2.0 / (edges_hz[2:] - edges_hz[:-2])
    return np.maximum(0.0, np.minimum(rising, falling)) * area[:, None]


def hz_to_mel(hz: float) -> float:
    """Slaney's scale: linear below 1 kHz, logarithmic above."""
    return 3 * hz / 200 if hz < 1000 else 15 + 27 * float(np.log(hz / 1000) / np.log(6.4))


def mel_to_hz(mel: F64) -> F64:
    return np.where(mel < 15, 200 * mel / 3, 1000 * 6.4 ** ((mel - 15) / 27))


def _taps(bands: F64, n_bins: int) -> tuple[NDArray[np.int64], F32]:
    """Return the first bin of each band and the (M, n_taps) weights from there on."""
    n_mels = len(bands)
    padded = np.zeros((n_mels, n_bins))
    padded[:, : bands.shape[1]] = bands
    some = padded.any(axis=1)
    first = np.where(some, (padded > 0).argmax(axis=1), 0)
    last = np.where(some, n_bins - 1 - (padded[:, ::-1] > 0).argmax(axis=1), 0)
    n_taps = max(2, int((last - first).max()) + 1)
    start = np.minimum(first, n_bins - n_taps)
    weight = np.take_along_axis(padded, start[:, None] + np.arange(n_taps), axis=1)
    return start.astype(np.int64), weight.astype(np.float32)
