"""Draw the inputs of records: the one definition for training, validation and the scored kernel.

Shape legend: B batch, C channel (plane or signal), H image rows, W image columns, T time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import CHAINS, CHANNELS, N_BINS, OTHER_SIDE, PANELS
from kagglehms.features.differences import difference_signals
from kagglehms.features.fold import folded_image
from kagglehms.features.spectra import difference_spectra
from kagglehms.features.zoom import zoomed_image
from kagglehms.inputs.kinds import Folded, Input, Signals, Spectra, Views, Zoomed
from kagglehms.inputs.layouts import Crop, Layout, Normaliser
from kagglehms.inputs.rendering import render

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
    """Swap left and right: the panels LL and RL, LP and RP, and all electrodes with those of the other side.

    Labels do not say anything about the side, so that of a mirrored recording is the same.
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
    """Draw the input of one record; missing values are replaced, so that it has no NaN.

    The GIL is released during the computation, so that threads can fill a batch.

    Args:
        layout: input to draw.
        crop: recordings in the record's window.
        out: float32 array of the input's `array_shape`, C-contiguous, that the input is written to.
        normaliser: statistics for tiles that are normalised globally.
        mirror: whether to swap left and right.
        band_hz: cut-off frequencies of a band-pass for the signals, if the input `filters_when_drawn`.

    Raises:
        UsageError: a recording or the statistics that the input needs are missing.
    """
    match layout:
        case Layout():
            render(layout, mirrored(crop) if mirror else crop, out[0], normaliser)
        case Folded():
            folded_image(crop.of("eeg"), out[0], spec=layout.fold, mirror=mirror)
        case Spectra():
            difference_spectra(crop.of("eeg"), out[0], spec=layout.spectra, mirror=mirror)
        case Zoomed():
            zoomed_image(crop.of("eeg"), out, spec=layout.zoom, mirror=mirror, band_hz=band_hz)
        case Views():
            begin = 0
            for part, size in zip(layout.parts, layout.sizes, strict=True):
                draw(part, crop, out[begin : begin + size].reshape(part.array_shape), normaliser, mirror)
                begin += size
        case Signals():
            difference_signals(crop.of("eeg"), out, spec=layout.signals, mirror=mirror)


def stack(crops: Sequence[Crop], layout: Input, normaliser: Normaliser | None = None) -> NDArray[np.float32]:
    """Draw the inputs of several records.

    Args:
        crops: recordings in each record's window.
        layout: input to draw.
        normaliser: statistics for tiles that are normalised globally.

    Returns:
        (B, *array_shape) float32, such as (B, 1, H, W) images or (B, C, T) signals.
    """
    batch = np.empty((len(crops), *layout.array_shape), dtype=np.float32)
    for crop, out in zip(crops, batch, strict=True):
        draw(layout, crop, out, normaliser)
    return batch
