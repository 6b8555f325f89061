"""Folds spread classes and part patients; samples keep whole patients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from train_tables import GOOD, written

from kagglehms.data.competition import VOTE_COLUMNS
from kagglehms.data.folds import assign_folds, limit_records
from kagglehms.data.records import make_records, read_records
from kagglehms.errors import UsageError


@pytest.mark.slow
def test_folds_of_the_real_table(real_train_table: Path) -> None:
    records = read_records(real_train_table)
    folds = assign_folds(records)
    assert np.array_equal(folds, assign_folds(records))
    assert np.bincount(folds).tolist() == [4025] * 5
    patients = records.frame["patient_id"].to_numpy()
    for fold in range(5):
        assert not set(patients[folds == fold]) & set(patients[folds != fold])


def test_folds_part_patients_and_cover_everything(competition_folder: Path) -> None:
    records = read_records(competition_folder / "train.csv")
    folds = assign_folds(records, 3)
    assert sorted(set(folds.tolist())) == [0, 1, 2]
    patients = records.frame["patient_id"].to_numpy()
    for patient in np.unique(patients):
        assert len(set(folds[patients == patient])) == 1
    assert np.array_equal(folds, assign_folds(records, 3))
    assert any(not np.array_equal(folds, assign_folds(records, 3, seed)) for seed in range(20))


def test_folds_are_those_that_the_class_names_give() -> None:
    """As the source calls scikit-learn: names as they stand in train.csv. Numbers give other folds."""
    from sklearn.model_selection import StratifiedGroupKFold

    draw = np.random.default_rng(0)
    rows = draw.integers(0, 6, 400)
    names = np.array(["Seizure", "LPD", "GPD", "LRDA", "GRDA", "Other"])[rows]
    patients = draw.integers(0, 90, 400)
    n = np.arange(400)
    table = {"eeg_id": n, "eeg_sub_id": n, "spectrogram_id": n, "label_id": n, "patient_id": patients}
    table |= dict.fromkeys(("eeg_label_offset_seconds", "spectrogram_label_offset_seconds"), np.zeros(400))
    table |= {"expert_consensus": names, **dict(zip(VOTE_COLUMNS, np.eye(6, dtype=int)[rows].T, strict=True))}
    records = make_records(pl.DataFrame(table))

    def cut(classes: np.ndarray) -> np.ndarray:
        splitter = StratifiedGroupKFold(n_splits=5, shuffle=True, random_state=42)
        folds = np.full(400, -1)
        for fold, (_, held_out) in enumerate(splitter.split(n, y=classes, groups=patients)):
            folds[held_out] = fold
        return folds

    folds = assign_folds(records)
    np.testing.assert_array_equal(folds, cut(names))
    assert not np.array_equal(folds, cut(rows))


def test_a_sample_of_rare_classes_is_still_cut_into_folds(tmp_path: Path) -> None:
    """scikit-learn refuses where no class has as many records as there are folds."""
    records = read_records(written(GOOD, tmp_path))
    assert sorted(set(assign_folds(records, 2).tolist())) == [0, 1]


def test_more_folds_than_patients_are_refused(tmp_path: Path) -> None:
    records = read_records(written(GOOD, tmp_path))
    with pytest.raises(UsageError, match="3 folds cannot be made of 2 patient"):
        assign_folds(records, 3)


def test_one_patient_is_refused_without_naming_a_range_that_is_empty(tmp_path: Path) -> None:
    records = read_records(written(GOOD, tmp_path))
    alone = records.take(records.patients == records.patients[0])
    with pytest.raises(UsageError, match="--limit") as refused:
        assign_folds(alone, 2)
    assert "choose" not in str(refused.value)


def test_limits_keep_whole_patients(competition_folder: Path) -> None:
    records = read_records(competition_folder / "train.csv")
    few = limit_records(records, 5)
    assert 5 <= len(few) < len(records)
    patients = set(few.frame["patient_id"].to_list())
    assert len(few) == sum(p in patients for p in records.frame["patient_id"].to_list())
    assert limit_records(records, 5).digest == few.digest
    assert len(limit_records(records, 10**6)) == len(records)
