"""Where a score comes from: by class, votes and patients; confusion, calibration, and the hardest records.

Shape legend: N records, K the six classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import CLASSES
from kagglehms.data.records import Records
from kagglehms.runs.blend_fitting import clustered_mean
from kagglehms.training.metric import Standing, floors, kl_terms, standings

Floats = NDArray[np.float64]
Integers = NDArray[np.integer]

VOTE_GROUPS = ((1, 3), (4, 9), (10, 14), (15, None))
"""Smallest and greatest number of votes of a group."""
PATIENT_GROUPS = ((1, 1), (2, 4), (5, 14), (15, None))
"""Smallest and greatest number of records that a patient of a group has."""


@dataclass(frozen=True)
class Scored:
    """Out-of-fold predictions beside the votes.

    Attributes:
        records: n records.
        predictions_NK: (n, 6) probabilities.
    """

    records: Records
    predictions_NK: Floats

    @cached_property
    def terms_N(self) -> Floats:
        """(n,) the competition's score of each record, nats."""
        return kl_terms(self.records.targets_NK, self.predictions_NK)

    @cached_property
    def standings(self) -> tuple[Standing, Standing | None]:
        """Score of all records and of those with many votes, each beside its floors."""
        records = self.records
        return standings(records.targets_NK, self.predictions_NK, records.many)

    @property
    def dominant_N(self) -> NDArray[np.intp]:
        """(n,) the class with the most votes; the first of equals."""
        return self.records.votes_NK.argmax(axis=1)


@dataclass(frozen=True)
class Group:
    """The score of a group of records.

    Attributes:
        label: name of the group.
        n_records: number of records.
        n_patients: number of their patients.
        score: mean score of the records.
        error: standard error of the score, records of one patient taken together; None with fewer than two patients.
        share: part of the whole score that these records make up.
        prior: score of the class means of the same records.
        uniform: score of a uniform guess.
    """

    label: str
    n_records: int
    n_patients: int
    score: float
    error: float | None
    share: float
    prior: float
    uniform: float


def by_class(scored: Scored) -> list[Group]:
    """Score the records of each dominant class; leave out classes without records."""
    return _groups(scored, CLASSES, [scored.dominant_N == k for k in range(len(CLASSES))])


def by_votes(scored: Scored) -> list[Group]:
    """Score records with few and with many votes, see `VOTE_GROUPS`."""
    return _by_range(scored, scored.records.n_votes, VOTE_GROUPS, "vote")


def by_patient(scored: Scored) -> list[Group]:
    """Score records of patients with few and with many records, see `PATIENT_GROUPS`."""
    _, patient_N, counts = np.unique(scored.records.patients, return_inverse=True, return_counts=True)
    return _by_range(scored, counts[patient_N], PATIENT_GROUPS, "record")


def mean_over_patients(scored: Scored) -> Standing:
    """Return the score if each patient counted alike, instead of each record, beside its floors."""
    _, patient_N = np.unique(scored.records.patients, return_inverse=True)
    share_N = 1 / np.bincount(patient_N)[patient_N]
    share_N /= share_N.sum()
    targets_NK = scored.records.targets_NK
    prior_NK = np.tile(share_N @ targets_NK, (len(targets_NK), 1))
    uniform_NK = np.full(targets_NK.shape, 1 / len(CLASSES))
    found = (share_N @ kl_terms(targets_NK, p_NK) for p_NK in (scored.predictions_NK, prior_NK, uniform_NK))
    return Standing(*map(float, found))


def confusion(scored: Scored) -> NDArray[np.int64]:
    """Count records by the class with the most votes (row) and the most probable class (column), (6, 6)."""
    counts_KK = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    np.add.at(counts_KK, (scored.dominant_N, scored.predictions_NK.argmax(axis=1)), 1)
    return counts_KK


@dataclass(frozen=True)
class Calibration:
    """Predictions of one class against the votes for it, in bins that have records.

    Attributes:
        predicted_B: (n_bins,) mean prediction of each bin.
        voted_B: (n_bins,) mean vote fraction of the same records.
        counts_B: (n_bins,) number of records of each bin.
    """

    predicted_B: Floats
    voted_B: Floats
    counts_B: NDArray[np.int64]

    @property
    def error(self) -> float:
        """Mean over records of |predicted − voted| of their bin."""
        return float(np.abs(self.predicted_B - self.voted_B) @ self.counts_B / self.counts_B.sum())


def calibration(scored: Scored, k: int, n_bins: int = 10) -> Calibration:
    """Compare the predictions of class `k` with the vote fractions, in bins of equal width."""
    predicted_N, voted_N = scored.predictions_NK[:, k], scored.records.targets_NK[:, k]
    bin_N = np.minimum((predicted_N * n_bins).astype(np.intp), n_bins - 1)
    counts_B = np.bincount(bin_N, minlength=n_bins)
    used = counts_B > 0
    means = [
        np.bincount(bin_N, values, minlength=n_bins)[used] / counts_B[used]
        for values in (predicted_N, voted_N)
    ]
    return Calibration(means[0], means[1], counts_B[used])


def hardest(scored: Scored, n: int) -> list[int]:
    """Return the positions of the `n` records with the worst scores, worst first, at most one of each EEG."""
    chosen: dict[int, int] = {}
    for position in np.argsort(-scored.terms_N, kind="stable").tolist():
        if len(chosen) == n:
            break
        chosen.setdefault(int(scored.records.eeg_ids[position]), position)
    return list(chosen.values())


def _by_range(
    scored: Scored, numbers_N: Integers, ranges: Sequence[tuple[int, int | None]], word: str
) -> list[Group]:
    masks = [(numbers_N >= low) & (numbers_N <= (high or np.inf)) for low, high in ranges]
    return _groups(scored, [_range_label(low, high, word) for low, high in ranges], masks)


def _range_label(low: int, high: int | None, word: str) -> str:
    if high is None:
        return f"{low}+ {word}s"
    if low != high:
        return f"{low}–{high} {word}s"
    return f"{low} {word}" if low == 1 else f"{low} {word}s"


def _groups(scored: Scored, labels: Sequence[str], masks: Sequence[NDArray[np.bool_]]) -> list[Group]:
    terms_N, total = scored.terms_N, scored.terms_N.sum()
    groups = []
    for label, mask in zip(labels, masks, strict=True):
        if not mask.any():
            continue
        patients = np.unique(scored.records.patients[mask], return_inverse=True)[1]
        n_patients = int(patients.max()) + 1
        score, error = clustered_mean(terms_N[mask], np.ones(int(mask.sum())), patients)
        share = float(terms_N[mask].sum() / total) if total > 0 else 0.0
        groups.append(
            Group(
                label,
                int(mask.sum()),
                n_patients,
                score,
                error if n_patients > 1 else None,
                share,
                *floors(scored.records.targets_NK[mask]),
            )
        )
    return groups
