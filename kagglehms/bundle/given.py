"""Recordings as people have them at hand, arrays or frames → crops, or a word about what cannot be understood.

A frame's columns go by their names, as those of files do: in any order, and what is there besides is left aside. An
array has no names, so its shape has to be right.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from kagglehms.data.competition import CHANNELS, SPECTROGRAM_COLUMNS, SPECTROGRAM_STEP_S
from kagglehms.data.readers import encode_eeg, encode_spectrogram, misnamed
from kagglehms.errors import UsageError, first_line
from kagglehms.inputs.layouts import CROP_SHAPES, Crop, Source

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Recordings: TypeAlias = "ArrayLike | Any"
"""An array of one or several recordings, a pandas or polars frame of one, or a list of either."""

_NAMES: dict[Source, str] = {"eeg": "eeg_uv", "kaggle": "spectrogram"}
_BY_POSITION = ("iloc", "to_series")
"""How frames of pandas and of polars give a column by its position."""
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
    if _is_frame(values):
        array = _of_frame(source, values)
    elif isinstance(values, list | tuple) and not values:
        array = np.empty((0, *shape), np.float32)
    elif isinstance(values, list | tuple) and any(_is_frame(item) for item in values):
        parts = [_of_frame(source, v) if _is_frame(v) else _numbers(name, v) for v in values]
        different = sorted({part.shape for part in parts} - {shape})
        if different:
            raise UsageError(f"{name} must be {shape} each, but got {different[0]}")
        array = np.stack(parts)
    else:
        array = _numbers(name, values)
    if array.ndim not in {2, 3} or array.shape[-2:] != shape:
        batch = f"(B, {shape[0]}, {shape[1]})"
        raise UsageError(f"{name} must be {shape} or {batch}, but got {array.shape}")
    return array


def _is_frame(values: Any) -> bool:
    """Whether something has named columns: a frame of pandas or polars, a lazy one, a table of Arrow."""
    return hasattr(type(values), "columns")


def _of_frame(source: Source, frame: Any) -> NDArray[np.float32]:
    """Take a frame's columns by their names."""
    name, columns = _NAMES[source], _COLUMNS[source]
    if not any(hasattr(frame, way) for way in _BY_POSITION):
        raise UsageError(f"{name} is a {type(frame).__name__}: make a frame of pandas or polars of it")
    found = [str(column) for column in frame.columns]
    reason = misnamed(found, columns)
    if reason:
        raise UsageError(f"{name}: the frame {reason}; its columns go by their names")
    if source == "kaggle" and found.count("time") == 1:
        _check_time(name, _column(name, frame, found.index("time")))
    return np.stack([_column(name, frame, found.index(column)) for column in columns], axis=1)


def _column(name: str, frame: Any, position: int) -> NDArray[np.float32]:
    """One column of a frame, NaN where it has nothing."""
    name = f"{name}: column {frame.columns[position]}"
    if hasattr(frame, "to_series"):
        return _numbers(name, frame.to_series(position).to_numpy())
    column = frame.iloc[:, position]  # labels may stand twice, or be no texts
    if column.dtype.kind not in "fiu":
        return _numbers(name, column.to_numpy())
    return _numbers(name, column.to_numpy(dtype=np.float64, na_value=np.nan))


def _check_time(name: str, time_s: NDArray[np.float32]) -> None:
    if not (np.diff(time_s) == SPECTROGRAM_STEP_S).all():
        reason = f"column time does not rise by {SPECTROGRAM_STEP_S} from row to row"
        raise UsageError(f"{name}: {reason}; rows are missing or out of order")


def _numbers(name: str, values: Any) -> NDArray[np.float32]:
    """Numbers as float32; NaN where they are masked or None."""
    try:
        if isinstance(values, np.ma.MaskedArray):
            values = np.ma.filled(values.astype(np.float32), np.nan)
        array = np.asarray(values)
        if array.dtype.kind not in "fiuO":
            raise TypeError(f"its values are {array.dtype}")
        texts = array.dtype == object and any(isinstance(cell, str | bytes) for cell in array.flat)
        if texts:
            raise TypeError("it holds text")
        with np.errstate(over="ignore"):  # what half precision cannot hold either
            return array.astype(np.float32, copy=False)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"{name} cannot be taken for an array of numbers: {first_line(error)}") from error
