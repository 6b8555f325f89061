"""Why a run predicts what it predicts for a sub-window."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from kagglehms.data.competition import CLASSES
from kagglehms.data.records import Records
from kagglehms.data.store import Store
from kagglehms.device import choose_device
from kagglehms.errors import RunError, UsageError
from kagglehms.report.eeg_view import load_view
from kagglehms.report.explaining import Reasons, reasons
from kagglehms.runs.dataset import Dataset


@pytest.fixture
def runs(dist: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(dist.parent / "runs", tmp_path / "runs"))


def why(eeg_id: int, data: Path, store: Path, runs: Path) -> Reasons:
    view = load_view(eeg_id, data, store, runs)
    return reasons(view, view.windows[0], data, store, runs, None, choose_device("cpu"))


def test_the_network_that_explains_has_not_seen_the_patient(
    runs: Path, competition_folder: Path, records: Records, store: Store
) -> None:
    dataset = Dataset.of(store, records, 2)
    for fold in (0, 1):
        position = int(np.flatnonzero(dataset.folds == fold)[0])
        eeg_id = int(records.frame["eeg_id"][position])
        found = why(eeg_id, competition_folder, store.path, runs)
        assert (found.fold, found.unseen) == (fold, True)
        patients = set(records.frame["patient_id"].to_numpy()[dataset.folds == fold].tolist())
        assert found.cases
        assert not patients & {case.patient_id for case in found.cases}
        assert found.explanation.probabilities.sum() == pytest.approx(1)
        assert found.explanation.most_likely in CLASSES
        assert "has not seen this patient" in found.text
        assert str(found.cases[0].eeg_id) in found.text


def test_without_a_trained_run_it_is_refused_in_a_sentence(
    competition_folder: Path, records: Records, store: Store, tmp_path: Path
) -> None:
    eeg_id = int(records.frame["eeg_id"][0])
    with pytest.raises(UsageError, match="holds no run with a finished fold"):
        why(eeg_id, competition_folder, store.path, tmp_path / "nothing")


def test_a_run_of_other_records_is_refused(
    runs: Path, competition_folder: Path, records: Records, store: Store, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(competition_folder, tmp_path / "other"))
    lines = (other / "train.csv").read_text().splitlines(keepends=True)
    kept = [line for line in lines if str(records.frame["eeg_id"][3]) not in line]
    (other / "train.csv").write_text("".join(kept))
    with pytest.raises(RunError, match="was trained on other records"):
        why(int(records.frame["eeg_id"][0]), other, store.path, runs)
