"""From EEG recordings to six vote probabilities, at home and in a Kaggle kernel.

Importing the package costs nothing: what needs torch, polars or Numba is loaded when it is first used.

>>> from kagglehms import load_bundle                                   # doctest: +SKIP
>>> load_bundle("dist/dataset").predict(spectrogram=power)              # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kagglehms.bundle.predictor import Predictor, load_bundle
    from kagglehms.report import tables

__all__ = ["Predictor", "load_bundle", "tables", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in {"Predictor", "load_bundle"}:
        from kagglehms.bundle import predictor

        return getattr(predictor, name)
    if name == "tables":
        return import_module("kagglehms.report.tables")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
