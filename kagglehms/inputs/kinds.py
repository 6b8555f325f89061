"""The kinds of inputs: images of tiles, folded recordings, spectra of differences, signals, and pairs of images.

Each kind states the recordings it is made from, its shape, and the augmentations that make sense for it.
`drawing.draw` draws it. The input is part of the recipe and travels with the weights.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import (
    DIFFERENCES,
    MIDLINE_DIFFERENCES,
    SFREQ_HZ,
)
from kagglehms.features.differences import DifferenceSpec
from kagglehms.features.fold import FoldSpec
from kagglehms.features.simd import LANES
from kagglehms.features.spectra import SPECTRA_30_10, SPECTRA_50_10, SpectraSpec
from kagglehms.features.zoom import N_PLANES, ZoomSpec
from kagglehms.inputs.layouts import GLOBAL_PANELS, LAYOUTS, Layout, Source


class _OfDifferences(ABC):
    """Base of the inputs that are made of differences between neighbouring electrodes."""

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """(height, width) of the image, or (signals, samples)."""

    @property
    def array_shape(self) -> tuple[int, ...]:
        """(1, height, width): shape of one record's input."""
        return 1, *self.shape

    @property
    def time_tiles(self) -> tuple[tuple[int, int], ...]:
        """A single part, since all columns have one time axis; two time scales below one another share it."""
        return (self.shape,)

    @property
    def sources(self) -> frozenset[Source]:
        """Recordings that the input is made from."""
        return frozenset({"eeg"})

    @property
    def global_sources(self) -> frozenset[Source]:
        """No recordings, since the input is scaled by a constant or by itself."""
        return frozenset()

    @property
    def makes_mosaics(self) -> bool:
        """False, since the mean of neighbouring samples is not such an input."""
        return False

    @property
    def sees_sides(self) -> bool:
        """True, since every difference has its own position."""
        return True

    @property
    def filters_when_drawn(self) -> bool:
        """Whether a band-pass is applied before the input is drawn, as spectra cannot be filtered afterwards."""
        return False


@dataclass(frozen=True)
class Folded(_OfDifferences):
    """The raw signals as an image, see `features.fold`.

    Attributes:
        fold: filter, clipping, scale, sampling and number of phases of the signals.
    """

    fold: FoldSpec

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the image in pixels."""
        return self.fold.shape

    @property
    def signal_rows(self) -> NDArray[np.int64]:
        """Number of the difference in each row."""
        return np.repeat(np.arange(LANES), self.fold.phases)

    @property
    def phases(self) -> int:
        """Number of neighbouring samples below one another in a column."""
        return self.fold.phases

    @property
    def sfreq_hz(self) -> float:
        """Sampling frequency of the differences in Hz."""
        return SFREQ_HZ / self.fold.step

    @property
    def fitting(self) -> frozenset[str]:
        """Kinds of augmentations that make sense; rows are differences and phases, not frequencies."""
        return _FITTING_SIGNALS


@dataclass(frozen=True)
class Spectra(_OfDifferences):
    """Stacked spectrograms of all differences, see `features.spectra`.

    Attributes:
        spectra: window, hops, frequencies and size of the spectrograms.
    """

    spectra: SpectraSpec

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the image in pixels."""
        return self.spectra.shape

    @property
    def signal_rows(self) -> NDArray[np.int64]:
        """Number of the difference in each row; −1 below the last."""
        signals = np.repeat(np.arange(self.spectra.n_signals), 2 * self.spectra.n_bins)
        return self._padded(signals)

    @property
    def bin_rows(self) -> NDArray[np.int64]:
        """Number of the frequency bin in each row, in either block of every difference; −1 below the last."""
        return self._padded(np.tile(np.arange(self.spectra.n_bins), 2 * self.spectra.n_signals))

    def _padded(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.pad(rows, (0, self.shape[0] - len(rows)), constant_values=-1)

    @property
    def fitting(self) -> frozenset[str]:
        """Kinds of augmentations that make sense; columns mean other times in each of the two windows."""
        return frozenset(
            {
                "horizontal-flip",
                "vertical-flip",
                "frequency-mask",
                "drop-differences",
                "mixup",
                "mirror",
                "shift",
            }
        )


@dataclass(frozen=True)
class Zoomed(_OfDifferences):
    """Mel spectra of all differences with a finer centre, in three planes, see `features.zoom`.

    Attributes:
        zoom: windows, hops, mel bands, range and scale of the spectra.
    """

    zoom: ZoomSpec

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of each plane in pixels."""
        return self.zoom.shape[1:]

    @property
    def array_shape(self) -> tuple[int, ...]:
        """(3, height, width)."""
        return N_PLANES, *self.shape

    @property
    def signal_rows(self) -> NDArray[np.int64]:
        """Number of the difference in each row."""
        return np.repeat(np.arange(LANES), self.zoom.n_mels)

    @property
    def sfreq_hz(self) -> float:
        """Sampling frequency in Hz of the differences that the spectra are made of."""
        return SFREQ_HZ

    @property
    def filters_when_drawn(self) -> bool:
        """True, since spectra cannot be filtered."""
        return True

    @property
    def fitting(self) -> frozenset[str]:
        """Kinds of augmentations that make sense; a flip reverses time, as the finer centre is in the middle."""
        return frozenset({"horizontal-flip", "drop-differences", "mixup", "mirror", "shift", "band-pass"})


@dataclass(frozen=True)
class Signals(_OfDifferences):
    """The differences themselves, (C, T) float32, for networks that learn from signals.

    Attributes:
        signals: number, filter, clipping, scale and sampling of the signals.
    """

    signals: DifferenceSpec

    @property
    def shape(self) -> tuple[int, int]:
        """(signals, samples)."""
        return self.signals.shape

    @property
    def array_shape(self) -> tuple[int, ...]:
        """(signals, samples)."""
        return self.shape

    @property
    def signal_rows(self) -> NDArray[np.int64]:
        """Number of the difference in each row, which is the row's own."""
        return np.arange(self.signals.n_signals)

    @property
    def phases(self) -> int:
        """1, since all samples of a difference are side by side."""
        return 1

    @property
    def sfreq_hz(self) -> float:
        """Sampling frequency of the differences in Hz."""
        return SFREQ_HZ / self.signals.step

    @property
    def fitting(self) -> frozenset[str]:
        """Kinds of augmentations that make sense; chains may only be permuted here: images show sides by position."""
        return _FITTING_SIGNALS | {"chain-permutation"}


_FITTING_SIGNALS = frozenset(
    {
        "same-class-cutmix",
        "horizontal-flip",
        "time-mask",
        "mixup",
        "sign-flip",
        "mirror",
        "shift",
        "drop-differences",
        "band-pass",
    }
)
"""Kinds of augmentations that make sense for samples, folded or not; a flip reverses time."""

Image: TypeAlias = Layout | Folded | Spectra | Zoomed
"""Input of a single image network."""

View: TypeAlias = Image | Signals
"""One of two inputs that are seen together."""


@dataclass(frozen=True)
class Views:
    """Two images of a record, or its signals and an image, for two networks with a common head.

    They are passed on as one row of values, the first view first, so that the code between drawing and the network
    does not need to know about them. The network separates them.

    Attributes:
        first: input of the first network.
        second: input of the second network.
    """

    first: View
    second: View

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012

    @property
    def parts(self) -> tuple[View, View]:
        """Both inputs."""
        return self.first, self.second

    @property
    def sizes(self) -> tuple[int, int]:
        """Number of values in each view."""
        first, second = (math.prod(part.array_shape) for part in self.parts)
        return first, second

    @property
    def shape(self) -> tuple[int, int]:
        """(1, number of values in both views)."""
        return 1, sum(self.sizes)

    @property
    def array_shape(self) -> tuple[int, ...]:
        """(number of values in both views,)."""
        return self.shape[1:]

    @property
    def time_tiles(self) -> tuple[tuple[int, int], ...]:
        """A single part, the whole row; the views' own parts are those of `parts`."""
        return (self.shape,)

    @property
    def sources(self) -> frozenset[Source]:
        """Recordings that the views are made from."""
        return self.first.sources | self.second.sources

    @property
    def global_sources(self) -> frozenset[Source]:
        """Recordings whose mean and standard deviation over the training records are needed."""
        return self.first.global_sources | self.second.global_sources

    @property
    def makes_mosaics(self) -> bool:
        """False, since a mosaic of one view would not match a mosaic of the other."""
        return False

    @property
    def sees_sides(self) -> bool:
        """Whether mirroring a recording changes either view."""
        return self.first.sees_sides or self.second.sees_sides

    @property
    def filters_when_drawn(self) -> bool:
        """False, since a band-pass does not fit."""
        return False

    @property
    def fitting(self) -> frozenset[str]:
        """Kinds of augmentations that make sense.

        These are the ones that mean the same in both views, and those of one view that the other has no use for. A
        band of pixels would be another stretch of time in the other view.
        """
        first, second = self.first.fitting, self.second.fitting
        return first & second & _FITTING_BOTH_VIEWS | (first ^ second) & _FITTING_ONE_VIEW


_FITTING_BOTH_VIEWS = frozenset({"same-class-cutmix", "horizontal-flip", "mixup", "mirror", "shift"})
_FITTING_ONE_VIEW = frozenset({"sign-flip", "drop-differences", "frequency-mask"})

Input: TypeAlias = Image | Signals | Views
"""Input of a recipe's network."""


def differences_of(layout: Input) -> tuple[tuple[str, str], ...]:
    """Return the differences between electrodes that an input shows, directly or by way of the spectrogram file."""
    match layout:
        case Layout():
            return DIFFERENCES
        case Views():
            return tuple(dict.fromkeys(pair for part in layout.parts for pair in differences_of(part)))
        case _:
            return (*DIFFERENCES, *MIDLINE_DIFFERENCES)[: int(layout.signal_rows.max()) + 1]


def describe(layout: Input) -> str:
    """Describe an input in words, with its size."""
    match layout:
        case Layout():
            name = next((name for name, known in LAYOUTS.items() if known == layout), "its own layout")
        case Folded():
            name = "raw EEG folded into an image"
        case Spectra():
            name = "spectrograms of differences between electrodes"
        case Zoomed():
            name = "mel spectra of differences between electrodes, finer in the centre"
        case Signals():
            name = "raw EEG"
        case Views():
            return " beside ".join(describe(part) for part in layout.parts)
    planes = f"{layout.array_shape[0]} × " if isinstance(layout, Zoomed) else ""
    return f"{name}, {planes}{layout.shape[0]} × {layout.shape[1]}"


def unit(layout: Input) -> str:
    """Return the unit of an input's values, in words."""
    match layout:
        case Layout():
            return (
                f"log power, normalised: {', '.join(dict.fromkeys(tile.normalise for tile in layout.tiles))}"
            )
        case Folded(given) | Signals(given):
            return f"{given.scale_uv:g} µV"
        case Zoomed():
            return f"{layout.zoom.unit_db:g} dB"
        case Views():
            return " beside ".join(unit(part) for part in layout.parts)
        case Spectra():
            return "log power, normalised: image"


FOLDED_CAUSAL = Folded(FoldSpec(filter="causal"))
"""Sixteen differences, causal band-pass 0.5–20 Hz, ten phases, 160 × 1000."""
FOLDED_LINEAR = Folded(FoldSpec(filter="linear"))
"""Sixteen differences, linear-phase band-pass 0.5–20 Hz, ten phases, 160 × 1000."""
SIXTEEN_SIGNALS = Signals(DifferenceSpec(filter="causal"))
"""Sixteen differences at 200 Hz, causal band-pass 0.5–20 Hz, clipped, (16, 10000)."""
SIXTEEN_SIGNALS_50_HZ = Signals(DifferenceSpec(filter="causal", step=4))
"""Sixteen differences at 50 Hz, causal band-pass 0.5–20 Hz, clipped, (16, 2500)."""
SPECTRA_50_AND_10_S = Spectra(SPECTRA_50_10)
"""Spectrograms of eighteen differences over 50 s, and finer over the middle 10 s, 512 × 512."""
SPECTRA_30_AND_10_S = Spectra(SPECTRA_30_10)
"""Spectrograms of eighteen differences over 30 s, and finer over the middle 10 s, 512 × 512."""
MEL_ZOOM = Zoomed(ZoomSpec())
"""Mel spectra of sixteen differences with a finer centre, less the others' and less the neighbours', 3 × 1024 × 852."""
FOLDED_AND_PANELS = Views(FOLDED_CAUSAL, GLOBAL_PANELS)
"""Fifty seconds of raw EEG, 160 × 1000, and ten minutes of spectrogram, 400 × 300."""
SIGNALS_50_HZ_AND_PANELS = Views(SIXTEEN_SIGNALS_50_HZ, GLOBAL_PANELS)
"""Fifty seconds of sixteen differences at 50 Hz, (16, 2500), and ten minutes of spectrogram, 400 × 300."""
SIGNALS_AND_PANELS = Views(SIXTEEN_SIGNALS, GLOBAL_PANELS)
"""Fifty seconds of sixteen differences at 200 Hz, (16, 10000), and ten minutes of spectrogram, 400 × 300."""
