"""Libraries that only people's own recordings need; Kaggle's image, on which bundles run, lacks them."""

from __future__ import annotations

from typing import Any

from kagglehms.errors import UsageError, not_installed


def edfio() -> Any:
    """Import edfio, which reads and writes EDF and BDF.

    Raises:
        UsageError: edfio is not installed.
    """
    try:
        import edfio as library
    except ModuleNotFoundError as error:
        raise UsageError(not_installed(error)) from error
    return library


def mne() -> Any:
    """Import MNE, which reads all other formats.

    Raises:
        UsageError: MNE is not installed.
    """
    try:
        import mne as library
    except ModuleNotFoundError as error:
        raise UsageError("MNE is not installed; pip install 'kagglehms[mne]'") from error
    return library
