"""Apply a recipe's augmentations to a batch, with the random numbers that `draws` gives.

The functions of `augmentations`, which change the images, are pure and take their draws as arguments; this module
decides which of them are applied to what. Nothing waits for a GPU.

Shape legend: B batch, C channel, H image rows, W image columns, K the six classes, P pieces of a mosaic (four).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from kagglehms.data.competition import CLASSES
from kagglehms.inputs.kinds import Folded, Input, Signals, Spectra, Views, Zoomed
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
    settling_s,
    unfold,
)
from kagglehms.training.batches import Batch
from kagglehms.training.draws import Draws
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
from kagglehms.training.views import put_together, taken_apart

_OfDifferences: TypeAlias = Folded | Spectra | Zoomed | Signals

CUTMIX_MARGIN, CUTMIX_MIN_WIDTH, CUTMIX_MAX_WIDTH = 50, 25, 75
"""Bands of CutMix, in columns of `CUTMIX_COLUMNS`: largest distance from an end, smallest and largest width."""

_MOSAIC, _STEP = 1, 3
"""Third word of the seeds. Augmentations count from `_STEP`; 2 belongs to `albumentations_adapter`."""


@dataclass(frozen=True)
class _Geometry:
    """Where the parts of an input are.

    Attributes:
        widths: columns of each tile, left to right.
        heights: rows of each tile.
        layout: the input that the batch consists of; None if it is an image of tiles.
    """

    widths: Sequence[int]
    heights: Sequence[int]
    layout: Input | None

    @property
    def tiles(self) -> list[tuple[int, int]]:
        return list(zip(self.heights, self.widths, strict=True))

    def of_differences(self, augmentation: BatchAugmentation) -> _OfDifferences:
        """Return the layout of differences that an augmentation needs."""
        if not isinstance(self.layout, Folded | Spectra | Zoomed | Signals):
            raise ValueError(f"{augmentation.kind} needs a layout of differences, but got {self.layout}")
        return self.layout


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
    """Apply augmentations to a batch, in order.

    Args:
        batch: batch as the feed yields it. If it is in GPU memory, the CPU waits while its record numbers are copied
            back; pass it in main memory and name the `device` to avoid that.
        augmentations: the augmentations, see `device_augmentations`.
        seed: seed of the run, at least 0.
        epoch: epoch, counted from 0.
        tile_widths: columns of the image's tiles, left to right; those of two views follow from the layout.
        device: device to compute on; by default the batch's.
        tile_heights: rows of the tiles; by default all rows of the image.
        layout: the input that the batch consists of; required by augmentations that need to know which rows belong
            to which difference.

    Returns:
        The augmented batch, on `device`.

    Raises:
        ValueError: the tiles do not make up the image, or an augmentation needs a layout of differences.
    """
    batch = batch if device is None else batch.to(device)
    if isinstance(layout, Views):
        return _views_augmented(batch, augmentations, seed, epoch, layout)
    geometry = _geometry(batch.images_BCHW, tile_widths, tile_heights, layout)
    return _in_order(batch, dict(enumerate(augmentations)), seed, epoch, geometry)


def _in_order(
    batch: Batch,
    augmentations: Mapping[int, BatchAugmentation],
    seed: int,
    epoch: int,
    geometry: _Geometry,
) -> Batch:
    """Apply augmentations by their numbers, which decide what is drawn."""
    records = batch.index_B.cpu().numpy()
    for number, augmentation in augmentations.items():
        draws = Draws(seed, epoch, _STEP + number, records, batch.images_BCHW.device)
        if isinstance(augmentation, Mixup):  # the only one that changes the targets as well
            batch = _mixed(batch, augmentation, draws)
        else:
            batch = replace(batch, images_BCHW=_augmented(batch, augmentation, draws, geometry))
    return batch


def _augmented(batch: Batch, augmentation: BatchAugmentation, draws: Draws, geometry: _Geometry) -> Tensor:
    """Return the images of a batch after one augmentation."""
    images_BCHW = batch.images_BCHW
    match augmentation:
        case SameClassCutMix():
            return _cutmix(batch, augmentation, draws, geometry.widths)
        case HorizontalFlip(probability):
            phases = geometry.layout.phases if isinstance(geometry.layout, Folded) else 1
            return flip_time(images_BCHW, draws.happens(probability), geometry.widths, phases)
        case VerticalFlip(probability):
            return flip_rows(images_BCHW, draws.happens(probability))
        case SignFlip(probability):
            return flip_sign(images_BCHW, draws.happens(probability))
        case TimeMask(probability, longest, count):
            bands = draws.bands(probability, longest, count, geometry.widths[0])
            return mask_time(images_BCHW, *bands, geometry.widths)
        case FrequencyMask() if isinstance(geometry.layout, Spectra):
            return _blocks_masked(images_BCHW, augmentation, draws, geometry.layout)
        case FrequencyMask(probability, longest, count):
            bands = draws.bands(probability, longest, count, panel_rows(geometry.heights[0]))
            return mask_frequency(images_BCHW, *bands, geometry.tiles)
        case DropDifferences(probability, least, most):
            rows = geometry.of_differences(augmentation).signal_rows
            dropped_BC = draws.dropped(probability, least, most, int(rows.max()) + 1)
            return blank_rows(images_BCHW, draws.tensor(dropped_BC[:, rows] & (rows >= 0)))
        case ChainPermutation(probability):
            n_signals = len(geometry.of_differences(augmentation).signal_rows)
            return permute_rows(images_BCHW, draws.chains(probability, n_signals))
        case BandPass():
            return _band_passed(images_BCHW, augmentation, draws, geometry.of_differences(augmentation))
        case _:
            raise ValueError(f"{augmentation} is not for batches; see device_augmentations")


def _views_augmented(
    batch: Batch,
    augmentations: Sequence[BatchAugmentation],
    seed: int,
    epoch: int,
    layout: Views,
) -> Batch:
    """Augment each view by what fits it, with the same draws, so that they remain views of one record or mixture."""
    images = taken_apart(batch.images_BCHW, [part.array_shape for part in layout.parts])
    augmented = []
    for part, image_BCHW in zip(layout.parts, images, strict=True):
        heights, widths = zip(*part.time_tiles, strict=True)
        one, geometry = replace(batch, images_BCHW=image_BCHW), _geometry(image_BCHW, widths, heights, part)
        fitting = {number: a for number, a in enumerate(augmentations) if a.kind in part.fitting}
        augmented.append(_in_order(one, fitting, seed, epoch, geometry))
    # Equal draws mix the targets and votes of both alike.
    return replace(augmented[0], images_BCHW=put_together([each.images_BCHW for each in augmented]))


def mosaic_batch(
    batch: Batch, seed: int, epoch: int, tile_widths: Sequence[int], device: torch.device | None = None
) -> Batch:
    """Make a batch of mosaics, each from four images of the batch, drawn with replacement.

    `n_votes_B` and `index_B` are unchanged and do not describe the mosaics, which are trained on without weights.

    Args:
        batch: batch as the feed yields it, see `augment`.
        seed: seed of the run, at least 0.
        epoch: epoch, counted from 0.
        tile_widths: columns of the image's tiles, left to right.
        device: device to compute on; by default the batch's.

    Returns:
        The batch of mosaics, on `device`.

    Raises:
        ValueError: the tiles do not make up the image.
    """
    records = batch.index_B.cpu().numpy()
    batch = batch if device is None else batch.to(device)
    geometry = _geometry(batch.images_BCHW, tile_widths)
    draws = Draws(seed, epoch, _MOSAIC, records, batch.images_BCHW.device)
    picks_BP = draws.of_batch().integers(len(records), size=(len(records), PIECES))
    images_BCHW, targets_BK = mosaic(
        batch.images_BCHW, batch.targets_BK, draws.tensor(picks_BP), geometry.widths
    )
    return replace(batch, images_BCHW=images_BCHW, targets_BK=targets_BK)


def device_augmentations(
    augmentations: Sequence[Augmentation], layout: Input | None = None
) -> tuple[BatchAugmentation, ...]:
    """Return the augmentations that `augment` applies: all but those applied while inputs are drawn.

    Args:
        augmentations: augmentations of a stage.
        layout: input of the recipe, which decides whether a band-pass is applied while it is drawn.
    """
    filters = layout is not None and layout.filters_when_drawn
    of_batch = (a for a in augmentations if not isinstance(a, Albumentations | Mirror | Shift))
    return tuple(a for a in of_batch if not (filters and isinstance(a, BandPass)))


def drawn_band_pass(augmentations: Sequence[Augmentation], layout: Input) -> BandPass | None:
    """Return the band-pass that is applied to an input's signals before it is drawn, if there is one."""
    if not layout.filters_when_drawn:
        return None
    return next((a for a in augmentations if isinstance(a, BandPass)), None)


def mirror_probability(augmentations: Sequence[Augmentation]) -> float:
    """Return the probability that a record is mirrored; 0 without such an augmentation."""
    return next((a.probability for a in augmentations if isinstance(a, Mirror)), 0.0)


def shift_seconds(augmentations: Sequence[Augmentation]) -> float:
    """Return the largest shift of a record's window in seconds; 0 without such an augmentation."""
    return next((a.seconds for a in augmentations if isinstance(a, Shift)), 0.0)


def mixes_records(augmentations: Sequence[Augmentation]) -> bool:
    """Return whether an augmentation makes a record's input depend on the others of its batch."""
    return any(isinstance(a, SameClassCutMix | Mixup) for a in augmentations)


def _cutmix(batch: Batch, options: SameClassCutMix, draws: Draws, tile_widths: Sequence[int]) -> Tensor:
    draw = draws.of_batch()
    if draw.random() >= options.probability:
        return batch.images_BCHW
    n = len(CLASSES)
    late_start = CUTMIX_COLUMNS - CUTMIX_MAX_WIDTH - CUTMIX_MARGIN
    start_K = draw.choice([0, late_start], size=n) + draw.integers(CUTMIX_MARGIN, size=n, endpoint=True)
    width_K = draw.integers(CUTMIX_MIN_WIDTH, CUTMIX_MAX_WIDTH, size=n, endpoint=True)
    keys_KB = draws.tensor(draw.random((n, len(batch.images_BCHW)), np.float32))
    return same_class_cutmix(
        batch.images_BCHW,
        batch.targets_BK,
        same_class_partners(batch.targets_BK, keys_KB),
        draws.tensor(start_K),
        draws.tensor(width_K),
        tile_widths,
        options.axis,
    )


def _mixed(batch: Batch, options: Mixup, draws: Draws) -> Batch:
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


def _blocks_masked(images_BCHW: Tensor, options: FrequencyMask, draws: Draws, layout: Spectra) -> Tensor:
    """Blank the same bins in every block of spectra."""
    n_bins = layout.spectra.n_bins
    bands = draws.bands(options.probability, options.max_height, options.count, n_bins)
    marked_BX = band_columns(*bands, [n_bins], n_bins).any(dim=1)
    # A last column that is never marked serves the rows below the last block, whose bin is −1.
    blank_BH = functional.pad(marked_BX, (0, 1))[:, draws.tensor(layout.bin_rows)]
    return blank_rows(images_BCHW, blank_BH)


def _band_passed(inputs: Tensor, options: BandPass, draws: Draws, layout: _OfDifferences) -> Tensor:
    if isinstance(layout, Spectra | Zoomed):
        raise ValueError(f"{options.kind} needs samples, and spectra have none")
    chosen, edges_hz = draws.edges(options.probability, options.low_hz, options.high_hz)
    if not chosen:
        return inputs
    at = draws.tensor(np.array(chosen))
    low_B, high_B = draws.tensor(edges_hz)
    signals_BCT = unfold(inputs[at], layout.phases)
    rest_s = settling_s(options.low_hz, options.high_hz, layout.sfreq_hz)
    filtered_BCT = band_pass(signals_BCT, low_B, high_B, layout.sfreq_hz, rest_s)
    return inputs.index_copy(0, at, folded(filtered_BCT, layout.phases, inputs))


def _geometry(
    images_BCHW: Tensor,
    widths: Sequence[int],
    heights: Sequence[int] | None = None,
    layout: Input | None = None,
) -> _Geometry:
    rows, columns = images_BCHW.shape[-2:]
    if sum(widths) != columns:
        raise ValueError(f"tiles of {widths} columns are no image of {columns} columns")
    heights = [rows] * len(widths) if heights is None else heights
    if len(heights) != len(widths) or max(heights) > rows:
        raise ValueError(f"tiles of {heights} rows are no {len(widths)} tiles of an image of {rows} rows")
    return _Geometry(widths, heights, layout)
