"""Batches that show what an augmentation did to them, and what a band of time is."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil, floor

import numpy as np
import torch

from kagglehms.training.batches import Batch

SINGLE, SIDE_BY_SIDE, KAGGLE_AND_EEG = (300,), (300, 300), (300, 256)


def some_images(n: int, width: int, height: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 1, height, width)).astype(np.float32)


def numbered(records: Sequence[int], width: int, targets_BK: np.ndarray | None = None) -> Batch:
    """Images whose every pixel says which record it comes from; all of class 0 unless told."""
    index = torch.tensor(records)
    images = index.float()[:, None, None, None].expand(-1, 1, 4, width).clone()
    if targets_BK is None:
        targets_BK = np.eye(6)[[0] * len(records)]
    targets = torch.from_numpy(targets_BK.astype(np.float32))
    return Batch(images, targets, torch.full((len(records),), 3), index)


def noisy(records: Sequence[int], width: int = 300) -> Batch:
    """The same image for a record in whatever batch it is."""
    images = np.concatenate([some_images(1, width, seed=r) for r in records])
    targets = np.stack([np.random.default_rng(r).dirichlet(np.full(6, 0.2)) for r in records])
    index = torch.tensor(records)
    return Batch(torch.from_numpy(images), torch.from_numpy(targets).float(), index % 7 + 1, index)


def band(start: int, width: int, tile_widths: Sequence[int], reference: int) -> set[int]:
    """Columns of a band by exact fractions."""
    columns, left = set(), 0
    for tile in tile_widths:
        if width:
            first = floor(Fraction(start * tile, reference))
            end = ceil(Fraction((start + width) * tile, reference))
            columns |= {left + c for c in range(first, end)}
        left += tile
    return columns
