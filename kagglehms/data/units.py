"""Units of voltage in file headers, and plausible amplitudes of an EEG in µV."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

PLAUSIBLE_UV = (0.2, 5000.0)
"""Range of the robust standard deviation of a scalp EEG: a few µV in a quiet one in coma, millivolts under mains hum.
Volts that are mistaken for µV are too small by a factor of a million, and millivolts by a factor of a thousand."""
_SILENT = 1e-9
"""Deviation below which a signal is a flat line in any unit, and tells nothing about its unit."""

_MICROVOLTS = {"nv": 1e-3, "uv": 1.0, "mv": 1e3, "v": 1e6}
_MICRO = ("Âµ", "Î¼", "µ", "μ")
"""Spellings of µ in headers; those of two letters are UTF-8 that was read as Latin-1."""
_WORDS = (("micro", "u"), ("milli", "m"), ("nano", "n"), ("volts", "v"), ("volt", "v"))


def microvolts(unit: str) -> float | None:
    """Return the number of µV in a unit.

    Args:
        unit: spelling of the unit, such as `uV`, `µV`, `mV`, `V` or `microvolts`. An empty one is assumed to be µV,
            which the amplitudes have to confirm.

    Returns:
        The number of µV, or None if it is not a unit of voltage.
    """
    text = unit.strip()
    for spelling in _MICRO:
        text = text.replace(spelling, "u")
    text = text.lower()
    for word, letter in _WORDS:
        text = text.replace(word, letter)
    return _MICROVOLTS.get(text or "uv")


def deviation(values: NDArray[np.floating]) -> float:
    """Return a robust standard deviation, which offsets and single spikes do not affect.

    Args:
        values: (n,) samples, with NaN where nothing was recorded.

    Returns:
        1.4826 times the median distance from the median; 0 where nothing was recorded.
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def doubt(deviations: Iterable[float]) -> str:
    """Say why amplitudes are not plausible for an EEG in µV.

    Args:
        deviations: robust standard deviations, in assumed µV, of channels or parts of channels; flat lines are ignored.

    Returns:
        A sentence without a full stop, or an empty text if the amplitudes are plausible.
    """
    sizes = [size for size in deviations if size > _SILENT]
    size = float(np.median(sizes)) if sizes else PLAUSIBLE_UV[0]
    low, high = PLAUSIBLE_UV
    if low <= size <= high:
        return ""
    guess = "they may be V or mV" if size < low else "the unit may be wrong, or this is no EEG"
    return f"values deviate by {size:.2g} µV, and EEG by {low:g} to {high:g} µV: {guess}"
