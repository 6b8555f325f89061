"""Prior correction: Bayes' rule by NumPy and by hand, what changes nothing, class priors, who learned of what."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from kagglehms.data.competition import VOTE_COLUMNS
from kagglehms.data.records import Records
from kagglehms.errors import RunError, UsageError
from kagglehms.runs.prior_correction import PriorCorrection, class_prior, training_weights
from kagglehms.training.recipes import Recipe, Stage, get_recipe

Floats = NDArray[np.float64]
EVEN = (1 / 6,) * 6
seeds = st.integers(0, 10**6)


def shares(seed: int) -> tuple[float, ...]:
    return tuple(np.random.default_rng(seed).dirichlet(np.full(6, 2.0)).tolist())


def correction(seed: int = 0, n_members: int = 2, exponent: float = 1.0) -> PriorCorrection:
    trained = tuple(shares(seed + 1 + i) for i in range(n_members))
    return PriorCorrection("many", shares(seed), trained, exponent)  # type: ignore[arg-type]


def predictions(n_members: int = 2, n: int = 9, seed: int = 0) -> Floats:
    drawn = np.random.default_rng(seed).dirichlet(np.full(6, 0.3), (n_members, n))
    drawn[0, 0] = np.eye(6)[2]  # a certainty is one after any correction
    return drawn


def test_worked_by_hand() -> None:
    # Three to one for the first class, which is nine times rarer where it is applied: one to three.
    step = PriorCorrection(
        "many", (0.05, 0.45, 0.125, 0.125, 0.125, 0.125), ((0.25, 0.25, 0.125, 0.125, 0.125, 0.125),)
    )
    moved = step.apply(np.array([[[0.75, 0.25, 0, 0, 0, 0]]]))
    np.testing.assert_allclose(moved, [[[0.25, 0.75, 0, 0, 0, 0]]], atol=1e-15)
    half = replace(step, exponent=0.5).apply(np.array([[[0.75, 0.25, 0, 0, 0, 0]]]))
    np.testing.assert_allclose(half[0, 0, :2], [0.5, 0.5], atol=1e-15)


def test_it_is_exact_where_only_the_shares_of_the_classes_differ() -> None:
    """Bayes' rule by counting: six classes, four findings whose frequency depends on the class alone."""
    finding_KF = np.random.default_rng(0).dirichlet(np.ones(4), 6)

    def posterior(prior: tuple[float, ...]) -> Floats:
        joint_FK = (np.array(prior)[:, None] * finding_KF).T
        return joint_FK / joint_FK.sum(axis=1, keepdims=True)

    step = correction(5, 1)
    np.testing.assert_allclose(
        step.apply(posterior(step.trained[0])[None])[0], posterior(step.target), rtol=1e-12
    )


@given(seed=seeds, exponent=st.floats(0, 2))
def test_every_member_is_corrected_by_its_own_prior_and_stays_a_distribution(
    seed: int, exponent: float
) -> None:
    step, given_MNK = correction(seed, 3, exponent), predictions(3, seed=seed)
    moved_MNK = step.apply(given_MNK)
    for member, prior in enumerate(step.trained):
        powers = given_MNK[member] * np.exp(exponent * (np.log(step.target) - np.log(prior)))
        expected = powers / powers.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(moved_MNK[member], expected, rtol=1e-9, atol=1e-300)
    assert np.isfinite(moved_MNK).all()
    assert (moved_MNK >= 0).all()
    np.testing.assert_allclose(moved_MNK.sum(axis=2), 1, rtol=1e-12)
    np.testing.assert_array_equal(step.only([2, 0]).apply(given_MNK[[2, 0]]), moved_MNK[[2, 0]])


@given(seed=seeds, exponent=st.floats(0, 2))
def test_an_exponent_of_0_and_equal_priors_change_nothing(seed: int, exponent: float) -> None:
    given_MNK = predictions(seed=seed)
    np.testing.assert_allclose(correction(seed, exponent=0.0).apply(given_MNK), given_MNK, rtol=1e-12)
    same = shares(seed)
    alike = PriorCorrection("all", same, (same, same), exponent)  # type: ignore[arg-type]
    np.testing.assert_allclose(alike.apply(given_MNK), given_MNK, rtol=1e-12)


@given(seed=seeds)
def test_there_and_back_is_where_it_started(seed: int) -> None:
    given_MNK = predictions(1, seed=seed)
    there = correction(seed, 1)
    back = PriorCorrection("all", there.trained[0], (there.target,))
    np.testing.assert_allclose(back.apply(there.apply(given_MNK)), given_MNK, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"exponent": -0.1}, "exponent of a prior correction must be from 0 to 2, but is -0.1"),
        ({"exponent": 2.1}, "from 0 to 2"),
        ({"exponent": float("nan")}, "from 0 to 2"),
        ({"target": (0.5, 0.5, 0.0, 0.0, 0.0, 0.0)}, "six numbers above 0 of sum 1"),
        ({"target": (0.2,) * 6}, "six numbers above 0 of sum 1"),
        ({"trained": (EVEN, EVEN[:5])}, "six numbers above 0 of sum 1"),
        ({"trained": (EVEN, (float("nan"),) * 6)}, "six numbers above 0 of sum 1"),
    ],
)
def test_nonsense_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(correction(), **change)  # type: ignore[arg-type]


def test_a_class_prior_is_the_weighted_mean_with_one_even_record_more() -> None:
    targets = np.eye(6)[[0, 0, 1, 5]]
    assert class_prior(targets, [1, 1, 1, 1]) == pytest.approx(np.array([13, 7, 1, 1, 1, 7]) / 30)
    # Weights 1 and 3 of the two that count; the record more has their mean, 2.
    assert class_prior(targets, [0, 1, 3, 0]) == pytest.approx(np.array([8, 20, 2, 2, 2, 2]) / 36)
    assert class_prior(targets, [0, 10, 30, 0]) == pytest.approx(class_prior(targets, [0, 1, 3, 0]))
    with pytest.raises(UsageError, match="needs at least one record, but none counts"):
        class_prior(targets, np.zeros(4))


def with_last_stage(**stage: object) -> Recipe:
    return replace(get_recipe("baseline"), stages=(Stage(), Stage(**stage)))  # type: ignore[arg-type]


VOTES = np.array(
    [[1, 0, 0, 0, 0, 0], [4, 0, 0, 0, 0, 0], [2, 1, 1, 0, 0, 3], [6, 4, 0, 0, 0, 0], [0, 0, 20, 0, 0, 0]]
)
RECORDS = Records(pl.DataFrame(VOTES, schema=list(VOTE_COLUMNS), orient="row"))
N_VOTES = np.array([1, 4, 7, 10, 20])


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ({}, [1, 1, 1, 1, 1]),
        ({"records": "many"}, [0, 0, 0, 1, 1]),
        ({"records": "settled"}, [0, 1, 1, 1, 1]),
        ({"loss": "kl-votes"}, N_VOTES / 20),
        ({"loss": "kl-log-votes", "records": "many"}, [0, 0, 0, np.log(11), np.log(21)]),
        ({"loss": "kl-capped-votes"}, [1, 4, 7, 10, 10]),
    ],
)
def test_only_the_last_stage_counts_with_its_records_and_its_loss(
    stage: dict[str, object], expected: list[float]
) -> None:
    np.testing.assert_allclose(training_weights(with_last_stage(**stage), RECORDS), expected, rtol=1e-6)


def test_a_stage_without_a_record_is_refused() -> None:
    with pytest.raises(RunError, match="none of 3 records is many"):
        training_weights(with_last_stage(records="many"), RECORDS.take(np.arange(3)))
