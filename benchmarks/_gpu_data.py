"""A simulated competition for the parts that need one: made beside the first parts, on the cores that they leave."""

from __future__ import annotations

import time
from pathlib import Path

from _gpu_book import Book
from _gpu_parts import Circumstances

from kagglehms.data.competition import Competition, truth_folder
from kagglehms.environment import available_cpus
from kagglehms.files import write_bytes
from kagglehms.simulator.competition import make_competition

SEED = 2024
N_TEST, N_TEST_DRY = 300, 8
N_EEGS, N_EEGS_DRY = 1500, 14
_DONE = "done"


def run(told: Circumstances, book: Book) -> None:
    """Simulate the test set first, which the scored run needs, and then the training set, which the ladder needs."""
    folders = (test_folder(told.scratch), train_folder(told.scratch))
    sizes = ((1, N_TEST_DRY if told.dry_run else N_TEST), (N_EEGS_DRY if told.dry_run else N_EEGS, 1))
    jobs = max(1, available_cpus() * 3 // 4)
    wanted = 2 if told.ladder else 1
    for folder, (n_eegs, n_test) in list(zip(folders, sizes, strict=True))[:wanted]:
        start = time.monotonic()
        make_competition(folder, n_eegs, n_test, SEED, jobs)
        write_bytes(_mark(folder), b"")
        seconds = round(time.monotonic() - start, 1)
        book.note("simulated", n_eegs=n_eegs, n_test=n_test, seconds=seconds, jobs=jobs)


def test_folder(scratch: Path) -> Path:
    return scratch / "test-set"


def train_folder(scratch: Path) -> Path:
    return scratch / "competition"


def simulated(folder: Path) -> Competition:
    """A competition that is complete.

    Raises:
        FileNotFoundError: its simulation has not come to its end.
    """
    if not _mark(folder).exists():
        raise FileNotFoundError(f"{folder.name} has not been simulated to its end")
    return Competition(folder)


def truth_csv(folder: Path) -> Path:
    return truth_folder(folder.resolve()) / "train_truth.csv"


def _mark(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}-{_DONE}")
