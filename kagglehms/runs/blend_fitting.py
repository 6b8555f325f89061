"""Fit blends to out-of-fold predictions, and score them on patients that they were not fitted to.

Shapes: M members, N rows, K classes (always the six), V votes above 0. The formula is in `blends`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import CLASSES
from kagglehms.errors import RunError, UsageError
from kagglehms.runs.blend_data import BlendData
from kagglehms.runs.blend_score import NestedScore, figures_of
from kagglehms.runs.blends import Blend, Fitting, Floats, Space, pool
from kagglehms.runs.prior_correction import MOST, PriorCorrection
from kagglehms.training.metric import CLIP, kl_terms

Loss = Callable[[Floats], tuple[float, Floats]]
"""Function of the parameters that returns the value to minimise and its gradient."""

SHRINKAGES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0)
"""Shrinkages that an automatic choice tries, from hardly any pull to practically the plain mean."""
_TEMPERATURES = (0.2, 5.0)
_BIASES = (-3.0, 3.0)
_AS_USUAL = Fitting()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep BLAS from starting threads, which for matrices this small wait longer than they work."""
    import scipy.optimize  # noqa: F401 - only a BLAS that is loaded can be limited
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(1, user_api="blas"):
        yield


def fit_blend(data: BlendData, fitting: Fitting = _AS_USUAL, seed: int = 0, name: str = "blend") -> Blend:
    """Fit a blend's weights and calibration to out-of-fold predictions.

    Args:
        data: rows to fit to.
        fitting: how to fit.
        seed: seed of the folds of the inner cross-validation.
        name: name of the blend.

    Raises:
        UsageError: the data lack what `fitting` needs, or there are fewer than two patients to choose with.
    """
    with _one_thread():
        return replace(_fit(data, fitting, seed), name=name)


def _fit(data: BlendData, fitting: Fitting, seed: int) -> Blend:
    if fitting.chooses:
        fitting = _choose(data, fitting, seed)
    assert fitting.space != "auto"
    assert fitting.shrinkage is not None
    own, prior = data.own(fitting), data.prior(fitting)
    if prior is not None and fitting.prior_exponent == "fit":
        prior = replace(prior, exponent=_fit_exponent(own, prior, fitting.space, fitting.shrinkage))
    data = own.corrected(prior)
    rows, n_members = data.row_weights_N / data.row_weights_N.sum(), len(data.names)
    loss = weights_loss(data.predictions_MNK, data.targets_NK, rows, fitting.space, fitting.shrinkage)
    weights = _minimise(loss, np.full(n_members, 1 / n_members), [(0.0, 1.0)] * n_members, on_simplex=True)
    weights = np.where(weights < 1e-6, 0, weights)
    weights /= weights.sum()
    inverse_temperature, *biases = _calibrate(
        pool(data.predictions_MNK, weights, fitting.space), data.targets_NK, rows, fitting
    )
    return Blend(
        name="blend",
        members=data.names,
        weights=tuple(weights.tolist()),
        space=fitting.space,
        temperature=1 / inverse_temperature,
        biases=tuple(biases) if fitting.biases else None,  # type: ignore[arg-type]
        fitting=fitting,
        n_rows=data.targets_NK.shape[0],
        prior=prior,
    )


def _fit_exponent(data: BlendData, prior: PriorCorrection, space: Space, shrinkage: float) -> float:
    """Minimise the score of the corrected members' plain mean, plus ½λ·(exponent − 1)²."""
    from scipy.optimize import minimize_scalar

    rows = data.row_weights_N / data.row_weights_N.sum()
    equal = np.full(len(data.names), 1 / len(data.names))

    def loss(exponent: float) -> float:
        stack_MNK = replace(prior, exponent=float(exponent)).apply(data.predictions_MNK)
        value, _ = _cross_entropy(pool(stack_MNK, equal, space).T, data.targets_NK.T, rows)
        return value + shrinkage / 2 * (exponent - 1) ** 2

    # Convex for one member; a mean of several could have two minima, so look around the best point of a grid.
    grid = np.linspace(0, MOST, 9)
    best = int(np.argmin([loss(x) for x in grid]))
    bounds = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-7})
    return float(found.x)


def _calibrate(pool_NK: Floats, targets_NK: Floats, row_weights_N: Floats, fitting: Fitting) -> list[float]:
    """Fit and return 1 / temperature and the six biases."""
    assert fitting.shrinkage is not None
    nothing = np.eye(1 + len(CLASSES))[0]
    if not (fitting.temperature or fitting.biases):
        return nothing.tolist()
    low, high = _TEMPERATURES
    bounds = [(1 / high, 1 / low) if fitting.temperature else (1.0, 1.0)]
    bounds += [_BIASES if fitting.biases else (0.0, 0.0)] * len(CLASSES)
    found = _minimise(
        calibration_loss(pool_NK, targets_NK, row_weights_N, fitting.shrinkage), nothing, bounds
    )
    return found.tolist()


def weights_loss(
    predictions_MNK: Floats, targets_NK: Floats, row_weights_N: Floats, space: Space, shrinkage: float
) -> Loss:
    """Return the loss of the weights: cross-entropy (the score plus a constant) and the pull towards 1/M.

    Args:
        predictions_MNK: (members, n, 6) probabilities.
        targets_NK: (n, 6) vote fractions.
        row_weights_N: (n,) weights of the rows, of sum 1.
        space: whether probabilities or their logarithms are averaged.
        shrinkage: λ of the formula in `blends`.
    """
    n_members, pull = len(predictions_MNK), shrinkage * len(predictions_MNK)
    make = _mixture_entropy if space == "probability" else _log_linear_entropy
    entropy = make(predictions_MNK, targets_NK, row_weights_N)

    def loss(weights: Floats) -> tuple[float, Floats]:
        value, gradient = entropy(weights)
        off = weights - 1 / n_members
        return value + pull / 2 * float(off @ off), gradient + pull * off

    return loss


def _mixture_entropy(predictions_MNK: Floats, targets_NK: Floats, row_weights_N: Floats) -> Loss:
    mass_NK = targets_NK * row_weights_N[:, None]
    voted = mass_NK > 0
    members_MV, mass_V = predictions_MNK[:, voted], mass_NK[voted]

    def entropy(weights: Floats) -> tuple[float, Floats]:
        mixture_V = np.maximum(weights @ members_MV, CLIP)
        return -float(mass_V @ np.log(mixture_V)), -(members_MV @ (mass_V / mixture_V))

    return entropy


def _log_linear_entropy(predictions_MNK: Floats, targets_NK: Floats, row_weights_N: Floats) -> Loss:
    members_MKN, targets_KN = predictions_MNK.transpose(0, 2, 1), np.ascontiguousarray(targets_NK.T)
    logs_MX = np.log(np.maximum(members_MKN, CLIP)).reshape(len(predictions_MNK), -1)

    def entropy(weights: Floats) -> tuple[float, Floats]:
        scores_KN = (weights @ logs_MX).reshape(targets_KN.shape)
        value, slope_KN = _cross_entropy(scores_KN, targets_KN, row_weights_N)
        return value, logs_MX @ slope_KN.ravel()

    return entropy


def calibration_loss(pool_NK: Floats, targets_NK: Floats, row_weights_N: Floats, shrinkage: float) -> Loss:
    """Return the loss of 1 / temperature and the six biases; see `weights_loss` for the arguments."""
    nothing = np.eye(1 + len(CLASSES))[0]
    pool_KN, targets_KN = np.ascontiguousarray(pool_NK.T), np.ascontiguousarray(targets_NK.T)

    def loss(parameters: Floats) -> tuple[float, Floats]:
        scores_KN = parameters[0] * pool_KN + parameters[1:, None]
        value, slope_KN = _cross_entropy(scores_KN, targets_KN, row_weights_N)
        gradient = np.concatenate([[float((slope_KN * pool_KN).sum())], slope_KN.sum(axis=1)])
        off = parameters - nothing
        return value + shrinkage / 2 * float(off @ off), gradient + shrinkage * off

    return loss


def _cross_entropy(scores_KN: Floats, targets_KN: Floats, row_weights_N: Floats) -> tuple[float, Floats]:
    """Return the weighted mean of −Σ target·ln softmax(scores), and its derivative by the scores.

    Classes come first, as NumPy sums six rows several times as fast as rows of six.
    """
    shifted_KN = scores_KN - scores_KN.max(axis=0)
    powers_KN = np.exp(shifted_KN)
    sums_N = powers_KN.sum(axis=0)
    value = -float(row_weights_N @ (targets_KN * (shifted_KN - np.log(sums_N))).sum(axis=0))
    return value, (powers_KN * (targets_KN.sum(axis=0) / sums_N) - targets_KN) * row_weights_N


def _minimise(
    loss: Loss, start: Floats, bounds: list[tuple[float, float]], on_simplex: bool = False
) -> Floats:
    """Minimise a convex function by sequential quadratic programming."""
    from scipy.optimize import minimize

    one = {"type": "eq", "fun": lambda x: x.sum() - 1, "jac": np.ones_like}
    with warnings.catch_warnings():
        # Some releases of SciPy warn when they clip to the bounds, as they should.
        warnings.filterwarnings("ignore", "Values in x were outside bounds", RuntimeWarning)
        found = minimize(
            loss,
            start,
            jac=True,
            method="SLSQP",
            bounds=bounds,
            constraints=[one] if on_simplex else [],
            options={"ftol": 1e-12, "maxiter": 1000},
        )
    # Status 8: no step improves it further, which is as good as converged if it has improved before.
    if found.status not in {0, 8} or not np.isfinite(found.x).all() or found.fun > loss(start)[0] + 1e-9:
        raise RunError(f"the blend's weights could not be fitted: {found.message}")
    return np.clip(found.x, *np.array(bounds).T)


def patient_folds(patients_N: NDArray[Any], n_folds: int, seed: int) -> NDArray[np.intp]:
    """Assign whole patients to folds at random, equally many to each; the same for any release of scikit-learn.

    Args:
        patients_N: (n,) patient of each row.
        n_folds: number of folds; there are never more than patients.
        seed: seed of the assignment.

    Returns:
        (n,) fold numbers.

    Raises:
        UsageError: there are fewer than two patients or folds.
    """
    codes = np.unique(patients_N, return_inverse=True)[1]
    n_patients = int(codes.max()) + 1
    if min(n_patients, n_folds) < 2:
        raise UsageError(f"cross-validation needs two patients and folds, but got {n_patients} and {n_folds}")
    folds = np.arange(n_patients) % min(n_folds, n_patients)
    np.random.default_rng(seed).shuffle(folds)
    return folds[codes]


@dataclass(frozen=True)
class _Crossed:
    """One cross-validation: each row's score by the blend of the other folds, and by its prior correction alone."""

    terms_N: Floats
    corrected_N: Floats | None
    blends: tuple[Blend, ...]


def _cross_fit(
    data: BlendData, fittings: Sequence[Fitting], folds_N: NDArray[np.intp], seed: int
) -> list[_Crossed]:
    """Score every row with blends fitted to the other folds' patients, in each of several ways."""
    found: list[list[tuple[Blend, Floats, Floats | None]]] = [[] for _ in fittings]
    in_fold = [folds_N == fold for fold in range(int(folds_N.max()) + 1)]
    for mask in in_fold:
        training, held_out = data.take(~mask), data.take(mask)
        for fitting, parts in zip(fittings, found, strict=True):
            blend = _fit(training, fitting, seed)
            corrected = None if blend.prior is None else held_out.corrected_terms(blend)
            parts.append((blend, held_out.terms(blend), corrected))
    place_N = np.argsort(np.concatenate([np.flatnonzero(mask) for mask in in_fold]))
    crossed = []
    for parts in found:
        blends, terms, corrected_terms = zip(*parts, strict=True)
        known = corrected_terms[0] is not None
        corrected_N = np.concatenate(corrected_terms)[place_N] if known else None
        crossed.append(_Crossed(np.concatenate(terms)[place_N], corrected_N, blends))
    return crossed


def _choose(data: BlendData, fitting: Fitting, seed: int) -> Fitting:
    """Choose space and shrinkage by cross-validation on these rows alone."""
    if data.patients_N is None:
        raise UsageError("to choose shrinkage or space, patients are needed; give patients, or both values")
    folds = patient_folds(data.patients_N, fitting.n_folds, seed)
    spaces: tuple[Space, ...] = ("probability", "logit") if fitting.space == "auto" else (fitting.space,)
    shrinkages = SHRINKAGES if fitting.shrinkage is None else (fitting.shrinkage,)
    candidates = [replace(fitting, space=a, shrinkage=b) for a in spaces for b in shrinkages]
    rows = data.row_weights_N * data.own_N(fitting)
    scores = [float(crossed.terms_N @ rows) for crossed in _cross_fit(data, candidates, folds, seed)]
    return candidates[int(np.argmin(scores))]


def clustered_mean(
    values_N: Floats, row_weights_N: Floats, patients_N: NDArray[np.intp]
) -> tuple[float, float]:
    """Return a weighted mean and its standard error, where rows of one patient are not independent."""
    mean = float(row_weights_N @ values_N / row_weights_N.sum())
    per_patient = np.bincount(patients_N, row_weights_N * (values_N - mean))
    return mean, float(np.sqrt(per_patient @ per_patient) / row_weights_N.sum())


def nested_score(
    data: BlendData,
    fitting: Fitting = _AS_USUAL,
    n_folds: int = 5,
    seeds: Sequence[int] = (0, 1, 2),
    name: str = "blend",
    watch: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, total: items,
) -> NestedScore:
    """Fit a blend, and score it by cross-validation grouped by patient.

    Whatever is fitted or chosen, class priors included, depends on the other folds' patients alone. All rows count
    alike in the scores, as in the competition, even those that the blend is not fitted to.

    Args:
        data: rows to fit to and to score; those with many votes are scored separately as well.
        fitting: how to fit.
        n_folds: number of folds of the outer cross-validation.
        seeds: seeds of the outer cross-validations, one each.
        name: name of the blend.
        watch: function that is given the cross-validations and their number, and yields them, to show progress.

    Raises:
        UsageError: see `fit_blend`; or there are no seeds, or the patients are not known.
    """
    if not seeds:
        raise UsageError("give at least one seed")
    if data.patients_N is None:
        raise UsageError("to score by cross-validation, say whose each row is")
    folds = [patient_folds(data.patients_N, n_folds, seed) for seed in seeds]
    with _one_thread():
        pairs = watch(list(zip(folds, seeds, strict=True)), len(folds))
        crossed = [_cross_fit(data, [fitting], *both)[0] for both in pairs]
        blend = replace(_fit(data, fitting, seeds[0]), name=name)
    terms = np.mean([one.terms_N for one in crossed], axis=0)
    plain = kl_terms(data.targets_NK, data.predictions_MNK.mean(axis=0))
    own = data.own_N(fitting).astype(np.float64)
    gain, gain_error = clustered_mean(plain - terms, own, data.patients_N)
    kinds = {"nested": terms, "plain_mean": plain, "in_sample": data.terms(blend)}
    if blend.prior is not None:
        corrected = [one.corrected_N for one in crossed if one.corrected_N is not None]
        kinds["corrected"] = np.mean(corrected, axis=0)
    many = np.zeros(len(terms), bool) if data.many_N is None else data.many_N
    figures, of_all, of_many = figures_of(kinds, data.targets_NK, many)
    return NestedScore(
        blend=replace(blend, scores=figures),
        of_all=of_all,
        of_many=of_many,
        scores=tuple(float(one.terms_N.mean()) for one in crossed),
        plain_mean=figures["plain_mean"],
        in_sample=figures["in_sample"],
        gain=gain,
        gain_error=gain_error,
        fits=tuple(fit for one in crossed for fit in one.blends),
        terms_N=terms,
        corrected_N=kinds.get("corrected"),
        n_rows=len(terms),
        n_patients=len(np.unique(data.patients_N)),
    )
