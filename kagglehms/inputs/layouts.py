"""Layouts: input images that consist of tiles side by side, and what a tile is made of.

A tile consists of four panels, stacked. The layout is part of the recipe, and the normaliser travels with the
weights, so that a model never sees an image that was made in another way than those it was trained on.

Shape legend: F frequency, T time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import CHANNELS, N_BINS, N_TIMES, PANELS, SPECTROGRAM_ROWS
from kagglehms.errors import UsageError, one_of
from kagglehms.features.mel import MelSpec

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
"""(F, T) of a panel: ten minutes of the spectrogram file, or the mel spectrogram of 50 s of EEG."""
CROP_SHAPES: dict[Source, tuple[int, int]] = {
    "kaggle": (SPECTROGRAM_ROWS, len(PANELS) * N_BINS),
    "eeg": (N_TIMES, len(CHANNELS)),
}
"""Shape of the recording that panels are made of: (300, 400) log power, or (10,000, 20) µV."""


@dataclass(frozen=True)
class Tile:
    """Four panels, stacked.

    Attributes:
        source: recording of the tile: `kaggle` for the log power of ten minutes of the spectrogram file around the
            label, `eeg` for mel images of 50 s of EEG around it.
        view: the `panels` LL, RL, LP and RP themselves, their `summaries` over the four, pixel by pixel (minimum,
            maximum, mean, range), or their `percentiles` (20, 40, 60, 80).
        normalise: what the values are normalised by beforehand: the mean and standard deviation of each `panel`, of
            the whole `image` of four panels, or the `global` ones of the training records; `none` leaves them as
            they are.
    """

    source: Source = "kaggle"
    view: View = "panels"
    normalise: Normalise = "panel"

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012

    def __post_init__(self) -> None:
        one_of("source", self.source, get_args(Source))
        one_of("view", self.view, get_args(View))
        one_of("normalise", self.normalise, get_args(Normalise))

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        n_freqs, n_times = PANEL_SHAPES[self.source]
        return len(PANELS) * n_freqs, n_times


@dataclass(frozen=True)
class Layout:
    """Tiles side by side; below a tile that is lower than its neighbours there are zeros.

    Attributes:
        tiles: the tiles, left to right.
    """

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
        """(1, height, width): shape of one record's input."""
        return 1, *self.shape

    @property
    def time_tiles(self) -> tuple[tuple[int, int], ...]:
        """(rows, columns) of each part with its own time axis, left to right."""
        return tuple(tile.shape for tile in self.tiles)

    @property
    def fitting(self) -> frozenset[str]:
        """Kinds of augmentations that make sense for this image, see `training.options`."""
        return _FITTING_TILES

    @property
    def makes_mosaics(self) -> bool:
        """Whether a warm-up on mosaics makes sense, as means of four columns are still such an image."""
        return True

    @property
    def sees_sides(self) -> bool:
        """Whether mirroring a recording changes the image, which statistics over the four panels do not show."""
        return any(tile.view == "panels" for tile in self.tiles)

    @property
    def filters_when_drawn(self) -> bool:
        """False, since a band-pass does not fit."""
        return False

    @property
    def sources(self) -> frozenset[Source]:
        """Recordings that the image is made from."""
        return frozenset(tile.source for tile in self.tiles)

    @property
    def global_sources(self) -> frozenset[Source]:
        """Recordings whose mean and standard deviation over the training records are needed."""
        return frozenset(tile.source for tile in self.tiles if tile.normalise == "global")


@dataclass(frozen=True)
class Crop:
    """The recordings in one record's window, in the store's precision.

    Attributes:
        log_power: (300, 400) natural logarithm of spectrogram power, with one row every two seconds; None if it is
            not needed.
        eeg_uv: (10,000, 20) EEG in µV; None if it is not needed.

    Raises:
        UsageError: a recording has another shape.
    """

    log_power: NDArray[np.float16] | None = None
    eeg_uv: NDArray[np.float16] | None = None

    def __post_init__(self) -> None:
        for name, source in (("log_power", "kaggle"), ("eeg_uv", "eeg")):
            values, expected = getattr(self, name), CROP_SHAPES[source]  # type: ignore[index]
            if values is not None and values.shape != expected:
                raise UsageError(f"{name} must be {expected}, but got {values.shape}")

    def of(self, source: Source) -> NDArray[np.float16]:
        """Return the recording of a source.

        Raises:
            UsageError: this crop does not have it.
        """
        values = self.log_power if source == "kaggle" else self.eeg_uv
        if values is None:
            raise UsageError(f"the layout needs the {source} recording, and this crop has none")
        return values


@dataclass(frozen=True)
class Normaliser:
    """Statistics of the training records, which travel with the weights.

    Attributes:
        statistics: mean and standard deviation of each source.
    """

    statistics: Mapping[Source, tuple[float, float]] = field(default_factory=dict)

    def of(self, tile: Tile) -> tuple[float | None, float | None]:
        """Return mean and standard deviation for a tile; two Nones if they are those of its own image.

        Raises:
            UsageError: the tile is normalised globally, and the statistics of its source were not measured.
        """
        if tile.normalise != "global":
            return None, None
        if tile.source not in self.statistics:
            raise UsageError(f"the layout normalises {tile.source} globally, but no statistics were measured")
        return self.statistics[tile.source]


PANELS_BY_THEMSELVES = Layout((Tile("kaggle", "panels", "panel"),))
"""Four panels of the spectrogram file, each normalised by itself, 400 × 300."""
SUMMARIES = Layout((Tile("kaggle", "summaries", "image"),))
"""Minimum, maximum, mean and range over the four panels, which were normalised together, 400 × 300."""
PERCENTILES = Layout((Tile("kaggle", "percentiles", "image"),))
"""Percentiles 20, 40, 60 and 80 over the four panels, which were normalised together, 400 × 300."""
PANELS_AND_SUMMARIES = Layout(PANELS_BY_THEMSELVES.tiles + SUMMARIES.tiles)
"""Panels beside summaries, 400 × 600."""
PANELS_AND_PERCENTILES = Layout(PANELS_BY_THEMSELVES.tiles + PERCENTILES.tiles)
"""Panels beside percentiles, 400 × 600."""
GLOBAL_PANELS = Layout((Tile("kaggle", "panels", "global"),))
"""Four panels of the spectrogram file, normalised by mean and deviation of the training records, 400 × 300."""
GLOBAL_SUMMARIES = Layout((Tile("kaggle", "summaries", "global"),))
"""Summaries of globally normalised panels, 400 × 300."""
EEG_PANELS = Layout((Tile("eeg", "panels", "none"),))
"""Four mel images of the EEG, 512 × 256."""
EEG_PANELS_AND_PERCENTILES = Layout((Tile("eeg", "panels", "none"), Tile("eeg", "percentiles", "none")))
"""Four mel images of the EEG beside their percentiles, 512 × 512."""
EEG_SUMMARIES = Layout((Tile("eeg", "summaries", "none"),))
"""Minimum, maximum, mean and range over the four mel images, 512 × 256."""
KAGGLE_AND_EEG = Layout((Tile("kaggle", "panels", "global"), Tile("eeg", "panels", "none")))
"""Ten minutes of spectrogram beside mel images of 50 s of EEG, 512 × 556, with zeros below the former."""

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
