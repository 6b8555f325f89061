"""Which augmentations happen to a batch, and where.

What happens and what decides it are kept apart: the functions of `augmentations` are pure and take their draws as
arguments; `augment` and `mosaic_batch` draw, on the CPU, from (seed, epoch, record) where a draw concerns one
record and from (seed, epoch, the batch's records) where it concerns the batch. So a run is the same for any number
of threads, and resuming is exact. Nothing waits for a GPU.

Shape legend: B batch, C channel, H image rows, W image columns, K the six classes, M bands per record, P pieces of
a mosaic (four).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kagglehms.data.competition import CLASSES
from kagglehms.learning.augmentations import (
    CUTMIX_COLUMNS,
    PIECES,
    flip_rows,
    flip_sign,
    flip_time,
    mask_frequency,
    mask_time,
    mix,
    mosaic,
    panel_rows,
    same_class_cutmix,
    same_class_partners,
)
from kagglehms.learning.feed import Batch
from kagglehms.learning.options import (
    Albumentations,
    Augmentation,
    BatchAugmentation,
    FrequencyMask,
    HorizontalFlip,
    Mirror,
    Mixup,
    SameClassCutMix,
    SignFlip,
    TimeMask,
    VerticalFlip,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

CUTMIX_MARGIN, CUTMIX_MIN_WIDTH, CUTMIX_MAX_WIDTH = 50, 25, 75
"""Columns of `CUTMIX_COLUMNS`: how far from an end a band begins at most, how wide it is."""

# Third word of a seed, after which come the records; augmentations count on from _STEP, and 2 is taken by
# `albumentations_adapter`. Never 0: NumPy fills short seeds up with zeros, and (seed, epoch) orders the records.
_MOSAIC, _STEP = 1, 3


def augment(
    batch: Batch,
    augmentations: Sequence[BatchAugmentation],
    seed: int,
    epoch: int,
    tile_widths: Sequence[int],
    device: torch.device | None = None,
    tile_heights: Sequence[int] | None = None,
) -> Batch:
    """Apply `augmentations` to a batch, one after the other.

    Args:
        batch: as the feed yields it. From a batch in the memory of a GPU the record numbers have to be copied
            back first, for which the CPU waits; so hand over one in main memory, and name the `device`.
        augmentations: what to do; see `device_augmentations`.
        seed: of the run, at least 0.
        epoch: from 0.
        tile_widths: columns of the image's tiles, left to right.
        device: where to compute and where the result lies; where the batch lies when None.
        tile_heights: rows of the tiles; all of the image's when None.

    Raises:
        ValueError: the tiles do not make up the image.
    """
    records = batch.index_B.cpu().numpy()
    batch = batch if device is None else batch.to(device)
    images_BCHW = batch.images_BCHW
    _check_tiles(images_BCHW, tile_widths)
    tiles = _tiles(images_BCHW, tile_widths, tile_heights)
    for step, augmentation in enumerate(augmentations):
        draws = _Draws(seed, epoch, _STEP + step, records, images_BCHW.device)
        match augmentation:
            case SameClassCutMix():
                images_BCHW = _cutmix(images_BCHW, batch.targets_BK, augmentation, draws, tile_widths)
            case HorizontalFlip():
                images_BCHW = flip_time(images_BCHW, draws.happens(augmentation.probability), tile_widths)
            case TimeMask(probability, longest, count):
                bands = draws.bands(probability, longest, count, tile_widths[0])
                images_BCHW = mask_time(images_BCHW, *bands, tile_widths)
            case FrequencyMask(probability, longest, count):
                rows = panel_rows(tiles[0][0])
                bands = draws.bands(probability, longest, count, rows)
                images_BCHW = mask_frequency(images_BCHW, *bands, tiles)
            case VerticalFlip():
                images_BCHW = flip_rows(images_BCHW, draws.happens(augmentation.probability))
            case SignFlip():
                images_BCHW = flip_sign(images_BCHW, draws.happens(augmentation.probability))
            case Mixup():
                batch = _mixed(replace(batch, images_BCHW=images_BCHW), augmentation, draws)
                images_BCHW = batch.images_BCHW
            case _:
                raise ValueError(f"{augmentation} is not for batches; see device_augmentations")
    return replace(batch, images_BCHW=images_BCHW)


def mosaic_batch(
    batch: Batch, seed: int, epoch: int, tile_widths: Sequence[int], device: torch.device | None = None
) -> Batch:
    """Make a batch of mosaics out of a batch, each of four images drawn from it, with replacement.

    `n_votes_B` and `index_B` stay as they are and say nothing about a mosaic: it is trained without weights.
    For the arguments see `augment`.
    """
    records = batch.index_B.cpu().numpy()
    batch = batch if device is None else batch.to(device)
    _check_tiles(batch.images_BCHW, tile_widths)
    draws = _Draws(seed, epoch, _MOSAIC, records, batch.images_BCHW.device)
    picks_BP = draws.of_batch().integers(len(records), size=(len(records), PIECES))
    images_BCHW, targets_BK = mosaic(batch.images_BCHW, batch.targets_BK, draws.tensor(picks_BP), tile_widths)
    return replace(batch, images_BCHW=images_BCHW, targets_BK=targets_BK)


def device_augmentations(augmentations: Sequence[Augmentation]) -> tuple[BatchAugmentation, ...]:
    """Return those of a recipe's augmentations that `augment` applies: all but those of the drawing."""
    return tuple(a for a in augmentations if not isinstance(a, Albumentations | Mirror))


def mirror_probability(augmentations: Sequence[Augmentation]) -> float:
    """Return how probable it is that a record is mirrored: 0 where no augmentation does so."""
    return next((a.probability for a in augmentations if isinstance(a, Mirror)), 0.0)


def mixes_records(augmentations: Sequence[Augmentation]) -> bool:
    """Whether an augmentation lets a record's input depend on the others of its batch."""
    return any(isinstance(a, SameClassCutMix | Mixup) for a in augmentations)


class _Draws:
    """Random numbers for one augmentation of one batch."""

    def __init__(
        self, seed: int, epoch: int, step: int, records: NDArray[np.integer], device: torch.device
    ) -> None:
        self.seeds = (seed, epoch, step)
        self.records: list[int] = records.tolist()
        self.device = device

    def of_batch(self) -> np.random.Generator:
        """Depends on the batch's records, in their order."""
        return np.random.default_rng((*self.seeds, *self.records))

    def of_records(self) -> list[np.random.Generator]:
        """One generator for each record, whatever batch it is in."""
        return [np.random.default_rng((*self.seeds, record)) for record in self.records]

    def tensor(self, drawn: NDArray[Any]) -> Tensor:
        """Copy to the device without waiting for it."""
        tensor = torch.from_numpy(drawn)
        if self.device.type == "cuda":  # which can copy by itself only from page-locked memory
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def happens(self, probability: float) -> Tensor:
        """(B,) bool."""
        return self.tensor(np.array([draw.random() < probability for draw in self.of_records()]))

    def bands(self, probability: float, longest: int, count: int, size: int) -> tuple[Tensor, Tensor]:
        """(B, M) starts and lengths of bands in 0 … `size`, all of length 0 where it does not happen."""
        drawn = np.zeros((2, len(self.records), count), dtype=np.int64)
        for draw, start_M, length_M in zip(self.of_records(), *drawn, strict=True):
            if draw.random() < probability:
                length_M[:] = draw.integers(1, min(longest, size), size=count, endpoint=True)
                start_M[:] = draw.integers(0, size - length_M, endpoint=True)
        return self.tensor(drawn[0]), self.tensor(drawn[1])


def _cutmix(
    images_BCHW: Tensor,
    targets_BK: Tensor,
    options: SameClassCutMix,
    draws: _Draws,
    tile_widths: Sequence[int],
) -> Tensor:
    draw = draws.of_batch()
    if draw.random() >= options.probability:
        return images_BCHW
    n = len(CLASSES)
    late_start = CUTMIX_COLUMNS - CUTMIX_MAX_WIDTH - CUTMIX_MARGIN
    start_K = draw.choice([0, late_start], size=n) + draw.integers(CUTMIX_MARGIN, size=n, endpoint=True)
    width_K = draw.integers(CUTMIX_MIN_WIDTH, CUTMIX_MAX_WIDTH, size=n, endpoint=True)
    partners_KB = same_class_partners(
        targets_BK, draws.tensor(draw.random((n, len(images_BCHW)), np.float32))
    )
    bands = (draws.tensor(start_K), draws.tensor(width_K))
    return same_class_cutmix(images_BCHW, targets_BK, partners_KB, *bands, tile_widths, options.axis)


def _mixed(batch: Batch, options: Mixup, draws: _Draws) -> Batch:
    draw = draws.of_batch()
    if draw.random() >= options.probability:
        return batch
    n = len(batch.images_BCHW)
    partner_B = draws.tensor(draw.permutation(n))
    share_B = draws.tensor(draw.uniform(options.least, options.most, n).astype(np.float32))
    inputs, targets_BK, n_votes_B = mix(
        batch.images_BCHW, batch.targets_BK, batch.n_votes_B, partner_B, share_B
    )
    return replace(batch, images_BCHW=inputs, targets_BK=targets_BK, n_votes_B=n_votes_B)


def _check_tiles(images_BCHW: Tensor, tile_widths: Sequence[int]) -> None:
    if sum(tile_widths) != images_BCHW.shape[-1]:
        raise ValueError(f"tiles of {tile_widths} columns are no image of {images_BCHW.shape[-1]} columns")


def _tiles(
    images_BCHW: Tensor, widths: Sequence[int], heights: Sequence[int] | None
) -> list[tuple[int, int]]:
    """Rows and columns of each tile."""
    rows = images_BCHW.shape[-2]
    heights = [rows] * len(widths) if heights is None else heights
    if len(heights) != len(widths) or max(heights) > rows:
        raise ValueError(f"tiles of {heights} rows are no {len(widths)} tiles of an image of {rows} rows")
    return list(zip(heights, widths, strict=True))
