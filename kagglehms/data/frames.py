"""Turn arrays and frames into numbers and tables, and tables into frames.

Frames of pandas, polars and others are read by narwhals, which imports none of these libraries.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from kagglehms.errors import UsageError, first_line

if TYPE_CHECKING:
    import narwhals.stable.v1 as nw
    import pandas
    import polars as pl
    from numpy.typing import NDArray

Frame: TypeAlias = "pandas.DataFrame | pl.DataFrame"
Library = Literal["pandas", "polars"]
"""Which library's frames are returned."""


def is_frame(values: Any) -> bool:
    """Return whether a value has named columns, like frames of pandas and polars, lazy frames, and Arrow tables."""
    columns = getattr(type(values), "columns", None)
    return columns is not None and not callable(columns)


def as_frame(name: str, frame: Any) -> nw.DataFrame[Any]:
    """Return a frame of any library behind one interface.

    Args:
        name: name of the frame in error messages.
        frame: value that `is_frame` recognises.

    Raises:
        UsageError: it is a lazy frame, or a table that narwhals does not know; a name of a column occurs twice; or
            narwhals is not installed.
    """
    try:
        import narwhals.stable.v1 as nw
    except ImportError as error:  # Kaggle's image need not have it: a scored run reads no frames
        raise UsageError(
            f"{name} is a frame, and narwhals, which reads it, is missing; pip install narwhals"
        ) from error
    try:
        found = nw.from_native(frame, eager_only=True)
        found.columns  # noqa: B018  where narwhals looks whether they are unique
    except nw.exceptions.DuplicateError as error:
        twice = [str(label) for label, count in Counter(frame.columns).items() if count > 1]
        raise UsageError(
            f"{name}: the frame has more than one {', '.join(twice)}; its columns go by their names"
        ) from error
    except TypeError as error:
        raise UsageError(
            f"{name} is a {type(frame).__name__}: make a frame of pandas or polars of it"
        ) from error
    return found


def column(name: str, frame: nw.DataFrame[Any], position: int) -> NDArray[np.float32]:
    """Return one column of a frame.

    Args:
        name: name of the frame in error messages.
        frame: what `as_frame` returns.
        position: position of the column, whose label need not be text.

    Returns:
        (n_rows,) float32; NaN where a value is missing.

    Raises:
        UsageError: the column does not hold numbers.
    """
    return numbers(f"{name}: column {frame.columns[position]}", frame[:, position].to_numpy())


def as_table(name: str, frame: Any) -> pl.DataFrame:
    """Return a frame of any library as one of polars.

    Args:
        name: name of the frame in error messages.
        frame: value that `is_frame` recognises.

    Returns:
        The same columns under their labels as text; null where a value is missing or not a number.

    Raises:
        UsageError: as `as_frame` raises it, or a column mixes values that fit into no column of polars.
    """
    import polars as pl

    if isinstance(frame, pl.DataFrame):
        return frame
    columns = as_frame(name, frame)
    found = {}
    for position, label in enumerate(columns.columns):
        series = columns[:, position]
        missing = series.is_null().to_list()
        values = [None if null else value for value, null in zip(series.to_list(), missing, strict=True)]
        try:
            found[str(label)] = pl.Series(values, strict=False, nan_to_null=True)
        except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
            raise UsageError(f"{name}: column {label} cannot be read: {first_line(error)}") from error
    return pl.DataFrame(found)


def to_library(table: pl.DataFrame, library: Library) -> Frame:
    """Return a table as a frame of a library; for pandas, NaN or None stands where a value is missing.

    Raises:
        UsageError: there is no such library.
    """
    if library == "polars":
        return table
    if library != "pandas":
        raise UsageError(f"frames are of pandas or polars, not of {library!r}")
    import pandas as pd

    return pd.DataFrame({values.name: values.to_numpy() for values in table})


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
