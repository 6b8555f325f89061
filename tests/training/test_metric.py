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
from kagglehms.training.metric import (
    Standing,
    floors,
    kl_score,
    kl_terms,
    mean_scores,
    shortcoming,
    standing_text,
    standings,
)

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
    from kagglehms.data.records import read_records

    records = read_records(real_train_table)
    targets, many = records.targets_NK, records.many
    uniform = np.full_like(targets, 1 / 6)
    prior = np.tile(targets.mean(axis=0), (len(targets), 1))
    assert mean_scores(targets, uniform, many) == pytest.approx((1.4535, 1.1378), abs=5e-5)
    assert mean_scores(targets, prior, many) == pytest.approx((1.2798, 0.9310), abs=5e-5)
    own = np.tile(targets[many].mean(axis=0), (many.sum(), 1))
    assert kl_score(targets[many], own) == pytest.approx(0.8494, abs=5e-5)
    of_all, of_many = standings(targets, prior, many)
    assert (of_all.prior, of_all.uniform) == pytest.approx((1.2798, 1.4535), abs=5e-5)
    assert of_many is not None
    assert (of_many.prior, of_many.uniform) == pytest.approx((0.8494, 1.1378), abs=5e-5)


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


def test_knowing_nothing_scores_what_it_scores() -> None:
    """By hand: the class means of the same rows, and one sixth each."""
    targets = np.array([[1, 0, 0, 0, 0, 0], [0.5, 0.5, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0.0]])
    prior = (2 * math.log(6 / 5) + 0.5 * math.log(0.5 / (5 / 6)) + 0.5 * math.log(0.5 / (1 / 6))) / 3
    uniform = (2 * math.log(6) + math.log(3)) / 3
    assert floors(targets) == pytest.approx((prior, uniform), rel=1e-12)


def test_every_score_stands_beside_the_floors_of_its_own_rows() -> None:
    draw = np.random.default_rng(0)
    targets, predictions = draw.dirichlet(np.ones(6), 40), draw.dirichlet(np.ones(6), 40)
    many = draw.random(40) < 0.3
    of_all, of_many = standings(targets, predictions, many)
    for found, rows in ((of_all, np.ones(40, bool)), (of_many, many)):
        assert found is not None
        means = np.tile(targets[rows].mean(axis=0), (rows.sum(), 1))
        assert found.score == pytest.approx(kl_score(targets[rows], predictions[rows]), rel=1e-12)
        assert found.prior == pytest.approx(kl_score(targets[rows], means), rel=1e-12)
        assert found.uniform == pytest.approx(kl_score(targets[rows], np.full_like(means, 1 / 6)), rel=1e-12)
    assert standings(targets, predictions, np.zeros(40, bool))[1] is None
    text = standing_text(of_all, of_many)
    assert text.index("on all records") < text.index("on those with many")
    assert all(f"{value:.4f}" in text for value in (of_all.score, of_all.prior, of_all.uniform))
    assert "many" not in standing_text(of_all, None)


def test_a_score_worse_than_knowing_nothing_says_so() -> None:
    good, middling, bad = Standing(0.5, 1.2, 1.4), Standing(1.3, 1.2, 1.4), Standing(1.5, 1.2, 1.4)
    assert shortcoming(good) == ""
    assert shortcoming(middling, good, None) == "worse than the class prior on all records"
    assert shortcoming(bad, middling, bad) == (
        "worse than the class prior and a uniform guess on all records, and than the class prior on those with many "
        "votes, and than the class prior and a uniform guess on the settled ones"
    )


def test_a_standing_needs_all_its_numbers() -> None:
    assert Standing.of(0.5, 1.2, 1.4) == Standing(0.5, 1.2, 1.4)
    assert Standing.of(0.5, 1.2, None) is None
