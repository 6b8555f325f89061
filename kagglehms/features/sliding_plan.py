"""The coefficients by which frames share the sums over their hops; `sliding_compiled` explains how."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kagglehms.features.jit import Table
from kagglehms.features.transform_plan import TILE, Bins

COLUMNS = 16
"""Frames that are finished together, and after which the sum of hops is computed anew."""


class Hops(NamedTuple):
    """Frames a hop apart, and the tables by which they share their sums, as compiled code reads them.

    Attributes:
        hop: samples between the beginnings of two frames.
        period: length of a frame and of its transform in samples.
        n_hops: whole hops of a frame.
        rest: samples of a frame after its last whole hop.
        slots: hops whose sums are kept at a time.
        n_tiles: tiles of three bins; 0 where the frames do not share their sums.
        below: 1 where the first bin has a neighbour below it; 0 where that neighbour is bin 0, which counts nothing.
        turns: flat n_tiles of (period + hop, 3 cosines and 3 negative sines).
        angle: flat (period, 3).
    """

    hop: int
    period: int
    n_hops: int
    rest: int
    slots: int
    n_tiles: int
    below: int
    turns: Table
    angle: Table


def sliding(bins: Bins, hop: int) -> Hops:
    """Derive the factors of the samples; no tiles where frames cannot share their sums, or share too little."""
    period = bins.win_length
    if bins.n_fft != period or 2 * hop > period:
        nothing = np.zeros(1, np.float32)
        return Hops(hop, period, 0, 0, 0, 0, 0, nothing, nothing)
    lowest = max(bins.first - 1, 1)
    n_tiles = -(-(bins.last + 2 - lowest) // TILE)
    k = lowest + np.arange(n_tiles * TILE).reshape(n_tiles, 1, TILE)
    step = 2 * np.pi / period
    # Whole turns are subtracted while they are exact.
    angle = step * (k * np.arange(period + hop)[:, None] % period)
    t = step * np.arange(period)
    return Hops(
        hop=hop,
        period=period,
        n_hops=period // hop,
        rest=period % hop,
        slots=period // hop + 2 * COLUMNS,
        n_tiles=n_tiles,
        below=bins.first - lowest,
        turns=np.concatenate([np.cos(angle), -np.sin(angle)], axis=-1).astype(np.float32).reshape(-1),
        angle=(np.stack([-np.cos(t), -np.sin(t), np.sin(t)], axis=-1) / 2).astype(np.float32).reshape(-1),
    )
