"""One input of each kind, and recordings to draw it from."""

from __future__ import annotations

import numpy as np

from kagglehms.features.differences import DifferenceSpec
from kagglehms.features.fold import FoldSpec
from kagglehms.inputs import kinds
from kagglehms.inputs.kinds import Folded, Input, Signals
from kagglehms.inputs.layouts import CROP_SHAPES, KAGGLE_AND_EEG, Crop, Normaliser

NORMALISER = Normaliser({"kaggle": (1.0, 2.0), "eeg": (0.5, 0.2)})
KINDS: dict[str, Input] = {
    "tiles": KAGGLE_AND_EEG,
    "folded": Folded(FoldSpec(filter="none")),
    "folded-causal": kinds.FOLDED_CAUSAL,
    "folded-linear": kinds.FOLDED_LINEAR,
    "spectra-50-10": kinds.SPECTRA_50_AND_10_S,
    "spectra-30-10": kinds.SPECTRA_30_AND_10_S,
    "signals": Signals(DifferenceSpec()),
    "zoomed": kinds.MEL_ZOOM,
    "two views": kinds.FOLDED_AND_PANELS,
}


def some_crop(seed: int = 0) -> Crop:
    rng = np.random.default_rng(seed)
    eeg_uv = rng.normal(0, 60, CROP_SHAPES["eeg"]).astype(np.float16)
    eeg_uv[100:200, 3] = np.nan
    return Crop(rng.normal(1, 2, CROP_SHAPES["kaggle"]).astype(np.float16), eeg_uv)
