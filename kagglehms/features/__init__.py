"""Features of EEG windows (images, signals, spectra) and of spectrogram panels (normalised, percentiles, summaries).

All but `multitaper_rows` runs in compiled code without the GIL and can fill an array that the caller provides (`out`).
Scratch memory, 0.6 to 4.3 MB for each call that runs at a time, is kept and used again by any thread.
Importing compiles nothing: each function is compiled, or loaded from Numba's cache, when it is first called.
"""

from __future__ import annotations

from kagglehms.features import jit  # first, because it reports settings that Numba refuses in one line
from kagglehms.features.arrays import empty
from kagglehms.features.differences import DifferenceSpec, difference_signals
from kagglehms.features.fold import FoldSpec, folded_image
from kagglehms.features.mel import MelSpec, mel_images
from kagglehms.features.multitaper import multitaper_rows
from kagglehms.features.panels import normalise, normalise_rows, percentiles, summaries
from kagglehms.features.spectra import (
    SPECTRA_30_10,
    SPECTRA_50_10,
    SpectraSpec,
    difference_spectra,
)
from kagglehms.features.zoom import ZoomSpec, zoomed_image

PlainPathWarning = jit.PlainPathWarning

__all__ = [
    "MelSpec",
    "mel_images",
    "multitaper_rows",
    "DifferenceSpec",
    "difference_signals",
    "FoldSpec",
    "folded_image",
    "SpectraSpec",
    "SPECTRA_50_10",
    "SPECTRA_30_10",
    "difference_spectra",
    "ZoomSpec",
    "zoomed_image",
    "normalise",
    "normalise_rows",
    "percentiles",
    "summaries",
    "empty",
    "PlainPathWarning",
]
