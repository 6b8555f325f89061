"""Open a file or object of any kind as a `Recording`, recognised by its content and not by its name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kagglehms.data.frames import is_frame
from kagglehms.errors import DataError, UsageError
from kagglehms.recordings.edf import BDF_MAGIC, EDF_MAGIC, EdfRecording
from kagglehms.recordings.objects import (
    RawRecording,
    from_array,
    from_frame,
    is_raw,
    read_parquet,
    read_with_mne,
)
from kagglehms.recordings.stored import Recording

_PARQUET_MAGIC = b"PAR1"
SUFFIXES = (
    ".edf",
    ".bdf",
    ".parquet",
    ".fif",
    ".fif.gz",
    ".vhdr",
    ".set",
    ".cnt",
    ".gdf",
    ".egi",
    ".mff",
    ".nxe",
    ".lay",
    ".cdt",
    ".mefd",
)
"""Endings of the file names that a folder is searched for; a file given by name may have any ending."""
_PART = re.compile(r"(?P<stem>.+)-\d+(?P<ending>\.fif(\.gz)?)", re.IGNORECASE)
_ALONE = (".edf", ".bdf", ".parquet")
"""Endings of recordings that are one file, whatever else is beside it."""
_NAMED = re.compile(r"^(?:DataFile|MarkerFile)=(.+?)\s*$", re.MULTILINE)
"""Another file of a recording that a header of BrainVision names."""
_MOST_HEADER_BYTES = 1_000_000
_RESULTS, _BESIDE_RESULTS = ("_windows.parquet", "_annotations.edf"), "_windows.csv"
"""Endings of results that could be mistaken for recordings, and of the result that is written before them."""


def open_recording(
    recording: Any, sfreq_hz: float | None = None, channels: Sequence[str] | None = None
) -> Recording:
    """Open a file, a `Raw` object of MNE's, a frame, or an array.

    Args:
        recording: path; `Raw` object; pandas or polars frame or NumPy array with named fields, one column per channel
            in µV; or, with `channels`, (n_times, n_channels) µV.
        sfreq_hz: samples per second of a frame or an array; files and `Raw` objects have their own.
        channels: names of an array's columns.

    Raises:
        DataError: a file cannot be used.
        UsageError: an object cannot be used.
    """
    if isinstance(recording, Recording):
        return recording
    knows_rate = isinstance(recording, str | os.PathLike) or is_raw(recording)
    if knows_rate and (sfreq_hz is not None or channels is not None):
        raise UsageError("a file or a Raw object has its own rate and names: leave out sfreq_hz and channels")
    if isinstance(recording, str | os.PathLike):
        return open_file(Path(recording))
    if is_raw(recording):
        return RawRecording(recording)
    named = is_frame(recording) or getattr(getattr(recording, "dtype", None), "names", None)
    if named:
        if channels is not None:
            raise UsageError(
                "a frame's columns have names: leave out channels, and use rename to change names"
            )
        return from_frame("the frame", recording, sfreq_hz)
    if hasattr(recording, "get_data"):
        kind = type(recording).__name__
        raise UsageError(f"{kind} is not a whole recording: give the Raw object that it was cut from")
    if channels is None:
        raise UsageError(
            f"{_kind(recording)} has no names of channels: give channels=… and sfreq_hz=…, or a frame with columns"
        )
    return from_array("the array", recording, channels, sfreq_hz)


def _kind(recording: Any) -> str:
    return "the array" if isinstance(recording, np.ndarray | list) else f"the {type(recording).__name__}"


def open_file(path: Path) -> Recording:
    """Open the file of a recording.

    Raises:
        DataError: the file does not exist, or cannot be used.
    """
    if not path.exists():
        raise DataError(path, "no such file", "")
    start = b""
    if path.is_file():
        try:
            with path.open("rb") as file:
                start = file.read(8)
        except OSError as error:
            raise DataError(path, f"cannot be read ({error.strerror})", "") from error
        if not start:
            raise DataError(path, "is empty", "copy or export it again")
    if start in {EDF_MAGIC, BDF_MAGIC} or path.suffix.lower() in {".edf", ".bdf"}:
        return EdfRecording(path)
    if start.startswith(_PARQUET_MAGIC) or path.suffix.lower() == ".parquet":
        return read_parquet(path)
    return read_with_mne(path)


def files_of(path: Path) -> list[Path]:
    """List every file that a recording may consist of.

    Args:
        path: file, or folder such as an `.mff`, that `open_file` takes.

    Returns:
        The path itself first; then all files below it if it is a folder; else, for formats of several files, those
        beside it with its name and other endings, parts that MNE has split off, and those that a header names.
    """
    if path.is_dir():
        return [path, *sorted(p for p in path.rglob("*") if p.is_file())]
    if path.name.lower().endswith(_ALONE):
        return [path]
    whole = path.name.removesuffix(".gz")
    stem = whole.rpartition(".")[0] or whole
    part = re.compile(re.escape(stem) + r"(?:-\d+)?\..+", re.DOTALL)
    try:
        found = {p for p in path.parent.iterdir() if part.fullmatch(p.name) and p.is_file()}
        found |= {path.parent / name.replace("$b", stem) for name in _named(path)}
    except OSError:  # opening the recording will say why
        found = set()
    return [path, *sorted(found - {path})]


def _named(path: Path) -> list[str]:
    """The files that a header of BrainVision names; none for other files."""
    if path.suffix.lower() not in {".vhdr", ".ahdr"}:
        return []
    with path.open("rb") as file:
        return _NAMED.findall(os.fsdecode(file.read(_MOST_HEADER_BYTES)))


def find_recordings(paths: Iterable[Path]) -> list[Path]:
    """List the given files, and the recordings in the given folders, each once, however its path is spelled.

    Args:
        paths: files and folders; folders are searched, with all folders in them, for names that end in `SUFFIXES`.
            Results of earlier runs are skipped, and so are later parts of recordings that MNE has split.

    Returns:
        Files in the given order, those of a folder sorted by name. A link to a file is a file of its own.

    Raises:
        UsageError: a folder holds no recording.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if path.is_dir() and path.suffix.lower() not in SUFFIXES:
            inside = sorted(
                p for p in path.rglob("*") if _is_recording(p) and not _is_result(p) and not _is_part(p)
            )
            if not inside:
                raise UsageError(f"{path}: no file in it ends in {', '.join(SUFFIXES)}; name the files")
        else:
            inside = [path]
        for file in inside:
            found.setdefault(Path(os.path.realpath(file.parent), file.name), file)
    return list(found.values())


def _is_recording(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".")


def _is_part(path: Path) -> bool:
    """Whether a file is a later part of a recording that MNE has split, and reads together with the first part."""
    part = _PART.fullmatch(path.name)
    return part is not None and path.with_name(part["stem"] + part["ending"]).exists()


def _is_result(path: Path) -> bool:
    """Whether an earlier run wrote this file, in any folder."""
    stems = [path.name.removesuffix(ending) for ending in _RESULTS if path.name.endswith(ending)]
    return any(path.with_name(stem + _BESIDE_RESULTS).exists() for stem in stems)
