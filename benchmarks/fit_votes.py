"""Fit the numbers of `kagglehms/simulator/votes.py` and `plan.py` to the competition's own train.csv.

python benchmarks/fit_votes.py --table train.csv

Records of ten and more votes: a mixture of ten Dirichlet-multinomials by expectation–maximisation. Then six clear
kinds are added, one per class, and with all kinds held fixed their shares are fitted in every vote group, and for
few votes the concentration of the raters around the truth (the likelihood integrates over truths by Monte Carlo).
The other numbers are counts and quantiles.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import polars as pl
from _measure import finish, table
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import gammaln

from kagglehms.data.competition import CLASSES, VOTE_COLUMNS
from kagglehms.data.records import MANY_VOTES, Records, make_records, read_train_table
from kagglehms.simulator.votes import CLASS_MEANS, VOTE_GROUPS

F64 = NDArray[np.float64]

N_KINDS = 10
CLEAR_SHARE, CLEAR_CONCENTRATION = 0.92, 16
CONCENTRATIONS = {(1, 3): (0.5, 1.2, 2.0, 4.0, 8.0), (4, 7): (2.0, 5.0, 8.0, 16.0, 32.0)}
N_TRUTHS = 1500


def log_likelihood(alpha: F64, votes: NDArray[np.integer]) -> F64:
    """Logarithm of the Dirichlet-multinomial probability of votes, without the multinomial coefficient."""
    total, n_votes = alpha.sum(axis=-1), votes.sum(axis=-1)
    return gammaln(total) - gammaln(total + n_votes) + (gammaln(alpha + votes) - gammaln(alpha)).sum(axis=-1)


def fit_kinds(votes_NK: NDArray[np.int64], iterations: int = 25) -> F64:
    """(N_KINDS, 6) Dirichlet parameters, by expectation–maximisation from a k-means of the square roots of shares."""
    from sklearn.cluster import KMeans

    shares_NK = (votes_NK + 0.3) / (votes_NK + 0.3).sum(axis=1, keepdims=True)
    start = KMeans(N_KINDS, n_init=3, random_state=0).fit_predict(np.sqrt(shares_NK))
    belongs_NM = np.eye(N_KINDS)[start]
    alpha_MK = np.stack([5 * shares_NK[start == m].mean(axis=0) + 0.02 for m in range(N_KINDS)])
    for _ in range(iterations):
        for m in range(N_KINDS):
            near = belongs_NM[:, m] > 1e-4
            weights, votes = belongs_NM[near, m], votes_NK[near]

            def loss(log_alpha: F64, weights: F64 = weights, votes: NDArray[np.int64] = votes) -> float:
                fit = (weights * log_likelihood(np.exp(log_alpha)[None], votes)).sum() / weights.sum()
                return float(-fit + 0.003 * (log_alpha**2).sum())

            found = minimize(loss, np.log(alpha_MK[m]), method="L-BFGS-B", options={"maxiter": 6})
            alpha_MK[m] = np.exp(np.clip(found.x, -5, 4))
        scores = np.log(belongs_NM.mean(axis=0) + 1e-12) + np.stack(
            [log_likelihood(alpha[None], votes_NK) for alpha in alpha_MK], axis=1
        )
        belongs_NM = np.exp(scores - scores.max(axis=1, keepdims=True))
        belongs_NM /= belongs_NM.sum(axis=1, keepdims=True)
    return alpha_MK


def clear_kinds() -> F64:
    """One kind per class whose truth is mostly that class."""
    means = np.array(CLASS_MEANS)
    kinds = np.tile(means, (len(CLASSES), 1))
    for k in range(len(CLASSES)):
        kinds[k] *= (1 - CLEAR_SHARE) / (means.sum() - means[k])
        kinds[k, k] = CLEAR_SHARE
    return kinds * CLEAR_CONCENTRATION


def likelihoods(kinds_MK: F64, votes_UK: NDArray[np.int64], concentration: float | None) -> F64:
    """(U, M) log-likelihood of each vote vector under each kind; None: votes are independent given the truth."""
    if concentration is None:
        return np.stack([log_likelihood(kind[None], votes_UK) for kind in kinds_MK], axis=1)
    rng = np.random.default_rng(0)
    out = np.empty((len(votes_UK), len(kinds_MK)))
    for m, kind in enumerate(kinds_MK):
        seen = concentration * np.maximum(rng.dirichlet(kind, N_TRUTHS), 1e-5)
        out[:, m] = [np.log(np.exp(log_likelihood(seen, votes[None])).mean()) for votes in votes_UK]
    return out


def fit_shares(counts_U: NDArray[np.int64], log_UM: F64, iterations: int = 400) -> tuple[F64, float]:
    """Shares of kinds in one vote group, and the log-likelihood of all its records."""
    best_U = log_UM.max(axis=1)
    likelihood_UM = np.exp(log_UM - best_U[:, None])
    shares_M = np.full(log_UM.shape[1], 1 / log_UM.shape[1])
    for _ in range(iterations):
        joint_UM = likelihood_UM * shares_M
        total_U = joint_UM.sum(axis=1)
        shares_M = (counts_U[:, None] * joint_UM / total_U[:, None]).sum(axis=0) + 0.5 / len(shares_M)
        shares_M /= shares_M.sum()
    return shares_M, float((counts_U * (np.log(total_U) + best_U)).sum())


def fit_votes(votes_NK: NDArray[np.int64]) -> tuple[F64, F64, dict[int, float]]:
    """Kinds, their shares by vote group, and the raters' concentration by the most votes it holds for."""
    n_votes = votes_NK.sum(axis=1)
    kinds_MK = np.concatenate([fit_kinds(votes_NK[n_votes >= MANY_VOTES]), clear_kinds()]).round(2).clip(0.02)
    kinds_MK = kinds_MK[np.argsort(kinds_MK.argmax(axis=1), kind="stable")]

    def group(low: int, high: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        inside = votes_NK[(n_votes >= low) & (n_votes <= high)]
        unique, counts = np.unique(inside, axis=0, return_counts=True)
        return unique, counts

    concentration: dict[int, float] = {}
    for (low, high), grid in CONCENTRATIONS.items():
        inside = [g for g in VOTE_GROUPS if low <= g[0] and g[1] <= high]
        fits = []
        for value in grid:
            total = 0.0
            for g in inside:
                unique, counts = group(*g)
                total += fit_shares(counts, likelihoods(kinds_MK, unique, value))[1]
            fits.append(total)
        concentration[high] = grid[int(np.argmax(fits))]
    shares = []
    for g in VOTE_GROUPS:
        unique, counts = group(*g)
        of_group = next((c for most, c in concentration.items() if g[1] <= most), None)
        shares.append(fit_shares(counts, likelihoods(kinds_MK, unique, of_group))[0])
    return kinds_MK, np.stack(shares), concentration


def counts(rows: pl.DataFrame, records: Records) -> dict[str, object]:
    """The numbers of `simulator.studies` that are counts and quantiles."""
    steps = rows.sort("eeg_id", "eeg_sub_id").with_columns(
        pl.col("eeg_label_offset_seconds").diff().over("eeg_id").alias("step")
    )["step"]
    values, numbers = np.unique(steps.drop_nulls().to_numpy(), return_counts=True)
    windows = rows.group_by("eeg_id", *VOTE_COLUMNS).len()
    several = windows.filter(pl.col("len") > 1)["len"].to_numpy()
    n_votes = windows.select(VOTE_COLUMNS).to_numpy().sum(axis=1)
    single = windows["len"].to_numpy() == 1
    spans = (
        rows.group_by("spectrogram_id", "eeg_id")
        .agg(
            pl.col("spectrogram_label_offset_seconds").min().alias("first"),
            pl.col("spectrogram_label_offset_seconds").max().alias("last"),
        )
        .sort("spectrogram_id", "first")
        .with_columns((pl.col("first") - pl.col("last").shift(1)).over("spectrogram_id").alias("gap"))
    )
    q = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
    return {
        "records by votes": _histogram(records.n_votes),
        "spectrograms per patient": _histogram(_n_unique(rows, "patient_id", "spectrogram_id")),
        "EEGs per spectrogram": _histogram(_n_unique(rows, "spectrogram_id", "eeg_id")),
        "records per EEG": _histogram(records.frame.group_by("eeg_id").len()["len"].to_numpy()),
        "steps, s": dict(zip(values.astype(int).tolist(), numbers.tolist(), strict=True)),
        "share of records of one window, few / some / many votes": [
            round(float(single[(n_votes >= low) & (n_votes <= high)].mean()), 3)
            for low, high in ((1, 3), (4, 7), (MANY_VOTES, 99))
        ],
        "ln(windows) of the others": (round(np.log(several).mean(), 3), round(np.log(several).std(), 3)),
        f"time between EEGs, s, at {q}": np.quantile(spans["gap"].drop_nulls().to_numpy(), q).tolist(),
    }


def _n_unique(rows: pl.DataFrame, key: str, of: str) -> NDArray[np.int64]:
    return rows.group_by(key).agg(pl.col(of).n_unique())[of].to_numpy()


def _histogram(values: NDArray[np.integer], most: int = 12) -> dict[int, int]:
    found, numbers = np.unique(values, return_counts=True)
    return dict(zip(found[:most].tolist(), numbers[:most].tolist(), strict=True)) | {
        int(found[-1]): int(numbers[-1])
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--table", type=Path, required=True, help="the competition's train.csv, or a parquet of it"
    )
    rows = read_train_table(parser.parse_args().table)
    records = make_records(rows)
    kinds_MK, shares_GM, concentration = fit_votes(records.votes_NK)
    print(f"{len(rows)} rows, {len(records)} records\n")
    header = [*CLASSES, *(f"{low}–{high} votes" for low, high in VOTE_GROUPS)]
    print(
        table(
            header,
            (
                [*(f"{a:.2f}" for a in kind), *(f"{s:.3f}" for s in shares)]
                for kind, shares in zip(kinds_MK, shares_GM.T, strict=True)
            ),
        )
    )
    print("\nraters' concentration, by the most votes it holds for:", concentration)
    for name, found in counts(rows, records).items():
        print(f"{name}: {found}")
    finish({"benchmark": "fit_votes", "records": len(records), "concentration": concentration})


if __name__ == "__main__":
    main()
