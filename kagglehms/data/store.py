"""The store: every recording decoded once, and memory-mapped from then on.

Reading Parquet costs more than all the computation that follows: 2–10 ms per file, against 0.05 ms for a slice of a
memory-mapped array. `preparing.prepare` therefore writes all recordings, in half precision, to two flat files:

    eeg.f16            (all samples, 20)   µV
    spectrogram.f16    (all rows, 400)     natural logarithm of clipped power
    store.json         the position and checksum of each recording, and the fingerprint of the whole store

The index, store.json, is written last: a folder without it is an unfinished store.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kagglehms.data.competition import CHANNELS, SPECTROGRAM_COLUMNS
from kagglehms.data.readers import Half
from kagglehms.errors import DataError, DataErrors, UsageError
from kagglehms.files import write_bytes
from kagglehms.strict_json import parse

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
    """

    kind: Kind
    id: int
    length: int
    source_bytes: int
    crc32: int

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
        self._arrays = {kind: self._map(kind) for kind in WIDTH}

    def eeg(self, eeg_id: int) -> Half:
        """Return one EEG as a view of the file: (n_times, 20) float16 µV."""
        return self._recording("eeg", eeg_id)

    def spectrogram(self, spectrogram_id: int) -> Half:
        """Return one spectrogram as a view of the file: (n_rows, 400) float16 log power."""
        return self._recording("spectrogram", spectrogram_id)

    def verify(self) -> None:
        """Read the whole store and compare checksums.

        Raises:
            DataErrors: some recordings have changed since they were stored; all of them are listed.
        """
        broken = [
            DataError(self.path / f"{kind}.f16", f"recording {id_} has changed", _REMEDY)
            for (kind, id_), (_, entry) in self._index.items()
            if zlib.crc32(self._recording(kind, id_).tobytes()) != entry.crc32
        ]
        if broken:
            raise DataErrors(broken)

    def _recording(self, kind: Kind, id_: int) -> Half:
        try:
            start, entry = self._index[kind, int(id_)]
        except KeyError:
            raise UsageError(f"{self.path}: has no {kind} {id_}; it was prepared from other data") from None
        return self._arrays[kind][start : start + entry.length]

    @cached_property
    def _index(self) -> dict[tuple[Kind, int], tuple[int, Entry]]:
        starts: dict[Kind, int] = dict.fromkeys(WIDTH, 0)
        index = {}
        for entry in self.entries:
            index[entry.kind, entry.id] = (starts[entry.kind], entry)
            starts[entry.kind] += entry.length
        return index

    def _map(self, kind: Kind) -> NDArray[np.float16]:
        path = self.path / f"{kind}.f16"
        entries = [entry for entry in self.entries if entry.kind == kind]
        expected = sum(entry.n_bytes for entry in entries)
        found = path.stat().st_size if path.is_file() else None
        if found is None:
            raise DataError(path, "is missing", _REMEDY)
        if found != expected:
            raise DataError(path, f"has {found} bytes where the index says {expected}", _REMEDY)
        shape = (sum(entry.length for entry in entries), WIDTH[kind])
        if shape[0] == 0:  # which cannot be mapped
            return np.empty(shape, np.float16)
        # A plain ndarray: every slice of an np.memmap would carry the overhead of a Python subclass.
        return np.asarray(np.memmap(path, np.float16, mode="r", shape=shape))


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
    if set(content) != {field.name for field in fields(Entry)} or content["kind"] not in WIDTH:
        raise ValueError("not an entry")
    return Entry(**content)


def _read_index(path: Path) -> tuple[list[Entry], str]:
    try:
        content = parse(path.read_bytes())
        if content["format"] != FORMAT:
            raise UsageError(
                f"{path}: has format {content['format']}, this version reads {FORMAT}; prepare again"
            )
        entries = [entry_from(item) for item in content["entries"]]
        stated = content["fingerprint"]
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
