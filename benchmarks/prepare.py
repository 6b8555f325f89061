"""Decoding a competition: `kagglehms prepare` by each of its engines against a pandas loop over the same files.

    python benchmarks/prepare.py [--eegs 60] [--rounds 5] [--backends threading loky dask]

The pandas loop does what the notebooks do: read_parquet, to NumPy in float32, into a dictionary (and nothing of what
`prepare` does besides: checks, logarithm, half precision, checksums, a file that survives a power failure). All run in
turn in one process over a simulated competition; figures are medians over the rounds. Below it: what comparing the
store's checksums costs, all at once (`kagglehms verify`) and recording by recording in training.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from _measure import finish, machine, table, versions
from numpy.typing import NDArray

from kagglehms.data.competition import Competition
from kagglehms.data.preparing import RecordingFile, _decode, prepare, recordings_of
from kagglehms.data.records import read_records
from kagglehms.data.store import Store
from kagglehms.data.workers import BACKENDS, Backend, Workers, in_order
from kagglehms.environment import available_cpus
from kagglehms.simulator.competition import make_competition

PACKAGES = ("polars", "pandas", "pyarrow", "joblib", "distributed", "numpy")


def pandas_loop(recordings: list[RecordingFile]) -> dict[tuple[str, int], NDArray[np.float32]]:
    arrays = {}
    for recording in recordings:
        frame = pd.read_parquet(recording.path)
        arrays[recording.kind, recording.id] = frame.to_numpy(dtype=np.float32)
    return arrays


def decode_only(recordings: list[RecordingFile]) -> None:
    with in_order(_decode, recordings, Workers()) as results:
        for _ in results:
            pass


def seconds_of_call(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def checksum_costs(path: Path, rounds: int) -> dict[str, float]:
    """Return GB/s of a whole check, and the microseconds of the first use of an EEG, which sums it, and of a later."""
    gigabytes = sum(file.stat().st_size for file in path.glob("*.f16")) / 1e9
    whole, first, later = [], [], []
    ids = [entry.id for entry in Store(path).entries if entry.kind == "eeg"]

    def use(store: Store) -> None:
        for id_ in ids:
            store.eeg(id_)

    for _ in range(rounds):
        store = Store(path)
        for seconds in (first, later):
            seconds.append(seconds_of_call(partial(use, store)) / len(ids))
        whole.append(seconds_of_call(store.verify))
    return {
        "gigabytes": gigabytes,
        "verify_gb_s": gigabytes / statistics.median(whole),
        "eeg_megabytes": (path / "eeg.f16").stat().st_size / 1e6 / len(ids),
        "first_use_us": 1e6 * statistics.median(first),
        "later_use_us": 1e6 * statistics.median(later),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--eegs", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=["threading", "loky", "dask"])
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        make_competition(folder / "competition", n_eegs=chosen.eegs, n_test=1, seed=0)
        competition = Competition(folder / "competition")
        recordings = recordings_of(competition, read_records(competition.train_csv))
        scheduler = None
        if "dask" in chosen.backends:  # started once, as a cluster stands ready
            from distributed import LocalCluster

            options = {"n_workers": available_cpus(), "threads_per_worker": 1, "dashboard_address": None}
            scheduler = stack.enter_context(LocalCluster(**options)).scheduler_address

        def store_by(backend: Backend) -> Callable[[], object]:
            workers = Workers(backend, scheduler if backend == "dask" else None)

            def call() -> None:
                prepare(recordings, folder / backend, workers=workers)

            return call

        contenders: dict[str, Callable[[], object]] = {
            "pandas loop": lambda: pandas_loop(recordings),
            "decoding alone, threading": lambda: decode_only(recordings),
        }
        contenders |= {f"prepare, {backend}": store_by(backend) for backend in chosen.backends}
        seconds: dict[str, list[float]] = {key: [] for key in contenders}
        for number in range(chosen.rounds + 1):
            for key, call in contenders.items():
                shutil.rmtree(folder / key.removeprefix("prepare, "), ignore_errors=True)
                took = seconds_of_call(call)
                if number:  # the first round warms up
                    seconds[key].append(took)
        costs = checksum_costs(folder / chosen.backends[0], chosen.rounds)
        megabytes = sum(recording.path.stat().st_size for recording in recordings) / 1e6
    median = {key: statistics.median(values) for key, values in seconds.items()}
    print(
        f"{machine()}; {versions(*PACKAGES)}; {len(recordings)} files, {megabytes:.0f} MB; medians of {chosen.rounds}\n"
    )
    rows = [
        (
            key,
            f"{len(recordings) / value:.0f}",
            f"{megabytes / value:.0f}",
            f"{median['pandas loop'] / value:.2f} ×",
        )
        for key, value in median.items()
    ]
    print(table(("", "files/s", "MB/s of parquet", "against pandas"), rows))
    print(
        f"\nchecksums: {costs['verify_gb_s']:.1f} GB/s over all {costs['gigabytes']:.2f} GB; an EEG of "
        f"{costs['eeg_megabytes']:.1f} MB takes {costs['first_use_us']:.0f} µs on its first use, "
        f"{costs['later_use_us']:.1f} µs later"
    )
    finish({"files": len(recordings), "megabytes": megabytes, "seconds": median, "checksums": costs})


if __name__ == "__main__":
    main()
