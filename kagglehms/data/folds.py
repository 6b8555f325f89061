"""Choose records whole patients at a time: folds, and samples for quick runs."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from kagglehms.data.records import Records
from kagglehms.errors import UsageError, counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLD_SEED = 42


def limit_records(records: Records, n: int, seed: int = FOLD_SEED) -> Records:
    """Keep patients, in an order that depends on `seed` alone, until there are at least `n` records.

    Args:
        records: all records.
        n: smallest number of records to keep.
        seed: seed of the order.

    Returns:
        All records of the patients that are kept.

    Raises:
        UsageError: `n` is not positive.
    """
    if n < 1:
        raise UsageError(f"the limit must be at least 1 record, but got {n}")
    patients, patient_N = np.unique(records.patients, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(patients))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    enough = np.searchsorted(np.cumsum(np.bincount(patient_N)[order]), n)
    return records.take(rank[patient_N] <= enough)


def assign_folds(records: Records, n_folds: int = 5, seed: int = FOLD_SEED) -> NDArray[np.int8]:
    """Assign each record to a fold, with classes spread evenly and no patient in two folds.

    Classes are passed to scikit-learn by name, as in the source: it sorts them, and numbers in another order would
    give other folds. The result also depends on the version of scikit-learn, whose shuffling has changed, so runs
    store their folds.

    Args:
        records: the records.
        n_folds: number of folds, at least 2 and at most the number of patients.
        seed: seed of the shuffling.

    Returns:
        (n_records,) fold numbers from 0 to n_folds − 1.

    Raises:
        UsageError: there are fewer than two folds, or fewer patients than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    patients = records.patients
    n_patients = len(np.unique(patients))
    if n_patients < 2:
        raise UsageError(
            f"{n_folds} folds cannot be made of {counted(n_patients, 'patient')}, who stay in one fold each; "
            "use more records (a larger --limit, or none)"
        )
    if not 2 <= n_folds <= n_patients:
        raise UsageError(
            f"{n_folds} folds cannot be made of {counted(n_patients, 'patient')}; choose 2 to {n_patients} (--folds)"
        )
    classes = np.array(records.frame["expert_consensus"].to_list())
    # scikit-learn refuses only if every class has fewer records than there are folds. Here, a small sample is allowed.
    if np.unique(classes, return_counts=True)[1].max() < n_folds:
        classes = np.full_like(classes, "any")
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    folds = np.full(len(records), -1, dtype=np.int8)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        for fold, (_, held_out) in enumerate(splitter.split(classes, classes, patients)):
            folds[held_out] = fold
    return folds
