"""The coefficients of a windowed Fourier transform: from a few numbers to the tables that compiled code reads.

A frame is folded about its centre into H sums and H differences, whose products with cosine (even) and sine (odd) rows
are the real and imaginary parts of its bins. Where bins are closer together than the window can resolve, the rank of
the rows is far below their number, and the product is computed in two stages, through R rows of either parity; the top
of `kagglehms.features.mel` explains the mathematics. Otherwise the rows are used as they are.

Everything is in closed form or a small linear fit, in float64, and takes a few milliseconds.

Letters: K bins of the transform, H half a window (H = win_length / 2), R rank.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kagglehms.errors import UsageError
from kagglehms.features.jit import Table

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]

TILE = 3
"""Rows of each parity that a register tile computes at once."""


# ---- bins and frames


def bins_within(band_hz: tuple[float, float], bin_hz: float) -> tuple[int, int]:
    """Return the first and the last bin between two frequencies.

    Args:
        band_hz: lower and upper edge in Hz; a bin exactly on an edge is within.
        bin_hz: distance between two bins in Hz.
    """
    rounding = 1e-9
    return math.ceil(band_hz[0] / bin_hz - rounding), math.floor(band_hz[1] / bin_hz + rounding)


def n_frames(n_times: int, win_length: int, hop: int) -> int:
    """Return the number of frames of a Hann window that fit into `n_times` samples, `hop` samples apart.

    A Hann window of an even length begins with a zero; with the zero that follows its last sample, it spans one
    sample more than its length.
    """
    return (n_times - win_length - 1) // hop + 1


@dataclass(frozen=True)
class Bins:
    """Bins of a transform, and how exactly they are computed.

    Attributes:
        n_fft: length of the transform in samples.
        win_length: length of the Hann window in samples, even, at most n_fft.
        first: index of the first bin.
        last: index of the last bin.
        tolerance: greatest error that a low rank may cause in a bin, relative to the strongest row of the transform.
        asked_by: name of the setting that `tolerance` comes from, for error messages.
    """

    n_fft: int
    win_length: int
    first: int
    last: int
    tolerance: float
    asked_by: str

    @property
    def n_padded(self) -> int:
        """K, the number of bins rounded up to whole tiles; the rows of the added ones are zeros."""
        return -(-(self.last - self.first + 1) // TILE) * TILE


# ---- one stage or two


class Transform(NamedTuple):
    """Tables of a windowed transform, as compiled code reads them.

    Attributes:
        half: H, samples on each side of a frame's centre, itself included.
        rank: R, number of rows of each parity in the first stage; 0 where the K rows themselves are used.
        n_bins: K, number of computed bins, a multiple of `TILE`; the last ones may be empty.
        project: flat R/3 (or K/3) tiles of (H, 3 even rows and 3 odd rows).
        combine: flat K/3 tiles of (R + 1, 3 even rows and 3 odd rows); the last of R + 1 belongs to the level that is
            subtracted from a frame. Empty where R is 0.
        error: greatest error of a bin for a frame of unit energy, relative to the norm of the strongest row.
    """

    half: int
    rank: int
    n_bins: int
    project: Table
    combine: Table
    error: float


def low_rank(bins: Bins) -> Transform:
    """Derive a transform in two stages.

    Raises:
        UsageError: the tolerance is below what float32 coefficients can reach.
    """
    even, odd = (_Parity(bins, odd=odd) for odd in (False, True))
    rank = _rank(bins, even, odd)
    (kept_even, fit_even, error_even), (kept_odd, fit_odd, error_odd) = even.fit(rank), odd.fit(rank)
    return Transform(
        half=bins.win_length // 2,
        rank=rank,
        n_bins=bins.n_padded,
        project=_tiles(_centre_halved(kept_even), kept_odd),
        combine=_tiles(np.hstack([fit_even, even.of_level()]), np.hstack([fit_odd, odd.of_level()])),
        error=max(error_even, error_odd),
    )


def cheapest(bins: Bins) -> Transform:
    """Derive a transform in two stages where that takes fewer products than the rows themselves, else in one.

    Raises:
        UsageError: the tolerance is below what float32 coefficients can reach.
    """
    half, n_bins = bins.win_length // 2, bins.n_padded
    even, odd = (_Parity(bins, odd=odd) for odd in (False, True))
    # Two stages take R · (H + K) products of each parity, one stage H · K.
    worth = half * n_bins / (half + n_bins)
    if min(even.likely_rank, odd.likely_rank) < worth:
        found = low_rank(bins)
        if found.rank < worth:
            return found
    error = max(even.rounding(), odd.rounding())
    if error > bins.tolerance:
        raise _out_of_reach(bins, error)
    project = _tiles(_centre_halved(even.exact()), odd.exact())
    return Transform(half, 0, n_bins, project, np.zeros(1, np.float32), error)


class _Parity:
    """Cosine (even) or sine (odd) rows of the windowed transform of one frame, folded onto one half of it."""

    def __init__(self, bins: Bins, odd: bool) -> None:
        self._bins, self._odd = bins, odd
        wanted = bins.first + np.arange(bins.n_padded, dtype=np.float64)
        self._exact = self._rows(wanted) * (wanted <= bins.last)[:, None]
        # A window of two samples has no odd part.
        self._size = np.linalg.norm(self._exact, axis=1).max() or 1.0
        # Candidates a quarter of a bin apart, from the lowest frequency that has any response up to the last bin.
        self._candidates = self._rows(np.arange(0.0, bins.last + 0.25, 0.25))
        self._order, rest = _most_independent_first(self._candidates)
        self.likely_rank = int(np.count_nonzero(rest > bins.tolerance * self._size)) // TILE * TILE
        """A rank that is sufficient or slightly too small: the rows left over are about as large as the error."""
        self._likely = self._signals()
        self._wanted = (self._exact @ self._likely).T

    def _rows(self, frequencies: F64) -> F64:
        """Return (n, H) rows at the given frequencies, in bins, whole or not, times the window."""
        bins = self._bins
        j = np.arange(bins.win_length // 2)
        angle = 2 * np.pi / bins.n_fft * np.outer(frequencies, j)
        hann = 0.5 + 0.5 * np.cos(2 * np.pi * j / bins.win_length)
        return (np.sin(angle) if self._odd else np.cos(angle)) * hann

    def exact(self) -> F32:
        """Return the (K, H) rows of the bins."""
        return self._exact.astype(np.float32)

    def rounding(self) -> float:
        """Return the error of the rows in float32."""
        return float(np.linalg.norm(self.exact() - self._exact, axis=1).max() / self._size)

    def of_level(self) -> F32:
        """Return the (K, 1) transform of a frame that is 1 everywhere."""
        if self._odd:
            return np.zeros((len(self._exact), 1), np.float32)
        return (self._exact[:, :1] + 2 * self._exact[:, 1:].sum(axis=1, keepdims=True)).astype(np.float32)

    def _signals(self) -> F64:
        """Return the (H, H) square root of the covariance of the folded signals that the fit is weighted for.

        Signals within the band count most, arbitrary ones a little.
        """
        j = np.arange(self._bins.win_length // 2)
        angle = 2 * np.pi / self._bins.n_fft * np.outer(j, np.arange(0.0, self._bins.last + 0.5, 0.5))
        tones = np.sin(angle) if self._odd else np.cos(angle)
        return np.linalg.cholesky(tones @ tones.T / tones.shape[1] + ANYTHING**2 * np.eye(j.size))

    def fit(self, rank: int) -> tuple[F32, F32, float]:
        """Return R rows, the (K, R) weights that combine them into every bin, and the error of the product."""
        chosen = np.sort(self._order[:rank])
        rows = np.zeros((rank, self._exact.shape[1]), np.float32)
        rows[: len(chosen)] = self._candidates[chosen]
        weights = np.zeros((len(self._exact), rank), np.float32)
        # The fit is to the rows as rounded, so that rounding them costs nothing. QR and not `lstsq`, whose SVD takes
        # half a second when two threads of BLAS meet a busy machine.
        basis, triangle = np.linalg.qr((rows[: len(chosen)] @ self._likely).T)
        weights[:, : len(chosen)] = np.linalg.solve(triangle, basis.T @ self._wanted).T
        error = np.linalg.norm(weights.astype(np.float64) @ rows - self._exact, axis=1).max() / self._size
        return rows, weights, float(error)


ANYTHING = 0.1
"""Amplitude of arbitrary signals relative to signals in the band, where an EEG has nearly all of its power."""
NEGLIGIBLE = 1e-11
"""Size of a row relative to the first at which nothing but rounding is left of it."""


def _most_independent_first(rows: F64) -> tuple[NDArray[np.intp], F64]:
    """Order rows so that each has the greatest part outside the span of those before it.

    Returns:
        the indices of the rows, and how great those parts are.
    """
    # Imported here because importing features must not import SciPy.
    from scipy.linalg import qr

    triangle, order = qr(rows.T, mode="r", pivoting=True)
    parts = np.abs(np.diagonal(triangle))
    n = int(np.count_nonzero(parts > NEGLIGIBLE * parts[0]))
    return order[:n], parts[:n]


def _rank(bins: Bins, even: _Parity, odd: _Parity) -> int:
    """Return the smallest rank, in whole tiles, whose error is within the tolerance."""
    likely = max(TILE, min(even.likely_rank, odd.likely_rank))
    errors = []
    for rank in range(likely, likely + 6 * TILE, TILE):
        errors.append(max(even.fit(rank)[2], odd.fit(rank)[2]))
        if errors[-1] <= bins.tolerance:
            return rank
    raise _out_of_reach(bins, min(errors))


def _out_of_reach(bins: Bins, reached: float) -> UsageError:
    return UsageError(f"{bins.asked_by}: expected {reached:.1e} or more, got {bins.tolerance:.1e}")


# ---- the layout of the tables


def _centre_halved(rows: F32) -> F32:
    """Halve what belongs to the centre of a frame, which the fold adds to itself."""
    return np.hstack([rows[:, :1] / 2, rows[:, 1:]])


def _tiles(even: F32, odd: F32) -> F32:
    """Interleave (n, k) even and odd rows in the order in which they are read: n/3 tiles of k times 3 even, 3 odd."""
    n, k = even.shape
    tiles = np.concatenate([even.reshape(n // TILE, TILE, k), odd.reshape(n // TILE, TILE, k)], axis=1)
    return np.ascontiguousarray(tiles.transpose(0, 2, 1)).reshape(-1)


def untile(tiles: F32, width: int) -> tuple[F64, F64]:
    """Return the (n, width) even and odd rows of a table of tiles."""
    parts = tiles.astype(np.float64).reshape(-1, width, 2, TILE)
    even, odd = (parts[:, :, parity].transpose(0, 2, 1).reshape(-1, width) for parity in (0, 1))
    return even, odd
