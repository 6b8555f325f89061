"""Recordings as people have them at hand, arrays or frames → crops, or a word about what cannot be understood.

A frame's columns go by their names, as those of files do: in any order, and what is there besides is left aside. An
array has no names, so its shape has to be right.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from kagglehms.data.competition import CHANNELS, N_TIMES, SPECTROGRAM_COLUMNS, SPECTROGRAM_STEP_S, WINDOW_S
from kagglehms.data.frames import as_frame, column, is_frame, numbers
from kagglehms.data.readers import encode_eeg, encode_spectrogram, misnamed
from kagglehms.data.units import deviation, doubt
from kagglehms.errors import UsageError
from kagglehms.inputs.layouts import CROP_SHAPES, Crop, Source

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Recordings: TypeAlias = "ArrayLike | Any"
"""An array of one or several recordings, a pandas or polars frame of one, or a list of either."""

_NAMES: dict[Source, str] = {"eeg": "eeg_uv", "kaggle": "spectrogram"}
_USUAL_RATES_HZ = frozenset(
    {64, 100, 125, 128, 150, 160, 173.61, 250, 256, 300, 400, 500, 512, 1000, 1024, 2000, 2048}
)
_LEAST_POWER = 1e-6
"""µV²/Hz; the competition's files have steps of 0.01."""
_COLUMNS: dict[Source, tuple[str, ...]] = {"eeg": CHANNELS, "kaggle": SPECTROGRAM_COLUMNS}


def as_crops(
    sources: Collection[Source], eeg_uv: Recordings | None, spectrogram: Recordings | None
) -> tuple[list[Crop], bool]:
    """Return one crop a recording, and whether it was a single recording.

    What is given is checked whether it is needed or not: who passes something else has misunderstood something.

    Args:
        sources: what the models look at.
        eeg_uv: see `Predictor.predict`.
        spectrogram: see `Predictor.predict`.

    Raises:
        UsageError: see `Predictor.predict`.
    """
    given: dict[Source, NDArray[np.float32]] = {}
    parts: dict[Source, Recordings | None] = {"eeg": eeg_uv, "kaggle": spectrogram}
    for source, values in parts.items():
        if values is not None:
            given[source] = _as_array(source, values)
        elif source in sources:
            name = _NAMES[source]
            raise UsageError(f"the models of this bundle look at {name}: give predict({name}=…)")
    if len({array.shape[:-2] for array in given.values()}) > 1:
        raise UsageError("eeg_uv and spectrogram must be of equally many recordings")
    single = next(iter(given.values())).ndim == 2
    stacks = {
        source: array[None] if single else array for source, array in given.items() if source in sources
    }
    return [
        Crop(
            encode_spectrogram(stacks["kaggle"][i]) if "kaggle" in stacks else None,
            encode_eeg(stacks["eeg"][i]) if "eeg" in stacks else None,
        )
        for i in range(len(next(iter(stacks.values()))))
    ], single


def _as_array(source: Source, values: Recordings) -> NDArray[np.float32]:
    """(n_times, n_columns) of one recording, or (B, n_times, n_columns) of several."""
    name, shape = _NAMES[source], CROP_SHAPES[source]
    if is_frame(values):
        array = _of_frame(source, values)
    elif isinstance(values, list | tuple) and not values:
        array = np.empty((0, *shape), np.float32)
    elif isinstance(values, list | tuple) and any(is_frame(item) for item in values):
        parts = [_of_frame(source, v) if is_frame(v) else numbers(name, v) for v in values]
        different = sorted({part.shape for part in parts} - {shape})
        if different:
            raise UsageError(f"{name} must be {shape} each, but got {different[0]}")
        array = np.stack(parts)
    else:
        array = numbers(name, values)
    if array.ndim not in {2, 3} or array.shape[-2:] != shape:
        batch = f"(B, {shape[0]}, {shape[1]})"
        raise UsageError(
            f"{name} must be {shape} or {batch}, but got {array.shape}{_why_longer(source, array)}"
        )
    _check_unit(source, array)
    return array


def _why_longer(source: Source, array: NDArray[np.float32]) -> str:
    """Say what an EEG of another length most likely is."""
    if source != "eeg" or array.ndim not in {2, 3}:
        return ""
    n_times, n_columns = array.shape[-2:]
    if (n_columns, n_times) == CROP_SHAPES["eeg"]:
        return "; give its transpose"
    rate = n_times / WINDOW_S
    if rate in _USUAL_RATES_HZ:
        return f", which would be {WINDOW_S} s at {rate:g} Hz; predict_recording takes any rate (sfreq_hz={rate:g})"
    return "; predict_recording takes recordings of any length and rate" if n_times > N_TIMES else ""


def _check_unit(source: Source, array: NDArray[np.float32]) -> None:
    """Refuse values in volts: of an EEG by how much they deviate, of power by how small it is."""
    name = _NAMES[source]
    for position, part in enumerate(array if array.ndim == 3 else array[None]):
        which = name if array.ndim == 2 else f"{name}[{position}]"
        if source == "eeg":
            reason = doubt(deviation(signal) for signal in part[:, : len(CHANNELS) - 1].T)
        else:
            power = part[part > 0]
            low = len(power) > 0 and float(np.median(power)) < _LEAST_POWER
            reason = f"half of its values are below {_LEAST_POWER:g} µV²/Hz: they may be V²/Hz" if low else ""
        if reason:
            raise UsageError(f"{which}: {reason}; give µV")


def _of_frame(source: Source, frame: Any) -> NDArray[np.float32]:
    """Take a frame's columns by their names."""
    name, columns = _NAMES[source], _COLUMNS[source]
    frame = as_frame(name, frame)
    found = [str(column) for column in frame.columns]
    reason = misnamed(found, columns)
    if reason:
        raise UsageError(f"{name}: the frame {reason}; its columns go by their names")
    if source == "kaggle" and found.count("time") == 1:
        _check_time(name, column(name, frame, found.index("time")))
    return np.stack([column(name, frame, found.index(label)) for label in columns], axis=1)


def _check_time(name: str, time_s: NDArray[np.float32]) -> None:
    if not (np.diff(time_s) == SPECTROGRAM_STEP_S).all():
        reason = f"column time does not rise by {SPECTROGRAM_STEP_S} from row to row"
        raise UsageError(f"{name}: {reason}; rows are missing or out of order")
