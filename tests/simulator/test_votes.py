"""Truths and votes: means known in closed form, raters that stray less the more there are."""

from __future__ import annotations

import numpy as np
import pytest

from kagglehms.simulator.votes import (
    KIND_SHARES_GM,
    KINDS_MK,
    RATER_CONCENTRATION,
    RECORDS_BY_VOTES,
    VOTE_GROUPS,
    draw_n_votes,
    draw_truth,
    draw_votes,
    vote_group,
)

REAL_MEANS = {  # of the real table's records with so many votes
    (1, 1): (0.026, 0.174, 0.171, 0.046, 0.076, 0.507),
    (2, 2): (0.084, 0.147, 0.081, 0.032, 0.062, 0.595),
    (3, 3): (0.383, 0.089, 0.047, 0.086, 0.168, 0.227),
    (4, 7): (0.356, 0.215, 0.110, 0.049, 0.038, 0.233),
    (10, 16): (0.054, 0.203, 0.139, 0.091, 0.098, 0.414),
    (17, 28): (0.040, 0.113, 0.039, 0.035, 0.035, 0.738),
}


def test_shares_and_groups_cover_all_numbers_of_votes() -> None:
    np.testing.assert_allclose(KIND_SHARES_GM.sum(axis=1), 1)
    assert KIND_SHARES_GM.shape == (len(VOTE_GROUPS), len(KINDS_MK))
    for n_votes in RECORDS_BY_VOTES:
        low, high = VOTE_GROUPS[vote_group(n_votes)]
        assert low <= n_votes <= high
    assert not {8, 9} & set(RECORDS_BY_VOTES)


@pytest.mark.parametrize("group", range(len(VOTE_GROUPS)))
def test_class_mix_of_each_vote_group(group: int) -> None:
    """The mean of the mixture, in closed form."""
    mean = KIND_SHARES_GM[group] @ (KINDS_MK / KINDS_MK.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(mean, REAL_MEANS[VOTE_GROUPS[group]], atol=0.032)


def test_few_raters_stray_together_and_many_do_not() -> None:
    """The variance of a vote fraction is p(1 − p)/n · (n + c)/(1 + c) for raters of concentration c."""
    truth = np.array([0.6, 0.3, 0.05, 0.03, 0.01, 0.01])
    rng = np.random.default_rng(0)
    for n_votes, concentration in ((3, RATER_CONCENTRATION[3]), (6, RATER_CONCENTRATION[7]), (15, np.inf)):
        shares = np.array([draw_votes(truth, n_votes, rng, rng) for _ in range(6000)]) / n_votes
        np.testing.assert_allclose(shares.mean(axis=0), truth, atol=0.02)
        over = 1.0 if np.isinf(concentration) else (n_votes + concentration) / (1 + concentration)
        expected = 0.6 * 0.4 / n_votes * over
        assert shares[:, 0].var() == pytest.approx(expected, rel=0.08)


def test_the_same_raters_see_the_same() -> None:
    truth = np.array([0.4, 0.4, 0.1, 0.05, 0.03, 0.02])
    rng = np.random.default_rng(1)
    agree = {"same": 0, "other": 0}
    for seed in range(400):
        first = draw_votes(truth, 3, np.random.default_rng(seed), rng)
        agree["same"] += np.argmax(first) == np.argmax(draw_votes(truth, 3, np.random.default_rng(seed), rng))
        agree["other"] += np.argmax(first) == np.argmax(
            draw_votes(truth, 3, np.random.default_rng(seed + 1000), rng)
        )
    assert agree["same"] > 1.15 * agree["other"]


def test_numbers_of_votes_and_truths() -> None:
    rng = np.random.default_rng(2)
    assert min(draw_n_votes(True, rng) for _ in range(300)) >= 10
    assert max(draw_n_votes(False, rng) for _ in range(300)) <= 7
    for kind in range(len(KINDS_MK)):
        truth = draw_truth(kind, rng)
        assert truth.shape == (6,)
        assert truth.sum() == pytest.approx(1)
