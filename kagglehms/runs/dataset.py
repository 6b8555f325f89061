"""What a run is trained on: decoded recordings, labelled records, and the fold of each record."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from kagglehms.data.competition import Competition
from kagglehms.data.folds import assign_folds, limit_records
from kagglehms.data.records import Records, read_records
from kagglehms.data.store import Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Identity:
    """Digests of the three parts of a dataset: runs with equal ones have seen the same data.

    Attributes:
        store: fingerprint of the decoded recordings.
        records: digest of the labelled records.
        folds: digest of the fold numbers.
    """

    store: str
    records: str
    folds: str


@dataclass(frozen=True)
class Dataset:
    """Everything that a run needs of the data.

    Attributes:
        store: decoded recordings.
        records: labelled records.
        folds: (n_records,) fold number of each record.
    """

    store: Store
    records: Records
    folds: NDArray[np.int8]

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
        """Digests of store, records and folds."""
        folds = hashlib.sha256(self.folds.tobytes()).hexdigest()
        return Identity(self.store.fingerprint, self.records.digest, folds)


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
