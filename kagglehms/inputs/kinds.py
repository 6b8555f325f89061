"""What a network is given of one record: an image of tiles, a folded recording, spectra of differences, signals, or two
images for two networks that share a head.

Every kind says which recordings it is made from, what shape it has, and which augmentations mean something for it;
`draw` makes it, for training, validation and the scored kernel alike. It is a part of the recipe and travels with the
weights.

Shape legend: B batch, C channel (plane or signal), H image rows, W image columns, T time.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import (
    CHAINS,
    CHANNELS,
    DIFFERENCES,
    MIDLINE_DIFFERENCES,
    N_BINS,
    OTHER_SIDE,
    PANELS,
    SFREQ_HZ,
)
from kagglehms.features.differences import DifferenceSpec, differences_into
from kagglehms.features.fold import FoldSpec, folded_image_into
from kagglehms.features.simd import LANES
from kagglehms.features.spectra import SPECTRA_30_10, SPECTRA_50_10, SpectraSpec, difference_spectra_into
from kagglehms.features.zoom import N_PLANES, ZoomSpec, zoomed_image_into
from kagglehms.inputs.layouts import GLOBAL_PANELS, LAYOUTS, Crop, Layout, Normaliser, Source, render


class _OfDifferences(ABC):
    """What the inputs have in common that are made of differences between neighbouring electrodes."""

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """(height, width) of the image, or (signals, samples)."""

    @property
    def array_shape(self) -> tuple[int, ...]:
        """(1, height, width): what a network is given of one record, one plane."""
        return 1, *self.shape

    @property
    def time_tiles(self) -> tuple[tuple[int, int], ...]:
        """One time axis, along all columns; two time scales that stand one upon the other share theirs."""
        return (self.shape,)

    @property
    def sources(self) -> frozenset[Source]:
        """Which recordings it is made from."""
        return frozenset({"eeg"})

    @property
    def global_sources(self) -> frozenset[Source]:
        """None: its scale is a constant, or its own."""
        return frozenset()

    @property
    def makes_mosaics(self) -> bool:
        """A mean over neighbouring samples is no recording."""
        return False

    @property
    def sees_sides(self) -> bool:
        """Every difference stands in a place of its own."""
        return True

    @property
    def filters_when_drawn(self) -> bool:
        """Whether a band-pass comes before the drawing: spectra cannot be filtered any more, samples can."""
        return False


@dataclass(frozen=True)
class Folded(_OfDifferences):
    """The raw signal as an image, see `features.fold`.

    Attributes:
        fold: filter, clipping, scale, sampling and number of phases.
    """

    fold: FoldSpec

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the image in pixels."""
        return self.fold.shape

    @property
    def signal_rows(self) -> NDArray[np.int64]:
        """Which difference each row is of."""
        return np.repeat(np.arange(LANES), self.fold.phases)

    @property
    def phases(self) -> int:
        """Neighbouring samples that stand one below the other."""
        return self.fold.phases

    @property
    def sfreq_hz(self) -> float:
        """Samples of a difference per second."""
        return SFREQ_HZ / self.fold.step

    @property
    def fitting(self) -> frozenset[str]:
        """Kinds of augmentations that fit: rows are differences and phases, not frequencies."""
        return _FITTING_SIGNALS


@dataclass(frozen=True)
class Spectra(_OfDifferences):
    """Spectrograms of every difference one upon the other, see `features.spectra`.

    Attributes:
        spectra: window, hops, frequencies and size.
    """

    spectra: SpectraSpec

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the image in pixels."""
        return self.spectra.shape

    @property
    def signal_rows(self) -> NDArray[np.int64]:
        """Which difference each row is of; −1 below the last."""
        signals = np.repeat(np.arange(self.spectra.n_signals), 2 * self.spectra.n_bins)
        return self._padded(signals)

    @property
    def bin_rows(self) -> NDArray[np.int64]:
        """Which bin each row is, from 0, in either block of every difference; −1 below the last."""
        return self._padded(np.tile(np.arange(self.spectra.n_bins), 2 * self.spectra.n_signals))

    def _padded(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.pad(rows, (0, self.shape[0] - len(rows)), constant_values=-1)

    @property
    def fitting(self) -> frozenset[str]:
        """Kinds of augmentations that fit; a band of columns would be another stretch in each of the two windows."""
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
    """Mel spectra of every difference with a finer centre, in three planes, see `features.zoom`.

    Attributes:
        zoom: windows, hops, mel bands, range and scale.
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
        """Which difference each row is of."""
        return np.repeat(np.arange(LANES), self.zoom.n_mels)

    @property
    def sfreq_hz(self) -> float:
        """Samples of a difference per second, before the spectra are made."""
        return SFREQ_HZ

    @property
    def filters_when_drawn(self) -> bool:
        """True."""
        return True

    @property
    def fitting(self) -> frozenset[str]:
        """Kinds of augmentations that fit; a flip lets time run backwards, as the centre stands in the middle."""
        return frozenset({"horizontal-flip", "drop-differences", "mixup", "mirror", "shift", "band-pass"})


@dataclass(frozen=True)
class Signals(_OfDifferences):
    """The differences themselves, (C, T) float32: for networks that learn from the signal.

    Attributes:
        signals: which differences, filter, clipping, scale and sampling.
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
        """Which difference each row is of: its own."""
        return np.arange(self.signals.n_signals)

    @property
    def phases(self) -> int:
        """One: all samples of a difference stand side by side."""
        return 1

    @property
    def sfreq_hz(self) -> float:
        """Samples of a difference per second."""
        return SFREQ_HZ / self.signals.step

    @property
    def fitting(self) -> frozenset[str]:
        """Kinds of augmentations that fit. Only here chains may change places: in an image a place tells the side."""
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
"""Kinds of augmentations that fit wherever samples are seen, folded or not; a flip lets time run backwards."""

Image: TypeAlias = Layout | Folded | Spectra | Zoomed
"""What one image network can be given."""


@dataclass(frozen=True)
class Views:
    """Two images of one record, for two image networks that share a head.

    They travel as one row of values, first image first, so that whatever brings inputs from drawing to a network does
    not have to know of it; the network takes them apart again.

    Attributes:
        first: what the first network sees.
        second: what the second one sees.
    """

    first: Image
    second: Image

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012

    @property
    def parts(self) -> tuple[Image, Image]:
        """Both images."""
        return self.first, self.second

    @property
    def sizes(self) -> tuple[int, int]:
        """Values of either image."""
        first, second = (math.prod(part.array_shape) for part in self.parts)
        return first, second

    @property
    def shape(self) -> tuple[int, int]:
        """(1, values of both images)."""
        return 1, sum(self.sizes)

    @property
    def array_shape(self) -> tuple[int, ...]:
        """(values of both images,)."""
        return self.shape[1:]

    @property
    def time_tiles(self) -> tuple[tuple[int, int], ...]:
        """The row as it travels; time axes are those of the parts."""
        return (self.shape,)

    @property
    def sources(self) -> frozenset[Source]:
        """Which recordings they are made from."""
        return self.first.sources | self.second.sources

    @property
    def global_sources(self) -> frozenset[Source]:
        """Whose mean and deviation over the training records are needed."""
        return self.first.global_sources | self.second.global_sources

    @property
    def makes_mosaics(self) -> bool:
        """Four records side by side would be shortened in one view and not be in the other."""
        return False

    @property
    def sees_sides(self) -> bool:
        """Whether a mirrored recording changes either."""
        return self.first.sees_sides or self.second.sees_sides

    @property
    def filters_when_drawn(self) -> bool:
        """No band-pass fits."""
        return False

    @property
    def fitting(self) -> frozenset[str]:
        """Kinds of augmentations that fit both images and mean the same to both.

        Bands that are counted in pixels of one image would be another stretch of time or frequency in the other, and
        differences dropped from one image would still be seen in the other.
        """
        return self.first.fitting & self.second.fitting & _FITTING_VIEWS


_FITTING_VIEWS = frozenset({"same-class-cutmix", "horizontal-flip", "mixup", "mirror", "shift"})

Input: TypeAlias = Image | Signals | Views
"""What a recipe can give its network."""

_OPPOSITE = {
    name: other
    for panel in PANELS
    for name, other in zip(CHAINS[panel], CHAINS[OTHER_SIDE[panel]], strict=True)
}
_MIRRORED_CHANNELS = np.array([CHANNELS.index(_OPPOSITE.get(name, name)) for name in CHANNELS])
_MIRRORED_COLUMNS = np.concatenate(
    [np.arange(N_BINS) + N_BINS * PANELS.index(OTHER_SIDE[panel]) for panel in PANELS]
)


def mirrored(crop: Crop) -> Crop:
    """Swap left and right: panels LL and RL, LP and RP; electrodes with those of the other side.

    A label says nothing about the side, so the mirrored recording has the same one.
    """
    return Crop(
        None if crop.log_power is None else crop.log_power[:, _MIRRORED_COLUMNS],
        None if crop.eeg_uv is None else crop.eeg_uv[:, _MIRRORED_CHANNELS],
    )


def draw(
    layout: Input,
    crop: Crop,
    out: NDArray[np.float32],
    normaliser: Normaliser | None = None,
    mirror: bool = False,
    band_hz: tuple[float, float] | None = None,
) -> None:
    """Draw what a network is given of one record; missing values are replaced, none is NaN.

    Releases the GIL while it computes, so batches are filled by threads.

    Args:
        layout: what to draw.
        crop: the recordings it is drawn from.
        out: float32 of the input's `array_shape`, C-contiguous.
        normaliser: statistics for tiles that are normalised globally.
        mirror: swap left and right.
        band_hz: edges of a band-pass that the signals go through first, where the input `filters_when_drawn`.

    Raises:
        UsageError: a recording or the statistics that are needed are not there.
    """
    match layout:
        case Layout():
            render(layout, mirrored(crop) if mirror else crop, out[0], normaliser)
        case Folded():
            folded_image_into(crop.of("eeg"), out[0], layout.fold, mirror)
        case Spectra():
            difference_spectra_into(crop.of("eeg"), out[0], layout.spectra, mirror)
        case Zoomed():
            zoomed_image_into(crop.of("eeg"), out, layout.zoom, mirror, band_hz)
        case Views():
            begin = 0
            for part, size in zip(layout.parts, layout.sizes, strict=True):
                draw(part, crop, out[begin : begin + size].reshape(part.array_shape), normaliser, mirror)
                begin += size
        case Signals():
            differences_into(crop.of("eeg"), out, layout.signals, mirror)


def stack(crops: Sequence[Crop], layout: Input, normaliser: Normaliser | None = None) -> NDArray[np.float32]:
    """Draw a few crops at once: (B, *array_shape) float32, such as (B, 1, H, W) images or (B, C, T) signals."""
    batch = np.empty((len(crops), *layout.array_shape), dtype=np.float32)
    for crop, out in zip(crops, batch, strict=True):
        draw(layout, crop, out, normaliser)
    return batch


def differences_of(layout: Input) -> tuple[tuple[str, str], ...]:
    """List the differences of electrodes that an input is made of, from the EEG or by way of its spectrogram."""
    match layout:
        case Layout():
            return DIFFERENCES
        case Views():
            return tuple(dict.fromkeys(pair for part in layout.parts for pair in differences_of(part)))
        case _:
            return (*DIFFERENCES, *MIDLINE_DIFFERENCES)[: int(layout.signal_rows.max()) + 1]


def describe(layout: Input) -> str:
    """What an input is, in words, with its size."""
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


FOLDED_CAUSAL = Folded(FoldSpec(filter="causal"))
"""Sixteen differences, causal band-pass 0.5–20 Hz, ten phases one upon the other, 160 × 1000."""
FOLDED_LINEAR = Folded(FoldSpec(filter="linear"))
"""The same with a linear-phase filter, 160 × 1000."""
SIXTEEN_SIGNALS = Signals(DifferenceSpec(filter="causal"))
"""Sixteen differences at 200 Hz, causal band-pass 0.5–20 Hz, clipped, (16, 10000)."""
SPECTRA_50_AND_10_S = Spectra(SPECTRA_50_10)
"""Spectrograms of eighteen differences over 50 s, and finer over the middle 10 s, 512 × 512."""
SPECTRA_30_AND_10_S = Spectra(SPECTRA_30_10)
"""Spectrograms of eighteen differences over 30 s, and finer over the middle 10 s, 512 × 512."""
MEL_ZOOM = Zoomed(ZoomSpec())
"""Mel spectra of sixteen differences, the centre finer, less the others' and less the neighbours', 3 × 1024 × 852."""
FOLDED_AND_PANELS = Views(FOLDED_CAUSAL, GLOBAL_PANELS)
"""Fifty seconds of raw EEG, 160 × 1000, and ten minutes of spectrogram, 400 × 300."""
