"""What a score on a simulated competition is worth: a perfect predictor, a baseline and the class prior on the same.

The perfect predictor knows the probabilities from which the votes were drawn. Votes are few and scatter around
them, so even its score is above 0: no model can do better. A model's score lies on the way from that of the class
prior, which has seen no recording, to that of the perfect predictor.

Shape suffixes: N record, K class, D feature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import CLASSES, N_TIMES, PROBABILITY_COLUMNS, VOTE_COLUMNS, Competition
from kagglehms.data.folds import assign_folds
from kagglehms.data.records import Records, read_records
from kagglehms.data.tables import read_table
from kagglehms.environment import available_cpus
from kagglehms.errors import DataError
from kagglehms.training.metric import mean_scores, standings

if TYPE_CHECKING:
    import polars as pl

N_ELECTRODES = 19
N_FOLDS = 5
RIDGE = 0.03
"""Inverse strength of the baseline's penalty on standardised features."""


@dataclass(frozen=True)
class Floor:
    """Scores, each on all records and on those with at least 10 votes (None where there are none).

    Attributes:
        n_records: number of records.
        n_votes10: number of records with at least 10 votes.
        perfect: scores of the true probabilities.
        energy: scores of a softmax regression on the 19 electrodes' log energy, out of fold over patients.
        prior: scores of the mean target of the same records.
        uniform: scores of one sixth for each class.
    """

    n_records: int
    n_votes10: int
    perfect: tuple[float, float | None]
    energy: tuple[float, float | None]
    prior: tuple[float, float | None]
    uniform: tuple[float, float | None]

    @property
    def sentence(self) -> str:
        """A table of the scores for people to read."""
        lines = [f"{'score (KL divergence, lower is better)':<42}{'all records':>12}{'many votes':>12}"]
        for name, (score, score_votes10) in (
            ("perfect predictor (the irreducible part)", self.perfect),
            ("electrode energy, softmax regression", self.energy),
            ("class prior", self.prior),
            ("uniform guess", self.uniform),
        ):
            many = "–" if score_votes10 is None else f"{score_votes10:.4f}"
            lines.append(f"{name:<42}{score:>12.4f}{many:>12}")
        lines.append(f"{'records':<42}{self.n_records:>12}{self.n_votes10:>12}")
        return "\n".join(lines)


def recovered(score: float, prior: float, perfect: float) -> float:
    """Return how far a score has come from that of the class prior (0) to that of the perfect predictor (1)."""
    return (prior - score) / (prior - perfect)


def measure_floor(
    competition: Competition,
    truth_csv: Path,
    watch: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, total: items,
) -> Floor:
    """Score the perfect predictor, the class prior and the electrode-energy baseline on the training records.

    Args:
        competition: a simulated competition.
        truth_csv: path of its train_truth.csv.
        watch: function that is given the recordings to read and their number, and yields them, to show progress.

    Raises:
        DataError: the truth is of another competition, or a file cannot be read.
    """
    records = read_records(competition.train_csv)
    truth_NK = read_truth(truth_csv, records.frame)
    targets_NK, many = records.targets_NK, records.many
    energy_NK = energy_baseline(record_energies(competition, records, watch), records)
    of_all, of_many = standings(targets_NK, truth_NK, many)
    return Floor(
        len(records),
        int(many.sum()),
        (of_all.score, None if of_many is None else of_many.score),
        mean_scores(targets_NK, energy_NK, many),
        (of_all.prior, None if of_many is None else of_many.prior),
        (of_all.uniform, None if of_many is None else of_many.uniform),
    )


def read_truth(path: Path, records: pl.DataFrame) -> NDArray[np.float64]:
    """Read the true probabilities of records.

    Args:
        path: path of train_truth.csv of a simulated competition.
        records: n records with columns eeg_id and the six votes, in any order.

    Returns:
        (n, 6) probabilities, rows sum to 1. Labels of one EEG with the same votes are one record, and have their mean.

    Raises:
        DataError: a record is not in the table.
    """
    import polars as pl

    key = ["eeg_id", *VOTE_COLUMNS]
    table = read_table(path, {**dict.fromkeys(key, "whole"), **dict.fromkeys(PROBABILITY_COLUMNS, "number")})
    means = table.group_by(key).agg(pl.col(PROBABILITY_COLUMNS).mean())
    joined = records.select(key).join(means, on=key, how="left", maintain_order="left")
    truth_NK = joined.select(PROBABILITY_COLUMNS).to_numpy().astype(np.float64)
    unknown = np.isnan(truth_NK).any(axis=1)
    if unknown.any():
        example = records["eeg_id"][int(unknown.argmax())]
        raise DataError(
            path, f"lacks {int(unknown.sum())} of the records (EEG {example})", "it is of another competition"
        )
    return truth_NK / truth_NK.sum(axis=1, keepdims=True)


def energy_baseline(features_ND: NDArray[np.float64], records: Records) -> NDArray[np.float64]:
    """Predict vote fractions from features by softmax regression, each patient by a model that never saw it.

    Args:
        features_ND: (n, D) features of each record.
        records: n records.

    Returns:
        (n, 6) probabilities; the class prior where there are too few patients or classes.
    """
    targets_NK = records.targets_NK
    n_folds = min(N_FOLDS, len(np.unique(records.patients)))
    out_NK = np.tile(targets_NK.mean(axis=0), (len(records), 1))
    if n_folds < 2:
        return out_NK
    folds_N = assign_folds(records, n_folds)
    for fold in range(n_folds):
        train, held_out = folds_N != fold, folds_N == fold
        if held_out.any():
            out_NK[held_out] = softmax_regression(
                features_ND[train], targets_NK[train], features_ND[held_out]
            )
    return out_NK


def softmax_regression(
    features_ND: NDArray[np.float64], targets_NK: NDArray[np.float64], new_MD: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Fit a softmax regression, and predict with it.

    Args:
        features_ND: (n, D) features to fit to.
        targets_NK: (n, 6) vote fractions to fit.
        new_MD: (M, D) features to predict from.

    Returns:
        (M, 6) probabilities; the mean target where the targets are all of one class.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # scikit-learn wants one class per row: each record stands once for every class, weighted by its votes.
    rows, classes = np.nonzero(targets_NK)
    seen = np.unique(classes)
    if len(seen) < 2:
        return np.tile(targets_NK.mean(axis=0), (len(new_MD), 1))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=RIDGE, max_iter=1000))
    model.fit(features_ND[rows], classes, logisticregression__sample_weight=targets_NK[rows, classes])
    # A class that no training record has gets a small probability, so that a vote for it costs a finite score.
    predicted_MK = np.full((len(new_MD), len(CLASSES)), 1e-3)
    predicted_MK[:, seen] += model.predict_proba(new_MD)
    return predicted_MK / predicted_MK.sum(axis=1, keepdims=True)


def electrode_energy(uv_TC: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the logarithm of each electrode's variance, (19,), over a window of (n_times, 20) µV."""
    uv_TC = uv_TC[:, :N_ELECTRODES].astype(np.float64)
    seen = np.isfinite(uv_TC)
    mean = np.where(seen, uv_TC, 0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    square = (np.where(seen, uv_TC - mean, 0) ** 2).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    return np.log(square + 1)


def record_energies(
    competition: Competition,
    records: Records,
    watch: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, total: items,
) -> NDArray[np.float64]:
    """Return the `electrode_energy` of each record's 50 s, (n_records, 19); for `watch` see `measure_floor`."""
    from kagglehms.data.readers import read_eeg

    def one(place: tuple[int, int]) -> NDArray[np.float64]:
        eeg_id, first = place
        return electrode_energy(read_eeg(competition.eeg(eeg_id))[first : first + N_TIMES])

    places = list(zip(records.eeg_ids.tolist(), records.places()[1].tolist(), strict=True))
    with ThreadPoolExecutor(available_cpus()) as pool:
        return np.stack(list(watch(pool.map(one, places), len(places))))
