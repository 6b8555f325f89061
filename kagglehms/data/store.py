"""The store: every recording decoded once, and memory-mapped from then on.

Reading Parquet costs more than all the computation that follows: 2–10 ms per file, against 0.05 ms for a slice of a
memory-mapped array. `preparing.prepare` therefore writes all recordings, in half precision, to two flat files:

    eeg.f16            (all samples, 20)   µV
    spectrogram.f16    (all rows, 400)     natural logarithm of clipped power
    store.json         the position and checksum of each recording, and the fingerprint of the whole store

The index, store.json, is written last: a folder without it is an unfinished store.

A recording's checksum is compared when it is first used, and the size of the data file on every use: reading mapped
pages beyond the end of a file that was cut short would end the process without a word.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kagglehms.data.competition import CHANNELS, SPECTROGRAM_COLUMNS
from kagglehms.data.readers import Half
from kagglehms.environment import available_cpus
from kagglehms.errors import DataError, DataErrors, UsageError
from kagglehms.files import write_bytes
from kagglehms.progress import Watch
from kagglehms.strict_json import parse

FORMAT = 1
"""Version of the stored bytes; a store of another version is refused, not misread."""

Kind = Literal["eeg", "spectrogram"]
WIDTH: dict[Kind, int] = {"eeg": len(CHANNELS), "spectrogram": len(SPECTROGRAM_COLUMNS)}
"""Columns of each data file."""

INDEX = "store.json"
JOURNAL = "journal.jsonl"
_REMEDY = "delete the store, prepare again"


@dataclass(frozen=True)
class Entry:
    """One recording in the store.

    Attributes:
        kind: EEG or spectrogram.
        id: the recording's id in train.csv.
        length: number of samples or rows.
        source_bytes: size of the Parquet file that was decoded.
        crc32: checksum of the stored bytes.
        source_crc32: checksum of the Parquet file.
    """

    kind: Kind
    id: int
    length: int
    source_bytes: int
    crc32: int
    source_crc32: int

    @property
    def n_bytes(self) -> int:
        """Size in the data file."""
        return self.length * WIDTH[self.kind] * np.dtype(np.float16).itemsize


class Store:
    """A finished store, memory-mapped for reading.

    Args:
        path: folder that `preparing.prepare` filled.

    Raises:
        UsageError: there is no finished store, or its format is another version.
        DataError: the index is broken, or a data file is shorter or longer than the index says.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        index_path = path / INDEX
        if not index_path.is_file():
            state = "an unfinished store" if (path / JOURNAL).is_file() else "no store"
            raise UsageError(f"{path}: {state}; run `kagglehms prepare --data FOLDER --store {path}`")
        self.entries, self.fingerprint = _read_index(index_path)
        self._checked: set[tuple[Kind, int]] = set()
        self._data = {kind: self._map(kind) for kind in WIDTH}

    def eeg(self, eeg_id: int) -> Half:
        """Return one EEG as a view of the file: (n_times, 20) float16 µV.

        Raises:
            UsageError: the store does not hold it.
            DataError: it has changed since it was stored, or the file was cut short.
        """
        return self._recording("eeg", eeg_id)

    def spectrogram(self, spectrogram_id: int) -> Half:
        """Return one spectrogram as a view of the file: (n_rows, 400) float16 log power.

        Raises:
            UsageError: the store does not hold it.
            DataError: it has changed since it was stored, or the file was cut short.
        """
        return self._recording("spectrogram", spectrogram_id)

    def verify(self, watch: Watch = lambda items, total: items) -> None:
        """Read the whole store, by as many threads as there are CPUs, and compare checksums.

        Args:
            watch: wrapper around the iteration that shows progress; it is given the items and their number.

        Raises:
            DataErrors: some recordings have changed since they were stored; all of them are listed.
        """

        def problem(entry: Entry) -> DataError | None:
            try:
                self._recording(entry.kind, entry.id, again=True)
            except DataError as error:
                return error
            return None

        with ThreadPoolExecutor(available_cpus()) as pool:
            found = list(watch(pool.map(problem, self.entries), len(self.entries)))
        broken = [error for error in found if error is not None]
        if broken:
            raise DataErrors(broken)

    def _recording(self, kind: Kind, id_: int, again: bool = False) -> Half:
        """Return one recording; compare its checksum on first use, and `again` if that is asked."""
        key = (kind, int(id_))
        try:
            start, entry = self._index[key]
        except KeyError:
            raise UsageError(f"{self.path}: has no {kind} {id_}; it was prepared from other data") from None
        data = self._data[kind]
        data.refuse_cut()
        values = data.array[start : start + entry.length]
        if again or key not in self._checked:
            if zlib.crc32(values.data) != entry.crc32:
                raise DataError(data.path, f"recording {id_} has changed since it was stored", _REMEDY)
            self._checked.add(key)
        return values

    @cached_property
    def _index(self) -> dict[tuple[Kind, int], tuple[int, Entry]]:
        starts: dict[Kind, int] = dict.fromkeys(WIDTH, 0)
        index = {}
        for entry in self.entries:
            index[entry.kind, entry.id] = (starts[entry.kind], entry)
            starts[entry.kind] += entry.length
        return index

    def _map(self, kind: Kind) -> _DataFile:
        path = self.path / f"{kind}.f16"
        n_rows = sum(entry.length for entry in self.entries if entry.kind == kind)
        if not path.is_file():
            raise DataError(path, "is missing", _REMEDY)
        try:
            return _DataFile(path, (n_rows, WIDTH[kind]))
        except OSError as error:
            raise DataError(path, f"cannot be opened ({error.strerror or error})") from error


class _DataFile:
    """A mapped data file, of which the present size is known within a microsecond."""

    def __init__(self, path: Path, shape: tuple[int, int]) -> None:
        self.path = path
        self._n_bytes = shape[0] * shape[1] * np.dtype(np.float16).itemsize
        found = path.stat().st_size
        if found != self._n_bytes:
            raise DataError(path, f"has {found} bytes where the index says {self._n_bytes}", _REMEDY)
        self._map: mmap.mmap | None = None
        if found:  # nothing can be mapped of an empty file
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), found, access=mmap.ACCESS_READ)
        # A plain ndarray: every slice of an np.memmap would carry the overhead of a Python subclass.
        self.array = np.frombuffer(self._map or b"", np.float16).reshape(shape)

    def refuse_cut(self) -> None:
        """Raise DataError if the file is shorter than when it was mapped."""
        if self._map is not None and self._map.size() < self._n_bytes:
            reason = (
                f"was cut short while it was in use: {self._map.size()} bytes are left of {self._n_bytes}"
            )
            raise DataError(self.path, reason, _REMEDY)


def write_index(path: Path, entries: Sequence[Entry]) -> None:
    """Write the index of a store, which makes it a finished one.

    Args:
        path: folder of the store.
        entries: all recordings, in the order in which they lie in the data files.
    """
    content = {
        "format": FORMAT,
        "fingerprint": _fingerprint(entries),
        "entries": [asdict(entry) for entry in entries],
    }
    write_bytes(path / INDEX, json.dumps(content).encode())


def entry_from(content: dict[str, Any]) -> Entry:
    """Make an entry from parsed JSON.

    Raises:
        ValueError, TypeError: it does not describe an entry.
    """
    if not isinstance(content, dict) or content.get("kind") not in WIDTH:
        raise ValueError("not an entry")
    entry = Entry(**content)
    numbers = [entry.id, entry.length, entry.source_bytes, entry.crc32, entry.source_crc32]
    if any(type(number) is not int for number in numbers) or not 0 <= entry.length < 2**40:
        raise ValueError("an entry has other values than whole numbers")
    return entry


def _read_index(path: Path) -> tuple[list[Entry], str]:
    try:
        content = parse(path.read_bytes())
        if content["format"] != FORMAT:
            raise UsageError(
                f"{path}: has format {content['format']}, this version reads {FORMAT}; prepare again"
            )
        entries = [entry_from(item) for item in content["entries"]]
        stated = content["fingerprint"]
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror or error})") from error
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(path, f"is no index of a store ({error})", _REMEDY) from error
    if _fingerprint(entries) != stated:
        raise DataError(path, "does not have the fingerprint that it states", _REMEDY)
    return entries, stated


def _fingerprint(entries: Iterable[Entry]) -> str:
    """Return the sha256 of what the store holds, whatever Parquet files it came from."""
    digest = hashlib.sha256(f"format {FORMAT}\n".encode())
    for entry in entries:
        digest.update(f"{entry.kind} {entry.id} {entry.length} {entry.crc32}\n".encode())
    return digest.hexdigest()
