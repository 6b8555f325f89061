"""Fitted weights against brute force, EM and other optimisers; nested scores against leaks; real predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import approx_fprime, minimize

from kagglehms.data.competition import CLASSES, VOTE_COLUMNS
from kagglehms.errors import RunError, UsageError
from kagglehms.runs import blend_fitting
from kagglehms.runs.blend_data import BlendData
from kagglehms.runs.blend_fitting import (
    SHRINKAGES,
    calibration_loss,
    clustered_mean,
    patient_folds,
    weights_loss,
)
from kagglehms.runs.blend_score import NestedScore
from kagglehms.runs.blends import Blend, Fitting, Stack
from kagglehms.training.metric import kl_score, kl_terms

Floats = NDArray[np.float64]
SPACES: tuple[Literal["probability", "logit"], ...] = ("probability", "logit")
FITTING = Fitting()
ONLY_WEIGHTS = Fitting(temperature=False, shrinkage=0.0)


def softmax(z: Floats) -> Floats:
    powers = np.exp(z - z.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def make(
    n_members: int = 4, n_patients: int = 40, per_patient: int = 3, seed: int = 0, noise: float = 1.0
) -> tuple[Floats, Floats, NDArray[np.intp]]:
    """Members that see the same truth through noise of their own and of the patient; votes of ten experts."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n_patients), per_patient)
    truth = rng.normal(0, 1.5, (len(patients), 6))
    votes = rng.multinomial(10, softmax(truth))
    of_patient = rng.normal(0, 0.5 * noise, (n_members, n_patients, 6))[:, patients]
    scale = np.linspace(0.5, 1.5, n_members)[:, None, None] * noise
    predictions = softmax(truth + of_patient + scale * rng.normal(0, 1, (n_members, *truth.shape)))
    return predictions, votes / 10, patients


def names(n: int) -> tuple[str, ...]:
    return tuple(f"m{i}" for i in range(n))


def fit_blend(
    predictions_MNK: Stack,
    targets_NK: Floats,
    members: Sequence[str],
    fitting: Fitting = FITTING,
    name: str = "blend",
    **rows: Any,
) -> Blend:
    return blend_fitting.fit_blend(
        BlendData.of(predictions_MNK, targets_NK, members, **rows), fitting, name=name
    )


def nested_score(
    predictions_MNK: Stack,
    targets_NK: Floats,
    members: Sequence[str],
    patients_N: NDArray[np.intp],
    fitting: Fitting = FITTING,
    n_folds: int = 5,
    seeds: Sequence[int] = (0, 1, 2),
    name: str = "blend",
    **rows: Any,
) -> NestedScore:
    data = BlendData.of(predictions_MNK, targets_NK, members, patients_N, **rows)
    return blend_fitting.nested_score(data, fitting, n_folds, seeds, name)


def fit(predictions: Floats, targets: Floats, fitting: Fitting = ONLY_WEIGHTS, **more: object) -> Blend:
    return fit_blend(predictions, targets, names(len(predictions)), fitting, **more)  # type: ignore[arg-type]


def score(blend: Blend, predictions: Floats, targets: Floats) -> float:
    return kl_score(targets, blend.apply(dict(zip(blend.members, predictions, strict=True))))


# --- the optimum, by other means ---------------------------------------------------------------------------


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("shrinkage", [0.0, 0.05])
def test_two_members_against_a_grid(space: Literal["probability", "logit"], shrinkage: float) -> None:
    predictions, targets, _ = make(2)
    grid = np.linspace(0, 1, 2001)
    values = [
        score(Blend("g", names(2), (w, 1 - w), space), predictions, targets)
        + shrinkage / 2 * 2 * ((w - 0.5) ** 2 + (0.5 - w) ** 2)
        for w in grid
    ]
    blend = fit(predictions, targets, replace(ONLY_WEIGHTS, space=space, shrinkage=shrinkage))
    assert blend.weights[0] == pytest.approx(grid[np.argmin(values)], abs=6e-4)
    assert 0.5 < blend.weights[0] < 1, "the case must have its optimum inside"


@pytest.mark.parametrize("space", SPACES)
def test_weights_against_an_optimiser_without_constraints_or_gradients(
    space: Literal["probability", "logit"],
) -> None:
    predictions, targets, _ = make(4)

    def value(theta: Floats) -> float:
        weights = softmax(np.append(theta, 0.0))
        return score(Blend("o", names(4), tuple(weights), space), predictions, targets)

    expected = minimize(value, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
    blend = fit(predictions, targets, replace(ONLY_WEIGHTS, space=space))
    assert score(blend, predictions, targets) == pytest.approx(expected.fun, abs=1e-8)
    np.testing.assert_allclose(blend.weights, softmax(np.append(expected.x, 0.0)), atol=2e-3)


def test_probabilities_against_expectation_maximisation() -> None:
    predictions, targets, _ = make(5, seed=3)
    weights = np.full(5, 0.2)
    for _ in range(5000):
        share = weights[:, None, None] * predictions
        weights = (targets * share / share.sum(axis=0)).sum(axis=(1, 2)) / len(targets)
    blend = fit(predictions, targets)
    np.testing.assert_allclose(blend.weights, weights, atol=1e-3)
    assert (
        score(blend, predictions, targets) <= kl_score(targets, np.tensordot(weights, predictions, 1)) + 1e-9
    )


@pytest.mark.parametrize("space", SPACES)
def test_temperature_and_biases_against_another_optimiser(space: Literal["probability", "logit"]) -> None:
    predictions, targets, _ = make(3, n_patients=80)
    shrinkage = 0.02
    blend = fit(predictions, targets, Fitting(space, biases=True, shrinkage=shrinkage))
    assert blend.biases is not None

    def value(parameters: Floats) -> float:
        other = replace(blend, temperature=1 / parameters[0], biases=tuple(parameters[1:]))
        pull = (parameters[0] - 1) ** 2 + (parameters[1:] ** 2).sum()
        return score(other, predictions, targets) + shrinkage / 2 * pull

    expected = minimize(
        value,
        np.append(1.0, np.zeros(6)),
        method="Powell",
        bounds=[(0.3, 3.0)] + [(-2.0, 2.0)] * 6,
        options={"ftol": 1e-13, "xtol": 1e-9},
    )
    found = np.append(1 / blend.temperature, blend.biases)
    assert value(found) <= expected.fun + 1e-9
    np.testing.assert_allclose(found, expected.x, atol=1e-3)
    assert sum(blend.biases) == pytest.approx(0, abs=1e-12)


@given(seed=st.integers(0, 10**6), shrinkage=st.floats(0, 1), space=st.sampled_from(SPACES))
@settings(max_examples=30, deadline=None)
def test_gradients_against_finite_differences(
    seed: int, shrinkage: float, space: Literal["probability", "logit"]
) -> None:
    predictions, targets, _ = make(3, 6, 2, seed)
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.ones(len(targets)))
    targets[0] = np.eye(6)[0]
    for loss, at in (
        (weights_loss(predictions, targets, rows, space, shrinkage), rng.dirichlet(np.full(3, 3.0))),
        (calibration_loss(np.log(predictions[0]), targets, rows, shrinkage), rng.normal(0.5, 0.2, 7)),
    ):
        numeric = approx_fprime(at, lambda x, f=loss: f(x)[0], 1e-7)
        np.testing.assert_allclose(loss(at)[1], numeric, atol=2e-6)


def two_classes(first: float, n: int) -> Floats:
    return np.tile([first, 1 - first, 0, 0, 0, 0], (n, 1))


def test_worked_by_hand() -> None:
    # Seven of ten rows are of the first class; one member says 0.9 for it, the other 0.1, always.
    targets = np.eye(6)[[0] * 7 + [1] * 3]
    predictions = np.stack([two_classes(0.9, 10), two_classes(0.1, 10)])
    mixture = fit(predictions, targets)  # 0.9 w + 0.1 (1 − w) = 0.7
    assert mixture.weights == pytest.approx((0.75, 0.25), abs=1e-5)
    logit = fit(predictions, targets, replace(ONLY_WEIGHTS, space="logit"))  # (2w − 1) ln 9 = ln 7/3
    assert logit.weights[0] == pytest.approx(0.5 + math.log(7 / 3) / (2 * math.log(9)), abs=1e-5)
    alone = fit(predictions[:1], targets, Fitting(shrinkage=0.0))  # ln 9 / T = ln 7/3
    # Not exactly: softened, the clipped zeros of the four other classes are no longer nothing.
    assert alone.temperature == pytest.approx(math.log(9) / math.log(7 / 3), rel=1e-3)
    assert score(alone, predictions[:1], targets) == pytest.approx(
        -0.7 * math.log(0.7) - 0.3 * math.log(0.3), abs=1e-5
    )


def test_biases_worked_by_hand() -> None:
    shares = np.array([0.1, 0.2, 0.3, 0.1, 0.1, 0.2])
    uniform = np.full((1, 5, 6), 1 / 6)
    blend = fit(uniform, np.tile(shares, (5, 1)), Fitting(temperature=False, biases=True, shrinkage=0.0))
    np.testing.assert_allclose(blend.biases, np.log(shares) - np.log(shares).mean(), atol=1e-4)


# --- properties --------------------------------------------------------------------------------------------

fittings = st.builds(
    Fitting,
    space=st.sampled_from(SPACES),
    temperature=st.booleans(),
    biases=st.booleans(),
    shrinkage=st.sampled_from([0.0, 0.003, 0.1, 3.0]),
)
seeds = st.integers(0, 10**6)


@given(seed=seeds, n_members=st.integers(1, 5), fitting=fittings)
@settings(max_examples=40, deadline=None)
def test_weights_are_on_the_simplex_and_never_lose_to_the_plain_mean_in_sample(
    seed: int, n_members: int, fitting: Fitting
) -> None:
    predictions, targets, _ = make(n_members, 8, 2, seed)
    blend = fit(predictions, targets, fitting)
    assert min(blend.weights) >= 0
    assert sum(blend.weights) == pytest.approx(1, abs=1e-12)
    equal = Blend("e", blend.members, (1 / n_members,) * n_members, fitting.space)
    assert score(blend, predictions, targets) <= score(equal, predictions, targets) + 1e-9
    assert (blend.fitting, blend.n_rows) == (fitting, 16)
    assert (blend.biases is not None) == fitting.biases
    assert (blend.temperature == 1) or fitting.temperature


@given(seed=seeds, fitting=fittings.filter(lambda f: f.shrinkage), order=st.permutations(range(4)))
@settings(max_examples=25, deadline=None)
def test_the_order_of_members_does_not_matter(seed: int, fitting: Fitting, order: list[int]) -> None:
    predictions, targets, _ = make(4, 8, 2, seed)
    one = fit(predictions, targets, fitting)
    other = fit_blend(predictions[order], targets, [names(4)[i] for i in order], fitting)
    np.testing.assert_allclose(other.weights, np.array(one.weights)[order], atol=2e-4)
    assert other.temperature == pytest.approx(one.temperature, abs=1e-3)


@given(seed=seeds, fitting=fittings.filter(lambda f: f.shrinkage))
@settings(max_examples=25, deadline=None)
def test_identical_members_get_equal_weights(seed: int, fitting: Fitting) -> None:
    predictions, targets, _ = make(2, 8, 2, seed)
    blend = fit(predictions[[0, 1, 0, 0]], targets, fitting)
    np.testing.assert_allclose(blend.weights[0], [blend.weights[2], blend.weights[3]], atol=2e-4)


@given(seed=seeds, space=st.sampled_from(SPACES))
@settings(max_examples=25, deadline=None)
def test_a_useless_member_does_no_harm_in_sample(seed: int, space: Literal["probability", "logit"]) -> None:
    predictions, targets, _ = make(3, 8, 2, seed)
    more = np.concatenate([predictions, np.full((1, *targets.shape), 1 / 6)])
    fitting = replace(ONLY_WEIGHTS, space=space)
    without = score(fit(predictions, targets, fitting), predictions, targets)
    assert score(fit(more, targets, fitting), more, targets) <= without + 1e-7


@pytest.mark.parametrize("space", SPACES)
def test_shrinkage_leads_from_the_best_fit_to_the_plain_mean(space: Literal["probability", "logit"]) -> None:
    predictions, targets, _ = make(4)
    in_sample, off = [], []
    for shrinkage in (0.0, *SHRINKAGES, 1e6):
        blend = fit(predictions, targets, Fitting(space, biases=True, shrinkage=shrinkage))
        in_sample.append(score(replace(blend, temperature=1.0, biases=None), predictions, targets))
        off.append(np.ptp(blend.weights))
    assert np.all(np.diff(in_sample) > -1e-9)
    assert np.all(np.diff(off) < 1e-6)
    assert (blend.temperature, *blend.weights) == pytest.approx((1, 0.25, 0.25, 0.25, 0.25), abs=1e-5)
    np.testing.assert_allclose(blend.biases, 0, atol=1e-5)


def test_rows_can_be_masked_and_weighted() -> None:
    predictions, targets, patients = make(3, n_patients=20)
    fitting = Fitting(biases=True, shrinkage=0.01)
    counts = np.random.default_rng(0).integers(0, 4, len(targets))
    weighted = fit(predictions, targets, fitting, sample_weights_N=counts)
    repeated = fit(np.repeat(predictions, counts, axis=1), np.repeat(targets, counts, axis=0), fitting)
    np.testing.assert_allclose(weighted.weights, repeated.weights, atol=1e-5)
    np.testing.assert_allclose(weighted.biases, repeated.biases, atol=1e-4)
    mask = counts > 0
    masked = fit(predictions, targets, fitting, sample_weights_N=mask)
    assert masked == fit(predictions[:, mask], targets[mask], fitting)
    nested = nested_score(
        predictions, targets, names(3), patients, fitting, sample_weights_N=mask, n_folds=3, seeds=[0]
    )
    assert (nested.n_rows, nested.blend.n_rows) == (mask.sum(), mask.sum())
    assert nested.n_patients == len(np.unique(patients[mask]))


def test_the_mean_of_good_forecasts_is_sharpened() -> None:
    # Each forecaster knows one of two independent causes, and is calibrated; together they know more.
    rng = np.random.default_rng(0)
    causes = rng.normal(0, 1.5, (2, 4000))
    draws = rng.normal(0, 1.5, 20_000)
    first = 1 / (1 + np.exp(-causes.sum(axis=0)))
    alone = [np.mean(1 / (1 + np.exp(-(c[:, None] + draws[:500]))), axis=1) for c in causes]
    predictions = np.stack([np.stack([a, 1 - a, *np.zeros((4, 4000))], axis=1) for a in alone])
    targets = np.eye(6)[(rng.random(4000) > first).astype(int)]
    blend = fit(predictions, targets, Fitting(shrinkage=0.0))
    assert blend.temperature < 0.8
    plain = kl_score(targets, predictions.mean(axis=0))
    nested = nested_score(predictions, targets, names(2), np.arange(4000), Fitting(shrinkage=0.01), seeds=[0])
    assert nested.score < plain
    assert nested.gain > 2 * nested.gain_error > 0


# --- cross-validation --------------------------------------------------------------------------------------


@given(st.lists(st.integers(-5, 30), min_size=2, max_size=60), st.integers(2, 6), seeds)
def test_patients_are_never_split(patients: list[int], n_folds: int, seed: int) -> None:
    if len(set(patients)) < 2:
        with pytest.raises(UsageError, match="needs two patients"):
            patient_folds(np.array(patients), n_folds, seed)
        return
    folds = patient_folds(np.array(patients), n_folds, seed)
    fold_of = dict(zip(patients, folds, strict=True))
    assert [fold_of[p] for p in patients] == folds.tolist()
    sizes = np.bincount(list(fold_of.values()))
    assert len(sizes) == min(n_folds, len(fold_of))
    assert np.ptp(sizes) <= 1


@pytest.mark.parametrize("fitting", [Fitting(biases=True), Fitting("auto", shrinkage=0.03)])
def test_nothing_of_a_held_out_patient_reaches_its_blend(fitting: Fitting) -> None:
    predictions, targets, patients = make(3, n_patients=15)
    folds = patient_folds(patients, 3, 7)
    before = nested_score(predictions, targets, names(3), patients, fitting, n_folds=3, seeds=[7])
    held_out = folds == 1
    wrong = targets.copy()
    wrong[held_out] = np.roll(targets[held_out], 1, axis=1)
    other = predictions.copy()
    other[:, held_out] = np.roll(predictions[:, held_out], 2, axis=2)
    after = nested_score(other, wrong, names(3), patients, fitting, n_folds=3, seeds=[7])
    assert after.fits[1] == before.fits[1]
    assert after.fits[0] != before.fits[0]
    assert after.fits[2] != before.fits[2]


def test_the_nested_score_is_that_of_the_joined_predictions() -> None:
    predictions, targets, patients = make(3, n_patients=25)
    shuffled = np.random.default_rng(1).permutation(len(patients))
    predictions, targets, patients = predictions[:, shuffled], targets[shuffled], patients[shuffled] + 1000
    nested = nested_score(predictions, targets, names(3), patients, n_folds=4, seeds=[3, 5], name="all")
    fits = iter(nested.fits)
    scores, terms = [], []
    for seed in (3, 5):
        folds = patient_folds(patients, 4, seed)
        joined = np.empty_like(targets)
        for fold in range(4):
            members = dict(zip(names(3), predictions[:, folds == fold], strict=True))
            joined[folds == fold] = next(fits).apply(members)
        scores.append(kl_score(targets, joined))
        terms.append(kl_terms(targets, joined))
    assert nested.scores == pytest.approx(scores, rel=1e-12)
    assert nested.score == pytest.approx(np.mean(scores), rel=1e-12)
    np.testing.assert_allclose(nested.terms_N, np.mean(terms, axis=0), rtol=1e-10, atol=1e-14)
    plain = kl_score(targets, predictions.mean(axis=0))
    assert nested.plain_mean == pytest.approx(plain, rel=1e-12)
    assert nested.in_sample == pytest.approx(score(nested.blend, predictions, targets), rel=1e-12)
    assert nested.in_sample < nested.score
    assert nested.gain == pytest.approx(plain - nested.score, rel=1e-9)
    prior = kl_score(targets, np.tile(targets.mean(axis=0), (75, 1)))
    assert nested.blend.scores == {
        "nested": nested.score,
        "in_sample": nested.in_sample,
        "plain_mean": nested.plain_mean,
        "prior": pytest.approx(prior, rel=1e-12),
        "uniform": pytest.approx(kl_score(targets, np.full((75, 6), 1 / 6)), rel=1e-12),
    }
    assert nested.of_many is None
    every = np.array([blend.weights for blend in nested.fits])
    np.testing.assert_allclose(nested.weights_std, every.std(axis=0))
    assert nested.sentence.startswith(
        f"all: nested score {nested.score:.4f} (class prior {prior:.4f}, uniform "
    )
    assert "on all records; 75 records of 25 patients" in nested.sentence


def test_rows_with_many_votes_are_scored_by_themselves_as_well() -> None:
    """Also where other rows are left out; every figure against the rows' own terms."""
    predictions, targets, patients = make(2, n_patients=25)
    draw = np.random.default_rng(3)
    many, kept = draw.random(75) < 0.4, draw.random(75) < 0.8
    nested = nested_score(
        predictions, targets, names(2), patients, Fitting(shrinkage=0.1), sample_weights_N=kept, many_N=many
    )
    chosen, own = many[kept], targets[kept & many]
    scores = nested.blend.scores
    assert nested.of_many is not None
    assert scores["nested_votes10"] == pytest.approx(nested.terms_N[chosen].mean(), rel=1e-12)
    assert nested.of_many.score == scores["nested_votes10"]
    plain = kl_score(own, predictions[:, kept & many].mean(axis=0))
    assert scores["plain_mean_votes10"] == pytest.approx(plain, rel=1e-12)
    in_sample = score(nested.blend, predictions[:, kept & many], own)
    assert scores["in_sample_votes10"] == pytest.approx(in_sample, rel=1e-12)
    prior = kl_score(own, np.tile(own.mean(axis=0), (len(own), 1)))
    assert scores["prior_votes10"] == pytest.approx(prior, rel=1e-12)
    assert f"{prior:.4f}, uniform" in nested.sentence
    assert "on those with many (≥ 10) votes" in nested.sentence


def test_a_blend_worse_than_knowing_nothing_says_so() -> None:
    """Members that are sure of the wrong class."""
    draw = np.random.default_rng(0)
    targets = np.eye(6)[draw.integers(0, 6, 60)]
    wrong = 0.999 * np.roll(targets, 1, axis=1) + 0.001 / 6
    nested = nested_score(
        [wrong, wrong], targets, names(2), np.arange(60), Fitting(temperature=False, shrinkage=1.0), seeds=[0]
    )
    assert nested.sentence.endswith(
        "the blend is worse than the class prior and a uniform guess on all records"
    )
    good, right, patients = make(2, n_patients=25)
    assert "worse" not in nested_score(good, right, names(2), patients, Fitting(shrinkage=1.0)).sentence


# --- class priors ------------------------------------------------------------------------------------------

SHIFTED = Fitting(biases=True, shrinkage=0.01, population="many", prior_exponent=1.0)


def shifted(
    n_patients: int = 60, seed: int = 0
) -> tuple[Floats, Floats, NDArray[np.intp], NDArray[np.bool_], Floats]:
    """Two populations that differ in nothing but the shares of their classes, and two models trained on all of them.

    Each record has a class, and a model sees Gaussian noise around it: its posterior is known exactly. The second
    model has learned from the records with many votes alone.

    Returns:
        predictions, targets, patients, which have many votes, what each record counts in training.
    """
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n_patients), 5)
    many = rng.random(len(patients)) < 0.4
    shares = np.where(many[:, None], [0.02, 0.18, 0.1, 0.1, 0.1, 0.5], [0.4, 0.12, 0.1, 0.1, 0.1, 0.18])
    classes = np.array([rng.choice(6, p=p) for p in shares])
    targets = np.eye(6)[classes]
    training = np.stack([np.ones(len(many)), many.astype(float)])
    stack = []
    for weights in training:
        prior = weights @ targets / weights.sum()
        evidence = 2 * (1.3 * targets + rng.normal(0, 0.8, targets.shape))
        stack.append(softmax(np.log(np.maximum(prior, 1e-3)) + evidence))
    return np.stack(stack), targets, patients, many, training


def prior_by_hand(targets: Floats, weights: Floats) -> Floats:
    """The weighted class means with one even record more, of mean weight."""
    extra = weights[weights > 0].mean()
    return (weights @ targets + extra / 6) / (weights.sum() + extra)


def corrected_by_hand(
    predictions: Floats, priors: list[Floats], target: Floats, exponent: float = 1.0
) -> Floats:
    moved = [p * (target / prior) ** exponent for p, prior in zip(predictions, priors, strict=True)]
    return np.stack([m / m.sum(axis=1, keepdims=True) for m in moved])


def test_a_blend_for_many_votes_against_the_same_steps_by_hand() -> None:
    """Priors in plain NumPy, then the fit to the corrected members on the records with many votes alone."""
    predictions, targets, _, many, training = shifted()
    blend = fit(predictions, targets, SHIFTED, many_N=many, training_MN=training)
    priors = [prior_by_hand(targets, weights) for weights in training]
    target = prior_by_hand(targets, many.astype(float))
    assert blend.prior is not None
    np.testing.assert_allclose(blend.prior.trained, priors, rtol=1e-12)
    np.testing.assert_allclose(blend.prior.target, target, rtol=1e-12)
    np.testing.assert_allclose(
        priors[1], target, rtol=1e-12
    )  # nothing to correct for the one that learned from these
    moved = corrected_by_hand(predictions, priors, target)
    expected = fit(moved[:, many], targets[many], Fitting(biases=True, shrinkage=0.01))
    np.testing.assert_allclose(blend.weights, expected.weights, atol=1e-9)
    assert blend.temperature == pytest.approx(expected.temperature, abs=1e-9)
    np.testing.assert_allclose(blend.biases, expected.biases, atol=1e-9)
    assert blend.n_rows == many.sum()


def test_the_nested_score_takes_priors_of_the_other_folds_patients_alone() -> None:
    predictions, targets, patients, many, training = shifted()
    fitting = replace(
        SHIFTED, temperature=False, biases=False, shrinkage=1e9
    )  # so that priors are all there is
    nested = nested_score(
        predictions,
        targets,
        names(2),
        patients,
        fitting,
        n_folds=4,
        seeds=[3],
        many_N=many,
        training_MN=training,
    )
    folds = patient_folds(patients, 4, 3)
    joined = np.empty_like(targets)
    for fold in range(4):
        known, held_out = folds != fold, folds == fold
        priors = [prior_by_hand(targets[known], weights[known]) for weights in training]
        target = prior_by_hand(targets[known], many[known].astype(float))
        joined[held_out] = corrected_by_hand(predictions[:, held_out], priors, target).mean(axis=0)
    scores = nested.blend.scores
    for ending, rows in (("", many >= 0), ("_votes10", many)):
        expected = kl_score(targets[rows], joined[rows])
        assert scores[f"corrected{ending}"] == pytest.approx(expected, rel=1e-9)
        assert scores[f"nested{ending}"] == pytest.approx(expected, rel=1e-6)
    assert nested.corrected_N is not None
    np.testing.assert_allclose(nested.corrected_N, kl_terms(targets, joined), rtol=1e-9, atol=1e-12)
    plain = kl_terms(targets, predictions.mean(axis=0))
    assert nested.gain == pytest.approx((plain - nested.terms_N)[many].mean(), rel=1e-9)
    assert nested.n_rows == len(targets)


def test_nothing_of_a_held_out_patient_reaches_its_priors() -> None:
    predictions, targets, patients, many, training = shifted(30)
    fitting = replace(SHIFTED, prior_exponent="fit")
    more = {"n_folds": 3, "seeds": [7], "many_N": many, "training_MN": training}
    before = nested_score(predictions, targets, names(2), patients, fitting, **more)  # type: ignore[arg-type]
    held_out = patient_folds(patients, 3, 7) == 1
    wrong = targets.copy()
    wrong[held_out] = np.eye(6)[0]
    after = nested_score(predictions, wrong, names(2), patients, fitting, **more)  # type: ignore[arg-type]
    assert after.fits[1] == before.fits[1]
    assert after.fits[0].prior != before.fits[0].prior
    assert after.fits[2].prior != before.fits[2].prior


def test_records_with_few_votes_say_nothing_but_what_the_models_learned_from() -> None:
    predictions, targets, patients, many, _ = shifted(30)
    fitting = Fitting(biases=True, population="many")  # shrinkage chosen inside, on these records alone
    blend = fit(predictions, targets, fitting, patients_N=patients, many_N=many)
    scrambled = predictions.copy()
    scrambled[:, ~many] = np.roll(predictions[:, ~many], 1, axis=2)
    assert fit(scrambled, targets, fitting, patients_N=patients, many_N=many) == blend
    other = fit(scrambled, targets, replace(fitting, population="all"), patients_N=patients)
    assert other.weights != blend.weights


def test_a_fitted_exponent_is_the_best_and_is_pulled_to_1() -> None:
    predictions, targets, _, many, training = shifted(200)
    free = replace(SHIFTED, prior_exponent="fit", shrinkage=0.0)
    blend = fit(predictions[:1], targets, free, many_N=many, training_MN=training[:1])
    prior, target = prior_by_hand(targets, training[0]), prior_by_hand(targets, many.astype(float))
    grid = np.linspace(0, 2, 2001)
    values = [
        kl_score(targets[many], corrected_by_hand(predictions[:1, many], [prior], target, x)[0]) for x in grid
    ]
    assert blend.prior is not None
    assert blend.prior.exponent == pytest.approx(grid[np.argmin(values)], abs=1e-3)
    assert 0.1 < blend.prior.exponent < 1.9, "the case must have its optimum inside"
    pulled = fit(
        predictions[:1], targets, replace(free, shrinkage=1e6), many_N=many, training_MN=training[:1]
    )
    assert pulled.prior is not None
    assert pulled.prior.exponent == pytest.approx(1, abs=1e-4)


def test_correcting_helps_the_population_and_costs_the_other_and_both_are_told() -> None:
    predictions, targets, patients, many, training = shifted(200)

    def score(member: int, fitting: Fitting, training_N: Floats) -> NestedScore:
        return nested_score(
            predictions[member : member + 1],
            targets,
            ["m"],
            patients,
            fitting,
            seeds=[0],
            many_N=many,
            training_MN=training_N[None],
        )

    nested = score(0, SHIFTED, training[0])
    scores = nested.blend.scores
    assert scores["corrected_votes10"] < scores["plain_mean_votes10"] - 0.02
    assert scores["nested_votes10"] < scores["plain_mean_votes10"]
    assert scores["nested"] > scores["plain_mean"]
    lines = nested.sentence.splitlines()
    told = {tuple(line.split()[-2:]) for line in lines}
    for name in ("plain_mean", "corrected", "nested", "prior", "uniform"):
        assert (f"{scores[name]:.4f}", f"{scores[f'{name}_votes10']:.4f}") in told
    assert lines[-1].startswith("On all records it gets worse")
    assert f"{scores['nested']:.4f} after {scores['plain_mean']:.4f}" in lines[-1]
    for_all = score(1, replace(SHIFTED, population="all"), training[1])
    assert for_all.blend.scores["nested"] < for_all.blend.scores["plain_mean"]
    assert for_all.sentence.splitlines()[-1].startswith("On those with many votes it gets worse")
    harmless = score(1, SHIFTED, many.astype(np.float64))
    assert harmless.blend.scores["corrected"] == pytest.approx(harmless.blend.scores["plain_mean"], rel=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"many_N": None}, "say which they are"),
        ({"training_MN": None}, "say what each row counts in each member's training"),
        ({"many_N": np.ones(3, bool)}, r"rows with many votes must be \(50,\)"),
        ({"training_MN": np.ones((3, 50))}, r"rows' weights in training must be \(2, 50\)"),
        ({"many_N": np.zeros(50, bool)}, "none has any; give more records, or fit to all"),
        ({"training_MN": np.zeros((2, 50))}, "of these patients no record counted in training"),
    ],
)
def test_populations_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    predictions, targets, _, many, training = shifted(10)
    more: dict[str, object] = {"many_N": many, "training_MN": training}
    with pytest.raises(UsageError, match=message):
        fit(predictions, targets, SHIFTED, **(more | change))


def test_noise_is_not_sold_as_skill() -> None:
    # Exchangeable members and few patients: fitted freely the weights shine in-sample only.
    predictions, targets, patients = make(12, n_patients=20, seed=5)
    rng = np.random.default_rng(55)
    predictions = softmax(np.log(targets + 0.05) + rng.normal(0, 1.5, predictions.shape))
    free = nested_score(predictions, targets, names(12), patients, Fitting(temperature=False, shrinkage=0.0))
    assert free.in_sample < free.plain_mean < free.score
    usual = nested_score(predictions, targets, names(12), patients, Fitting(temperature=False))
    assert usual.score < free.score


def test_a_shrinkage_is_chosen_that_fits_the_case() -> None:
    predictions, targets, patients = make(4, n_patients=60)
    junk = np.random.default_rng(0).dirichlet(np.ones(6), (3, len(targets)))
    clear = fit(np.concatenate([predictions[:1], junk]), targets, Fitting(), patients_N=patients)
    assert clear.fitting is not None
    assert clear.fitting.shrinkage in SHRINKAGES[:4]
    assert clear.weights[0] > 0.8
    chosen = fit(predictions, targets, Fitting("auto"), patients_N=patients).fitting
    assert chosen is not None
    assert chosen.space in SPACES
    assert chosen.shrinkage in SHRINKAGES
    held_out = {
        (space, shrinkage): nested_score(
            predictions, targets, names(4), patients, Fitting(space, shrinkage=shrinkage), seeds=[0]
        ).score
        for space in SPACES
        for shrinkage in SHRINKAGES
    }
    assert (chosen.space, chosen.shrinkage) == min(held_out, key=lambda key: held_out[key])


def test_the_error_of_a_mean_counts_patients() -> None:
    values = np.random.default_rng(0).normal(size=50)
    rows, one_each = np.ones(50), np.arange(50)
    assert clustered_mean(values, rows, one_each) == pytest.approx(
        (values.mean(), values.std() / math.sqrt(50))
    )
    thrice = clustered_mean(np.repeat(values, 3), np.ones(150), np.repeat(one_each, 3))
    assert thrice == pytest.approx((values.mean(), values.std() / math.sqrt(50))), "repeats are no evidence"


# --- errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"members": ("a", "b")}, "2 members are named, but there are predictions of 3"),
        ({"members": ("a", "b", "b")}, "members must be different names"),
        ({"targets_NK": np.zeros((5, 6))}, r"targets must be \(6, 6\)"),
        ({"targets_NK": np.zeros((6, 6))}, "targets: row 0 of the targets sums to 0"),
        ({"patients_N": None}, "patients are needed"),
        ({"patients_N": np.zeros(6)}, "needs two patients and folds, but got 1 and 5"),
        ({"patients_N": np.zeros(5)}, r"patients must be \(6,\)"),
        ({"sample_weights_N": np.zeros(6)}, "sample weights must be finite, ≥ 0 and not all 0"),
        ({"sample_weights_N": -np.ones(6)}, "sample weights must be finite"),
        ({"sample_weights_N": np.ones(3)}, r"sample weights must be \(6,\)"),
        ({"predictions_MNK": np.zeros((3, 6, 6))}, "m0: row 0 of the predictions sums to 0"),
        (
            {"predictions_MNK": np.zeros((3, 0, 6)), "targets_NK": np.zeros((0, 6)), "patients_N": []},
            "not all 0",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    predictions, targets, patients = make(3, n_patients=3, per_patient=2)
    arguments: dict[str, object] = {
        "predictions_MNK": predictions,
        "targets_NK": targets,
        "members": names(3),
        "patients_N": patients,
    }
    with pytest.raises(UsageError, match=message):
        fit_blend(**(arguments | change))  # type: ignore[arg-type]


def test_a_nested_score_needs_seeds() -> None:
    predictions, targets, patients = make(2)
    with pytest.raises(UsageError, match="at least one seed"):
        nested_score(predictions, targets, names(2), patients, seeds=[])


def test_an_optimiser_that_fails_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    import scipy.optimize

    def gives_up(loss: object, start: Floats, **_: object) -> scipy.optimize.OptimizeResult:
        return scipy.optimize.OptimizeResult(x=start, fun=np.inf, status=9, message="Iteration limit reached")

    monkeypatch.setattr(scipy.optimize, "minimize", gives_up)
    predictions, targets, _ = make(2)
    with pytest.raises(RunError, match="weights could not be fitted: Iteration limit reached"):
        fit(predictions, targets)


def test_degenerate_predictions_are_survived() -> None:
    sure = np.eye(6)[np.arange(12) % 6]
    wrong = np.roll(sure, 1, axis=1)
    for space in SPACES:
        blend = fit(np.stack([sure, wrong]), sure, Fitting(space, biases=True, shrinkage=0.001))
        assert blend.weights[0] > 0.5
        assert score(blend, np.stack([sure, wrong]), sure) < 0.6
        assert blend.temperature >= blend_fitting._TEMPERATURES[0]


# --- real predictions --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(real_predictions: Path) -> tuple[tuple[str, ...], Floats, Floats, NDArray[np.int64]]:
    table = pl.read_parquet(real_predictions).filter(pl.col("n_votes") >= 10)
    models = tuple(c.split(":")[0] for c in table.columns if c.endswith(":seizure"))
    stack = np.stack([table.select(f"{model}:{c}" for c in CLASSES).to_numpy() for model in models])
    targets = table.select(VOTE_COLUMNS).to_numpy().astype(np.float64)
    return models, stack.astype(np.float64), targets, table["patient_id"].to_numpy()


def family_weights(models: tuple[str, ...]) -> Floats:
    shares = {"spectrogram": 0.65, "raw_eeg": 0.2, "multitaper": 0.15}
    of_model = [next(family for family in shares if model.startswith(family)) for model in models]
    return np.array([shares[family] / of_model.count(family) for family in of_model])


def test_on_real_predictions_the_nested_score_beats_mean_and_hand_tuning(
    real: tuple[tuple[str, ...], Floats, Floats, NDArray[np.int64]],
) -> None:
    models, predictions, targets, patients = real
    assert (len(models), len(targets), len(np.unique(patients))) == (18, 3179, 541)
    plain = kl_score(targets, predictions.mean(axis=0))
    hand_tuned = kl_score(targets, np.tensordot(family_weights(models), predictions, 1))
    assert (plain, hand_tuned) == pytest.approx((0.21081, 0.21030), abs=1e-5)
    nested = nested_score(predictions, targets, models, patients, seeds=[0])
    assert nested.plain_mean == pytest.approx(plain, rel=1e-12)
    assert nested.score < hand_tuned < plain
    assert nested.in_sample < nested.score
    assert nested.blend.temperature < 1


@pytest.mark.parametrize("shrinkage", SHRINKAGES[:-1])
def test_on_real_predictions_little_depends_on_the_shrinkage(
    real: tuple[tuple[str, ...], Floats, Floats, NDArray[np.int64]], shrinkage: float
) -> None:
    models, predictions, targets, patients = real
    hand_tuned = kl_score(targets, np.tensordot(family_weights(models), predictions, 1))
    fitting = Fitting(shrinkage=shrinkage)
    assert nested_score(predictions, targets, models, patients, fitting).score < hand_tuned


def test_on_real_predictions_correcting_moves_the_score_to_the_other_population(
    real_predictions: Path,
) -> None:
    """These models learned from many votes last: what helps them on all records costs them on those."""
    table = pl.read_parquet(real_predictions)
    model = "spectrogram_50_10_convnextbase"
    predictions = table.select(f"{model}:{c}" for c in CLASSES).to_numpy().astype(np.float64)
    targets = table.select(VOTE_COLUMNS).to_numpy().astype(np.float64)
    many = table["n_votes"].to_numpy() >= 10
    moved = predictions * targets.mean(axis=0) / targets[many].mean(axis=0)
    moved /= moved.sum(axis=1, keepdims=True)
    fitting = Fitting(shrinkage=0.001, prior_exponent=1.0)
    nested = nested_score(
        predictions[None],
        targets,
        [model],
        table["patient_id"].to_numpy(),
        fitting,
        seeds=[0],
        many_N=many,
        training_MN=many[None].astype(np.float64),
    )
    scores = nested.blend.scores
    assert (scores["plain_mean"], scores["plain_mean_votes10"]) == pytest.approx((0.6228, 0.2360), abs=1e-4)
    # The same in plain NumPy, whose priors know the held-out patients as well.
    assert scores["corrected"] == pytest.approx(kl_score(targets, moved), abs=0.01)
    assert scores["corrected"] < scores["plain_mean"] - 0.05
    assert scores["corrected_votes10"] > scores["plain_mean_votes10"] + 0.05
