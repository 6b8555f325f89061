"""What a start from simulated weights is measured on: other patients than usual, and whole patients left out."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import cast

import numpy as np
import pytest
from runs_folder import make_run, oof_table

from kagglehms.data.records import Records
from kagglehms.data.store import Store
from kagglehms.errors import UsageError
from kagglehms.runs.folder import RunFolder
from kagglehms.simulator.patients import Patient


@pytest.fixture
def start(benchmarks: Path) -> ModuleType:
    import start_from_simulated

    return start_from_simulated


def test_patients_are_shifted_and_the_usual_ones_come_back(start: ModuleType) -> None:
    usual = Patient.draw(np.random.default_rng(3))
    with start.shifted_patients():
        other = Patient.draw(np.random.default_rng(3))
    assert other.level_uv == usual.level_uv * 1.6
    assert other.spectral_exponent == usual.spectral_exponent * 0.8
    assert other.alpha_hz == usual.alpha_hz
    assert Patient.draw(np.random.default_rng(3)) == usual


def test_the_held_out_are_the_same_whatever_is_learned_from(start: ModuleType) -> None:
    records = Records(oof_table(400))
    patients = records.patients
    held_out = np.isin(patients, np.unique(patients)[::3])
    truth_NK = np.full((len(records), 6), 1 / 6)
    data = start.Data(cast("Store", None), records, truth_NK, held_out)
    for n in (20, 100, None):
        dataset = data.dataset(n, seed=1)
        learned, judged = (dataset.records.take(dataset.folds == fold).patients for fold in (1, 0))
        assert not np.intersect1d(learned, judged).size
        assert np.array_equal(judged, patients[held_out])
        others = patients[~held_out]
        assert len(learned) == len(others) if n is None else abs(len(learned) - n) < 20
        assert len(learned) == np.isin(others, learned).sum()  # whole patients
    with pytest.raises(UsageError, match="5000 are needed"):
        data.dataset(5000)


def test_a_run_that_has_learned_is_taken_if_its_network_is_the_recipes(
    start: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "runs", "baseline")
    recipe = RunFolder(run).recipe()
    words = ["start", "--out", str(tmp_path), "--recipe", "baseline", "--seeds", "0", "--learned", str(run)]
    monkeypatch.setattr(sys, "argv", [*words, "--backbone", recipe.backbone])
    assert start._learned(start._options(), 0) == run / "fold0/weights.safetensors"
    said = start._told_of_runs(start._options())
    assert f"{RunFolder(run).info().records - len(RunFolder(run).fold_predictions(0))} records" in said
    monkeypatch.setattr(sys, "argv", [*words, "--backbone", "resnet18"])
    with pytest.raises(UsageError, match="expected resnet18"):
        start._learned(start._options(), 0)
    monkeypatch.setattr(sys, "argv", [*words, str(run)])
    with pytest.raises(SystemExit):
        start._options()
