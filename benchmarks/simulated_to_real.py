"""A model that has seen simulated data only, on real rows: is there anything in the simulator that carries over?

python benchmarks/simulated_to_real.py --bundle dist/dataset --real hms/ [--rows 59] [--simulated work/competition]

`--bundle` is what `kagglehms build` made of runs on a simulated competition (`kagglehms simulate`, `prepare`,
`train`, or `benchmarks/ladder_on_simulated.py`). Each row of the real train.csv whose two recordings are there is
predicted. Printed are the competition's score of the model, of uniform, of the real class prior (published, all
records), of the simulated class prior that the model started from, and of the model mixed half and half with the
real prior; with `--simulated`, the competition that the model learned from, also of a softmax regression on its
electrodes' energy. Scores are means over rows, with a bootstrap interval over EEGs, because rows of one EEG are nearly
the same question; and means over EEGs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import polars as pl
from _measure import finish, group_interval, machine, table, versions
from numpy.typing import NDArray

from kagglehms.bundle.predictor import load_bundle
from kagglehms.data.competition import (
    CLASSES,
    N_TIMES,
    SPECTROGRAM_COLUMNS,
    SPECTROGRAM_ROWS,
    VOTE_COLUMNS,
    Competition,
)
from kagglehms.data.records import (
    EEG_OFFSET,
    SPECTROGRAM_OFFSET,
    first_row_and_sample,
    read_records,
    read_train_table,
    vote_fractions,
)
from kagglehms.progress import progress
from kagglehms.runs.baselines import electrode_energy, record_energies, softmax_regression
from kagglehms.training.metric import kl_terms

F64 = NDArray[np.float64]

REAL_PRIOR = np.array((0.184, 0.154, 0.102, 0.069, 0.103, 0.388))
"""Mean target of the real records, as published in docs/ladder.md's source."""
N_BOOTSTRAP = 2000


def rows_at_hand(competition: Competition, most: int | None) -> pl.DataFrame:
    """The rows of train.csv whose recordings are in the folder."""
    rows = read_train_table(competition.train_csv)
    here = [
        competition.eeg(eeg_id).is_file() and competition.spectrogram(spectrogram_id).is_file()
        for eeg_id, spectrogram_id in rows.select("eeg_id", "spectrogram_id").rows()
    ]
    found = rows.filter(pl.Series(here))
    return found if most is None else found.head(most)


def windows(competition: Competition, rows: pl.DataFrame) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(n, 10000, 20) µV and (n, 300, 400) power of each row."""
    eegs, spectrograms = [], []
    for row in rows.iter_rows(named=True):
        uv = pl.read_parquet(competition.eeg(row["eeg_id"])).to_numpy()
        first_row, first = map(int, first_row_and_sample(row[SPECTROGRAM_OFFSET], row[EEG_OFFSET]))
        eegs.append(uv[first : first + N_TIMES])
        power = (
            pl.read_parquet(competition.spectrogram(row["spectrogram_id"]))
            .select(SPECTROGRAM_COLUMNS)
            .to_numpy()
        )
        spectrograms.append(power[first_row : first_row + SPECTROGRAM_ROWS])
    return np.stack(eegs).astype(np.float32), np.stack(spectrograms).astype(np.float32)


def energy_model(simulated: Path, eeg_uv: NDArray[np.float32]) -> F64:
    """What a softmax regression of simulated votes on the electrodes' energy says of other windows."""
    competition = Competition(simulated)
    records = read_records(competition.train_csv)
    energies = record_energies(competition, records, lambda items, total: progress(items, total, "read"))
    return softmax_regression(energies, records.targets_NK, np.stack([electrode_energy(uv) for uv in eeg_uv]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--bundle", type=Path, required=True, help="dist/dataset, trained on simulated data only"
    )
    parser.add_argument("--real", type=Path, required=True, help="a folder in the competition's format, real")
    parser.add_argument("--rows", type=int, help="at most so many rows")
    parser.add_argument("--simulated", type=Path, help="the competition that the model learned from")
    parser.add_argument("--device", choices=("cpu", "cuda"))
    options = parser.parse_args()
    competition = Competition(options.real)
    rows = rows_at_hand(competition, options.rows)
    votes_NK = rows.select(VOTE_COLUMNS).to_numpy()
    targets_NK = vote_fractions(votes_NK)
    eeg_uv, power = windows(competition, rows)
    predictor = load_bundle(options.bundle, options.device)
    model_NK = np.concatenate(
        [
            predictor.predict(eeg_uv[first : first + 16], spectrogram=power[first : first + 16])
            for first in range(0, len(rows), 16)
        ]
    )
    n, n_classes = targets_NK.shape
    contenders = {
        "model, trained on simulated data only": model_NK,
        "half model, half real class prior": 0.5 * model_NK
        + 0.5 * np.tile(REAL_PRIOR / REAL_PRIOR.sum(), (n, 1)),
        "uniform": np.full((n, n_classes), 1 / n_classes),
        "real class prior": np.tile(REAL_PRIOR / REAL_PRIOR.sum(), (n, 1)),
        "simulated class prior": np.tile(predictor.prior / predictor.prior.sum(), (n, 1)),
    }
    if options.simulated is not None:
        contenders["electrodes' energy, of simulated data"] = energy_model(options.simulated, eeg_uv)
    eeg_ids = rows["eeg_id"].to_numpy()
    scores = {name: kl_terms(targets_NK, predicted) for name, predicted in contenders.items()}
    found = [
        (
            name,
            f"{terms.mean():.4f}",
            "{:.4f} – {:.4f}".format(*group_interval(terms, eeg_ids, N_BOOTSTRAP)),
            f"{np.mean([terms[eeg_ids == eeg_id].mean() for eeg_id in np.unique(eeg_ids)]):.4f}",
        )
        for name, terms in scores.items()
    ]
    print(f"{n} rows of {len(np.unique(eeg_ids))} EEGs; {machine()}; {versions('numpy', 'torch', 'timm')}")
    print(table(("predictor", "KL divergence", "95 % over EEGs", "mean of EEGs"), found))
    terms_N = scores["model, trained on simulated data only"]
    per_eeg = [
        (
            eeg_id,
            int(mine.sum()),
            _classes(targets_NK[mine].mean(axis=0)),
            _classes(model_NK[mine].mean(axis=0)),
            f"{terms_N[mine].mean():.3f}",
        )
        for eeg_id in np.unique(eeg_ids)
        for mine in (eeg_ids == eeg_id,)
    ]
    print(table(("EEG", "rows", "votes", "model", "KL"), per_eeg))
    finish(
        {
            "benchmark": "simulated_to_real",
            "rows": n,
            **{name: terms.mean() for name, terms in scores.items()},
        }
    )


def _classes(shares_K: F64) -> str:
    """The two likeliest classes."""
    order = np.argsort(-shares_K)[:2]
    return ", ".join(f"{CLASSES[k]} {shares_K[k]:.2f}" for k in order)


if __name__ == "__main__":
    main()
