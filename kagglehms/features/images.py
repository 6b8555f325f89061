"""Layouts: which arrays stand where in a model's input image.

An image is one or more tiles side by side; a tile is four panels, one upon the other. This is the only place
where images are made: training, validation and the scored kernel all call `render`, and the layout travels with
the weights, so a model cannot meet an image made in another way than those it learned from.

Shape legend: B batch, C channel (one), H image rows (frequency), W image columns (time).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import N_BINS, PANELS, SPECTROGRAM_ROWS
from kagglehms.features.panels import normalise_rows


@dataclass(frozen=True)
class Tile:
    """Four panels, one upon the other.

    Attributes:
        source: `kaggle`, the ten minutes of the spectrogram file around the label.
        normalise: over what the mean and standard deviation are taken: each `panel` by itself.
    """

    source: Literal["kaggle"] = "kaggle"
    normalise: Literal["panel"] = "panel"

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return len(PANELS) * N_BINS, SPECTROGRAM_ROWS


@dataclass(frozen=True)
class Layout:
    """Tiles side by side, left to right; all of one height."""

    tiles: tuple[Tile, ...]

    def __post_init__(self) -> None:
        if not self.tiles or len({tile.shape[0] for tile in self.tiles}) != 1:
            raise ValueError(f"a layout is one or more tiles of one height, but got {self.tiles}")

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the image in pixels."""
        return self.tiles[0].shape[0], sum(tile.shape[1] for tile in self.tiles)

    @property
    def sources(self) -> frozenset[str]:
        """Which recordings the image is made from."""
        return frozenset(tile.source for tile in self.tiles)


@dataclass(frozen=True)
class Crop:
    """The stretch of one record that its image is made of, in the store's precision.

    Attributes:
        log_power: (300, 400) natural logarithm of spectrogram power, one row every two seconds.
    """

    log_power: NDArray[np.float16]

    def __post_init__(self) -> None:
        expected = (SPECTROGRAM_ROWS, len(PANELS) * N_BINS)
        if self.log_power.shape != expected:
            raise ValueError(f"log_power must be {expected}, but got {self.log_power.shape}")


def render(layout: Layout, crop: Crop, out_HW: NDArray[np.float32]) -> None:
    """Draw the image of one record into `out_HW`, float32 of the layout's shape; NaN become 0.

    Releases the GIL while it computes, so batches are filled by threads.
    """
    left = 0
    for tile in layout.tiles:
        width = tile.shape[1]
        normalise_rows(crop.log_power, out_HW[:, left : left + width], over=tile.normalise)
        left += width

def stack(crops: Sequence[Crop], layout: Layout) -> NDArray[np.float32]:
    """Draw the images of a few crops at once: (B, 1, H, W) float32."""
    images_BCHW = np.empty((len(crops), 1, *layout.shape), dtype=np.float32)
    for crop, out_CHW in zip(crops, images_BCHW, strict=True):
        render(layout, crop, out_CHW[0])
    return images_BCHW


PANELS_BY_THEMSELVES = Layout((Tile("kaggle", normalise="panel"),))
"""Four Kaggle panels, each normalised by itself, 400 × 300: the input of `baseline`."""
