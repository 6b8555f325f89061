"""Turn arrays, and columns of frames, into numbers.

Frames of pandas and polars are recognised by their attributes, so that neither library is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kagglehms.errors import UsageError, first_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BY_POSITION = ("iloc", "to_series")
"""Attributes by which frames of pandas and polars return a column at a position."""


def is_frame(values: Any) -> bool:
    """Return whether a value has named columns, like frames of pandas and polars, lazy frames, and Arrow tables."""
    return hasattr(type(values), "columns")


def check_frame(name: str, frame: Any) -> None:
    """Refuse values with named columns other than frames of pandas and polars.

    Args:
        name: name of the frame in error messages.
        frame: value that `is_frame` recognises.

    Raises:
        UsageError: it is a lazy frame, or a table of another library.
    """
    if not any(hasattr(frame, way) for way in _BY_POSITION):
        raise UsageError(f"{name} is a {type(frame).__name__}: make a frame of pandas or polars of it")


def is_numeric(frame: Any, position: int) -> bool:
    """Return whether a column of a frame holds numbers, which a column of nothing but nulls does not."""
    if hasattr(frame, "to_series"):
        return bool(frame.to_series(position).dtype.is_numeric())
    return bool(frame.iloc[:, position].dtype.kind in "fiu")


def column(name: str, frame: Any, position: int) -> NDArray[np.float32]:
    """Return one column of a frame.

    Args:
        name: name of the frame in error messages.
        frame: frame of pandas or polars.
        position: position of the column; its name may occur twice.

    Returns:
        (n_rows,) float32; NaN where a value is missing.

    Raises:
        UsageError: the column does not hold numbers.
    """
    name = f"{name}: column {frame.columns[position]}"
    if hasattr(frame, "to_series"):
        return numbers(name, frame.to_series(position).to_numpy())
    values = frame.iloc[:, position]  # labels may occur twice, and need not be text
    if values.dtype.kind not in "fiu":
        return numbers(name, values.to_numpy())
    return numbers(name, values.to_numpy(dtype=np.float64, na_value=np.nan))


def numbers(name: str, values: Any) -> NDArray[np.float32]:
    """Turn values into an array of numbers.

    Args:
        name: name of the values in error messages.
        values: array, masked array, tensor or nested lists.

    Returns:
        A float32 array of the same shape; NaN where values are masked or None.

    Raises:
        UsageError: the values are text, booleans, or lists of different lengths.
    """
    try:
        if isinstance(values, np.ma.MaskedArray):
            values = np.ma.filled(values.astype(np.float32), np.nan)
        array = np.asarray(values)
        if array.dtype.kind not in "fiuO":
            raise TypeError(f"its values are {array.dtype}")
        texts = array.dtype == object and any(isinstance(cell, str | bytes) for cell in array.flat)
        if texts:
            raise TypeError("it holds text")
        with np.errstate(over="ignore"):  # half precision could not hold these values either
            return array.astype(np.float32, copy=False)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"{name} cannot be taken for an array of numbers: {first_line(error)}") from error
