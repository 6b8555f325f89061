"""The coefficients by which frames share their sums; `sliding_compiled` explains how."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kagglehms.features.jit import Table
from kagglehms.features.transform_plan import TILE, Bins

F64 = NDArray[np.float64]

COLUMNS = 16
"""Frames that are finished together."""


class Fold(NamedTuple):
    """The transform of a stretch of samples that is folded about its centre, as compiled code reads it.

    Attributes:
        length: number of samples.
        pairs: flat tiles of (⌈length / 2⌉, 3 cosines and 3 negative sines) of three bins at each distance from the
            centre.
        centres: flat tiles of (N, 3 cosines and 3 sines) of three bins at the centre of a stretch that begins at each
            sample of a period.
    """

    length: int
    pairs: Table
    centres: Table


class Hops(NamedTuple):
    """Frames a hop apart, and the tables by which they share their sums, as compiled code reads them.

    Attributes:
        hop: samples between the beginnings of two frames.
        period: N, length of a frame and of its transform in samples.
        n_tiles: number of tiles of three bins; 0 where the frames do not share their sums.
        below: 1 where the first bin has a neighbour below it; 0 where that neighbour is bin 0, which counts nothing.
        frame: the transform of a whole frame.
        step: the transform of what changes from a frame to the next.
        angle: flat (N, 3) of −½ cos, −½ sin and ½ sin of bin 1 at each sample of a period.
    """

    hop: int
    period: int
    n_tiles: int
    below: int
    frame: Fold
    step: Fold
    angle: Table


def sliding(bins: Bins, hop: int) -> Hops:
    """Derive the tables; no tiles where frames cannot share their sums, or share too little."""
    period = bins.win_length
    shared = bins.n_fft == period and 2 * hop <= period
    lowest = max(bins.first - 1, 1)
    n_tiles = -(-(bins.last + 2 - lowest) // TILE) if shared else 0
    k = lowest + np.arange(n_tiles * TILE).reshape(n_tiles, 1, TILE)
    n = 2 * np.pi / period * np.arange(period)
    angle = np.stack([-np.cos(n), -np.sin(n), np.sin(n)], axis=-1) / 2
    return Hops(
        hop,
        period,
        n_tiles,
        bins.first - lowest,
        _fold(k, period, period),
        _fold(k, hop, period),
        _flat(angle),
    )


def _fold(k: NDArray[np.int_], length: int, period: int) -> Fold:
    distances = np.arange((length + 1) // 2) + (0.0 if length % 2 else 0.5)
    pairs = _turns(k, distances, period)
    pairs[:, :, TILE:] *= -1
    if length % 2:
        pairs[:, 0] /= 2  # the fold adds the centre to itself
    centres = _turns(k, np.arange(period) + (length - 1) / 2, period)
    return Fold(length, _flat(pairs), _flat(centres))


def _turns(k: NDArray[np.int_], n: NDArray[np.floating], period: int) -> F64:
    """Return tiles of (len(n), 3 cosines and 3 sines) of bins k at samples n."""
    # Whole turns are subtracted while they are exact.
    angle = 2 * np.pi / period * (k * n[:, None] % period)
    return np.concatenate([np.cos(angle), np.sin(angle)], axis=-1)


def _flat(table: F64) -> NDArray[np.float32]:
    return table.astype(np.float32).reshape(-1)
