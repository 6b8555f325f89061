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

from kagglehms.errors import UsageError

if TYPE_CHECKING:
    from kagglehms.features.mel import MelSpec

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]

TILE = 3
"""Rows of each parity that a register tile computes at once."""


@dataclass(frozen=True, eq=False)
class MelPlan:
    """What the compiled code needs to know.

    Attributes:
        half: H, samples on each side of a frame's centre, itself included.
        rank: R, rows that are kept of each parity.
        n_bins: K, bins that are computed, a multiple of `TILE`; the last ones may be empty.
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
    n_bins = -(-(last - first + 1) // TILE) * TILE
    bins = np.arange(first, first + n_bins, dtype=np.float64)
    even, odd = (_Parity(spec, bins, last, odd=odd) for odd in (False, True))
    rank = _rank(spec, even, odd)
    (kept_even, fit_even, error_even), (kept_odd, fit_odd, error_odd) = even.fit(rank), odd.fit(rank)
    start, weight = _taps(bands[:, first : last + 1], n_bins)
    return MelPlan(
        half=spec.win_length // 2,
        rank=rank,
        n_bins=n_bins,
        n_taps=weight.shape[1],
        project=_tiles(_centre_halved(kept_even), kept_odd),
        transform=_tiles(np.hstack([fit_even, even.of_level()]), np.hstack([fit_odd, odd.of_level()])),
        band_start=start,
        band_weight=weight.reshape(-1),
        error=max(error_even, error_odd),
    )


# ---- the low-rank transform


class _Parity:
    """Cosine (even) or sine (odd) rows of the windowed transform of one frame, folded onto one half of it."""

    def __init__(self, spec: MelSpec, bins: F64, last_bin: int, odd: bool) -> None:
        self._spec, self._odd = spec, odd
        self._exact = self.rows(bins) * (bins <= last_bin)[:, None]
        self._size = np.linalg.norm(self._exact, axis=1).max()
        # Candidates a quarter of a bin apart, from the lowest frequency that has any response up to the last bin.
        self._candidates = self.rows(np.arange(0.0, last_bin + 0.25, 0.25))
        self._order, rest = _most_independent_first(self._candidates)
        self.likely_rank = int(np.count_nonzero(rest > spec.tolerance * self._size)) // TILE * TILE
        """A rank that is too small, or just not: what as many rows leave over is about the error of the fit."""
        self._likely = self._signals(last_bin)
        self._wanted = (self._exact @ self._likely).T

    def rows(self, bins: F64) -> F64:
        """(n, H) rows at the given frequencies, in bins, whole or not, times the window."""
        spec = self._spec
        j = np.arange(spec.win_length // 2)
        angle = 2 * np.pi / spec.n_fft * np.outer(bins, j)
        hann = 0.5 + 0.5 * np.cos(2 * np.pi * j / spec.win_length)
        return (np.sin(angle) if self._odd else np.cos(angle)) * hann

    def of_level(self) -> F32:
        """(K, 1) transform of a frame that is 1 everywhere."""
        if self._odd:
            return np.zeros((len(self._exact), 1), np.float32)
        return (self._exact[:, :1] + 2 * self._exact[:, 1:].sum(axis=1, keepdims=True)).astype(np.float32)

    def _signals(self, last_bin: int) -> F64:
        """(H, H) square root of the covariance of the folded signals that the fit should be good at.

        What lies in the band first, then anything.
        """
        j = np.arange(self._spec.win_length // 2)
        angle = 2 * np.pi / self._spec.n_fft * np.outer(j, np.arange(0.0, last_bin + 0.5, 0.5))
        tones = np.sin(angle) if self._odd else np.cos(angle)
        return np.linalg.cholesky(tones @ tones.T / tones.shape[1] + ANYTHING**2 * np.eye(j.size))

    def fit(self, rank: int) -> tuple[F32, F32, float]:
        """Return R rows, the (K, R) weights that make every bin out of them, and the error of the product."""
        chosen = np.sort(self._order[:rank])
        rows = np.zeros((rank, self._exact.shape[1]), np.float32)
        rows[: len(chosen)] = self._candidates[chosen]
        weights = np.zeros((len(self._exact), rank), np.float32)
        # Fitted to the rows as rounded, so that rounding them costs nothing. QR and not `lstsq`, whose SVD takes
        # half a second when two threads of BLAS meet a busy machine.
        basis, triangle = np.linalg.qr((rows[: len(chosen)] @ self._likely).T)
        weights[:, : len(chosen)] = np.linalg.solve(triangle, basis.T @ self._wanted).T
        error = np.linalg.norm(weights.astype(np.float64) @ rows - self._exact, axis=1).max() / self._size
        return rows, weights, float(error)


ANYTHING = 0.1
"""Amplitude of arbitrary signals against signals in the band, where an EEG has nearly all of its power."""


NEGLIGIBLE = 1e-11
"""What is left of a row relative to the first when it is no more than rounding."""


def _most_independent_first(rows: F64) -> tuple[NDArray[np.intp], F64]:
    """Order rows so that each has the greatest part outside the span of those before it (pivoted Gram–Schmidt).

    Returns:
        the indices, and how great that part was.
    """
    rest = rows.copy()
    order: list[int] = []
    left: list[float] = []
    for _ in range(min(rows.shape)):
        norms = np.linalg.norm(rest, axis=1)
        norms[order] = 0.0
        furthest = int(norms.argmax())
        if left and norms[furthest] < NEGLIGIBLE * left[0]:
            break
        order.append(furthest)
        left.append(float(norms[furthest]))
        direction = rest[furthest] / left[-1]
        for _ in range(2):  # twice, or rounding leaves a part of it behind
            rest -= np.outer(rest @ direction, direction)
    return np.array(order), np.array(left)


def _rank(spec: MelSpec, even: _Parity, odd: _Parity) -> int:
    """Return the smallest rank, in whole tiles, whose error is within the tolerance."""
    likely = max(TILE, min(even.likely_rank, odd.likely_rank))
    errors = []
    for rank in range(likely, likely + 6 * TILE, TILE):
        errors.append(max(even.fit(rank)[2], odd.fit(rank)[2]))
        if errors[-1] <= spec.tolerance:
            return rank
    raise UsageError(f"MelSpec.tolerance: expected {min(errors):.1e} or more, got {spec.tolerance:.1e}")


def _centre_halved(rows: F32) -> F32:
    """The fold adds the centre of a frame to itself."""
    return np.hstack([rows[:, :1] / 2, rows[:, 1:]])


def _tiles(even: F32, odd: F32) -> F32:
    """Interleave (n, k) even and odd rows as they are read: n/3 tiles of k times 3 even, 3 odd."""
    n, k = even.shape
    tiles = np.concatenate([even.reshape(n // TILE, TILE, k), odd.reshape(n // TILE, TILE, k)], axis=1)
    return np.ascontiguousarray(tiles.transpose(0, 2, 1)).reshape(-1)


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
