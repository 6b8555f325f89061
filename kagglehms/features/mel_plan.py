"""The resolution of a mel image, and the tables by which it is computed.

Everything is in closed form or a small linear fit, in float64, and takes a few milliseconds. The top of
`kagglehms.features.mel` explains the mathematics.

Letters: K bins of the transform, H half a window (H = win_length / 2), R rank, M mel bands.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import PANELS, SFREQ_HZ
from kagglehms.features.arrays import check_spec
from kagglehms.features.jit import Indices, Table
from kagglehms.features.transform_plan import Bins, Transform, low_rank

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]


@dataclass(frozen=True)
class MelSpec:
    """The resolution of a mel image.

    The hop between frames is `n_times // n_frames` samples; frames are centred on multiples of it, the first on sample
    0, with zeros beyond both ends, and the first `n_frames` of them make the image.

    Attributes:
        n_fft: length of the transform in samples, even: bins are sfreq / n_fft apart.
        win_length: length of the Hann window in samples, even, at most n_fft.
        n_mels: number of mel bands, rows of the image.
        fmin: lower edge of the first band, Hz.
        fmax: upper edge of the last band, Hz.
        sfreq: samples per second, Hz.
        n_frames: number of frames, columns of the image.
        tolerance: greatest error that the low rank may cause in a bin, relative to the strongest row of the transform.

    Raises:
        UsageError: values that contradict each other.
    """

    n_fft: int = 1024
    win_length: int = 128
    n_mels: int = 128
    fmin: float = 0.0
    fmax: float = 20.0
    sfreq: float = SFREQ_HZ
    n_frames: int = 256
    tolerance: float = 2e-6

    def __post_init__(self) -> None:
        counts = (self.n_fft, self.win_length, self.n_mels, self.n_frames)
        whole = all(isinstance(count, int) and count >= 1 for count in counts)
        even = self.n_fft % 2 == 0 and self.win_length % 2 == 0
        in_order = 0 <= self.fmin < self.fmax <= self.sfreq / 2
        check_spec(
            self,
            {
                "n_fft, win_length, n_mels and n_frames: expected whole numbers, 1 or more": whole,
                "n_fft and win_length: expected even numbers, win_length ≤ n_fft": even
                and self.win_length <= self.n_fft,
                "fmin and fmax: expected 0 ≤ fmin < fmax ≤ sfreq / 2": in_order,
                "tolerance: expected a number above 0": self.tolerance > 0,
            },
        )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(4, n_mels, n_frames)"""
        return len(PANELS), self.n_mels, self.n_frames


class MelPlan(NamedTuple):
    """What compiled code reads to compute mel images.

    Attributes:
        transform: the transform of a frame, in two stages.
        n_taps: bins that a mel band reads.
        band_start: (M,) index of the first bin that each mel band reads.
        band_weight: flat (M, n_taps) weights of the bins.
        pair_start: (M,) index of the first of two neighbours that make a band; they are bins, or, if bands read more
            than two bins, bands already.
        pair_weight: flat (M, 2) weights of the two; of bands, the second is 0.
    """

    transform: Transform
    n_taps: int
    band_start: Indices
    band_weight: Table
    pair_start: Indices
    pair_weight: Table


@functools.lru_cache(maxsize=8)
def plan(spec: MelSpec) -> MelPlan:
    """Derive the tables of `spec`.

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
    n_mels, n_taps = weight.shape
    pair_start, pair_weight = start, weight
    if n_taps > 2:
        pair_start, pair_weight = np.arange(n_mels), np.tile(np.array([1, 0], np.float32), (n_mels, 1))
    return MelPlan(
        transform=transform,
        n_taps=n_taps,
        band_start=start,
        band_weight=weight.reshape(-1),
        pair_start=pair_start,
        pair_weight=pair_weight.reshape(-1),
    )


# ---- the mel bands


def mel_filters(spec: MelSpec) -> F64:
    """Return (M, n_fft/2 + 1) triangular filters of unit area on Slaney's mel scale, as `librosa.filters.mel` does.

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
    """Convert to Slaney's scale: linear below 1 kHz, logarithmic above."""
    return 3 * hz / 200 if hz < 1000 else 15 + 27 * float(np.log(hz / 1000) / np.log(6.4))


def mel_to_hz(mel: F64) -> F64:
    """Convert from Slaney's scale."""
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
