"""Arrays and frames as people have them at hand → numbers, columns by their names.

A frame of pandas or polars is recognised by what it has, so that neither is imported here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kagglehms.errors import UsageError, first_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BY_POSITION = ("iloc", "to_series")
"""How frames of pandas and of polars give a column by its position."""


def is_frame(values: Any) -> bool:
    """Tell whether something has named columns: a frame of pandas or polars, a lazy one, a table of Arrow."""
    return hasattr(type(values), "columns")


def check_frame(name: str, frame: Any) -> None:
    """Refuse what has named columns and does not give them out.

    Args:
        name: how the frame is called in an error.
        frame: what `is_frame` recognised.

    Raises:
        UsageError: a lazy frame, or a table of another library.
    """
    if not any(hasattr(frame, way) for way in _BY_POSITION):
        raise UsageError(f"{name} is a {type(frame).__name__}: make a frame of pandas or polars of it")


def is_numeric(frame: Any, position: int) -> bool:
    """Tell whether a frame's column holds numbers; one of nothing but nulls does not."""
    if hasattr(frame, "to_series"):
        return bool(frame.to_series(position).dtype.is_numeric())
    return bool(frame.iloc[:, position].dtype.kind in "fiu")


def column(name: str, frame: Any, position: int) -> NDArray[np.float32]:
    """Take one column of a frame.

    Args:
        name: how the frame is called in an error.
        frame: a frame of pandas or polars.
        position: the column's place, as names may stand twice.

    Returns:
        (n_rows,) float32; NaN where the column has nothing.

    Raises:
        UsageError: the column is not of numbers.
    """
    name = f"{name}: column {frame.columns[position]}"
    if hasattr(frame, "to_series"):
        return numbers(name, frame.to_series(position).to_numpy())
    values = frame.iloc[:, position]  # labels may stand twice, or be no texts
    if values.dtype.kind not in "fiu":
        return numbers(name, values.to_numpy())
    return numbers(name, values.to_numpy(dtype=np.float64, na_value=np.nan))


def numbers(name: str, values: Any) -> NDArray[np.float32]:
    """Take what somebody passes for an array of numbers.

    Args:
        name: how the values are called in an error.
        values: an array, a masked array, nested lists, a tensor.

    Returns:
        An array of the same shape, float32; NaN where values are masked or None.

    Raises:
        UsageError: texts, truth values, or lists of different lengths.
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
        with np.errstate(over="ignore"):  # what half precision cannot hold either
            return array.astype(np.float32, copy=False)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"{name} cannot be taken for an array of numbers: {first_line(error)}") from error
