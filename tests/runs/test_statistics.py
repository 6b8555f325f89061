"""Parts of a score, against sums written out by hand and against scikit-learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runs_folder import oof_table, votes
from sklearn.metrics import confusion_matrix

from kagglehms.data.competition import CLASSES, PROBABILITY_COLUMNS, VOTE_COLUMNS
from kagglehms.data.records import Records
from kagglehms.runs.statistics import (
    Scored,
    by_class,
    by_patient,
    by_votes,
    calibration,
    confusion,
    hardest,
    mean_over_patients,
)
from kagglehms.training.metric import kl_score


def scored(n: int = 200, seed: int = 0) -> Scored:
    table = oof_table(n, seed=seed)
    return Scored(Records(table), table.select(PROBABILITY_COLUMNS).to_numpy())


def of(votes_NK: np.ndarray, predictions_NK: np.ndarray, patients_N: np.ndarray) -> Scored:
    table = pl.DataFrame(votes_NK, schema=list(VOTE_COLUMNS), orient="row")
    return Scored(Records(table.with_columns(pl.Series("patient_id", patients_N))), predictions_NK)


@pytest.mark.parametrize("group", [by_class, by_votes, by_patient])
def test_groups_are_a_partition_whose_scores_add_up(group) -> None:  # type: ignore[no-untyped-def]
    data = scored()
    groups = group(data)
    assert sum(g.n_records for g in groups) == len(data.terms_N)
    assert sum(g.share for g in groups) == pytest.approx(1)
    whole = sum(g.score * g.n_records for g in groups) / len(data.terms_N)
    assert whole == pytest.approx(data.terms_N.mean())


def test_scores_by_votes_are_those_of_the_records_themselves() -> None:
    data = scored()
    n_votes = data.records.votes_NK.sum(axis=1)
    by_label = {g.label: g for g in by_votes(data)}
    assert by_label["1–3 votes"].score == pytest.approx(data.terms_N[n_votes <= 3].mean())
    targets = data.records.targets_NK[n_votes <= 3]
    means = np.tile(targets.mean(axis=0), (len(targets), 1))
    assert by_label["1–3 votes"].prior == pytest.approx(kl_score(targets, means))
    assert by_label["1–3 votes"].uniform == pytest.approx(kl_score(targets, np.full_like(means, 1 / 6)))
    assert by_label["15+ votes"].n_records == int((n_votes >= 15).sum())


def test_patients_of_one_record_are_a_group_and_patients_can_count_alike() -> None:
    votes_NK = np.eye(6, dtype=np.int64)[[0, 0, 0, 1]]
    predictions_NK = np.full((4, 6), 0.1)
    predictions_NK[:, 0] = 0.5
    data = of(votes_NK, predictions_NK, np.array([7, 7, 7, 9]))
    one, several = by_patient(data)
    assert (one.label, one.n_records, one.error) == ("1 record", 1, None)
    assert one.score == pytest.approx(np.log(10))
    assert (several.label, several.n_records, several.n_patients) == ("2–4 records", 3, 1)
    alike = mean_over_patients(data)
    assert alike.score == pytest.approx((np.log(2) + np.log(10)) / 2)
    assert (alike.prior, alike.uniform) == pytest.approx(
        (np.log(2), np.log(6))
    )  # one patient of either class


def test_the_standard_error_takes_records_of_one_patient_together() -> None:
    """Each record copied four times, under the same patient: nothing is learnt, the error stays."""
    data = scored(60)
    lone = of(data.records.votes_NK, data.predictions_NK, np.arange(60))
    copied = of(
        *(
            np.repeat(a, 4, axis=0)
            for a in (lone.records.votes_NK, lone.predictions_NK, lone.records.patients)
        )
    )
    for before, after in zip(by_class(lone), by_class(copied), strict=True):
        assert before.error == pytest.approx(after.error)


def test_confusion_is_scikit_learns() -> None:
    data = scored()
    expected = confusion_matrix(
        data.records.votes_NK.argmax(axis=1), data.predictions_NK.argmax(axis=1), labels=range(len(CLASSES))
    )
    np.testing.assert_array_equal(confusion(data), expected)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_votes_as_predictions_are_calibrated(seed: int) -> None:
    votes_NK = votes(40, seed)
    data = of(votes_NK, votes_NK / votes_NK.sum(axis=1, keepdims=True), np.arange(40))
    for k in range(len(CLASSES)):
        measured = calibration(data, k)
        assert measured.error == pytest.approx(0, abs=1e-12)
        assert measured.counts_B.sum() == 40


def test_calibration_of_a_constant_is_its_distance_from_the_mean() -> None:
    votes_NK = votes(50)
    constant = np.tile([0.5, 0.1, 0.1, 0.1, 0.1, 0.1], (50, 1))
    data = of(votes_NK, constant, np.arange(50))
    assert calibration(data, 0).error == pytest.approx(abs(0.5 - data.records.targets_NK[:, 0].mean()))


def test_the_hardest_are_of_different_eegs_and_in_order() -> None:
    data = scored()
    eeg_ids = data.records.eeg_ids
    chosen = hardest(data, 5)
    assert len({int(eeg_ids[p]) for p in chosen}) == 5
    assert list(data.terms_N[chosen]) == sorted(data.terms_N[chosen], reverse=True)
    assert chosen[0] == int(data.terms_N.argmax())
    one_eeg = replace(data, records=Records(data.records.frame.with_columns(eeg_id=pl.lit(7))))
    assert hardest(one_eeg, 5) == [int(data.terms_N.argmax())]
