"""A store is the same, byte for byte, whatever happened while it was being made."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from folders import copied, eeg_frame

from kagglehms.data.competition import Competition
from kagglehms.data.preparing import (
    RecordingFile,
    changed_sources,
    prepare,
    prepare_competition,
    recordings_of,
)
from kagglehms.data.readers import read_spectrogram
from kagglehms.data.records import SPECTROGRAM_OFFSET, make_records, read_records, read_train_table
from kagglehms.data.store import JOURNAL, Entry, Store, write_index
from kagglehms.data.workers import Workers
from kagglehms.errors import DataError, DataErrors, RunError, UsageError
from kagglehms.files import PARTIAL_SUFFIX
from kagglehms.locks import exclusive


def files_of(folder: Path) -> list[RecordingFile]:
    competition = Competition(folder)
    return recordings_of(competition, read_records(competition.train_csv))


def contents(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(store.iterdir())}


class Killed(Exception):
    """Stands for the death of the process."""


def killed_after(n: int) -> Any:
    def watch(items: Iterable[Any], _: int) -> Iterable[Any]:
        for i, item in enumerate(items):
            if i == n:
                raise Killed
            yield item

    return watch


@pytest.fixture(scope="module")
def reference(competition_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store")
    prepare(files_of(competition_folder), path)
    return path


def test_a_second_call_does_nothing(competition_folder: Path, reference: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in reference.iterdir() if path.name != ".lock"}
    done = prepare(files_of(competition_folder), reference)
    assert (done.decoded, done.found) == (0, len(files_of(competition_folder)))
    after = {path.name: path.stat().st_mtime_ns for path in reference.iterdir() if path.name != ".lock"}
    assert after == before


@pytest.mark.parametrize("n_jobs", [1, 4])
def test_the_bytes_do_not_depend_on_threads(
    competition_folder: Path, reference: Path, tmp_path: Path, n_jobs: int
) -> None:
    prepare(files_of(competition_folder), tmp_path, workers=Workers(jobs=n_jobs))
    assert contents(tmp_path) == contents(reference)


@pytest.mark.parametrize("n", [0, 1, 5, 14])
def test_an_interrupted_call_is_continued(
    competition_folder: Path, reference: Path, tmp_path: Path, n: int
) -> None:
    with pytest.raises(Killed):
        prepare(files_of(competition_folder), tmp_path, killed_after(n))
    with pytest.raises(UsageError, match="unfinished store"):
        Store(tmp_path)
    assert prepare(files_of(competition_folder), tmp_path).found == n
    assert contents(tmp_path) == contents(reference)


@pytest.mark.parametrize("damage", ["torn line", "lost data", "foreign bytes", "no journal"])
def test_whatever_a_power_failure_left_is_mended(
    competition_folder: Path, reference: Path, tmp_path: Path, damage: str
) -> None:
    with pytest.raises(Killed):
        prepare(files_of(competition_folder), tmp_path, killed_after(6))
    journal, data = tmp_path / "journal.jsonl", tmp_path / "eeg.f16"
    if damage == "torn line":
        journal.write_bytes(journal.read_bytes()[:-20])
    elif damage == "lost data":
        data.write_bytes(data.read_bytes()[:1000])
    elif damage == "foreign bytes":
        data.write_bytes(data.read_bytes() + b"x" * 12_345)
        journal.write_bytes(journal.read_bytes() + b'{"kind": "eeg"}\n')
    else:
        journal.unlink()
    prepare(files_of(competition_folder), tmp_path)
    assert contents(tmp_path) == contents(reference)


def damaged(path: Path, damage: str) -> None:
    """Take a file away, as a clean-up does, or a part of it, as a disk that fills or fails does."""
    content = path.read_bytes()
    if damage == "removed":
        path.unlink()
    elif damage == "zeros":
        path.write_bytes(bytes(len(content)))
    else:
        path.write_bytes(content[: {"cut": len(content) // 2, "emptied": 0}[damage]])


@pytest.fixture(scope="module")
def few(competition_folder: Path) -> list[RecordingFile]:
    """The first recordings of each kind: enough for stages before, between and behind any two."""
    files = files_of(competition_folder)
    return [file for kind in ("eeg", "spectrogram") for file in [f for f in files if f.kind == kind][:4]]


@pytest.fixture(scope="module")
def stages(few: list[RecordingFile], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Unfinished stores: one that was killed after each number of recordings, the last one before its index."""
    folders = [tmp_path_factory.mktemp(f"stage{n}-") for n in range(len(few) + 1)]
    for n, folder in enumerate(folders):
        with pytest.raises(Killed):
            prepare(few, folder, killed_at_index if n == len(few) else killed_after(n))
    return folders


@pytest.fixture(scope="module")
def whole_of_few(few: list[RecordingFile], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("few")
    prepare(few, path)
    return contents(path)


@pytest.mark.parametrize("damage", ["removed", "emptied", "cut", "zeros"])
@pytest.mark.parametrize("name", ["eeg.f16", "spectrogram.f16", "journal.jsonl"])
def test_an_unfinished_store_that_lost_a_file_at_any_stage_gets_its_bytes_back(
    few: list[RecordingFile], whole_of_few: dict[str, bytes], stages: list[Path], tmp_path: Path,
    name: str, damage: str,
) -> None:  # fmt: skip
    for n, stage in enumerate(stages):
        store = copied(stage, tmp_path / str(n))
        damaged(store / name, damage)
        done = prepare(few, store, workers=Workers(jobs=1))
        assert done.found + done.decoded == len(few)
        assert contents(store) == whole_of_few, f"after {n} recordings"


def killed_at_index(items: Iterable[Any], _: int) -> Iterable[Any]:
    yield from items
    raise Killed


def test_what_a_lost_file_does_not_concern_is_kept(
    competition_folder: Path, reference: Path, tmp_path: Path
) -> None:
    files = files_of(competition_folder)
    n_eegs = sum(file.kind == "eeg" for file in files)
    with pytest.raises(Killed):
        prepare(files, tmp_path, killed_after(n_eegs + 2))
    (tmp_path / "spectrogram.f16").unlink()
    assert prepare(files, tmp_path).found == n_eegs
    assert contents(tmp_path) == contents(reference)


@pytest.mark.parametrize("damage", ["removed", "emptied", "cut"])
@pytest.mark.parametrize("name", ["eeg.f16", "spectrogram.f16", "store.json"])
@pytest.mark.parametrize("journal", [False, True], ids=["finished", "killed before the journal went"])
def test_a_finished_store_that_lost_a_file_is_refused_or_made_again(
    competition_folder: Path, reference: Path, tmp_path: Path, name: str, damage: str, journal: bool
) -> None:
    files = files_of(competition_folder)
    prepare(files, tmp_path)
    if journal:
        (tmp_path / "journal.jsonl").write_text("")
    damaged(tmp_path / name, damage)
    if (name, damage) == ("store.json", "removed"):
        prepare(files, tmp_path)
        assert contents(tmp_path) == contents(reference)
        return
    with pytest.raises(DataError, match="delete the store, prepare again") as caught:
        prepare(files, tmp_path)
    assert caught.value.path == tmp_path / name
    with pytest.raises(DataError):
        Store(tmp_path)


SLOW_PREPARE = """
import sys, time
from pathlib import Path
from kagglehms.data import preparing
real = preparing._decode
def slow(recording):
    time.sleep(0.02)
    return real(recording)
preparing._decode = slow
sys.path.insert(0, sys.argv[3])
from test_preparing import files_of
print("ready", flush=True)
preparing.prepare(files_of(Path(sys.argv[1])), Path(sys.argv[2]), workers=preparing.Workers(jobs=1))
"""


@pytest.mark.slow
def test_kill_at_any_moment(competition_folder: Path, reference: Path, tmp_path: Path) -> None:
    draw = random.Random(0)
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here.parent), *sys.path])}
    kills = 0
    for _ in range(8):
        command = [sys.executable, "-c", SLOW_PREPARE, str(competition_folder), str(tmp_path), str(here)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        time.sleep(draw.uniform(0, 0.5))
        child.send_signal(signal.SIGKILL)
        kills += child.wait() == -signal.SIGKILL
        child.stdout.close()
    assert kills >= 3
    prepare(files_of(competition_folder), tmp_path)
    assert contents(tmp_path) == contents(reference)


def test_all_bad_files_are_listed_and_the_rest_is_kept(
    competition_folder: Path, reference: Path, tmp_path: Path
) -> None:
    folder = copied(competition_folder, tmp_path / "competition")
    files = files_of(folder)
    whole = {i: files[i].path.read_bytes() for i in (2, 5, len(files) - 1)}
    files[2].path.unlink()
    files[5].path.write_bytes(whole[5][:500])
    eeg_frame(50).write_parquet(files[-1].path)
    with pytest.raises(DataErrors) as caught:
        prepare(files, tmp_path / "store")
    assert [error.path for error in caught.value.errors] == [files[i].path for i in whole]
    assert str(caught.value).startswith("3 input files cannot be used:")
    for i, content in whole.items():
        files[i].path.write_bytes(content)
    assert prepare(files, tmp_path / "store").found == 2
    assert contents(tmp_path / "store") == contents(reference)


def test_a_recording_shorter_than_its_labels_is_refused(competition_folder: Path, tmp_path: Path) -> None:
    folder = copied(competition_folder, tmp_path / "competition")
    file = max((t for t in files_of(folder) if t.kind == "eeg"), key=lambda t: t.min_length)
    eeg_frame(file.min_length - 1).write_parquet(file.path)
    with pytest.raises(DataErrors, match=f"{file.min_length - 1} samples where at least {file.min_length}"):
        prepare(files_of(folder), tmp_path / "store")


def test_a_store_of_other_data_is_refused(competition_folder: Path, reference: Path) -> None:
    files = files_of(competition_folder)
    with pytest.raises(UsageError, match="holds other recordings"):
        prepare(files[:-1], reference)


def test_two_at_once_are_refused(competition_folder: Path, tmp_path: Path) -> None:
    with (
        exclusive(tmp_path, "prepare"),
        pytest.raises(RunError, match=f"prepare is under way by process {os.getpid()}"),
    ):
        prepare(files_of(competition_folder), tmp_path)


def test_a_finished_store_is_read_by_as_many_as_like(competition_folder: Path, tmp_path: Path) -> None:
    files = files_of(competition_folder)
    prepare(files, tmp_path)
    with exclusive(tmp_path, "prepare"):
        assert prepare(files, tmp_path).found == len(files)


def test_a_full_disk_is_named_and_costs_nothing_finished(
    competition_folder: Path, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 4:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr("kagglehms.data.preparing._SYNC_EVERY", 3)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        prepare(files_of(competition_folder), tmp_path)
    monkeypatch.setattr(os, "fsync", real)
    assert prepare(files_of(competition_folder), tmp_path).decoded > 0
    assert contents(tmp_path) == contents(reference)


def test_spectrograms_reach_to_the_last_sub_window(competition_folder: Path) -> None:
    """Not only to the middle one: training may draw any."""
    competition = Competition(competition_folder)
    table = read_train_table(competition.train_csv)
    lengths = {
        file.id: file.min_length
        for file in recordings_of(competition, make_records(table))
        if file.kind != "eeg"
    }
    last_s = dict(table.group_by("spectrogram_id").agg(pl.col(SPECTROGRAM_OFFSET).max()).iter_rows())
    assert lengths == {id_: int(offset_s) // 2 + 300 for id_, offset_s in last_s.items()}
    records = make_records(table)
    everything = np.arange(len(records))
    for part in (0.0, 0.5, 1.0):
        rows, _ = records.starts(everything, np.full(len(records), part))
        for id_, row in zip(records.spectrogram_ids.tolist(), rows.tolist(), strict=True):
            assert row + 300 <= lengths[id_]


def test_no_real_spectrogram_is_refused_for_its_length(hms_sample: Path) -> None:
    """A real file ends with the window of its last label: there is not a row to spare."""
    for file in files_of(hms_sample):
        if file.kind == "spectrogram":
            assert len(read_spectrogram(file.path, file.min_length)) == file.min_length


def test_every_recording_of_the_table_is_decoded_once(
    competition_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pl.read_csv(competition_folder / "train.csv")
    n_recordings = table["eeg_id"].n_unique() + table["spectrogram_id"].n_unique()
    done = prepare_competition(competition_folder, tmp_path / "store")
    assert (done.decoded, done.found, len(done.store.entries)) == (n_recordings, 0, n_recordings)
    said = capsys.readouterr().out
    assert f"of {n_recordings} recordings" in said
    assert f"decoded {n_recordings} recordings into {tmp_path / 'store'}" in said
    again = prepare_competition(competition_folder, tmp_path / "store")
    assert (again.decoded, again.found) == (0, n_recordings)
    assert f"nothing to do: all {n_recordings} recordings" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["another byte", "shorter", "missing"])
def test_a_source_that_changed_after_it_was_decoded_is_found(
    competition_folder: Path, reference: Path, tmp_path: Path, damage: str
) -> None:
    folder = copied(competition_folder, tmp_path / "competition")
    assert changed_sources(Store(reference), Competition(folder)) == []
    path = files_of(folder)[3].path
    content = path.read_bytes()
    if damage == "another byte":
        path.write_bytes(content[:700] + bytes([content[700] ^ 1]) + content[701:])
    elif damage == "shorter":
        path.write_bytes(content[:-1])
    else:
        path.unlink()
    (found,) = changed_sources(Store(reference), Competition(folder))
    assert found.path == path
    assert found.reason == (
        "no such file" if damage == "missing" else "has changed since the store was made of it"
    )


def test_what_a_disk_gives_back_is_compared_before_the_store_counts_as_finished(
    competition_folder: Path, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_index_on_a_bad_disk(path: Path, entries: list[Entry]) -> None:
        write_index(path, entries)
        with (path / "eeg.f16").open("r+b") as file:
            file.seek(-100, os.SEEK_END)
            file.write(b"bad disk")

    with monkeypatch.context() as patched:
        patched.setattr("kagglehms.data.preparing.write_index", write_index_on_a_bad_disk)
        with pytest.raises(DataErrors, match="has changed since it was stored"):
            prepare(files_of(competition_folder), tmp_path)
    with pytest.raises(UsageError, match="unfinished store"):
        Store(tmp_path)
    done = prepare(files_of(competition_folder), tmp_path)
    assert done.found > 0
    assert contents(tmp_path) == contents(reference)


def test_a_finished_store_that_changed_is_not_taken_for_done(
    competition_folder: Path, reference: Path, tmp_path: Path
) -> None:
    store = copied(reference, tmp_path / "store")
    with (store / "spectrogram.f16").open("r+b") as file:
        file.write(b"\1\2")
    with pytest.raises(DataErrors, match=r"spectrogram.f16: recording \d+ has changed"):
        prepare(files_of(competition_folder), store)


def test_partial_files_of_a_killed_call_are_swept(
    competition_folder: Path, reference: Path, tmp_path: Path
) -> None:
    (tmp_path / f".store.json.1234{PARTIAL_SUFFIX}").write_bytes(b"x")
    prepare(files_of(competition_folder), tmp_path)
    assert contents(tmp_path) == contents(reference)


def test_the_journal_of_a_store_whose_maker_was_killed_at_the_end_is_swept(
    competition_folder: Path, reference: Path, tmp_path: Path
) -> None:
    store = copied(reference, tmp_path / "store")
    (store / JOURNAL).write_bytes(b"{}\n")
    done = prepare(files_of(competition_folder), store)
    assert done.decoded == 0
    assert contents(store) == contents(reference)
    assert not (store / JOURNAL).exists()


def test_a_recording_that_cannot_be_read_is_not_blamed_on_the_store(
    competition_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a folder of recordings that only another user may read."""
    locked, real = files_of(competition_folder)[1].path, Path.stat

    def denied(path: Path, **options: Any) -> os.stat_result:
        if path == locked:
            raise PermissionError(13, "Permission denied")
        return real(path, **options)

    monkeypatch.setattr(Path, "stat", denied)
    with pytest.raises(DataErrors) as caught:
        prepare(files_of(competition_folder), tmp_path)
    (error,) = caught.value.errors
    assert error.path == locked
    assert "Permission denied" in error.reason


def test_a_folder_without_a_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.csv"):
        prepare_competition(tmp_path, tmp_path / "store")
    assert not (tmp_path / "store").exists()
