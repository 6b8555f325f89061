"""Front ends: parts of a network that turn (B, C, T) signals into an image or an embedding, on the device.

One of them turns an image of panels into an embedding.

Their options are imported without PyTorch; everything else is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kagglehms.training.front_ends.options import (
    BandPassOptions,
    DifferencesOptions,
    EffNet1dOptions,
    FoldOptions,
    PanelResNetOptions,
    PoolingName,
    ResNet1dOptions,
    SpectrumOptions,
    SqueezeOptions,
    WaveStackOptions,
)

if TYPE_CHECKING:
    from kagglehms.training.front_ends.band_pass import CausalBandPass
    from kagglehms.training.front_ends.differences import Differences, fill_missing
    from kagglehms.training.front_ends.effnet1d import EffNet1d
    from kagglehms.training.front_ends.fold import Fold
    from kagglehms.training.front_ends.mel import MelImages
    from kagglehms.training.front_ends.panel_resnet import PanelResNet
    from kagglehms.training.front_ends.pooling import GeMPool, MeanMaxPool, MeanPool, make_pooling
    from kagglehms.training.front_ends.resnet1d import ResNet1d
    from kagglehms.training.front_ends.spectrum import Spectrum
    from kagglehms.training.front_ends.squeeze import Squeeze
    from kagglehms.training.front_ends.wave_stack import WaveStack

__all__ = [
    "BandPassOptions",
    "DifferencesOptions",
    "EffNet1dOptions",
    "FoldOptions",
    "PanelResNetOptions",
    "ResNet1dOptions",
    "SpectrumOptions",
    "SqueezeOptions",
    "WaveStackOptions",
    "PoolingName",
    "CausalBandPass",
    "Differences",
    "fill_missing",
    "EffNet1d",
    "Fold",
    "MelImages",
    "PanelResNet",
    "ResNet1d",
    "Spectrum",
    "Squeeze",
    "WaveStack",
    "GeMPool",
    "MeanMaxPool",
    "MeanPool",
    "make_pooling",
]

_MODULES = {
    "band_pass": ("CausalBandPass",),
    "differences": ("Differences", "fill_missing"),
    "effnet1d": ("EffNet1d",),
    "fold": ("Fold",),
    "mel": ("MelImages",),
    "panel_resnet": ("PanelResNet",),
    "resnet1d": ("ResNet1d",),
    "spectrum": ("Spectrum",),
    "squeeze": ("Squeeze",),
    "wave_stack": ("WaveStack",),
    "pooling": ("GeMPool", "MeanMaxPool", "MeanPool", "make_pooling"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
