"""Tables, summary and words of a recording's prediction."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from kagglehms.data.competition import CLASSES
from kagglehms.recordings.results import Prediction, RecordingPrediction
from kagglehms.recordings.sliding import FLAGS


def prediction() -> RecordingPrediction:
    """Two hours and a bit, a window a minute; the first was not judged, the second hour is all LPD."""
    n = 125
    probabilities = np.full((n, 6), 1 / 6)
    probabilities[60:120] = np.eye(6)[1]
    probabilities[0] = np.nan
    flags = {name: np.zeros(n, bool) for name in FLAGS}
    flags["edge"][0] = True
    return RecordingPrediction(
        "x.edf", n * 60.0, 60.0, 60.0 * np.arange(n), probabilities, np.full((n, 6), 0.01), flags,
        np.zeros(n, bool), np.full(n, np.nan), ("Fp1 = EEG Fp1",), ("Fz",), ("a note",),
    )  # fmt: skip


def test_tables_have_one_row_a_window() -> None:
    found = prediction()
    frame = found.to_polars()
    assert frame.columns[:7] == ["start_s", *CLASSES]
    assert frame.height == len(found) == 125
    assert frame["seizure"].null_count() == 1
    assert frame["judged"].to_list() == [False] + [True] * 124
    assert frame["edge"].to_list() == [True] + [False] * 124
    table = found.to_pandas()
    assert isinstance(table, pd.DataFrame)
    assert table.columns.to_list() == frame.columns
    np.testing.assert_array_equal(table[list(CLASSES)].to_numpy(), found.probabilities)


def test_windows_of_a_prediction_are_taken_one_by_one() -> None:
    rows = np.random.default_rng(0).dirichlet(np.ones(6), 3)
    several = Prediction(rows, np.array([False, True, False]), np.array([True, False, False]), rows / 10)
    single = Prediction(rows[1], np.array(True), np.array(False), rows[1] / 10)
    for found, expected in ((several, rows), (several[1], rows[1:2]), (single, rows[1:2])):
        assert len(found) == len(expected)
        assert len(list(found)) == len(expected)
        for i, one in enumerate(found):
            assert one.probabilities.shape == one.spread.shape == (6,)
            np.testing.assert_array_equal(one.probabilities, expected[i])
            np.testing.assert_array_equal(one.spread, expected[i] / 10)
        np.testing.assert_array_equal(found[-1].probabilities, expected[-1])
        with pytest.raises(IndexError):
            found[len(expected)]
    assert [(bool(one.from_prior), bool(one.from_fewer_models)) for one in several] == [
        (False, True),
        (True, False),
        (False, False),
    ]
    assert bool(single[0].from_prior)
    assert not bool(single[0].from_fewer_models)


def test_the_burden_is_the_mean_of_each_hour() -> None:
    hours = prediction().burden()
    assert [hour["hour"] for hour in hours] == [0, 1, 2]
    assert hours[0]["judged_share"] == pytest.approx(59 / 60)
    assert hours[0]["lpd"] == pytest.approx(1 / 6)
    assert hours[1]["lpd"] == 1
    assert hours[2]["seizure"] == pytest.approx(1 / 6)


def test_the_summary_is_json_and_says_what_it_is_not() -> None:
    summary = json.loads(json.dumps(prediction().summary(), allow_nan=False))
    assert "not a medical device" in summary["warning"]
    assert (summary["windows"], summary["judged"], summary["flags"]["edge"]) == (125, 124, 1)
    assert summary["events"]["lpd"] == 1
    assert summary["missing_electrodes"] == ["Fz"]
    assert summary["mapping"] == ["Fp1 = EEG Fp1"]
    assert summary["notes"] == ["a note"]
    assert len(summary["burden_per_hour"]) == 3


def test_nothing_judged_is_said_and_not_made_up() -> None:
    found = prediction()
    found.probabilities[:] = np.nan
    summary = json.loads(json.dumps(found.summary(), allow_nan=False))
    assert summary["judged"] == 0
    assert set(summary["mean_probability"].values()) == {None}
    assert summary["burden_per_hour"][0]["lpd"] is None
    assert "0 judged" in repr(found)


def test_the_words_are_readable() -> None:
    text = repr(prediction())
    assert text.splitlines()[0] == (
        "RecordingPrediction of x.edf: 7500 s, 125 windows of 10 s every 60 s, 124 judged (flagged: 1 edge)"
    )
    assert "mean: lpd 0.57" in text
    assert "note: a note" in text
    assert "not a medical device" in text
