"""The floor: the perfect predictor's score by hand, the truth of each record, the way from prior to perfect."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from kagglehms.data.competition import CLASSES, PROBABILITY_COLUMNS, VOTE_COLUMNS, Competition, truth_folder
from kagglehms.data.records import Records
from kagglehms.errors import DataError
from kagglehms.runs.baselines import (
    Floor,
    energy_baseline,
    measure_floor,
    read_truth,
    recovered,
)
from kagglehms.simulator.studies import draw_studies
from kagglehms.training.metric import kl_score


@pytest.fixture(scope="module")
def truth_csv(competition_folder: Path) -> Path:
    return truth_folder(competition_folder) / "train_truth.csv"


@pytest.fixture(scope="module")
def floor(competition_folder: Path, truth_csv: Path) -> Floor:
    return measure_floor(Competition(competition_folder), truth_csv)


def test_the_perfect_score_is_the_mean_divergence_from_the_truth(
    floor: Floor, records: Records, truth_csv: Path
) -> None:
    truth = {row[:7]: row[7:] for row in pl.read_csv(truth_csv).rows()}
    terms = []
    for key in records.frame.select("eeg_id", *VOTE_COLUMNS).rows():
        votes, probabilities = np.array(key[1:]), np.array(truth[key])
        share = votes / votes.sum()
        terms.append(sum(s * np.log(s / p) for s, p in zip(share, probabilities, strict=True) if s))
    assert floor.n_records == len(terms)
    assert floor.perfect[0] == pytest.approx(np.mean(terms), rel=1e-6)
    many = records.many
    assert floor.n_votes10 == many.sum()
    assert floor.perfect[1] == pytest.approx(np.mean(np.array(terms)[many]), rel=1e-6)


def test_the_prior_is_the_mean_target(floor: Floor, records: Records) -> None:
    targets = records.targets_NK
    assert floor.prior[0] == pytest.approx(
        kl_score(targets, np.tile(targets.mean(axis=0), (len(targets), 1)))
    )
    many = targets[records.many]
    assert floor.prior[1] == pytest.approx(kl_score(many, np.tile(many.mean(axis=0), (len(many), 1))))
    assert floor.uniform[0] == pytest.approx(kl_score(targets, np.full_like(targets, 1 / 6)))
    assert floor.uniform[1] == pytest.approx(kl_score(many, np.full_like(many, 1 / 6)))
    assert floor.perfect[0] < floor.prior[0] < floor.uniform[0]
    assert "perfect predictor" in floor.sentence
    assert f"{floor.prior[0]:.4f}" in floor.sentence


def test_labels_with_the_same_votes_in_one_eeg_share_their_mean(tmp_path: Path) -> None:
    rows = [
        [1, 3, 0, 0, 0, 0, 0, *p]
        for p in ((0.9, 0.02, 0.02, 0.02, 0.02, 0.02), (0.5, 0.1, 0.1, 0.1, 0.1, 0.1))
    ]
    table = pl.DataFrame(rows, schema=["eeg_id", *VOTE_COLUMNS, *PROBABILITY_COLUMNS], orient="row")
    table.write_csv(tmp_path / "truth.csv")
    truth = read_truth(tmp_path / "truth.csv", table[:1])
    np.testing.assert_allclose(truth, [[0.7, 0.06, 0.06, 0.06, 0.06, 0.06]])


def test_the_truth_of_another_competition_is_refused(truth_csv: Path, records: Records) -> None:
    other = records.frame.with_columns(pl.col("eeg_id") + 1)
    with pytest.raises(DataError, match=rf"lacks {len(records)} of the records.*another competition"):
        read_truth(truth_csv, other)


def test_the_way_from_prior_to_perfect() -> None:
    assert recovered(1.2, prior=1.2, perfect=0.2) == 0
    assert recovered(0.2, prior=1.2, perfect=0.2) == 1
    assert recovered(0.45, prior=1.2, perfect=0.2) == pytest.approx(0.75)
    assert recovered(1.3, prior=1.2, perfect=0.2) < 0


def planned_records(n_eegs: int) -> tuple[Records, np.ndarray]:
    """Records without signals, and the truth of each."""
    rows = []
    for study in draw_studies(n_eegs, 1, np.random.default_rng(0)):
        for recording in study.recordings:
            for label in recording.labels[:1]:
                rows.append([recording.eeg_id, study.patient_id, "Other", *label.votes, *label.probabilities])
    schema = ["eeg_id", "patient_id", "expert_consensus", *VOTE_COLUMNS, *PROBABILITY_COLUMNS]
    table = pl.DataFrame(rows, schema=schema, orient="row")
    return Records(table), table.select(PROBABILITY_COLUMNS).to_numpy()


def test_the_regression_finds_what_is_in_its_features_and_nothing_in_noise() -> None:
    records, truth_NK = planned_records(600)
    targets = records.targets_NK
    prior = kl_score(targets, np.tile(targets.mean(axis=0), (len(targets), 1)))
    told = kl_score(targets, energy_baseline(np.log(truth_NK + 1e-3), records))
    noise = np.random.default_rng(1).standard_normal((len(records), 6))
    assert told < 0.75 * prior
    assert kl_score(targets, energy_baseline(noise, records)) > 0.97 * prior


def test_no_patient_is_predicted_by_a_model_that_saw_it() -> None:
    """The features name the patient; a model that saw any of its records would know their class."""
    records, _ = planned_records(300)
    patients = records.frame["patient_id"].to_numpy()
    one_hot = (patients[:, None] == np.unique(patients)[None]).astype(np.float64)
    targets = records.targets_NK
    prior = kl_score(targets, np.tile(targets.mean(axis=0), (len(targets), 1)))
    assert kl_score(targets, energy_baseline(one_hot, records)) > 0.98 * prior


def test_one_patient_gets_the_prior() -> None:
    records, _ = planned_records(300)
    alone = records.take(np.flatnonzero(records.frame["patient_id"] == records.frame["patient_id"][0]))
    predicted = energy_baseline(np.zeros((len(alone), 1)), alone)
    np.testing.assert_allclose(predicted, np.tile(alone.targets_NK.mean(axis=0), (len(alone), 1)))
    assert predicted.shape[1] == len(CLASSES)
