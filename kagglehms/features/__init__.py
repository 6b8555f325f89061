"""EEG windows → mel images, spectrogram panels → normalised panels, percentiles and summaries.

Everything here runs in compiled code without the GIL and fills arrays that the caller may bring (`out`). Importing it
compiles nothing: each function is compiled, or loaded from Numba's cache, when it is first called.
"""

from __future__ import annotations

from kagglehms.features.arrays import empty
from kagglehms.features.jit import PlainPathWarning
from kagglehms.features.mel import MelSpec, mel_image_into, mel_images
from kagglehms.features.panels import log_normalise, normalise, normalise_rows, percentiles, summaries

__all__ = [
    "MelSpec",
    "mel_images",
    "mel_image_into",
    "log_normalise",
    "normalise",
    "normalise_rows",
    "percentiles",
    "summaries",
    "empty",
    "PlainPathWarning",
]
