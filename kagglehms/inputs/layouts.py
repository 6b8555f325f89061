"""Layouts: which arrays stand where in a model's input image.

An image is one or more tiles side by side; a tile is four panels, one upon the other. This is the only place
where images are made: training, validation and the scored kernel all call `render`, and layout and normaliser
travel with the weights, so a model cannot meet an image made in another way than those it learned from.

Shape legend: B batch, C channel (one), H image rows (frequency), W image columns (time), P the four panels,
F frequency, T time.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import CHANNELS, N_BINS, N_TIMES, PANELS, SPECTROGRAM_ROWS
from kagglehms.errors import UsageError
from kagglehms.features.mel import MelSpec, mel_image_into
from kagglehms.features.panels import normalise, normalise_rows, percentiles, summaries

Source = Literal["kaggle", "eeg"]
View = Literal["panels", "summaries", "percentiles"]
Normalise = Literal["none", "panel", "image", "global"]

_FITTING_TILES = frozenset(
    (
        "same-class-cutmix", "horizontal-flip", "time-mask", "frequency-mask", "mixup", "mirror", "shift",
        "albumentations",
    )
)  # fmt: skip

MEL = MelSpec()
PANEL_SHAPES: dict[Source, tuple[int, int]] = {
    "kaggle": (N_BINS, SPECTROGRAM_ROWS),
    "eeg": (MEL.n_mels, MEL.n_frames),
}
"""(F, T) of one panel: ten minutes of the spectrogram file, or 50 s of EEG as a mel spectrogram."""
CROP_SHAPES: dict[Source, tuple[int, int]] = {
    "kaggle": (SPECTROGRAM_ROWS, len(PANELS) * N_BINS),
    "eeg": (N_TIMES, len(CHANNELS)),
}
"""What a panel is made of: (300, 400) log power, or (10,000, 20) µV."""


@dataclass(frozen=True)
class Tile:
    """Four panels, one upon the other.

    Attributes:
        source: `kaggle`, log power of the ten minutes of the spectrogram file around the label; `eeg`, mel images of
            the 50 s of EEG around it.
        view: the `panels` LL, RL, LP, RP themselves; their `summaries` over the four, pixel by pixel (minimum,
            maximum, mean, range); or their `percentiles` (20, 40, 60, 80).
        normalise: what mean and deviation are taken over before that: each `panel` by itself, the whole `image` of
            four panels, or the `global` ones of the training records; `none` leaves the values as they are.
    """

    source: Source = "kaggle"
    view: View = "panels"
    normalise: Normalise = "panel"

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        n_freqs, n_times = PANEL_SHAPES[self.source]
        return len(PANELS) * n_freqs, n_times


@dataclass(frozen=True)
class Layout:
    """Tiles side by side, left to right; below a tile that is less high than its neighbours stand zeros."""

    tiles: tuple[Tile, ...]

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012

    def __post_init__(self) -> None:
        if not self.tiles:
            raise UsageError("a layout needs at least one tile")

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the image in pixels."""
        return max(tile.shape[0] for tile in self.tiles), sum(tile.shape[1] for tile in self.tiles)

    @property
    def array_shape(self) -> tuple[int, ...]:
        """(1, height, width): what a network is given of one record, one plane."""
        return 1, *self.shape

    @property
    def time_tiles(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of each part that has a time axis of its own, left to right."""
        return tuple(tile.shape for tile in self.tiles)

    @property
    def fitting(self) -> frozenset[str]:
        """Kinds of augmentations that mean something for this image, see `learning.options`."""
        return _FITTING_TILES

    @property
    def makes_mosaics(self) -> bool:
        """Whether means of four columns still are such an image, so that a warm-up on mosaics makes sense."""
        return True

    @property
    def sees_sides(self) -> bool:
        """Whether a mirrored recording gives another image; statistics over the four panels are blind to the side."""
        return any(tile.view == "panels" for tile in self.tiles)

    @property
    def filters_when_drawn(self) -> bool:
        """Whether a band-pass comes before the drawing: none fits."""
        return False

    @property
    def sources(self) -> frozenset[Source]:
        """Which recordings the image is made from."""
        return frozenset(tile.source for tile in self.tiles)

    @property
    def global_sources(self) -> frozenset[Source]:
        """Whose mean and deviation over the training records are needed."""
        return frozenset(tile.source for tile in self.tiles if tile.normalise == "global")


@dataclass(frozen=True)
class Crop:
    """The stretch of one record that its image is made of, in the store's precision.

    Attributes:
        log_power: (300, 400) natural logarithm of spectrogram power, one row every two seconds.
        eeg_uv: (10,000, 20) EEG.
    """

    log_power: NDArray[np.float16] | None = None
    eeg_uv: NDArray[np.float16] | None = None

    def __post_init__(self) -> None:
        for name, source in (("log_power", "kaggle"), ("eeg_uv", "eeg")):
            values, expected = getattr(self, name), CROP_SHAPES[source]  # type: ignore[index]
            if values is not None and values.shape != expected:
                raise UsageError(f"{name} must be {expected}, but got {values.shape}")

    def of(self, source: Source) -> NDArray[np.float16]:
        """What is needed for one source.

        Raises:
            UsageError: this crop was made without it.
        """
        values = self.log_power if source == "kaggle" else self.eeg_uv
        if values is None:
            raise UsageError(f"the layout needs the {source} recording, and this crop has none")
        return values


@dataclass(frozen=True)
class Normaliser:
    """Mean and standard deviation per source, measured on training records; they travel with the weights."""

    statistics: Mapping[Source, tuple[float, float]] = field(default_factory=dict)

    def of(self, tile: Tile) -> tuple[float | None, float | None]:
        """Mean and deviation for a tile; two Nones where it takes them from its own image.

        Raises:
            UsageError: a global tile whose statistics were never measured.
        """
        if tile.normalise != "global":
            return None, None
        if tile.source not in self.statistics:
            raise UsageError(f"the layout normalises {tile.source} globally, but no statistics were measured")
        return self.statistics[tile.source]


def render(
    layout: Layout, crop: Crop, out_HW: NDArray[np.float32], normaliser: Normaliser | None = None
) -> None:
    """Draw the image of one record; missing values become 0.

    Releases the GIL while it computes, so batches are filled by threads; scratch memory is kept per thread.

    Args:
        layout: what to draw.
        crop: the recordings it is drawn from.
        out_HW: float32 of the layout's shape, C-contiguous.
        normaliser: needed where a tile is normalised globally.

    Raises:
        UsageError: a recording or the statistics that the layout needs are not there.
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
    """Draw the four panels of a source before any normalisation; NaN stay where the file has none."""
    if source == "eeg":
        mel_image_into(crop.of("eeg"), out_PFT)
    else:
        out_PFT[:] = crop.of("kaggle").T.reshape(out_PFT.shape)


def _draw_panels(tile: Tile, crop: Crop, normaliser: Normaliser, out_PFT: NDArray[np.float32]) -> None:
    mean, std = normaliser.of(tile)
    over: Literal["panel", "image"] = "panel" if tile.normalise == "panel" else "image"
    if tile.source == "kaggle":
        # No normalisation is a normalisation by (0, 1), which still turns NaN into 0.
        mean, std = (0.0, 1.0) if tile.normalise == "none" else (mean, std)
        normalise_rows(crop.of("kaggle"), out_PFT, mean, std, over=over)
    elif tile.normalise == "none":
        mel_image_into(crop.of("eeg"), out_PFT)
    else:
        mel_PFT = _scratch("mel", shape=out_PFT.shape)
        mel_image_into(crop.of("eeg"), mel_PFT)
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
    """This thread's buffer for one purpose: fresh memory would cost more than some of the drawing."""
    buffers: dict[Any, NDArray[np.float32]] = _local.__dict__.setdefault("buffers", {})
    if (key, shape) not in buffers:
        buffers[key, shape] = np.empty(shape, np.float32)
    return buffers[key, shape]


PANELS_BY_THEMSELVES = Layout((Tile("kaggle", "panels", "panel"),))
"""Four Kaggle panels, each normalised by itself, 400 × 300."""
SUMMARIES = Layout((Tile("kaggle", "summaries", "image"),))
"""All four panels normalised together, then minimum, maximum, mean and range over the four, 400 × 300."""
PERCENTILES = Layout((Tile("kaggle", "percentiles", "image"),))
"""All four panels normalised together, then percentiles 20, 40, 60 and 80 over the four, 400 × 300."""
PANELS_AND_SUMMARIES = Layout(PANELS_BY_THEMSELVES.tiles + SUMMARIES.tiles)
"""Side by side, 400 × 600."""
PANELS_AND_PERCENTILES = Layout(PANELS_BY_THEMSELVES.tiles + PERCENTILES.tiles)
"""Side by side, 400 × 600."""
GLOBAL_PANELS = Layout((Tile("kaggle", "panels", "global"),))
"""Four Kaggle panels, normalised by the training records' mean and deviation, 400 × 300."""
GLOBAL_SUMMARIES = Layout((Tile("kaggle", "summaries", "global"),))
"""Summaries of globally normalised panels, 400 × 300."""
EEG_PANELS = Layout((Tile("eeg", "panels", "none"),))
"""Four mel images of the EEG, 512 × 256."""
EEG_PANELS_AND_PERCENTILES = Layout((Tile("eeg", "panels", "none"), Tile("eeg", "percentiles", "none")))
"""Four mel images of the EEG beside their percentiles, 512 × 512."""
EEG_SUMMARIES = Layout((Tile("eeg", "summaries", "none"),))
"""Minimum, maximum, mean and range over the four mel images, 512 × 256."""
KAGGLE_AND_EEG = Layout((Tile("kaggle", "panels", "global"), Tile("eeg", "panels", "none")))
"""Ten minutes and 50 seconds side by side, 512 × 556; below the shorter Kaggle tile stand zeros."""

LAYOUTS: dict[str, Layout] = {
    "panels": PANELS_BY_THEMSELVES,
    "summaries": SUMMARIES,
    "percentiles": PERCENTILES,
    "panels+summaries": PANELS_AND_SUMMARIES,
    "panels+percentiles": PANELS_AND_PERCENTILES,
    "global-panels": GLOBAL_PANELS,
    "global-summaries": GLOBAL_SUMMARIES,
    "eeg-panels": EEG_PANELS,
    "eeg+percentiles": EEG_PANELS_AND_PERCENTILES,
    "eeg-summaries": EEG_SUMMARIES,
    "kaggle+eeg": KAGGLE_AND_EEG,
}
"""Every layout by name."""
