"""Predictors that know a part of the truth of simulated records: they say what a way towards the perfect one means.

Shape suffixes: N record, M kind of window, K class.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import dirichlet

from kagglehms.simulator.votes import KIND_SHARES_GM, KINDS_MK, vote_group

F64 = NDArray[np.float64]

_LEAST = 1e-9
"""Least probability of a class, where truths have been rounded to 0."""


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
    weights_NM = np.exp(found_NM - logsumexp(found_NM, axis=1, keepdims=True))
    return weights_NM @ (KINDS_MK / KINDS_MK.sum(axis=1, keepdims=True))
