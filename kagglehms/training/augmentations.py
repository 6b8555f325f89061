"""Augmentations of a batch, on its device: pure functions that take their random draws as arguments.

`augmentation_draws.augment` draws and applies them. An image may consist of several tiles side by side, each with its
own time axis: augmentations of time act on every tile separately, at the same position. Nothing waits for a GPU.

Shape legend: B batch, C channel, H image rows, W image columns, K the six classes, M bands per record, P pieces of
a mosaic (four), S signals, T samples, F frequencies, X columns or rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from kagglehms.data.competition import PANELS, SPECTROGRAM_ROWS
from kagglehms.training.front_ends.band_pass import fast_size
from kagglehms.training.options import LOWEST_HZ

PIECES = 4
"""Number of images in a mosaic, and the factor by which each is shrunk in time."""

CUTMIX_COLUMNS = SPECTROGRAM_ROWS
"""Width of the image that positions and widths of CutMix bands refer to; they are scaled for other tiles."""
CUTMIX_TARGET = 0.5
"""Smallest target with which a record is a member of a class."""


def band_columns(start: Tensor, width: Tensor, tile_widths: Sequence[int], reference: int) -> Tensor:
    """Mark the columns of bands of time, at the same position in every tile.

    Args:
        start: (...) first column of each band, in a tile of `reference` columns.
        width: (...) width of each band in columns; 0 marks nothing.
        tile_widths: columns of each tile. In tiles of another width the band is scaled, with its start rounded down
            and its end rounded up.
        reference: columns of the tile that `start` and `width` refer to.

    Returns:
        (..., W) bool, True inside the bands.
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
    """Shuffle the members of every class.

    A record is a member of a class if its target for the class is at least 0.5. A class with a single record has no
    members.

    Args:
        targets_BK: vote fractions.
        keys_KB: random numbers, whose order decides the shuffle.

    Returns:
        (K, B) int64, the record whose band each record receives; its own position if it is not a member.
    """
    member_KB = _members(targets_BK)
    # Both orders list the members first, by position and shuffled, and then the others by position.
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
    """Replace a band of each image by the same band of another record of its class; targets do not change.

    A record that is half of one class and half of another receives two bands; where they overlap, the later class
    wins. Bands are copied from the original images.

    With `rows`, the numbers of the band's columns are used as row numbers, as in the source's notebooks: whole rows
    are exchanged, also those with the numbers of the second tile's columns, and numbers beyond the last row are
    ignored.

    Args:
        images_BCHW: images.
        targets_BK: vote fractions.
        partners_KB: partners from `same_class_partners`.
        start_K: first column of each class's band, in a tile of 300 columns.
        width_K: width of each class's band in columns.
        tile_widths: columns of each tile, see `band_columns`.
        axis: axis of the band, `time` for columns or `rows`.

    Returns:
        Images of the same shape.
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
    """Put four images side by side, each shrunk to a quarter of its width.

    Shrinking averages four neighbouring columns. If the width of a tile is not a multiple of four, its last one to
    three columns are dropped, and the last column of the mosaic is repeated instead.

    Args:
        images_BCHW: images.
        targets_BK: vote fractions.
        picks_BP: int64, the four images that make up each mosaic, left to right.
        tile_widths: columns of each tile, each of which becomes a mosaic; by default the image is a single tile.

    Returns:
        Mosaics of the same shape as the images, and (B, K) means of their four targets.

    Raises:
        ValueError: a tile has fewer than four columns.
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


def flip_time(images_BCHW: Tensor, flip_B: Tensor, tile_widths: Sequence[int], phases: int = 1) -> Tensor:
    """Reverse time in every tile of the marked records.

    Args:
        images_BCHW: images, or signals (B, C, T).
        flip_B: bool, True for the records to reverse.
        tile_widths: columns of each tile.
        phases: number of neighbouring samples below one another in a column, which are reversed as well.

    Returns:
        Images or signals of the same shape.
    """
    tiles = torch.split(images_BCHW, list(tile_widths), dim=-1)
    flipped_BCHW = torch.cat([tile.flip(-1) for tile in tiles], dim=-1)
    if phases > 1:
        by_phase = flipped_BCHW.reshape(*flipped_BCHW.shape[:-2], -1, phases, flipped_BCHW.shape[-1])
        flipped_BCHW = by_phase.flip(-2).flatten(-3, -2)
    return torch.where(_records(flip_B, images_BCHW), flipped_BCHW, images_BCHW)


def flip_rows(images_BCHW: Tensor, flip_B: Tensor) -> Tensor:
    """Reverse the rows of the images that `flip_B` (bool) marks."""
    return torch.where(_records(flip_B, images_BCHW), images_BCHW.flip(-2), images_BCHW)


def flip_sign(inputs: Tensor, flip_B: Tensor) -> Tensor:
    """Invert the records that `flip_B` (bool) marks.

    The polarity of a difference only depends on which of its electrodes is subtracted.
    """
    return torch.where(_records(flip_B, inputs), -inputs, inputs)


def blank_rows(inputs: Tensor, blank_BH: Tensor) -> Tensor:
    """Set the rows that `blank_BH` (bool) marks to 0, which is no signal, or the mean of a normalised image."""
    return inputs.masked_fill(_rows(blank_BH, inputs), 0)


def permute_rows(inputs: Tensor, source_BH: Tensor) -> Tensor:
    """Reorder the rows of each record: row h becomes the former row `source_BH`[…, h] (int64)."""
    return inputs.gather(-2, _rows(source_BH, inputs).expand_as(inputs))


def unfold(images_BCHW: Tensor, phases: int) -> Tensor:
    """Turn folded images (B, 1, S · phases, T / phases) into signals (B, S, T); return signals unchanged."""
    if images_BCHW.ndim == 3:
        return images_BCHW
    n, _, rows, columns = images_BCHW.shape
    return images_BCHW.reshape(n, rows // phases, phases, columns).movedim(2, 3).flatten(-2)


def folded(signals_BCT: Tensor, phases: int, like: Tensor) -> Tensor:
    """Invert `unfold`, with as many dimensions as `like` has."""
    if like.ndim == 3:
        return signals_BCT
    n, n_signals, n_times = signals_BCT.shape
    return signals_BCT.reshape(n, n_signals, n_times // phases, phases).movedim(2, 3).flatten(1, 2)[:, None]


def band_pass(signals_BCT: Tensor, low_B: Tensor, high_B: Tensor, sfreq_hz: float, rest_s: float) -> Tensor:
    """Filter every record with its own causal second-order Butterworth band-pass, starting from rest.

    The result is that of `scipy.signal.sosfilt` with `butter(2, (low, high), "bandpass", fs=sfreq_hz, output="sos")`,
    computed as a product of spectra: the frequency response of the bilinear transform, at the frequencies of an FFT
    that is longer than the signal by the time the filter takes to settle.

    Args:
        signals_BCT: float32 signals.
        low_B: lower cut-off frequencies (−3 dB) in Hz.
        high_B: upper cut-off frequencies in Hz, below half of `sfreq_hz`.
        sfreq_hz: sampling frequency in Hz.
        rest_s: seconds after which every response has decayed, see `settling_s`.

    Returns:
        (B, C, T) float32 signals.
    """
    n_times = signals_BCT.shape[-1]
    size = fast_size(n_times + math.ceil(rest_s * sfreq_hz))
    angle_F = torch.linspace(0, math.pi / 2, size // 2 + 1, device=signals_BCT.device)
    sine_F, cosine_F = angle_F.sin(), angle_F.cos()
    low_B1, high_B1 = (
        torch.tan(edge_B.float() * (math.pi / sfreq_hz))[:, None] for edge_B in (low_B, high_B)
    )
    # The prototype 1 / (q² + √2·q + 1) at q = j·off / band, expanded by band², so that there is no division by 0.
    band_BF = (high_B1 - low_B1) * sine_F * cosine_F
    off_BF = sine_F**2 - low_B1 * high_B1 * cosine_F**2
    below_BF = torch.complex(band_BF**2 - off_BF**2, math.sqrt(2) * band_BF * off_BF)
    response_BF = band_BF**2 / below_BF
    spectrum_BCF = torch.fft.rfft(signals_BCT, n=size)
    return torch.fft.irfft(spectrum_BCF * response_BF[:, None], n=size)[..., :n_times]


def settling_s(low_hz: tuple[float, float], high_hz: tuple[float, float], sfreq_hz: float) -> float:
    """Return the seconds after which the response of any band-pass of these ranges has decayed to 1e-6 or less.

    Oscillations last the longer, the nearer a cut-off frequency is to 0 or to half of the sampling frequency, and the
    narrower the band is. Distances below the lowest cut-off frequency that `options.BandPass` allows count as that one,
    so that no band needs more memory than that.

    Args:
        low_hz: range of the lower cut-off frequency (−3 dB) in Hz.
        high_hz: range of the upper cut-off frequency in Hz.
        sfreq_hz: sampling frequency in Hz.
    """
    nearest_hz = min(low_hz[0], sfreq_hz / 2 - high_hz[1], (high_hz[0] - low_hz[1]) / 4)
    return 4 / max(nearest_hz, LOWEST_HZ)


def mix(
    inputs: Tensor, targets_BK: Tensor, n_votes_B: Tensor, partner_B: Tensor, share_B: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Mix each record with a partner (mixup, Zhang et al. 2018).

    Args:
        inputs: images (B, C, H, W) or signals (B, C, T).
        targets_BK: vote fractions.
        n_votes_B: number of votes of each record.
        partner_B: int64, position of each record's partner in the batch.
        share_B: float32 in [0, 1], weight of the record itself; its partner gets the rest.

    Returns:
        Mixed inputs, targets and float32 numbers of votes.
    """
    share = _records(share_B, inputs)
    votes_B = n_votes_B.float()
    return (
        torch.lerp(inputs[partner_B], inputs, share),
        torch.lerp(targets_BK[partner_B], targets_BK, share_B[:, None]),
        torch.lerp(votes_B[partner_B], votes_B, share_B),
    )


def smooth(targets_BK: Tensor, n_votes_B: Tensor, amount: float, most_votes: int = 3) -> Tensor:
    """Smooth the targets of records with few votes.

    Each of the k classes with the largest target loses `amount` / k, and the 6 − k others share that amount equally. A
    record whose largest target is then no longer the largest gives less: as much as makes it equal to the next one. If
    all six are equal, nothing changes.

    Args:
        targets_BK: targets, vote fractions or not; every row sums to 1.
        n_votes_B: number of votes of each record.
        amount: total taken at most from the largest targets, from 0 to 1.
        most_votes: largest number of votes of a record that is smoothed.

    Returns:
        (B, K) targets, whose rows sum to 1.
    """
    most_B1 = targets_BK.amax(dim=1, keepdim=True)
    top_BK = targets_BK == most_B1
    n_top_B1 = top_BK.sum(dim=1, keepdim=True)
    n_classes = targets_BK.shape[1]
    others_B1 = n_classes - n_top_B1
    ahead_B1 = most_B1 - targets_BK.masked_fill(top_BK, 0).amax(dim=1, keepdim=True)
    amount_B1 = (ahead_B1 * n_top_B1 * others_B1 / n_classes).clamp(max=amount)
    # By reciprocals, as PyTorch divides a number by a tensor: what runs of before subtracted, to the last bit.
    loss_B1, gain_B1 = (amount_B1 * n.reciprocal() for n in (n_top_B1, others_B1.clamp(min=1)))
    smoothed_BK = targets_BK + torch.where(top_BK, -loss_B1, gain_B1)
    few_B1 = (n_votes_B <= most_votes)[:, None] & (others_B1 > 0)
    return torch.where(few_B1, smoothed_BK, targets_BK)


def _records(values_B: Tensor, inputs: Tensor) -> Tensor:
    """Reshape (B,) values so that they broadcast over inputs of any shape (B, …)."""
    return values_B.reshape(-1, *[1] * (inputs.ndim - 1))


def _columns(values_BW: Tensor, inputs: Tensor) -> Tensor:
    """Reshape (B, W) values so that they broadcast over images (B, C, H, W) or signals (B, C, W)."""
    return values_BW.reshape(len(values_BW), *[1] * (inputs.ndim - 2), values_BW.shape[-1])


def _rows(values_BH: Tensor, inputs: Tensor) -> Tensor:
    """Reshape (B, H) values so that they broadcast over images (B, C, H, W) or signals (B, H, W)."""
    return values_BH.reshape(len(values_BH), *[1] * (inputs.ndim - 3), values_BH.shape[-1], 1)


def mask_time(images_BCHW: Tensor, start_BM: Tensor, width_BM: Tensor, tile_widths: Sequence[int]) -> Tensor:
    """Set bands of time to 0, the mean of a normalised image (SpecAugment, Park et al. 2019).

    Args:
        images_BCHW: images.
        start_BM: first column of each band, in the first tile.
        width_BM: width of each band in columns; 0 for no band.
        tile_widths: columns of each tile, see `band_columns`.

    Returns:
        Images of the same shape.
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
    """Set bands of frequency to 0, the same ones in each of the stacked panels.

    In tiles of different heights a band takes up the same part of each panel's height, which need not be the same
    band in Hz.

    Args:
        images_BCHW: images.
        start_BM: first row of each band, in a panel of the first tile.
        height_BM: height of each band in rows; 0 for no band.
        tiles: (rows, columns) of each tile, left to right; by default the image is a single tile. In panels of
            another height the bands are scaled as in `band_columns`.
        panels: number of panels stacked in a tile.

    Returns:
        Images of the same shape.

    Raises:
        ValueError: the rows of a tile cannot be divided evenly between the panels.
    """
    all_rows, columns = images_BCHW.shape[-2:]
    tiles = tiles or [(all_rows, columns)]
    reference = panel_rows(tiles[0][0], panels)
    marks = []
    for height, width in tiles:
        rows = panel_rows(height, panels)
        masked_BH = band_columns(start_BM, height_BM, [rows], reference).any(dim=1).repeat(1, panels)
        masked_BH = functional.pad(masked_BH, (0, all_rows - height))
        marks.append(masked_BH[:, None, :, None].expand(-1, -1, -1, width))
    return images_BCHW.masked_fill(torch.cat(marks, dim=-1), 0)


def panel_rows(tile_rows: int, panels: int = len(PANELS)) -> int:
    """Return the number of rows of each panel stacked in a tile.

    Raises:
        ValueError: the rows cannot be divided evenly between the panels.
    """
    rows, rest = divmod(tile_rows, panels)
    if rest:
        raise ValueError(f"{tile_rows} rows cannot be shared by {panels} panels")
    return rows
