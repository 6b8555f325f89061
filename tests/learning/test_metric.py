"""The score, against SciPy's relative entropy and numbers worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import rel_entr

from kagglehms.errors import UsageError
from kagglehms.learning.metric import kl_score, kl_terms, mean_scores

positive = st.floats(0.01, 1)
vectors = hnp.arrays(np.float64, (5, 6), elements=positive).map(lambda a: a / a.sum(axis=1, keepdims=True))


@given(vectors, vectors)
def test_it_is_the_mean_relative_entropy(targets: np.ndarray, predictions: np.ndarray) -> None:
    expected = rel_entr(targets, predictions).sum(axis=1)
    np.testing.assert_allclose(kl_terms(targets, predictions), expected, rtol=1e-12, atol=1e-15)
    assert kl_score(targets, predictions) == pytest.approx(expected.mean(), rel=1e-12, abs=1e-15)
    assert kl_score(targets, targets) == pytest.approx(0, abs=1e-15)


def test_worked_by_hand() -> None:
    target = [[0.5, 0.5, 0, 0, 0, 0]]
    prediction = [[0.25, 0.125, 0.625, 0, 0, 0]]
    assert kl_score(target, prediction) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(4), rel=1e-15)
    assert kl_score([[1, 0, 0, 0, 0, 0]], [[1 / 6] * 6]) == pytest.approx(math.log(6), rel=1e-15)


def test_a_prediction_of_zero_is_clipped() -> None:
    score = kl_score([[1, 0, 0, 0, 0, 0]], [[0, 1, 0, 0, 0, 0]])
    assert score == pytest.approx(-math.log(1e-15), rel=1e-15)
    # A prediction of one is clipped too, so even certainty that is right costs something.
    assert kl_score([[1, 0, 0, 0, 0, 0]], [[1, 0, 0, 0, 0, 0]]) == pytest.approx(-math.log1p(-1e-15))


def test_floors_of_the_real_labels(real_train_table: Path) -> None:
    from kagglehms.data.records import make_records, read_train_table

    records = make_records(read_train_table(real_train_table))
    targets, many = records.targets_NK, records.many_votes
    uniform = np.full_like(targets, 1 / 6)
    prior = np.tile(targets.mean(axis=0), (len(targets), 1))
    assert mean_scores(targets, uniform, many) == pytest.approx((1.4535, 1.1378), abs=5e-5)
    assert mean_scores(targets, prior, many) == pytest.approx((1.2798, 0.9310), abs=5e-5)
    own = np.tile(targets[many].mean(axis=0), (many.sum(), 1))
    assert kl_score(targets[many], own) == pytest.approx(0.8494, abs=5e-5)


def test_no_record_with_many_votes_has_no_score() -> None:
    rows = np.full((2, 6), 1 / 6)
    assert mean_scores(rows, rows, np.zeros(2, bool))[1] is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0.5, 0.4, 0, 0, 0, 0], "row 1 of the predictions sums to 0.9"),
        ([1.5, -0.5, 0, 0, 0, 0], "row 1 .* negative or not finite"),
        ([float("nan"), 1, 0, 0, 0, 0], "row 1 .* negative or not finite"),
    ],
)
def test_what_the_competition_refuses_is_refused(row: list[float], message: str) -> None:
    good = [1 / 6] * 6
    with pytest.raises(UsageError, match=message):
        kl_score([good, good], [good, row])


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(UsageError, match=r"\(n, 6\)"):
        kl_score([[1, 0]], [[1, 0]])
    with pytest.raises(UsageError, match="no rows"):
        kl_score(np.empty((0, 6)), np.empty((0, 6)))
