"""Teachers: finished runs whose out-of-fold predictions are another run's pseudo labels, without a leak.

A prediction of a record is only evidence about its patient if the network that made it did not learn from that patient.
Folds hold out whole patients, so the prediction of the fold that held a record out is such evidence. This is checked:
which records each fold of a teacher predicts, whose records these are, and that teacher and student are of the same
records and folds.

A student cannot be a teacher: through its pseudo labels it learned from networks that saw its held-out patients.

Shape legend: N records, K the six classes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kagglehms.data.competition import CLASSES, PROBABILITY_COLUMNS
from kagglehms.errors import RunError, closest
from kagglehms.runs.dataset import Dataset
from kagglehms.runs.folder import RunFolder, find_runs
from kagglehms.runs.identity import is_finished, with_stored_folds
from kagglehms.training.recipes import Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray


def with_teachers(dataset: Dataset, recipe: Recipe, *runs: Path) -> Dataset:
    """Return the dataset with the predictions of a recipe's teachers; the same dataset if it has none.

    A run that has not begun takes the folds of its first teacher, as another release of scikit-learn cuts other folds.

    Args:
        dataset: data that the recipe is trained on.
        recipe: recipe that may have teachers.
        runs: folders of all runs, in the order in which a teacher is looked for.

    Raises:
        RunError: a teacher is missing, unfinished or broken, has teachers itself, is of other data, records or folds,
            or predicts a record whose patient it learned from.
    """
    if not recipe.teachers:
        return dataset
    found = {name: _find(name, recipe, runs) for name in recipe.teachers}
    if not RunFolder(runs[0] / recipe.name).begun:
        dataset = with_stored_folds(found[recipe.teachers[0]], dataset)
    _refuse_split_patients(dataset, recipe)
    teachers = {name: _predictions(folder, dataset, recipe) for name, folder in found.items()}
    return replace(dataset, teachers=teachers)


def _find(name: str, student: Recipe, runs: tuple[Path, ...]) -> RunFolder:
    folders = [RunFolder(path / name) for path in runs]
    begun = [folder for folder in folders if folder.begun]
    if begun:
        return begun[0]
    there = [run.name for run in find_runs(runs[0])]
    listed = closest(name, there) if there else "there is none at all"
    raise RunError(
        f"{folders[0].path}: no such run, and {student.name} learns from its predictions; {listed}; train it first: "
        f"kagglehms train {name}"
    )


def _refuse_split_patients(dataset: Dataset, student: Recipe) -> None:
    """Raises RunError if a patient's records are in more than one fold."""
    patients, first, codes = np.unique(dataset.records.patients, return_index=True, return_inverse=True)
    split = np.flatnonzero(dataset.folds != dataset.folds[first][codes])
    if split.size:
        record = int(split[0])
        patient = codes[record]
        raise RunError(
            f"{student.name} cannot have teachers: records of patient {patients[patient]} are in folds "
            f"{dataset.folds[first[patient]]} and {dataset.folds[record]}, so that a teacher of one has learned from "
            "the other; cut the folds by patient"
        )


def _predictions(folder: RunFolder, dataset: Dataset, student: Recipe) -> NDArray[np.float64]:
    """Read the (N, 6) out-of-fold predictions of one teacher."""
    _refuse_other_data(folder, dataset, student)
    info, n_folds = folder.info(), dataset.n_folds
    unfinished = [k for k in range(n_folds) if not is_finished(folder, k, info.fingerprint)]
    if unfinished:
        raise RunError(
            f"{folder.path}: {len(unfinished)} of {n_folds} folds are not trained, and {student.name} learns from all "
            f"of them; finish it: {folder.finishing}"
        )
    predictions_NK = np.full((len(dataset.records), len(CLASSES)), np.nan)
    for fold in range(n_folds):
        table = folder.fold_predictions(fold)
        records = table["record"].to_numpy()
        _refuse_seen_records(folder, fold, records, table["patient_id"].to_numpy(), dataset)
        predictions_NK[records] = table.select(PROBABILITY_COLUMNS).to_numpy()
    return predictions_NK


def _refuse_other_data(folder: RunFolder, dataset: Dataset, student: Recipe) -> None:
    """Raises RunError if a teacher is of other data than its student, or has teachers itself."""
    there, here = folder.info().identity.of_data, dataset.identity.of_data
    other = [name for name in here if there[name] != here[name]]
    if other:
        raise RunError(
            f"{folder.path}: cannot teach {student.name}, because it was trained on other {' and '.join(other)} and "
            f"may have learned from the patients whose records it predicts; train {folder.name} on the data and folds "
            f"of {student.name}, or leave it out of the teachers"
        )
    own = folder.recipe().teachers
    if own:
        raise RunError(
            f"{folder.path}: cannot teach {student.name}, because it learned from {', '.join(own)}, which learned from "
            "the patients that it held out; name those instead"
        )


def _refuse_seen_records(
    folder: RunFolder,
    fold: int,
    records: NDArray[np.int64],
    patients: NDArray[np.int64],
    dataset: Dataset,
) -> None:
    """Raises RunError unless a fold predicts all records that it held out, and no others."""
    held_out = np.flatnonzero(dataset.folds == fold)
    seen = np.setdiff1d(records, held_out)
    hint = f"delete {folder.fold(fold)} and train that fold again"
    if seen.size:
        whose = f" of patient {dataset.records.patients[seen[0]]}" if seen[0] < len(dataset.records) else ""
        raise RunError(
            f"{folder.fold(fold)}: predicts record {seen[0]}{whose}, which it learned from and did not hold out; {hint}"
        )
    if len(records) < len(held_out):
        raise RunError(
            f"{folder.fold(fold)}: predicts {len(records)} of the {len(held_out)} records that it held out; {hint}"
        )
    other = np.flatnonzero(patients != dataset.records.patients[records])
    if other.size:
        record = records[other[0]]
        raise RunError(
            f"{folder.fold(fold)}: record {record} is of patient {patients[other[0]]} there, and of "
            f"{dataset.records.patients[record]} in train.csv; {hint}"
        )
