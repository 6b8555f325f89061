"""Predictors that know a part of the truth of simulated records: they say what a way towards the perfect one means.

Shape suffixes: N record, M kind of window, K class, P pattern, G guess.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import dirichlet

from kagglehms.data.records import MANY_VOTES
from kagglehms.simulator.patterns import DELTA, DISCHARGE, NOISE, strengths
from kagglehms.simulator.seizures import ICTAL, SPREAD
from kagglehms.simulator.votes import KIND_SHARES_GM, KINDS_MK, vote_group

F64 = NDArray[np.float64]

_LEAST = 1e-9
"""Least probability of a class, where truths have been rounded to 0."""
_AMPLITUDES_P = np.array([ICTAL, DISCHARGE, DISCHARGE, DELTA, DELTA])
"""Median amplitude of each pattern in standard deviations of the background."""
_SAME_WAVES_PP = np.array(
    [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 1], [0, 0, 0, 1, 1]]
)
"""Patterns whose amplitude varies together from study to study, since they share their waves."""
_N_GUESSES = 20_000
"""Number of truths that what is seen is compared with."""


def knows_the_class(truth_NK: F64) -> F64:
    """Return, for each record, the mean truth of the records with the same likeliest class.

    That is the best answer of somebody who recognises every record's majority, and nothing of how clear it is.
    """
    classes, which_N = np.unique(truth_NK.argmax(axis=1), return_inverse=True)
    means_KK = np.array([truth_NK[which_N == number].mean(axis=0) for number in range(len(classes))])
    return means_KK[which_N]


def knows_the_kind(truth_NK: F64, n_votes_N: NDArray[np.integer]) -> F64:
    """Return, for each record, the mean of its kind of window, of which the simulator has sixteen.

    Such as "LPD or LRDA, and a few say other". Which kind a record is of is inferred from its truth and its number of
    votes; where several are possible, their means are weighted by how probable they are.
    """
    safe_NK = np.maximum(truth_NK, _LEAST)
    safe_NK /= safe_NK.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        shares_NM = np.log(KIND_SHARES_GM[[vote_group(n) for n in n_votes_N.tolist()]])
    found_NM = shares_NM + np.array([dirichlet.logpdf(safe_NK.T, alpha_K) for alpha_K in KINDS_MK]).T
    return softmax(found_NM, axis=1) @ (KINDS_MK / KINDS_MK.sum(axis=1, keepdims=True))


def sees_the_strengths(
    truth_NK: F64, n_votes_N: NDArray[np.integer], least: float = 0.5, seed: int = 0
) -> F64:
    """Return, for each record, the mean truth of windows whose patterns are as strong as what is seen.

    The experts' doubt is in a signal as the strength of its patterns, times factors that have nothing to do with it
    (`patterns.NOISE`, `seizures.SPREAD`). This predictor reads each pattern's strength off the signal as if there were
    no artefacts and fields were known, and knows the simulator: how frequent truths are where many or few have voted,
    and how much those factors vary. So it says how much of the truth can be had by measuring patterns perfectly.

    Args:
        truth_NK: true probabilities.
        n_votes_N: number of votes of each record.
        least: strength that is seen where there is no pattern, in standard deviations of the background: what is much
            weaker is not told apart.
        seed: seed of those factors, and of the truths that are compared.
    """
    rng = np.random.default_rng(seed)
    factors_PP = NOISE**2 * np.eye(len(_AMPLITUDES_P)) + SPREAD**2 * _SAME_WAVES_PP
    noise_PP = np.linalg.cholesky(factors_PP)
    answers_NK = np.empty_like(truth_NK)
    for many in (False, True):
        these = (n_votes_N >= MANY_VOTES) == many
        if not these.any():
            continue
        guesses_GK = _windows_voted_on(n_votes_N[these], rng)
        seen_NP = _seen(truth_NK[these], least)
        seen_NP += rng.standard_normal(seen_NP.shape) @ noise_PP.T
        answers_NK[these] = _mean_of_alike(seen_NP, _seen(guesses_GK, least), guesses_GK, noise_PP)
    return answers_NK


def _seen(truth_NK: F64, least: float) -> F64:
    """Return the logarithm of the strength of each pattern, and of what is seen without one."""
    return np.log(strengths(truth_NK) * _AMPLITUDES_P + least)


def _windows_voted_on(n_votes_N: NDArray[np.integer], rng: np.random.Generator) -> F64:
    """Draw truths of windows with such numbers of votes."""
    shares_M = KIND_SHARES_GM[[vote_group(n) for n in n_votes_N.tolist()]].mean(axis=0)
    counts_M = rng.multinomial(_N_GUESSES, shares_M)
    return np.concatenate([rng.dirichlet(KINDS_MK[kind], n) for kind, n in enumerate(counts_M)])


def _mean_of_alike(seen_NP: F64, of_guess_GP: F64, guesses_GK: F64, noise_PP: F64) -> F64:
    """Return the mean guess for each record, weighted by how probable what is seen is under each guess."""
    white_PP = np.linalg.inv(noise_PP).T
    records_NP, guessed_GP = seen_NP @ white_PP, of_guess_GP @ white_PP
    answers = []
    for record_P in records_NP:
        log_weights_G = -((guessed_GP - record_P) ** 2).sum(axis=1) / 2
        answers.append(softmax(log_weights_G) @ guesses_GK)
    return np.array(answers)
