"""The store gives back what was read, whatever happened while it was made."""

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
from kagglehms.data.readers import read_eeg, read_spectrogram
from kagglehms.data.records import SPECTROGRAM_OFFSET, make_records, read_records, read_train_table
from kagglehms.data.store import Store, Task, plan, prepare
from kagglehms.data.workers import Workers
from kagglehms.errors import DataError, DataErrors, RunError, UsageError
from kagglehms.locks import exclusive


def tasks_of(folder: Path) -> list[Task]:
    competition = Competition(folder)
    return plan(competition, read_records(competition.train_csv))


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
    prepare(tasks_of(competition_folder), path)
    return path


def test_it_holds_what_the_files_hold(competition_folder: Path, reference: Path) -> None:
    store, competition = Store(reference), Competition(competition_folder)
    for task in tasks_of(competition_folder):
        if task.kind == "eeg":
            np.testing.assert_array_equal(store.eeg(task.id), read_eeg(competition.eeg(task.id)))
        else:
            expected = read_spectrogram(competition.spectrogram(task.id))
            np.testing.assert_array_equal(store.spectrogram(task.id), expected)
    store.verify()


def test_a_second_call_does_nothing(competition_folder: Path, reference: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in reference.iterdir() if path.name != ".lock"}
    done = prepare(tasks_of(competition_folder), reference)
    assert (done.decoded, done.found) == (0, len(tasks_of(competition_folder)))
    after = {path.name: path.stat().st_mtime_ns for path in reference.iterdir() if path.name != ".lock"}
    assert after == before


@pytest.mark.parametrize("n_jobs", [1, 4])
def test_the_bytes_do_not_depend_on_threads(
    competition_folder: Path, reference: Path, tmp_path: Path, n_jobs: int
) -> None:
    prepare(tasks_of(competition_folder), tmp_path, workers=Workers(jobs=n_jobs))
    assert contents(tmp_path) == contents(reference)


@pytest.mark.parametrize("n", [0, 1, 5, 14])
def test_an_interrupted_call_is_continued(
    competition_folder: Path, reference: Path, tmp_path: Path, n: int
) -> None:
    with pytest.raises(Killed):
        prepare(tasks_of(competition_folder), tmp_path, killed_after(n))
    with pytest.raises(UsageError, match="unfinished store"):
        Store(tmp_path)
    assert prepare(tasks_of(competition_folder), tmp_path).found == n
    assert contents(tmp_path) == contents(reference)


@pytest.mark.parametrize("damage", ["torn line", "lost data", "foreign bytes", "no journal"])
def test_whatever_a_power_failure_left_is_mended(
    competition_folder: Path, reference: Path, tmp_path: Path, damage: str
) -> None:
    with pytest.raises(Killed):
        prepare(tasks_of(competition_folder), tmp_path, killed_after(6))
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
    prepare(tasks_of(competition_folder), tmp_path)
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
def stages(competition_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Unfinished stores: one that was killed after each number of recordings, the last one before its index."""
    tasks = tasks_of(competition_folder)
    folders = [tmp_path_factory.mktemp(f"stage{n}-") for n in range(len(tasks) + 1)]
    for n, folder in enumerate(folders):
        with pytest.raises(Killed):
            prepare(tasks, folder, killed_at_index if n == len(tasks) else killed_after(n))
    return folders


@pytest.mark.parametrize("damage", ["removed", "emptied", "cut", "zeros"])
@pytest.mark.parametrize("name", ["eeg.f16", "spectrogram.f16", "journal.jsonl"])
def test_an_unfinished_store_that_lost_a_file_at_any_stage_gets_its_bytes_back(
    competition_folder: Path, reference: Path, stages: list[Path], tmp_path: Path, name: str, damage: str
) -> None:
    tasks = tasks_of(competition_folder)
    for n, stage in enumerate(stages):
        store = copied(stage, tmp_path / str(n))
        damaged(store / name, damage)
        done = prepare(tasks, store, workers=Workers(jobs=1))
        assert done.found + done.decoded == len(tasks)
        assert contents(store) == contents(reference), f"after {n} recordings"


def killed_at_index(items: Iterable[Any], _: int) -> Iterable[Any]:
    yield from items
    raise Killed


def test_what_a_lost_file_does_not_concern_is_kept(
    competition_folder: Path, reference: Path, tmp_path: Path
) -> None:
    tasks = tasks_of(competition_folder)
    n_eegs = sum(task.kind == "eeg" for task in tasks)
    with pytest.raises(Killed):
        prepare(tasks, tmp_path, killed_after(n_eegs + 2))
    (tmp_path / "spectrogram.f16").unlink()
    assert prepare(tasks, tmp_path).found == n_eegs
    assert contents(tmp_path) == contents(reference)


@pytest.mark.parametrize("damage", ["removed", "emptied", "cut"])
@pytest.mark.parametrize("name", ["eeg.f16", "spectrogram.f16", "store.json"])
@pytest.mark.parametrize("journal", [False, True], ids=["finished", "killed before the journal went"])
def test_a_finished_store_that_lost_a_file_is_refused_or_made_again(
    competition_folder: Path, reference: Path, tmp_path: Path, name: str, damage: str, journal: bool
) -> None:
    tasks = tasks_of(competition_folder)
    prepare(tasks, tmp_path)
    if journal:
        (tmp_path / "journal.jsonl").write_text("")
    damaged(tmp_path / name, damage)
    if (name, damage) == ("store.json", "removed"):
        prepare(tasks, tmp_path)
        assert contents(tmp_path) == contents(reference)
        return
    with pytest.raises(DataError, match="delete the store, prepare again") as caught:
        prepare(tasks, tmp_path)
    assert caught.value.path == tmp_path / name
    with pytest.raises(DataError):
        Store(tmp_path)


SLOW_PREPARE = """
import sys, time
from pathlib import Path
from kagglehms.data import store
real = store._decode
def slow(task):
    time.sleep(0.02)
    return real(task)
store._decode = slow
sys.path.insert(0, sys.argv[3])
from test_store import tasks_of
print("ready", flush=True)
store.prepare(tasks_of(Path(sys.argv[1])), Path(sys.argv[2]), workers=store.Workers(jobs=1))
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
    prepare(tasks_of(competition_folder), tmp_path)
    assert contents(tmp_path) == contents(reference)


def test_all_bad_files_are_listed_and_the_rest_is_kept(
    competition_folder: Path, reference: Path, tmp_path: Path
) -> None:
    folder = copied(competition_folder, tmp_path / "competition")
    tasks = tasks_of(folder)
    whole = {i: tasks[i].path.read_bytes() for i in (2, 5, len(tasks) - 1)}
    tasks[2].path.unlink()
    tasks[5].path.write_bytes(whole[5][:500])
    eeg_frame(50).write_parquet(tasks[-1].path)
    with pytest.raises(DataErrors) as caught:
        prepare(tasks, tmp_path / "store")
    assert [error.path for error in caught.value.errors] == [tasks[i].path for i in whole]
    assert str(caught.value).startswith("3 input file(s) cannot be used:")
    for i, content in whole.items():
        tasks[i].path.write_bytes(content)
    assert prepare(tasks, tmp_path / "store").found == 2
    assert contents(tmp_path / "store") == contents(reference)


def test_a_recording_shorter_than_its_labels_is_refused(competition_folder: Path, tmp_path: Path) -> None:
    folder = copied(competition_folder, tmp_path / "competition")
    task = max((t for t in tasks_of(folder) if t.kind == "eeg"), key=lambda t: t.min_length)
    eeg_frame(task.min_length - 1).write_parquet(task.path)
    with pytest.raises(DataErrors, match=f"{task.min_length - 1} samples where at least {task.min_length}"):
        prepare(tasks_of(folder), tmp_path / "store")


def test_a_store_of_other_data_is_refused(competition_folder: Path, reference: Path, tmp_path: Path) -> None:
    tasks = tasks_of(competition_folder)
    with pytest.raises(UsageError, match="holds other recordings"):
        prepare(tasks[:-1], reference)
    with pytest.raises(UsageError, match="has no eeg 5"):
        Store(reference).eeg(5)
    with pytest.raises(UsageError, match="no store; run `kagglehms prepare"):
        Store(tmp_path)


def test_damage_to_a_finished_store_is_found(competition_folder: Path, tmp_path: Path) -> None:
    prepare(tasks_of(competition_folder), tmp_path)
    index, data = tmp_path / "store.json", tmp_path / "spectrogram.f16"
    whole = data.read_bytes()
    data.write_bytes(whole[:4000] + bytes([whole[4000] ^ 1]) + whole[4001:])
    with pytest.raises(DataErrors, match=r"recording \d+ has changed"):
        Store(tmp_path).verify()
    data.write_bytes(whole[:-2])
    with pytest.raises(DataError, match="where the index says"):
        Store(tmp_path)
    data.unlink()
    with pytest.raises(DataError, match="is missing"):
        Store(tmp_path)
    data.write_bytes(whole)
    index.write_bytes(index.read_bytes().replace(b'"length": 1', b'"length": 2', 1))
    with pytest.raises(DataError, match="fingerprint"):
        Store(tmp_path)
    index.write_bytes(b"{}")
    with pytest.raises(DataError, match="no index of a store"):
        Store(tmp_path)


def test_two_at_once_are_refused(competition_folder: Path, tmp_path: Path) -> None:
    with (
        exclusive(tmp_path, "prepare"),
        pytest.raises(RunError, match=f"prepare is under way by process {os.getpid()}"),
    ):
        prepare(tasks_of(competition_folder), tmp_path)


def test_a_finished_store_is_read_by_as_many_as_like(competition_folder: Path, tmp_path: Path) -> None:
    tasks = tasks_of(competition_folder)
    prepare(tasks, tmp_path)
    with exclusive(tmp_path, "prepare"):
        assert prepare(tasks, tmp_path).found == len(tasks)


def test_a_full_disk_is_named_and_costs_nothing_finished(
    competition_folder: Path, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 4:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr("kagglehms.data.store._SYNC_EVERY", 3)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        prepare(tasks_of(competition_folder), tmp_path)
    monkeypatch.setattr(os, "fsync", real)
    assert prepare(tasks_of(competition_folder), tmp_path).decoded > 0
    assert contents(tmp_path) == contents(reference)


def test_spectrograms_reach_to_the_last_sub_window(competition_folder: Path) -> None:
    """Not only to the middle one: training may draw any."""
    competition = Competition(competition_folder)
    table = read_train_table(competition.train_csv)
    lengths = {
        task.id: task.min_length for task in plan(competition, make_records(table)) if task.kind != "eeg"
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
    for task in tasks_of(hms_sample):
        if task.kind == "spectrogram":
            assert len(read_spectrogram(task.path, task.min_length)) == task.min_length
