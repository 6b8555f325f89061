"""A simulated competition to learn from, decoded, of which whole patients are held out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import Competition, truth_folder
from kagglehms.data.preparing import prepare, recordings_of
from kagglehms.data.records import Records, read_records
from kagglehms.data.store import Store
from kagglehms.progress import progress
from kagglehms.runs.baselines import read_truth
from kagglehms.simulator.competition import make_competition

HELD_OUT_EVERY = 3
"""Of the patients in the order of their ids, each third is held out: as no library of another version would have it."""


@dataclass(frozen=True)
class SimulatedSet:
    """Recordings and records of a simulated competition, with their truth.

    Attributes:
        store: its recordings.
        records: its records.
        truth_NK: (n, 6) true probabilities of the records.
        held_out: (n,) True for the records of every third patient.
    """

    store: Store
    records: Records
    truth_NK: NDArray[np.float64]
    held_out: NDArray[np.bool_]

    @classmethod
    def make(cls, folder: Path, n_eegs: int, seed: int, easy: bool = False) -> Self:
        """Simulate and decode it, or complete what is there."""
        root = folder / "competition"
        make_competition(root, n_eegs, 1, seed, easy=easy)
        competition = Competition(root)
        records = read_records(competition.train_csv)
        store = prepare(recordings_of(competition, records), folder / "store", _watch).store
        truth_NK = read_truth(truth_folder(root.resolve()) / "train_truth.csv", records.frame)
        held_out = np.isin(records.patients, np.unique(records.patients)[::HELD_OUT_EVERY])
        return cls(store, records, truth_NK, held_out)


def _watch(items: Iterable[Any], total: int) -> Iterable[Any]:
    return progress(items, total, "decode")
