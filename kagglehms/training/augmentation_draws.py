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
from torch.nn import functional

from kagglehms.data.competition import CHAINS, CLASSES
from kagglehms.features.simd import LANES
from kagglehms.inputs.kinds import Folded, Input, Signals, Spectra
from kagglehms.training.augmentations import (
    CUTMIX_COLUMNS,
    PIECES,
    band_columns,
    band_pass,
    blank_rows,
    flip_rows,
    flip_sign,
    flip_time,
    folded,
    mask_frequency,
    mask_time,
    mix,
    mosaic,
    panel_rows,
    permute_rows,
    same_class_cutmix,
    same_class_partners,
    unfold,
)
from kagglehms.training.feed import Batch
from kagglehms.training.options import (
    Albumentations,
    Augmentation,
    BandPass,
    BatchAugmentation,
    ChainPermutation,
    DropDifferences,
    FrequencyMask,
    HorizontalFlip,
    Mirror,
    Mixup,
    SameClassCutMix,
    Shift,
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

_REST = 4
"""Seconds, over a band-pass's lower edge in Hz, after which its answer is below 1e-7."""


def augment(
    batch: Batch,
    augmentations: Sequence[BatchAugmentation],
    seed: int,
    epoch: int,
    tile_widths: Sequence[int],
    device: torch.device | None = None,
    tile_heights: Sequence[int] | None = None,
    layout: Input | None = None,
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
        layout: what the batch is of; needed where an augmentation depends on which rows are which difference.

    Raises:
        ValueError: the tiles do not make up the image, or an augmentation needs a layout of differences.
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
                phases = layout.phases if isinstance(layout, Folded) else 1
                images_BCHW = flip_time(
                    images_BCHW, draws.happens(augmentation.probability), tile_widths, phases
                )
            case TimeMask(probability, longest, count):
                bands = draws.bands(probability, longest, count, tile_widths[0])
                images_BCHW = mask_time(images_BCHW, *bands, tile_widths)
            case FrequencyMask(probability, longest, count) if isinstance(layout, Spectra):
                bands = draws.bands(probability, longest, count, layout.spectra.n_bins)
                marked_BX = band_columns(*bands, [layout.spectra.n_bins], layout.spectra.n_bins).any(dim=1)
                # One more, which is not marked, for rows of none: their number is −1.
                blank_BH = functional.pad(marked_BX, (0, 1))[:, draws.tensor(layout.bin_rows)]
                images_BCHW = blank_rows(images_BCHW, blank_BH)
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
            case DropDifferences():
                images_BCHW = _dropped(images_BCHW, augmentation, draws, _of_signals(layout, augmentation))
            case ChainPermutation(probability):
                n_signals = len(_of_signals(layout, augmentation).signal_rows)
                images_BCHW = permute_rows(images_BCHW, draws.chains(probability, n_signals))
            case BandPass():
                images_BCHW = _band_passed(
                    images_BCHW, augmentation, draws, _of_signals(layout, augmentation)
                )
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
    return tuple(a for a in augmentations if not isinstance(a, Albumentations | Mirror | Shift))


def mirror_probability(augmentations: Sequence[Augmentation]) -> float:
    """Return how probable it is that a record is mirrored: 0 where no augmentation does so."""
    return next((a.probability for a in augmentations if isinstance(a, Mirror)), 0.0)


def shift_seconds(augmentations: Sequence[Augmentation]) -> float:
    """Return how far a record's window is moved at most: 0 where no augmentation does so."""
    return next((a.seconds for a in augmentations if isinstance(a, Shift)), 0.0)


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

    def chains(self, probability: float, n_signals: int) -> Tensor:
        """(B, C) int64: whose place each signal takes; the midline, behind the chains, keeps its own."""
        order_BC = np.tile(np.arange(n_signals), (len(self.records), 1))
        by_chain = np.arange(LANES).reshape(len(CHAINS), -1)
        for draw, order_C in zip(self.of_records(), order_BC, strict=True):
            if draw.random() < probability:
                order_C[:LANES] = draw.permutation(by_chain).ravel()
        return self.tensor(order_BC)


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


def _dropped(
    inputs: Tensor, options: DropDifferences, draws: _Draws, layout: Folded | Spectra | Signals
) -> Tensor:
    rows = layout.signal_rows
    n_signals = int(rows.max()) + 1
    dropped_BC = np.zeros((len(draws.records), n_signals), dtype=np.bool_)
    for draw, dropped_C in zip(draws.of_records(), dropped_BC, strict=True):
        if draw.random() < options.probability:
            n_dropped = draw.integers(options.least, options.most, endpoint=True)
            dropped_C[draw.choice(n_signals, n_dropped, replace=False)] = True
    return blank_rows(inputs, draws.tensor(dropped_BC[:, rows] & (rows >= 0)))


def _band_passed(
    inputs: Tensor, options: BandPass, draws: _Draws, layout: Folded | Spectra | Signals
) -> Tensor:
    if isinstance(layout, Spectra):
        raise ValueError(f"{options.kind} needs samples, and spectra have none")
    chosen, edges = [], []
    for place, draw in enumerate(draws.of_records()):
        if draw.random() < options.probability:
            chosen.append(place)
            edges.append((draw.uniform(*options.low_hz), draw.uniform(*options.high_hz)))
    if not chosen:
        return inputs
    at = draws.tensor(np.array(chosen))
    low_B, high_B = draws.tensor(np.array(edges, np.float32).T.copy())
    signals_BCT = unfold(inputs[at], layout.phases)
    filtered_BCT = band_pass(signals_BCT, low_B, high_B, layout.sfreq_hz, _REST / options.low_hz[0])
    return inputs.index_copy(0, at, folded(filtered_BCT, layout.phases, inputs))


def _of_signals(layout: Input | None, augmentation: BatchAugmentation) -> Folded | Spectra | Signals:
    if not isinstance(layout, Folded | Spectra | Signals):
        raise ValueError(f"{augmentation.kind} needs a layout of differences, but got {layout}")
    return layout


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
