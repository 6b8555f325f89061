"""Units of voltage as headers write them, and whether amplitudes can be those of an EEG in µV."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

PLAUSIBLE_UV = (0.2, 5000.0)
"""Typical size of an EEG on the scalp, robustly: a quiet one in coma has a few µV, one under mains hum millivolts.
Volts taken for µV are a million times too small, millivolts a thousand times."""
_SILENT = 1e-9
"""Deviation below which a signal is a flat line in any unit, and says nothing about units."""

_MICROVOLTS = {"nv": 1e-3, "uv": 1.0, "mv": 1e3, "v": 1e6}
_MICRO = ("Âµ", "Î¼", "µ", "μ")
"""How headers write µ: two letters come from UTF-8 that is read as one byte a letter."""
_WORDS = (("micro", "u"), ("milli", "m"), ("nano", "n"), ("volts", "v"), ("volt", "v"))


def microvolts(unit: str) -> float | None:
    """Tell how many µV a unit is.

    Args:
        unit: as a header spells it: `uV`, `µV`, `mV`, `V`, `microvolts`; an empty one is taken for µV, which amplitudes
            have to confirm.

    Returns:
        The factor; None for what is no voltage.
    """
    text = unit.strip()
    for spelling in _MICRO:
        text = text.replace(spelling, "u")
    text = text.lower()
    for word, letter in _WORDS:
        text = text.replace(word, letter)
    return _MICROVOLTS.get(text or "uv")


def deviation(values: NDArray[np.floating]) -> float:
    """Return a robust standard deviation, which no offset and no single spike changes.

    Args:
        values: (n,) samples; NaN where nothing was recorded.

    Returns:
        1.4826 times the median distance from the median; 0 where nothing was recorded.
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def doubt(deviations: Iterable[float]) -> str:
    """Say why amplitudes can hardly be those of an EEG in µV; nothing where they can.

    Args:
        deviations: of channels, or of parts of channels, in what is taken for µV; flat lines do not count.

    Returns:
        A sentence without its full stop, or an empty text.
    """
    sizes = [size for size in deviations if size > _SILENT]
    size = float(np.median(sizes)) if sizes else PLAUSIBLE_UV[0]
    low, high = PLAUSIBLE_UV
    if low <= size <= high:
        return ""
    guess = "they may be V or mV" if size < low else "the unit may be wrong, or this is no EEG"
    return f"values deviate by {size:.2g} µV, and EEG by {low:g} to {high:g} µV: {guess}"
