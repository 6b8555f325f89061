"""Whoever decodes, the store has the same bytes; the Dask cluster is a real one."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from folders import copied
from strangers import work_among_strangers

from kagglehms.cli.commands import main
from kagglehms.data.competition import Competition
from kagglehms.data.preparing import prepare, recordings_of
from kagglehms.data.records import read_records
from kagglehms.data.workers import Backend, Workers, in_advance, in_order
from kagglehms.errors import DataErrors, UsageError

if TYPE_CHECKING:
    from distributed import LocalCluster


def contents(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(store.iterdir())}


@pytest.fixture(scope="module")
def reference(competition_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    records = read_records(competition_folder / "train.csv")
    path = tmp_path_factory.mktemp("store")
    prepare(recordings_of(Competition(competition_folder), records), path)
    return path


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    distributed = pytest.importorskip("distributed", reason="needs the cluster extra")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as started:
        yield started


def process_of(number: int) -> tuple[int, int]:
    time.sleep(0.02)
    return number, os.getpid()


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_results_come_in_order(backend: Backend) -> None:
    with in_order(process_of, range(20), Workers(backend, jobs=2)) as results:
        numbers, processes = zip(*results, strict=True)
    assert list(numbers) == list(range(20))
    assert (set(processes) == {os.getpid()}) == (backend == "threading")


def test_processes_import_nothing_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness = work_among_strangers(tmp_path, monkeypatch)
    before = dict(os.environ)
    with in_order(process_of, range(4), Workers("loky", jobs=2)) as results:
        assert [number for number, _ in results] == [0, 1, 2, 3]
    assert not witness.exists()
    assert dict(os.environ) == before


def test_processes_end_with_their_work() -> None:
    """A child process waits for its own children before it ends, and joblib would keep them for minutes."""
    before = set(multiprocessing.active_children())
    with in_order(process_of, range(4), Workers("loky", jobs=2)) as results:
        numbers = {number for _, number in results}
        assert {child.pid for child in multiprocessing.active_children()} >= numbers
    assert set(multiprocessing.active_children()) <= before


def test_processes_make_the_same_store(competition_folder: Path, reference: Path, tmp_path: Path) -> None:
    folder = ["--data", str(competition_folder), "--store", str(tmp_path)]
    assert main(["prepare", *folder, "--backend", "loky", "--jobs", "2"]) == 0
    assert contents(tmp_path) == contents(reference)


ASLEEP = """
import signal, sys, time
from kagglehms.data.workers import Workers, in_order

signal.signal(signal.SIGINT, signal.default_int_handler)  # also where these tests run in the background
try:
    with in_order(time.sleep, [0.05] * 400, Workers("loky", jobs=2)) as results:
        for _ in results:
            print(flush=True)
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_processes_that_are_interrupted_with_this_one_say_nothing() -> None:
    """A terminal sends Ctrl-C to all of them."""
    command = [sys.executable, "-c", ASLEEP]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        os.killpg(child.pid, signal.SIGINT)
        _, said = child.communicate(timeout=60)
    assert (child.returncode, said) == (130, "")


def test_a_broken_file_is_named_whoever_reads_it(competition_folder: Path, tmp_path: Path) -> None:
    folder = copied(competition_folder, tmp_path / "competition")
    broken = sorted((folder / "train_eegs").iterdir())[1]
    broken.write_bytes(broken.read_bytes()[:-100])
    recordings = recordings_of(Competition(folder), read_records(folder / "train.csv"))
    with pytest.raises(DataErrors, match=f"{broken.name}: cannot be read"):
        prepare(recordings, tmp_path / "store", workers=Workers("loky", jobs=2))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_cluster_of_two_processes_makes_the_same_store(
    competition_folder: Path,
    reference: Path,
    cluster: LocalCluster,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--data", str(competition_folder), "--store", str(tmp_path)]
    options += ["--backend", "dask", "--scheduler", cluster.scheduler_address]
    assert main(["prepare", *options]) == 0
    assert contents(tmp_path) == contents(reference)
    assert "files/s" in capsys.readouterr().out
    with in_order(process_of, range(40), Workers("dask", cluster.scheduler_address)) as results:
        numbers, processes = zip(*results, strict=True)
    assert list(numbers) == list(range(40))
    assert len(set(processes)) == 2
    assert os.getpid() not in processes


@pytest.mark.filterwarnings("default")
def test_a_scheduler_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="needs the cluster extra")
    import dask

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "0.2s"}),
        pytest.raises(UsageError, match="no Dask scheduler answers at tcp://127.0.0.1:9"),
        in_order(process_of, range(2), Workers("dask", "tcp://127.0.0.1:9")),
    ):
        pass


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.skipif(sys.platform != "linux", reason="the table of sockets is Linux's")
def test_a_dask_cluster_of_ours_listens_on_the_loopback_alone() -> None:
    """Scheduler, dashboard and workers, in whatever process."""
    pytest.importorskip("distributed", reason="needs the cluster extra")
    before = listening()
    with in_order(process_of, range(4), Workers("dask", jobs=1)) as results:
        assert [number for number, _ in results] == [0, 1, 2, 3]
        opened = listening() - before
    assert len(opened) >= 2
    assert {address for address, _ in opened} == {"0100007F"}


def listening() -> set[tuple[str, str]]:
    """Addresses and ports, as the system writes them, at which this process and its descendants listen."""
    family, sockets = {os.getpid()}, set()
    while True:
        children = {
            int(child)
            for parent in family
            for path in Path(f"/proc/{parent}/task").glob("*/children")
            for child in path.read_text().split()
        }
        if children <= family:
            break
        family |= children
    for parent in family:
        for path in Path(f"/proc/{parent}/fd").iterdir():
            with contextlib.suppress(OSError):
                sockets.add(str(path.readlink()))
    lines = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path("/proc/net", table).read_text().splitlines()[1:]
    ]
    return {
        (row[1].rpartition(":")[0], row[1].rpartition(":")[2])
        for row in lines
        if row[3] == "0A" and f"socket:[{row[9]}]" in sockets
    }


def test_a_scheduler_without_a_cluster_is_refused() -> None:
    with (
        pytest.raises(UsageError, match="--scheduler is for the backends dask and ray"),
        in_order(process_of, range(2), Workers("threading", "tcp://somewhere:8786")),
    ):
        pass


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_ray_makes_the_same_store(competition_folder: Path, reference: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs Ray, which is not part of the test extra")
    records = read_records(competition_folder / "train.csv")
    prepare(recordings_of(Competition(competition_folder), records), tmp_path, workers=Workers("ray", jobs=2))
    assert contents(tmp_path) == contents(reference)


def test_results_come_in_order_and_only_so_many_are_asked_for_in_advance() -> None:
    asked: list[int] = []

    def futures() -> Iterator[Future[int]]:
        for number in range(6):
            asked.append(number)
            future: Future[int] = Future()
            future.set_result(number)
            yield future

    results = in_advance(futures(), 2)
    for number in range(6):
        assert next(results) == number
        assert asked == list(range(min(number + 3, 6)))
    assert list(results) == []


def test_what_was_asked_for_in_vain_is_cancelled() -> None:
    waiting: list[Future[int]] = [Future() for _ in range(3)]
    waiting[0].set_result(7)
    results = in_advance(iter(waiting), 2)
    assert next(results) == 7
    results.close()
    assert [future.cancelled() for future in waiting] == [False, True, True]


def test_an_error_comes_in_its_place_and_cancels_the_rest() -> None:
    waiting: list[Future[int]] = [Future() for _ in range(3)]
    waiting[0].set_result(1)
    waiting[1].set_exception(ValueError("broken"))
    results = in_advance(iter(waiting), 1)
    assert next(results) == 1
    with pytest.raises(ValueError, match="broken"):
        next(results)
    assert waiting[2].cancelled()
