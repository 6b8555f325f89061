"""Read the recordings: each Parquet file becomes a validated array, or a `DataError` says what is wrong with it.

Recordings leave this module in half precision. Training reads them from the store, the scored kernel directly from
their Parquet files, and both get the same numbers, so that no model sees values in a scored run that it could not
have seen in training.

Columns are found by name, in training and in scored runs alike. Their order does not matter, and other columns, such
as the index that pandas writes, are ignored.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import (
    CHANNELS,
    DIFFERENCES,
    LOG_CLIP,
    N_TIMES,
    SFREQ_HZ,
    SPECTROGRAM_COLUMNS,
    SPECTROGRAM_STEP_S,
    unpacking,
)
from kagglehms.errors import DataError, first_line
from kagglehms.files import require_regular

if TYPE_CHECKING:
    import polars as pl

Half = NDArray[np.float16]

HALF_MAX = float(np.finfo(np.float16).max)
"""65,504 µV, thirty times the amplitude of an electrode pop; larger EEG samples are clipped to it."""

MAX_TIMES = 2 * 3600 * SFREQ_HZ
"""Two hours of EEG; the longest of the competition has 57 minutes. No more is ever decoded of a file."""
MAX_ROWS = 24 * 1800
"""A day of spectrogram; the longest of the competition has five hours. No more is ever decoded of a file."""
MAX_BYTES = 1 << 28
"""256 MiB, which is more than recordings of that length take without compression, in double precision."""

_WORKING_BYTES = 1 << 29
"""Memory that decoding one file takes at most; Polars, left without, would end the process."""

_BROKEN = "download it again: it is empty, truncated or no parquet file"
_STRANGE = "this is not a file of this competition"
_NEIGHBOURS = tuple((CHANNELS.index(a), CHANNELS.index(b)) for a, b in DIFFERENCES)


def load(path: Path) -> bytes:
    """Read the bytes of one recording's file.

    Raises:
        DataError: it is missing, no regular file, larger than `MAX_BYTES`, or cannot be read.
    """
    try:
        require_regular(path, MAX_BYTES)
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        hint = unpacking(path, path.parent.parent) or "the tables name it, so the download is not complete"
        raise DataError(path, "no such file", hint) from error
    except OSError as error:
        reason = f"cannot be read ({error.strerror or error})"
        raise DataError(path, reason, "look at its permissions and at its disk") from error
    except ValueError as error:
        raise DataError(path, str(error), _STRANGE) from error
    except MemoryError as error:
        raise _too_little_memory(path) from error


def read_eeg(path: Path, min_times: int = N_TIMES, content: bytes | None = None) -> Half:
    """Read one EEG file.

    Args:
        path: path of a file in `train_eegs` or `test_eegs`.
        min_times: smallest number of samples to accept.
        content: bytes of the file, from `load`; None reads them.

    Returns:
        (n_times, 20) float16 µV with the channels in the order of `competition.CHANNELS`; NaN where nothing was
        recorded.

    Raises:
        DataError: the file is missing or broken, lacks a column or has one twice, has wrong types, is too short or
            longer than `MAX_TIMES`, or has no value at all.
    """
    frame = _read(path, CHANNELS, MAX_TIMES, content)
    if len(frame) < min_times:
        raise DataError(
            path, f"{len(frame)} samples where at least {min_times} are needed", "the file is cut short"
        )
    return _encoded(path, frame, encode_eeg)


def read_spectrogram(path: Path, min_rows: int = 1, content: bytes | None = None) -> Half:
    """Read one spectrogram file.

    Args:
        path: path of a file in `train_spectrograms` or `test_spectrograms`.
        min_rows: smallest number of rows to accept.
        content: bytes of the file, from `load`; None reads them.

    Returns:
        (n_rows, 400) float16 natural logarithm of power, clipped to `competition.LOG_CLIP`, with one row every two
        seconds and the columns of `competition.SPECTROGRAM_COLUMNS`; NaN where the file has no value.

    Raises:
        DataError: as in `read_eeg`, with `MAX_ROWS`, or the column `time` is not 1, 3, 5 …
    """
    frame = _read(path, ("time", *SPECTROGRAM_COLUMNS), MAX_ROWS, content)
    if len(frame) < min_rows:
        raise DataError(
            path, f"{len(frame)} rows where at least {min_rows} are needed", "the file is cut short"
        )
    time_s = frame.drop_in_place("time").to_numpy().astype(np.float64)
    if not np.array_equal(time_s, 1 + SPECTROGRAM_STEP_S * np.arange(len(frame))):
        raise DataError(path, "column `time` does not run 1, 3, 5 …", "rows are missing or out of order")
    return _encoded(path, frame, encode_spectrogram)


def encode_eeg(eeg_uv: NDArray[np.floating]) -> Half:
    """Convert µV to half precision: infinities become NaN, and values beyond half precision are clipped."""
    with np.errstate(over="ignore"):
        half = eeg_uv.astype(np.float16)
    if not np.isinf(half).any():
        return half
    finite = np.where(np.isinf(eeg_uv), np.float32(np.nan), eeg_uv)
    return np.clip(finite, -HALF_MAX, HALF_MAX).astype(np.float16)


def encode_spectrogram(power: NDArray[np.floating]) -> Half:
    """Convert spectrogram power to its clipped natural logarithm in half precision.

    Negative power, which does not exist, is clipped like any value below e⁻⁴; infinities become NaN.
    """
    low, high = np.exp(np.float32(LOG_CLIP[0])), np.exp(np.float32(LOG_CLIP[1]))
    infinite = np.isinf(power)
    log_power = np.clip(power.astype(np.float32, copy=False), low, high)
    np.log(log_power, out=log_power)
    if infinite.any():
        log_power[infinite] = np.nan
    return log_power.astype(np.float16)


def misnamed(found: Sequence[str], expected: Sequence[str]) -> str | None:
    """Say why columns cannot be found by name.

    Args:
        found: names of the columns.
        expected: names of which each must occur once; others are ignored.

    Returns:
        The reason, or None if there is none.
    """
    if list(found) == list(expected):
        return None
    there, wanted = Counter(found), set(expected)
    missing = [name for name in expected if name not in there]
    if missing:
        unknown = [name for name in there if name not in wanted]
        return f"lacks {_some(missing)}" + (f" and has unknown {_some(unknown)}" if unknown else "")
    twice = [name for name in expected if there[name] > 1]
    return f"has more than one {_some(twice)}" if twice else None


def eeg_is_blank(eeg_uv: NDArray[np.floating]) -> bool:
    """Return whether an EEG has nothing to draw an image of.

    Images show differences between neighbouring electrodes of a chain, so two neighbours must have been recorded at
    the same time; an electrocardiogram alone is not enough.

    Args:
        eeg_uv: (n_times, 20) µV with the channels in the order of `competition.CHANNELS`.
    """
    there = np.isfinite(eeg_uv)
    return not (there.all(axis=1).any() or any((there[:, a] & there[:, b]).any() for a, b in _NEIGHBOURS))


def spectrogram_is_blank(values: NDArray[np.floating]) -> bool:
    """Return whether a spectrogram, (n_rows, 400), has no finite value, and so nothing to draw an image of."""
    return not np.isfinite(values).any()


def _read(path: Path, columns: Sequence[str], most_rows: int, content: bytes | None) -> pl.DataFrame:
    """Read columns as floating-point numbers, in this order; a column without values may have any type.

    A few megabytes can unpack to many gigabytes, so that columns and rows are counted before any are unpacked.
    """
    import polars as pl

    content = load(path) if content is None else content
    try:
        np.empty(_WORKING_BYTES, np.uint8)  # takes microseconds, as no page of it is touched
        # From memory, because for every path Polars searches the environment for credentials.
        names = list(pl.read_parquet_schema(io.BytesIO(content)))
        reason = misnamed(names, columns)
        if reason:
            raise DataError(path, f"wrong columns: it {reason}", _STRANGE)
        # Selecting hundreds of columns takes longer than decoding them.
        wanted = None if names == list(columns) else list(columns)
        frame = pl.read_parquet(
            io.BytesIO(content), columns=wanted, n_rows=most_rows + 1, use_statistics=False
        )
    except pl.exceptions.DuplicateError as error:
        raise DataError(path, f"wrong columns: {first_line(error)}", _STRANGE) from error
    except MemoryError as error:
        raise _too_little_memory(path) from error
    except (pl.exceptions.PolarsError, OSError, pl.exceptions.PanicException) as error:
        raise DataError(path, f"cannot be read ({first_line(error)})", _BROKEN) from error
    if len(frame) > most_rows:
        raise DataError(path, f"more than {most_rows:,} rows, the most that a recording can have", _STRANGE)
    if wanted is not None and frame.columns != wanted:
        frame = frame.select(wanted)
    # Columns that are not yet floats are `time`, whole numbers, or nothing but nulls.
    others = [(i, frame.to_series(i)) for i, dtype in enumerate(frame.dtypes) if not dtype.is_float()]
    wrong = [
        f"{column.name} is {column.dtype}"
        for _, column in others
        if not (column.dtype.is_numeric() or column.null_count() == len(column))
    ]
    if wrong:
        raise DataError(path, f"wrong column types: {_some(wrong, 3)}", "expected numbers")
    for i, column in others:
        empty = pl.Series(column.name, [None] * len(column), pl.Float32)
        frame.replace_column(i, column.cast(pl.Float64) if column.dtype.is_numeric() else empty)
    return frame


def _encoded(path: Path, frame: pl.DataFrame, encode: Callable[[NDArray[np.floating]], Half]) -> Half:
    try:
        values = frame.to_numpy()
        if np.isnan(values).all():
            raise DataError(path, "holds no value, only NaN", "leave it out of train.csv")
        return encode(values)
    except MemoryError as error:
        raise _too_little_memory(path) from error


def _too_little_memory(path: Path) -> DataError:
    return DataError(
        path, "does not fit into the memory that is left", "free memory, or decode fewer at a time"
    )


def _some(names: Sequence[str], most: int = 4) -> str:
    listed = ", ".join(names[:most])
    return listed if len(names) <= most else f"{listed} and {len(names) - most} more"
