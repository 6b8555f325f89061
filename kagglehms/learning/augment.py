"""Augmentations of a batch, on its device.

What happens and what decides it are kept apart: the functions of the first part are pure and take their draws as
arguments; `augment` and `mosaic_batch` draw, on the CPU, from (seed, epoch, record) where a draw concerns one
record and from (seed, epoch, the batch's records) where it concerns the batch. So a run is the same for any number
of threads, and resuming is exact. Nothing waits for a GPU.

An image may hold several tiles side by side, each with a time axis of its own: what is done to time is done in
every tile by itself, at the same place.

Shape legend: B batch, C channel, H image rows, W image columns, K the six classes, M bands per record, P pieces of
a mosaic (four), X columns or rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from kagglehms.data.competition import CLASSES, PANELS, SPECTROGRAM_ROWS
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

PIECES = 4
"""Images in a mosaic, each shrunk to this part of its duration."""

CUTMIX_COLUMNS = SPECTROGRAM_ROWS
"""Width of the image for which the following numbers are meant; scaled for tiles of another width."""
CUTMIX_MARGIN, CUTMIX_MIN_WIDTH, CUTMIX_MAX_WIDTH = 50, 25, 75
CUTMIX_TARGET = 0.5

# Third word of a seed, after which come the records; augmentations count on from _STEP, and 2 is taken by
# `albumentations_adapter`. Never 0: NumPy fills short seeds up with zeros, and (seed, epoch) orders the records.
_MOSAIC, _STEP = 1, 3


# -- pure functions ------------------------------------------------------------------------------------------------


def band_columns(start: Tensor, width: Tensor, tile_widths: Sequence[int], reference: int) -> Tensor:
    """Mark the columns of a band of time, at the same place of every tile.

    Args:
        start: (...) first columns, of a tile `reference` columns wide.
        width: (...) columns; nothing is marked where it is 0.
        tile_widths: columns of each tile. In those of another width the band's edges are scaled, the first one
            rounded down and the last one up.
        reference: columns that `start` and `width` count on.

    Returns:
        (..., W) bool.
    """
    start, width = start.unsqueeze(-1), width.unsqueeze(-1)
    marks = []
    for columns in tile_widths:
        column = torch.arange(columns, device=start.device)
        first = start * columns // reference
        end = ((start + width) * columns + reference - 1) // reference
        marks.append((column >= first) & (column < end) & (width > 0))
    return torch.cat(marks, dim=-1)


def same_class_partners(targets_BK: Tensor, keys_KB: Tensor) -> Tensor:
    """Shuffle the records of every class among themselves.

    Members of a class are the records whose target for it is at least 0.5; a class of one has none.

    Args:
        targets_BK: vote fractions.
        keys_KB: random numbers; their order decides the shuffle.

    Returns:
        (K, B) int64: whose band each record gets; its own where it is no member.
    """
    member_KB = _members(targets_BK)
    # Both orders begin with the members, by position and shuffled, and go on with the others by position.
    by_position_KB = torch.argsort((~member_KB).byte(), dim=1, stable=True)
    shuffled_KB = torch.argsort(keys_KB.masked_fill(~member_KB, torch.inf), dim=1, stable=True)
    return torch.empty_like(shuffled_KB).scatter_(1, by_position_KB, shuffled_KB)


def same_class_cutmix(
    images_BCHW: Tensor,
    targets_BK: Tensor,
    partners_KB: Tensor,
    start_K: Tensor,
    width_K: Tensor,
    tile_widths: Sequence[int],
    axis: Literal["time", "rows"] = "time",
) -> Tensor:
    """Replace a band of an image by that of another record of the same class; targets stay as they are.

    A record with two classes of one half each gets a band for either; where they overlap, the later class has it.
    What is pasted comes from the images as they were before.

    With `rows` the band's columns are taken for row numbers, as the source's notebooks did where a batch had its
    channels second: whole rows are exchanged, those of the second tile's columns too, and numbers beyond the last
    row are left out.

    Args:
        images_BCHW: images.
        targets_BK: vote fractions.
        partners_KB: from `same_class_partners`.
        start_K: first column of each class's band, in a tile 300 columns wide.
        width_K: columns of the band.
        tile_widths: see `band_columns`.
        axis: `time` exchanges columns, `rows` rows.
    """
    member_KB = _members(targets_BK)
    band_KX = band_columns(start_K, width_K, tile_widths, CUTMIX_COLUMNS)
    if axis == "rows":
        rows = images_BCHW.shape[-2]
        band_KX = functional.pad(band_KX[:, :rows], (0, max(0, rows - band_KX.shape[-1])))
    own_B1 = torch.arange(len(images_BCHW), device=images_BCHW.device).unsqueeze(1)
    source_BX = own_B1.expand(-1, band_KX.shape[-1])
    for member_B, partner_B, band_X in zip(member_KB, partners_KB, band_KX, strict=True):
        source_BX = torch.where(member_B[:, None] & band_X, partner_B[:, None], source_BX)
    source = _columns(source_BX, images_BCHW) if axis == "time" else _rows(source_BX, images_BCHW)
    return images_BCHW.gather(0, source.expand_as(images_BCHW))


def _members(targets_BK: Tensor) -> Tensor:
    member_KB = targets_BK.T >= CUTMIX_TARGET
    return member_KB & (member_KB.sum(dim=1, keepdim=True) > 1)


def mosaic(
    images_BCHW: Tensor, targets_BK: Tensor, picks_BP: Tensor, tile_widths: Sequence[int] | None = None
) -> tuple[Tensor, Tensor]:
    """Put four images, each shrunk to a quarter of its width, side by side.

    Shrinking takes the mean of four neighbouring columns. Of a tile whose width is no multiple of four the last
    one to three columns are left out, and the last column of the mosaic is repeated in their place.

    Args:
        images_BCHW: images.
        targets_BK: vote fractions.
        picks_BP: int64, which four images make up each mosaic, left to right.
        tile_widths: columns of each tile, each of which becomes a mosaic; one tile when None.

    Returns:
        Mosaics of the images' shape, and the mean of the four targets.
    """
    mosaics = []
    for tile_BCHW in torch.split(images_BCHW, list(tile_widths or images_BCHW.shape[-1:]), dim=-1):
        columns = tile_BCHW.shape[-1]
        if columns < PIECES:
            raise ValueError(f"a mosaic needs tiles of at least {PIECES} columns, but got {columns}")
        quarters_BCHW = functional.avg_pool2d(tile_BCHW, (1, PIECES))
        joined_BCHW = quarters_BCHW[picks_BP].movedim(1, -2).flatten(-2)
        mosaics.append(functional.pad(joined_BCHW, (0, columns % PIECES, 0, 0), mode="replicate"))
    return torch.cat(mosaics, dim=-1), targets_BK[picks_BP].mean(dim=1)


def flip_time(images_BCHW: Tensor, flip_B: Tensor, tile_widths: Sequence[int]) -> Tensor:
    """Let time run backwards, in every tile by itself, in the images that `flip_B` (bool) marks."""
    tiles = torch.split(images_BCHW, list(tile_widths), dim=-1)
    flipped_BCHW = torch.cat([tile.flip(-1) for tile in tiles], dim=-1)
    return torch.where(_records(flip_B, images_BCHW), flipped_BCHW, images_BCHW)


def flip_rows(images_BCHW: Tensor, flip_B: Tensor) -> Tensor:
    """Turn the images that `flip_B` (bool) marks upside down."""
    return torch.where(_records(flip_B, images_BCHW), images_BCHW.flip(-2), images_BCHW)


def flip_sign(inputs: Tensor, flip_B: Tensor) -> Tensor:
    """Change the sign of the records that `flip_B` (bool) marks: polarity depends on which electrode is subtracted."""
    return torch.where(_records(flip_B, inputs), -inputs, inputs)


def mix(
    inputs: Tensor, targets_BK: Tensor, n_votes_B: Tensor, partner_B: Tensor, share_B: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Mix each record with a partner (mixup, Zhang et al. 2018).

    Args:
        inputs: images (B, C, H, W) or signals (B, C, T).
        targets_BK: vote fractions.
        n_votes_B: votes of each record.
        partner_B: int64, position of each record's partner in the batch.
        share_B: float32 in 0 to 1, the record's own part; the rest is its partner's.

    Returns:
        Mixed inputs, targets and (float32) votes.
    """
    share = _records(share_B, inputs)
    votes_B = n_votes_B.float()
    return (
        torch.lerp(inputs[partner_B], inputs, share),
        torch.lerp(targets_BK[partner_B], targets_BK, share_B[:, None]),
        torch.lerp(votes_B[partner_B], votes_B, share_B),
    )


def smooth(targets_BK: Tensor, n_votes_B: Tensor, amount: float, most_votes: int = 3) -> Tensor:
    """Smooth the targets of records on which at most `most_votes` experts voted.

    Of the k classes with the most votes each loses `amount` / k; the 6 − k others share what was taken off. Where
    all six are equal nothing changes.

    Args:
        targets_BK: vote fractions; every row sums to 1, and so it does afterwards.
        n_votes_B: votes of each record.
        amount: what is taken off the largest together, 0 to 1.
        most_votes: records with more votes keep their targets.
    """
    top_BK = targets_BK == targets_BK.amax(dim=1, keepdim=True)
    n_top_B1 = top_BK.sum(dim=1, keepdim=True)
    others_B1 = targets_BK.shape[1] - n_top_B1
    smoothed_BK = targets_BK + torch.where(top_BK, -amount / n_top_B1, amount / others_B1.clamp(min=1))
    few_B1 = (n_votes_B <= most_votes)[:, None] & (others_B1 > 0)
    return torch.where(few_B1, smoothed_BK, targets_BK)


def _records(values_B: Tensor, inputs: Tensor) -> Tensor:
    """(B,) values beside inputs of any shape (B, …)."""
    return values_B.reshape(-1, *[1] * (inputs.ndim - 1))


def _columns(values_BW: Tensor, inputs: Tensor) -> Tensor:
    """(B, W) values beside images (B, C, H, W) or signals (B, C, W)."""
    return values_BW.reshape(len(values_BW), *[1] * (inputs.ndim - 2), values_BW.shape[-1])


def _rows(values_BH: Tensor, inputs: Tensor) -> Tensor:
    """(B, H) values beside images (B, C, H, W) or signals (B, H, W)."""
    return values_BH.reshape(len(values_BH), *[1] * (inputs.ndim - 3), values_BH.shape[-1], 1)


def mask_time(images_BCHW: Tensor, start_BM: Tensor, width_BM: Tensor, tile_widths: Sequence[int]) -> Tensor:
    """Blank bands of time with 0, the mean of a normalised image (SpecAugment, Park et al. 2019).

    Args:
        images_BCHW: images.
        start_BM: first columns, of the first tile.
        width_BM: columns of each band; 0 for none.
        tile_widths: see `band_columns`.
    """
    masked_BW = band_columns(start_BM, width_BM, tile_widths, tile_widths[0]).any(dim=1)
    return images_BCHW.masked_fill(_columns(masked_BW, images_BCHW), 0)


def mask_frequency(
    images_BCHW: Tensor,
    start_BM: Tensor,
    height_BM: Tensor,
    tiles: Sequence[tuple[int, int]] | None = None,
    panels: int = len(PANELS),
) -> Tensor:
    """Blank bands of frequency with 0, the same ones in each of the `panels` that stand upon each other.

    In tiles of different heights a band takes the same part of each panel's height. Whether that is the same band
    in Hz depends on what the panels' rows mean.

    Args:
        images_BCHW: images.
        start_BM: first rows, of a panel of the first tile.
        height_BM: rows of each band; 0 for none.
        tiles: rows and columns of each tile, left to right; one tile, the whole image, when None. In panels of
            another height the edges are scaled as in `band_columns`.
        panels: how many panels share a tile's rows.
    """
    all_rows, columns = images_BCHW.shape[-2:]
    tiles = tiles or [(all_rows, columns)]
    reference = _panel_rows(tiles[0][0], panels)
    marks = []
    for height, width in tiles:
        rows = _panel_rows(height, panels)
        masked_BH = band_columns(start_BM, height_BM, [rows], reference).any(dim=1).repeat(1, panels)
        masked_BH = functional.pad(masked_BH, (0, all_rows - height))
        marks.append(masked_BH[:, None, :, None].expand(-1, -1, -1, width))
    return images_BCHW.masked_fill(torch.cat(marks, dim=-1), 0)


def _panel_rows(tile_rows: int, panels: int) -> int:
    rows, rest = divmod(tile_rows, panels)
    if rest:
        raise ValueError(f"{tile_rows} rows cannot be shared by {panels} panels")
    return rows


# -- what is drawn -------------------------------------------------------------------------------------------------


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
                rows = _panel_rows(tiles[0][0], len(PANELS))
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
