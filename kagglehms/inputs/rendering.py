"""Render the images of layouts.

Shape legend: H image rows (frequency), W image columns (time), P the four panels, F frequency, T time.
"""

from __future__ import annotations

import threading
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import PANELS
from kagglehms.errors import UsageError
from kagglehms.features.mel import mel_images
from kagglehms.features.panels import normalise, normalise_rows, percentiles, summaries
from kagglehms.inputs.layouts import PANEL_SHAPES, Crop, Layout, Normalise, Normaliser, Source, Tile


def render(
    layout: Layout, crop: Crop, out_HW: NDArray[np.float32], normaliser: Normaliser | None = None
) -> None:
    """Render the image of one record; missing values become 0.

    The GIL is released during the computation, so that threads can fill a batch. Each thread has scratch memory.

    Args:
        layout: layout of the image.
        crop: recordings in the record's window.
        out_HW: float32 array of the layout's shape, C-contiguous, that the image is written to.
        normaliser: statistics for tiles that are normalised globally.

    Raises:
        UsageError: a recording or the statistics that the layout needs are missing.
    """
    normaliser = normaliser or Normaliser()
    if len(layout.tiles) == 1 and layout.tiles[0].view == "panels":
        _draw_panels(layout.tiles[0], crop, normaliser, _as_panels(out_HW, layout.tiles[0]))
        return
    panels: dict[tuple[Source, Normalise], NDArray[np.float32]] = {}
    left = 0
    for tile in layout.tiles:
        key = (tile.source, tile.normalise)
        if key not in panels:
            panels[key] = _scratch("panels", *key, shape=_panels_shape(tile))
            _draw_panels(tile, crop, normaliser, panels[key])
        height, width = tile.shape
        view = _view(tile, panels[key])
        out_HW[:height, left : left + width] = view.reshape(height, width)
        out_HW[height:, left : left + width] = 0
        left += width


def draw_source(source: Source, crop: Crop, out_PFT: NDArray[np.float32]) -> None:
    """Render the four panels of a source without normalisation; missing values stay NaN.

    Args:
        source: the source.
        crop: recordings in the record's window.
        out_PFT: float32 array that the panels are written to.
    """
    if source == "eeg":
        mel_images(crop.of("eeg"), out_PFT)
    else:
        out_PFT[:] = crop.of("kaggle").T.reshape(out_PFT.shape)


def _draw_panels(tile: Tile, crop: Crop, normaliser: Normaliser, out_PFT: NDArray[np.float32]) -> None:
    mean, std = normaliser.of(tile)
    over: Literal["panel", "image"] = "panel" if tile.normalise == "panel" else "image"
    if tile.source == "kaggle":
        # No normalisation is one by (0, 1), so that NaN become 0.
        mean, std = (0.0, 1.0) if tile.normalise == "none" else (mean, std)
        normalise_rows(crop.of("kaggle"), out_PFT, mean, std, over=over)
    elif tile.normalise == "none":
        mel_images(crop.of("eeg"), out_PFT)
    else:
        mel_PFT = _scratch("mel", shape=out_PFT.shape)
        mel_images(crop.of("eeg"), mel_PFT)
        normalise(mel_PFT, mean, std, over=over, out=out_PFT)


def _view(tile: Tile, panels_PFT: NDArray[np.float32]) -> NDArray[np.float32]:
    if tile.view == "panels":
        return panels_PFT
    out = _scratch("view", shape=panels_PFT.shape)
    return summaries(panels_PFT, out=out) if tile.view == "summaries" else percentiles(panels_PFT, out=out)


def _panels_shape(tile: Tile) -> tuple[int, int, int]:
    return (len(PANELS), *PANEL_SHAPES[tile.source])


def _as_panels(out_HW: NDArray[np.float32], tile: Tile) -> NDArray[np.float32]:
    if out_HW.shape != tile.shape or not out_HW.flags.c_contiguous:
        raise UsageError(f"out must be C-contiguous {tile.shape}, but got {out_HW.shape}")
    return out_HW.reshape(_panels_shape(tile))


_local = threading.local()


def _scratch(*key: Any, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return this thread's buffer for a purpose; allocating memory would take longer than some of the rendering."""
    buffers: dict[Any, NDArray[np.float32]] = _local.__dict__.setdefault("buffers", {})
    if (key, shape) not in buffers:
        buffers[key, shape] = np.empty(shape, np.float32)
    return buffers[key, shape]
