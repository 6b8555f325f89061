"""Decode the competition's recordings into a store, resumably.

Recordings are appended to the store's data files in a fixed order. Each gets a line in journal.jsonl, written after
its data. An interrupted `prepare` continues after the last line whose data are intact on the disk, and since the
order is fixed, the bytes of the store are the same as without the interruption.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import numpy as np

from kagglehms.console import say
from kagglehms.data.competition import N_TIMES, SPECTROGRAM_ROWS, Competition
from kagglehms.data.readers import Half, load, read_eeg, read_spectrogram
from kagglehms.data.records import Records, first_row_and_sample, read_records
from kagglehms.data.store import INDEX, JOURNAL, WIDTH, Entry, Kind, Store, entry_from, write_index
from kagglehms.data.workers import Workers, in_order
from kagglehms.environment import available_cpus
from kagglehms.errors import DataError, DataErrors, RunError, UsageError, counted
from kagglehms.files import sweep_partials, write_bytes
from kagglehms.locks import exclusive
from kagglehms.progress import Watch, progress
from kagglehms.strict_json import parse

_READERS: dict[Kind, Callable[[Path, int, bytes], Half]] = {"eeg": read_eeg, "spectrogram": read_spectrogram}
_SYNC_EVERY = 64
"""Recordings between two flushes to disk, which is what a power failure can cost."""


@dataclass(frozen=True)
class RecordingFile:
    """A Parquet file to decode.

    Attributes:
        kind: EEG or spectrogram.
        id: the recording's id in train.csv.
        path: the file.
        min_length: smallest number of samples or rows that its records need.
    """

    kind: Kind
    id: int
    path: Path
    min_length: int

    @property
    def n_bytes(self) -> int | None:
        """Size of the file; None if it does not exist or cannot be looked at."""
        try:
            return self.path.stat().st_size
        except OSError:
            return None


@dataclass(frozen=True)
class Decoded:
    """A recording as the store keeps it, and the file that it was decoded from.

    Attributes:
        values: the recording, in half precision, in rows.
        source_bytes: size of the file.
        source_crc32: checksum of the file.
    """

    values: Half
    source_bytes: int
    source_crc32: int


@dataclass(frozen=True)
class Prepared:
    """What `prepare` did.

    Attributes:
        store: the finished store.
        decoded: number of recordings decoded by this call.
        found: number of recordings that an earlier call had decoded.
    """

    store: Store
    decoded: int
    found: int


def recordings_of(competition: Competition, records: Records) -> list[RecordingFile]:
    """List the recordings that `records` need, in the order of the store: EEGs, then spectrograms, by id.

    Each must be long enough for the last sub-window of its records.
    """
    # The latest window that `Records.starts` can return.
    last_s = (records.frame[name].to_numpy() for name in ("spectrogram_offset_max_s", "eeg_offset_max_s"))
    rows, samples = first_row_and_sample(*last_s)
    eeg_end = _latest(records.eeg_ids.tolist(), (samples + N_TIMES).tolist())
    rows_end = _latest(records.spectrogram_ids.tolist(), (rows + SPECTROGRAM_ROWS).tolist())
    eegs = [RecordingFile("eeg", id_, competition.eeg(id_), end) for id_, end in eeg_end.items()]
    spectrograms = [
        RecordingFile("spectrogram", id_, competition.spectrogram(id_), end) for id_, end in rows_end.items()
    ]
    return eegs + spectrograms


def _latest(ids: Sequence[int], ends: Sequence[int]) -> dict[int, int]:
    """Return the largest end of each id, sorted by id."""
    latest: dict[int, int] = {}
    for id_, end in zip(ids, ends, strict=True):
        latest[id_] = max(latest.get(id_, 0), end)
    return dict(sorted(latest.items()))


def prepare(
    recordings: list[RecordingFile],
    path: Path,
    watch: Watch = lambda items, total: items,
    workers: Workers | None = None,
) -> Prepared:
    """Decode recordings into the store at `path`, or continue where an interrupted call stopped.

    Args:
        recordings: the recordings to decode, from `recordings_of`.
        path: folder of the store; it is created if it does not exist.
        watch: wrapper around the iteration that shows progress; it is given the items and their number.
        workers: the workers that decode; threads on all available CPUs by default.

    Raises:
        DataErrors: some files cannot be used, or what the disk gives back differs from what was stored; all of them are
            listed. Recordings before the first one are kept.
        UsageError: the folder already has a finished store of other data, or the workers cannot be reached.
        RunError: another process is preparing this store, or the disk is full.
    """
    # Any number of processes may read a finished store: no lock is needed.
    if (path / INDEX).is_file():
        return _finished(path, recordings)
    with exclusive(path, "prepare"):
        if (path / INDEX).is_file():  # another process has just finished it
            return _finished(path, recordings)
        sweep_partials(path)
        found = _adopt(path, recordings)
        decoded = _decode_missing(path, recordings[len(found) :], watch, workers or Workers())
        write_index(path, found + decoded)
        store = Store(path)
        try:
            store.verify()
        except DataErrors:
            (path / INDEX).unlink()  # an unfinished store again, of which the next call keeps what is whole
            raise
        (path / JOURNAL).unlink()
        return Prepared(store, decoded=len(decoded), found=len(found))


def prepare_competition(data: Path, store: Path, workers: Workers | None = None) -> Prepared:
    """Decode all recordings that train.csv names into a store, and print how far it is.

    Args:
        data: the competition's folder.
        store: folder of the store; one that an interrupted call left is continued.
        workers: threads, processes or cluster that decode; None takes threads on all available CPUs.

    Raises:
        DataError, DataErrors: train.csv or recordings are missing or cannot be used.
        UsageError: the store holds other data.
        RunError: another process is preparing the store, or the disk is full.
    """
    competition = Competition(data)
    records = read_records(competition.train_csv)
    recordings = recordings_of(competition, records)
    say(f"{counted(len(records), 'record')} of {counted(len(recordings), 'recording')}")
    start = time.monotonic()
    done = prepare(recordings, store, lambda items, n: progress(items, n, "decode"), workers)
    if done.decoded:
        seconds = time.monotonic() - start
        before = f" ({done.found} were done before)" if done.found else ""
        rate = f"{seconds:.0f} s, {done.decoded / seconds:.0f} files/s"
        say(f"decoded {done.decoded} recordings{before} into {store} in {rate}")
    else:
        say(f"nothing to do: all {done.found} recordings are in {store}, unchanged")
    return done


def changed_sources(
    store: Store, competition: Competition, watch: Watch = lambda items, total: items
) -> list[DataError]:
    """Compare the files of a competition with those that a store was decoded from.

    Args:
        store: the store.
        competition: the competition's folder.
        watch: wrapper around the iteration that shows progress; it is given the items and their number.

    Returns:
        What is wrong with each file that is missing or whose size or checksum differs.
    """

    def problem(entry: Entry) -> DataError | None:
        path = competition.eeg(entry.id) if entry.kind == "eeg" else competition.spectrogram(entry.id)
        try:
            content = load(path)
        except DataError as error:
            return error
        if (zlib.crc32(content), len(content)) == (entry.source_crc32, entry.source_bytes):
            return None
        return DataError(
            path, "has changed since the store was made of it", "download it again, or prepare again"
        )

    with ThreadPoolExecutor(available_cpus()) as pool:
        found = list(watch(pool.map(problem, store.entries), len(store.entries)))
    return [error for error in found if error is not None]


def _finished(path: Path, recordings: list[RecordingFile]) -> Prepared:
    """Return the finished store, unless it holds other data or has changed."""
    store = Store(path)
    wanted = [(r.kind, r.id, r.n_bytes) for r in recordings]
    held = [(e.kind, e.id, e.source_bytes) for e in store.entries]
    # A file that has been deleted since then need not be decoded again; one that has changed would have to be.
    same = len(wanted) == len(held) and all(
        w[:2] == h[:2] and w[2] in (None, h[2]) for w, h in zip(wanted, held, strict=True)
    )
    if not same:
        raise UsageError(f"{path}: holds other recordings than this data; delete it or give another --store")
    store.verify()
    with contextlib.suppress(OSError):  # whoever finished it may have been killed just before this
        (path / JOURNAL).unlink(missing_ok=True)
    return Prepared(store, decoded=0, found=len(recordings))


def _decode_missing(
    path: Path, recordings: list[RecordingFile], watch: Watch, workers: Workers
) -> list[Entry]:
    """Append recordings to the data files and the journal.

    After a bad file the others are only checked, since appending them would break the order.
    """
    entries: list[Entry] = []
    errors: list[DataError] = []
    try:
        with in_order(_decode, recordings, workers) as results, _Appender(path) as appender:
            for recording, result in watch(zip(recordings, results, strict=True), len(recordings)):
                if isinstance(result, DataError):
                    errors.append(result)
                elif not errors:
                    entries.append(appender.append(recording, result))
    except OSError as error:
        hint = "free space or give another --store; what was finished is kept"
        raise RunError(f"{path}: cannot be written ({error.strerror or error}); {hint}") from error
    if errors:
        raise DataErrors(errors)
    return entries


def _decode(recording: RecordingFile) -> Decoded | DataError:
    try:
        content = load(recording.path)
        values = _READERS[recording.kind](recording.path, recording.min_length, content)
        # Polars returns columns. They become rows here, in the worker, because there is only one writer.
        return Decoded(np.ascontiguousarray(values), len(content), zlib.crc32(content))
    except DataError as error:
        return error


class _Appender:
    """Appends recordings to a store: data first, then the line in the journal."""

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

    def append(self, recording: RecordingFile, decoded: Decoded) -> Entry:
        """Append one recording."""
        data = decoded.values.data.cast("B")
        self._files[recording.kind].write(data)
        entry = Entry(
            recording.kind,
            recording.id,
            len(decoded.values),
            decoded.source_bytes,
            zlib.crc32(data),
            decoded.source_crc32,
        )
        self._lines.append(_line(entry))
        if len(self._lines) == _SYNC_EVERY:
            self._flush()
        return entry

    def _flush(self) -> None:
        """Flush the data to disk before the journal claims that they are there."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        self._journal.write(b"".join(self._lines))
        self._journal.flush()
        os.fsync(self._journal.fileno())
        self._lines.clear()


def _line(entry: Entry) -> bytes:
    return json.dumps(asdict(entry)).encode() + b"\n"


def _adopt(path: Path, recordings: list[RecordingFile]) -> list[Entry]:
    """Return the entries that an interrupted `prepare` finished, and truncate the files after them.

    A journal line counts only if the data files agree with it byte for byte: if one of them was deleted, truncated
    or overwritten since, decoding starts again at that point.
    """
    entries: list[Entry] = []
    journal = path / JOURNAL
    lines = journal.read_bytes().splitlines() if journal.is_file() else []
    with contextlib.ExitStack() as stack:
        files = {kind: stack.enter_context((path / f"{kind}.f16").open("a+b")) for kind in WIDTH}
        ends = dict.fromkeys(WIDTH, 0)
        for file in files.values():
            file.seek(0)
        for recording, line in zip(recordings, lines, strict=False):
            try:
                entry = entry_from(parse(line))
            except (ValueError, TypeError):
                break  # the process died while it was writing this line
            if not _matches(entry, recording):
                break
            data = files[entry.kind].read(entry.n_bytes)
            if len(data) != entry.n_bytes or zlib.crc32(data) != entry.crc32:
                break
            ends[entry.kind] += len(data)
            entries.append(entry)
        for kind, file in files.items():
            file.truncate(ends[kind])
    write_bytes(journal, b"".join(map(_line, entries)))
    return entries


def _matches(entry: Entry, recording: RecordingFile) -> bool:
    """Return whether a stored recording is the wanted one, from the same file, and long enough."""
    same = (entry.kind, entry.id, entry.source_bytes) == (recording.kind, recording.id, recording.n_bytes)
    return same and entry.length >= recording.min_length
