"""Decode every recording once, memory-map it for ever.

Reading parquet costs more than all the mathematics that follows (2–10 ms a file, against 0.05 ms for a slice of
a memory-mapped array). So `prepare` appends all recordings, in a fixed order and in half precision, to two flat
files:

    eeg.f16            (all samples, 20)   µV
    spectrogram.f16    (all rows, 400)     natural logarithm of clipped power
    store.json         where each recording lies, its checksum, and the fingerprint of the whole

store.json is written last: a folder without it is an unfinished store. Until then journal.jsonl has one line per
recording, added after its data. A killed `prepare` goes on behind the last line whose data are on the disk as they
were written, and the order is fixed, so the bytes are the same as if it had never been interrupted.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from kagglehms.data.competition import (
    CHANNELS,
    N_TIMES,
    SPECTROGRAM_COLUMNS,
    SPECTROGRAM_ROWS,
    Competition,
)
from kagglehms.data.readers import Half, read_eeg, read_spectrogram
from kagglehms.data.records import Records, window_starts
from kagglehms.data.workers import Workers, in_order
from kagglehms.errors import DataError, DataErrors, RunError, UsageError
from kagglehms.files import write_bytes
from kagglehms.locks import exclusive
from kagglehms.strict_json import parse

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = 1
"""Raised when the meaning of the stored bytes changes; an older store is then refused, not misread."""

Kind = Literal["eeg", "spectrogram"]
WIDTH: dict[Kind, int] = {"eeg": len(CHANNELS), "spectrogram": len(SPECTROGRAM_COLUMNS)}
READERS: dict[Kind, Callable[[Path, int], Half]] = {"eeg": read_eeg, "spectrogram": read_spectrogram}

INDEX = "store.json"
JOURNAL = "journal.jsonl"
_SYNC_EVERY = 64
"""Recordings between two flushes to the disk: what a power failure can cost."""


@dataclass(frozen=True)
class Task:
    """One recording to be decoded: where it is and how long it must at least be (samples or rows)."""

    kind: Kind
    id: int
    path: Path
    min_length: int


@dataclass(frozen=True)
class Entry:
    """One recording of the store: its length (samples or rows), source file's size and checksum of its bytes."""

    kind: Kind
    id: int
    length: int
    source_bytes: int
    crc32: int


@dataclass(frozen=True)
class Prepared:
    """What `prepare` did: recordings decoded now, and found done from before."""

    store: Store
    decoded: int
    found: int


class Store:
    """A finished store, memory-mapped for reading.

    Args:
        path: the folder that `prepare` filled.

    Raises:
        UsageError: no finished store there, or one of another format.
        DataError: its files are shorter or longer than its index says.
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
        """(n_times, 20) float16 µV of one EEG: a view of the file, nothing is copied."""
        return self._recording("eeg", eeg_id)

    def spectrogram(self, spectrogram_id: int) -> Half:
        """(n_rows, 400) float16 log power of one spectrogram: a view of the file, nothing is copied."""
        return self._recording("spectrogram", spectrogram_id)

    def verify(self) -> None:
        """Read everything and compare checksums.

        Raises:
            DataErrors: every recording whose bytes have changed since `prepare`.
        """
        broken = [
            DataError(
                self.path / f"{kind}.f16", f"recording {id_} has changed", "delete the store, prepare again"
            )
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
        shape = (sum(entry.length for entry in self.entries if entry.kind == kind), WIDTH[kind])
        expected = shape[0] * shape[1] * 2
        found = path.stat().st_size if path.is_file() else -1
        if found != expected:
            reason = "is missing" if found < 0 else f"has {found} bytes where the index says {expected}"
            raise DataError(path, reason, "delete the store, prepare again")
        if shape[0] == 0:
            return np.empty(shape, np.float16)
        # A plain ndarray over the map: slices of np.memmap carry a Python subclass and its overhead along.
        return np.asarray(np.memmap(path, np.float16, mode="r", shape=shape))


def plan(competition: Competition, records: Records) -> list[Task]:
    """List the recordings that `records` need, in the order of the store: EEGs, then spectrograms, by id.

    Each must be long enough for the last sub-window of its records.
    """
    # The last that `Records.starts` can give.
    last_s = (records.frame[name].to_numpy() for name in ("spectrogram_offset_max_s", "eeg_offset_max_s"))
    rows, samples = window_starts(*last_s)
    eeg_end: dict[int, int] = {}
    for id_, sample in zip(records.eeg_ids.tolist(), samples.tolist(), strict=True):
        eeg_end[id_] = max(eeg_end.get(id_, 0), sample + N_TIMES)
    rows_end: dict[int, int] = {}
    for id_, row in zip(records.spectrogram_ids.tolist(), rows.tolist(), strict=True):
        rows_end[id_] = max(rows_end.get(id_, 0), row + SPECTROGRAM_ROWS)
    return [
        *(Task("eeg", id_, competition.eeg(id_), end) for id_, end in sorted(eeg_end.items())),
        *(
            Task("spectrogram", id_, competition.spectrogram(id_), end)
            for id_, end in sorted(rows_end.items())
        ),
    ]


def prepare(
    tasks: list[Task],
    path: Path,
    watch: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, total: items,
    workers: Workers | None = None,
) -> Prepared:
    """Decode `tasks` into the store at `path`, or go on where an interrupted call stopped.

    Args:
        tasks: what `plan` returned.
        path: the store's folder, made if it does not exist.
        watch: wraps the iteration, given its length, to show progress.
        workers: who decodes; threads on all available CPUs when None.

    Raises:
        DataErrors: files that cannot be used, all of them; what came before the first one is kept.
        UsageError: a finished store of other data is already there, or the workers cannot be reached.
        RunError: another process is preparing it.
    """
    # A finished store is only read, by as many as like.
    if (path / INDEX).is_file():
        return _finished(path, tasks)
    with exclusive(path, "prepare"):
        if (path / INDEX).is_file():  # another process has just finished it
            return _finished(path, tasks)
        found = _adopt(path, tasks)
        decoded = _decode_missing(path, tasks[len(found) :], watch, workers or Workers())
        entries = found + decoded
        content = {
            "format": FORMAT,
            "fingerprint": _fingerprint(entries),
            "entries": [asdict(e) for e in entries],
        }
        write_bytes(path / INDEX, json.dumps(content).encode())
        (path / JOURNAL).unlink()
        return Prepared(Store(path), decoded=len(decoded), found=len(found))


def _finished(path: Path, tasks: list[Task]) -> Prepared:
    store = Store(path)
    _refuse_other_data(store, tasks)
    return Prepared(store, decoded=0, found=len(tasks))


def _decode_missing(
    path: Path, tasks: list[Task], watch: Callable[[Iterable[Any], int], Iterable[Any]], workers: Workers
) -> list[Entry]:
    """Append `tasks` to the data files and the journal; behind a bad file only check, so order is kept."""
    entries: list[Entry] = []
    errors: list[DataError] = []
    try:
        with in_order(_decode, tasks, workers) as results, _Appender(path) as appender:
            for task, result in watch(zip(tasks, results, strict=True), len(tasks)):
                if isinstance(result, DataError):
                    errors.append(result)
                elif not errors:
                    entries.append(appender.append(task, result))
    except OSError as error:
        hint = "free space or give another --store; what was finished is kept"
        raise RunError(f"{path}: cannot be written ({error.strerror or error}); {hint}") from error
    if errors:
        raise DataErrors(errors)
    return entries


def _decode(task: Task) -> Half | DataError:
    try:
        # Polars holds columns; laid out in rows here, since the one that writes has no time for it.
        return np.ascontiguousarray(READERS[task.kind](task.path, task.min_length))
    except DataError as error:
        return error


class _Appender:
    """Writes recordings behind each other: data first, then their line in the journal."""

    def __init__(self, path: Path) -> None:
        self._files: dict[str, IO[bytes]] = {kind: (path / f"{kind}.f16").open("ab") for kind in WIDTH}
        self._journal = (path / JOURNAL).open("ab")
        self._lines: list[bytes] = []

    def __enter__(self) -> _Appender:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        for file in (*self._files.values(), self._journal):
            file.close()

    def append(self, task: Task, values: Half) -> Entry:
        data = values.data.cast("B")
        self._files[task.kind].write(data)
        entry = Entry(task.kind, task.id, len(values), task.path.stat().st_size, zlib.crc32(data))
        self._lines.append(json.dumps(asdict(entry)).encode() + b"\n")
        if len(self._lines) == _SYNC_EVERY:
            self._flush()
        return entry

    def _flush(self) -> None:
        """Bring the data to the disk before the journal claims that they are there."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        self._journal.write(b"".join(self._lines))
        self._journal.flush()
        os.fsync(self._journal.fileno())
        self._lines.clear()


def _adopt(path: Path, tasks: list[Task]) -> list[Entry]:
    """Return what an interrupted `prepare` has finished of `tasks`; cut the files behind it.

    A journal line counts only as far as the data files bear it out, byte for byte: a file that was deleted, cut or
    overwritten since then is decoded again from there on.
    """
    entries: list[Entry] = []
    with contextlib.ExitStack() as stack:
        files = {kind: stack.enter_context((path / f"{kind}.f16").open("a+b")) for kind in WIDTH}
        ends = dict.fromkeys(WIDTH, 0)
        for file in files.values():
            file.seek(0)
        for task, line in zip(tasks, _lines(path / JOURNAL), strict=False):
            try:
                entry = _entry(parse(line))
            except (ValueError, TypeError):
                break  # the line that was being written when the process died
            if not _is_of(entry, task):
                break
            data = files[entry.kind].read(entry.length * WIDTH[entry.kind] * 2)
            if len(data) != entry.length * WIDTH[entry.kind] * 2 or zlib.crc32(data) != entry.crc32:
                break
            ends[entry.kind] += len(data)
            entries.append(entry)
        for kind, file in files.items():
            file.truncate(ends[kind])
    journal = b"".join(json.dumps(asdict(entry)).encode() + b"\n" for entry in entries)
    write_bytes(path / JOURNAL, journal)
    return entries


def _is_of(entry: Entry, task: Task) -> bool:
    """Whether a recording that was decoded is the one that is wanted, from the same file, and long enough."""
    size = task.path.stat().st_size if task.path.is_file() else -1
    same = (entry.kind, entry.id, entry.source_bytes) == (task.kind, task.id, size)
    return same and entry.length >= task.min_length


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines() if path.is_file() else []


def _entry(content: dict[str, Any]) -> Entry:
    if set(content) != {field.name for field in fields(Entry)} or content["kind"] not in WIDTH:
        raise ValueError("not an entry")
    return Entry(**content)


def _read_index(path: Path) -> tuple[list[Entry], str]:
    broken = "delete the store, prepare again"
    try:
        content = parse(path.read_bytes())
        if content["format"] != FORMAT:
            raise UsageError(
                f"{path}: has format {content['format']}, this version reads {FORMAT}; prepare again"
            )
        entries = [_entry(item) for item in content["entries"]]
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(path, f"is no index of a store ({error})", broken) from error
    if _fingerprint(entries) != content["fingerprint"]:
        raise DataError(path, "does not have the fingerprint that it states", broken)
    return entries, content["fingerprint"]


def _fingerprint(entries: Iterable[Entry]) -> str:
    """sha256 over what the store holds, whatever parquet files it came from."""
    digest = hashlib.sha256(f"format {FORMAT}\n".encode())
    for entry in entries:
        digest.update(f"{entry.kind} {entry.id} {entry.length} {entry.crc32}\n".encode())
    return digest.hexdigest()


def _refuse_other_data(store: Store, tasks: list[Task]) -> None:
    wanted = [(t.kind, t.id, t.path.stat().st_size if t.path.is_file() else None) for t in tasks]
    held = [(e.kind, e.id, e.source_bytes) for e in store.entries]
    # A source that is gone needs no new decoding; one that has changed, or was never decoded, does.
    same = len(wanted) == len(held) and all(
        w[:2] == h[:2] and w[2] in (None, h[2]) for w, h in zip(wanted, held, strict=True)
    )
    if not same:
        raise UsageError(
            f"{store.path}: holds other recordings than this data; delete it or give another --store"
        )
