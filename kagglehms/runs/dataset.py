"""What a run is trained on: decoded recordings, labelled records, and the fold of each record."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from kagglehms.data.competition import Competition
from kagglehms.data.folds import assign_folds, limit_records
from kagglehms.data.records import Records, read_records
from kagglehms.data.store import Store
from kagglehms.training.pseudo_labels import Predictions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Identity:
    """Digests of the parts of a dataset: runs with equal ones have seen the same data.

    Attributes:
        store: fingerprint of the decoded recordings.
        records: digest of the labelled records.
        folds: digest of the fold numbers.
        teachers: digest of the predictions of each run that pseudo labels are made from, by its name.
    """

    store: str
    records: str
    folds: str
    teachers: dict[str, str] = field(default_factory=dict)

    @property
    def of_data(self) -> dict[str, str]:
        """Digests without those of teachers, by what they are of."""
        return {"store": self.store, "records": self.records, "folds": self.folds}

    @property
    def parts(self) -> dict[str, str]:
        """All digests, by what they are of."""
        return self.of_data | {f"predictions of {name}": digest for name, digest in self.teachers.items()}


@dataclass(frozen=True)
class Dataset:
    """Everything that a run needs of the data.

    Attributes:
        store: decoded recordings.
        records: labelled records.
        folds: (n_records,) fold number of each record.
        teachers: (n_records, 6) out-of-fold predictions of each run that pseudo labels are made from, by its name.
    """

    store: Store
    records: Records
    folds: NDArray[np.int8]
    teachers: Predictions = field(default_factory=dict)

    @classmethod
    def of(cls, store: Store, records: Records, n_folds: int) -> Dataset:
        """Cut `records` into `n_folds` folds of whole patients."""
        return cls(store, records, assign_folds(records, n_folds))

    @property
    def n_folds(self) -> int:
        """Number of folds."""
        return int(self.folds.max()) + 1

    @cached_property
    def identity(self) -> Identity:
        """Digests of store, records, folds and predictions of teachers."""
        folds = hashlib.sha256(self.folds.tobytes()).hexdigest()
        teachers = {
            name: hashlib.sha256(predictions_NK.tobytes()).hexdigest()
            for name, predictions_NK in self.teachers.items()
        }
        return Identity(self.store.fingerprint, self.records.digest, folds, teachers)


def open_dataset(data: Path, store: Path, n_folds: int = 5, limit: int | None = None) -> Dataset:
    """Open what `kagglehms train` trains on.

    Args:
        data: folder of the competition.
        store: folder that `kagglehms prepare` wrote.
        n_folds: number of folds of whole patients.
        limit: approximate number of records to keep, in whole patients; None keeps all.

    Raises:
        UsageError: there is no store, or there are too few patients for the folds.
        DataError: train.csv is missing or cannot be used.
    """
    opened = Store(store)
    records = read_records(Competition(data).train_csv)
    return Dataset.of(opened, records if limit is None else limit_records(records, limit), n_folds)
