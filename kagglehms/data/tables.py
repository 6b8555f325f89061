"""Tables of CSV or Parquet, read strictly: what a cell means depends on that cell alone."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kagglehms.data.competition import unpacking
from kagglehms.data.frames import Frame, as_table, is_frame
from kagglehms.data.whole import BLANKS, whole_number
from kagglehms.errors import DataError, first_line
from kagglehms.files import require_regular

if TYPE_CHECKING:
    import polars as pl

MAX_BYTES = 1 << 30
"""1 GiB, a hundred times the competition's largest table."""

Content = Literal["whole", "number", "text"]
"""Content of a column's cells."""


def read_table(source: Path | Frame, columns: Mapping[str, Content]) -> pl.DataFrame:
    """Read a CSV or Parquet table, or one that is at hand as a frame.

    A CSV file is read as text first, so that the meaning of a cell does not depend on other rows. Blank lines are
    ignored.

    Args:
        source: path of the file; or a frame of pandas or polars.
        columns: required columns and their content: `whole` numbers of at most 64 bits (see `whole.whole_number`),
            finite `number`s, or `text`, unchanged.

    Returns:
        The table, with the required columns as Int64, Float64 and String, and all others unchanged.

    Raises:
        DataError: the file is missing or unreadable, or the table lacks a column or has a cell with another content;
            the message names the first such rows.
        UsageError: what was given is a frame that cannot be read; see `frames.as_table`.
    """
    path = Path(name_of(source))
    table = as_table(path.name, source) if is_frame(source) else _read_file(path)
    missing = [name for name in columns if name not in table.columns]
    if missing:
        lacks = f"lacks column{'s' * (len(missing) > 1)} {', '.join(missing)}"
        raise DataError(path, lacks, f"it has: {', '.join(table.columns[:20])}")
    for name, content in columns.items():
        values = _CASTS[content](table[name])
        refuse_rows(path, table, values.is_null(), f"column {name} has no usable value", _EXPECTED[content])
        table = table.with_columns(values.alias(name))
    return table


def name_of(source: Path | Frame) -> str:
    """Return what messages call a table: its path, or that it is a frame."""
    return "the frame" if is_frame(source) else str(source)


def _read_file(path: Path) -> pl.DataFrame:
    """Read a file unchanged, CSV as text."""
    import polars as pl

    if not path.is_file():
        hint = unpacking(path, path.parent) or "give the folder of the competition's download"
        raise DataError(path, "no such file", hint)
    try:
        require_regular(path, MAX_BYTES)
        if path.suffix == ".parquet":
            # Given a path, polars takes [ ] * ? in it for a pattern.
            return pl.read_parquet(io.BytesIO(path.read_bytes()))
        return _without_blank_lines(pl.read_csv(io.BytesIO(path.read_bytes()), infer_schema=False))
    except (pl.exceptions.PolarsError, OSError, ValueError, MemoryError) as error:
        raise DataError(
            path, f"cannot be read as a table ({first_line(error)})", "download it again"
        ) from error


def _without_blank_lines(table: pl.DataFrame) -> pl.DataFrame:
    """Drop rows that are blank in every column, and strip blanks from the columns' names."""
    import polars as pl

    table = table.rename({name: name.strip(BLANKS) for name in table.columns})
    filled = pl.all().str.strip_chars(BLANKS).fill_null("") != ""
    return table.filter(pl.any_horizontal(filled)) if table.width else table


def _as_whole(values: pl.Series) -> pl.Series:
    """Convert to Int64; cells without a whole number of 64 bits become null."""
    import polars as pl

    if values.dtype == pl.String:
        text = values.str.strip_chars(BLANKS)
        plain = text.str.contains(r"^-?[0-9]{1,18}$")
        others = text.filter(~plain).unique().drop_nulls()
        read = {cell: whole_number(cell) for cell in others.to_list()}
        by_rule = text.replace_strict(read, default=None, return_dtype=pl.Int64)
        return text.cast(pl.Int64, strict=False).zip_with(plain.fill_null(False), by_rule)
    if values.dtype.is_float():  # beyond 2⁵³ a float may differ from the number that was written
        exact = (values == values.round()) & (values.abs() <= 2**53)
        return values.cast(pl.Int64, strict=False).set(~exact.fill_null(False), None)
    return values.cast(pl.Int64, strict=False)


def _as_number(values: pl.Series) -> pl.Series:
    """Convert to Float64; cells without a finite number become null."""
    import polars as pl

    text = values.dtype == pl.String
    numbers = (values.str.strip_chars(BLANKS) if text else values).cast(pl.Float64, strict=False)
    return numbers.set(~numbers.is_finite().fill_null(False), None)


def _as_text(values: pl.Series) -> pl.Series:
    import polars as pl

    return values.cast(pl.String, strict=False)


_CASTS: dict[Content, Callable[[pl.Series], pl.Series]] = {
    "whole": _as_whole,
    "number": _as_number,
    "text": _as_text,
}
_EXPECTED: dict[Content, str] = {
    "whole": "whole numbers of at most 64 bits are expected; ",
    "number": "finite numbers are expected; ",
    "text": "text is expected; ",
}


def refuse_rows(path: Path, table: pl.DataFrame, bad: pl.Series, reason: str, expected: str = "") -> None:
    """Raise DataError if there are bad rows, and name the first ones.

    Args:
        path: file that the table was read from.
        table: the table.
        bad: True for the bad rows.
        reason: fault of these rows.
        expected: hint about what is expected instead.
    """
    rows = bad.fill_null(True).arg_true().to_list()
    if rows:
        listed = ", ".join(map(str, rows[:5])) + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")
        hint = f"{expected}rows are counted from 0, without the header and blank lines"
        raise DataError(path, f"{reason} in row{'s' * (len(rows) > 1)} {listed}", hint)
