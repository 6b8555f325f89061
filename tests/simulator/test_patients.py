"""Patients come with the backgrounds of their diseases, and are the same in all of their studies."""

from __future__ import annotations

import numpy as np
import pytest

from kagglehms.data.competition import CLASSES
from kagglehms.simulator.patients import STATES, Patient

N = 400


def patients(name: str) -> list[Patient]:
    usual_K = np.full(len(CLASSES), 0.01)
    usual_K[CLASSES.index(name)] = 0.95
    return [Patient.draw(np.random.default_rng((seed, 1)), usual_K) for seed in range(N)]


def share(of: list[Patient], state: str) -> float:
    return float(np.mean([patient.state == state for patient in of]))


def test_backgrounds_belong_to_diseases() -> None:
    by_class = {name: patients(name) for name in CLASSES}
    assert share(by_class["other"], "awake") > 2 * share(by_class["lpd"], "awake")
    assert share(by_class["gpd"], "suppressed") > 2 * share(by_class["lrda"], "suppressed")
    lesions = {name: np.mean([p.lesion > 0 for p in of]) for name, of in by_class.items()}
    assert min(lesions["lpd"], lesions["lrda"]) > max(lesions["gpd"], lesions["grda"], lesions["other"]) + 0.3
    loudness = {name: np.mean([np.log(p.level_uv) for p in of]) for name, of in by_class.items()}
    assert loudness["grda"] > loudness["other"] + 0.2


def test_both_sides_are_affected_alike() -> None:
    sides = [patient.side for patient in patients("lpd")]
    assert set(sides) == {-1.0, 1.0}
    assert np.mean(sides) == pytest.approx(0, abs=0.15)


def test_a_patient_is_mostly_the_same_in_every_study() -> None:
    patient = patients("lpd")[0]
    studies = [patient.in_study(np.random.default_rng(seed)) for seed in range(N)]
    changed = np.mean([study.side != patient.side for study in studies])
    assert changed == pytest.approx(0.1, abs=0.05)
    assert {study.state for study in studies} == {patient.state} <= set(STATES)


def test_patterns_of_quiet_patients_are_weaker_but_not_in_proportion() -> None:
    quiet, loud = Patient(level_uv=4), Patient(level_uv=16)
    assert loud.pattern_uv == pytest.approx(2 * quiet.pattern_uv)


def test_a_quiet_patient_keeps_rhythm_and_loses_artefacts() -> None:
    patient = patients("seizure")[3]
    quiet = patient.quiet()
    assert (quiet.level_uv, quiet.alpha_hz, quiet.side) == (patient.level_uv, patient.alpha_hz, patient.side)
    assert 0 < quiet.irregularity < patient.irregularity / 3
    assert (quiet.muscle_uv, quiet.bad, quiet.bridged, quiet.ventilator_uv) == (0, 0, 0, 0)
