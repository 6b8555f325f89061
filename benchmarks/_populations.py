"""What correcting class priors is worth on real out-of-fold predictions; see `blending.py --populations`.

Every model of the file learned from records with many votes last: on all records it promises far fewer seizures than
experts saw, on those with many votes the right number. So the correction is shown twice. From many to all votes as the
models are; and from all to many on a stand-in for their first stage, a softmax regression on a model's own
log probabilities that is fitted to all records of the other patients.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from kagglehms.data.competition import CLASSES, VOTE_COLUMNS
from kagglehms.data.records import MANY_VOTES, vote_fractions
from kagglehms.runs.blend_data import BlendData
from kagglehms.runs.blend_fitting import clustered_mean, nested_score, patient_folds
from kagglehms.runs.blends import Fitting
from kagglehms.runs.prior_correction import Target
from kagglehms.training.metric import floors, kl_terms

MODELS = ("spectrogram_50_10_convnextbase", "raw_eeg_50_10_convnextbase")
FITTINGS: dict[str, dict[str, Any]] = {
    "temperature": {"temperature": True, "biases": False},
    "temperature and biases": {"temperature": True, "biases": True},
    "exponent and temperature": {"temperature": True, "biases": False, "prior_exponent": "fit"},
}
SHRINKAGE = 0.001
"""Hardly any: there is but one model, and six to eight numbers for thousands of records."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """The file's records: vote fractions, who has many votes, patients counted from 0."""

    table: pl.DataFrame
    targets_NK: Floats
    many_N: NDArray[np.bool_]
    patients_N: NDArray[np.intp]

    @classmethod
    def read(cls, path: Path) -> Rows:
        table = pl.read_parquet(path)
        votes_NK = table.select(VOTE_COLUMNS).to_numpy().astype(np.float64)
        return cls(
            table,
            vote_fractions(votes_NK),
            table["n_votes"].to_numpy() >= MANY_VOTES,
            np.unique(table["patient_id"].to_numpy(), return_inverse=True)[1],
        )

    def of(self, model: str) -> Floats:
        return self.table.select(f"{model}:{c}" for c in CLASSES).to_numpy().astype(np.float64)

    def mean_on(self, terms: Floats, mask: NDArray[np.bool_]) -> tuple[float, float]:
        """Mean and its standard error, rows of one patient taken together."""
        return clustered_mean(terms, mask.astype(np.float64), self.patients_N)


def first_stage(rows: Rows, predictions_NK: Floats, seed: int = 11) -> Floats:
    """Out-of-fold predictions of a softmax regression on log probabilities, fitted to all records."""
    logs_NK = np.log(np.maximum(predictions_NK, 1e-6))
    features_NK = logs_NK - logs_NK.mean(axis=1, keepdims=True)
    folds_N = patient_folds(rows.patients_N, 5, seed)
    out_NK = np.empty_like(predictions_NK)
    for fold in range(5):
        train = folds_N != fold
        at, classes = np.nonzero(rows.targets_NK[train])
        model = LogisticRegression(max_iter=1000)
        model.fit(features_NK[train][at], classes, sample_weight=rows.targets_NK[train][at, classes])
        out_NK[~train] = model.predict_proba(features_NK[~train])
    return out_NK


def compare(
    rows: Rows, predictions_NK: Floats, trained_N: NDArray[np.bool_], to: Target, seeds: int
) -> list[Any]:
    """Lines of figures: as it is, corrected with nothing fitted, and with each of `FITTINGS`."""
    own = rows.many_N if to == "many" else np.ones(len(rows.many_N), bool)
    before = kl_terms(rows.targets_NK, predictions_NK)
    lines = [_line(rows, "as it is", before, None, own)]
    data = BlendData.of(
        predictions_NK[None],
        rows.targets_NK,
        ["model"],
        rows.patients_N,
        many_N=rows.many_N,
        training_MN=trained_N[None],
    )
    for name, how in FITTINGS.items():
        fitting = Fitting(**{"shrinkage": SHRINKAGE, "population": to, "prior_exponent": 1.0} | how)
        nested = nested_score(data, fitting, seeds=range(seeds))
        assert nested.blend.prior is not None
        if len(lines) == 1:
            correct = nested.corrected_N
            assert correct is not None
            lines.append(_line(rows, "class priors corrected, nothing fitted", correct, before, own))
        line = _line(rows, f"the same, {name} fitted", nested.terms_N, before, own)
        line |= {"temperature": nested.blend.temperature, "exponent": nested.blend.prior.exponent}
        lines.append(line)
    return lines


def _line(
    rows: Rows, name: str, terms: Floats, before: Floats | None, own: NDArray[np.bool_]
) -> dict[str, Any]:
    everywhere = np.ones(len(terms), bool)
    line: dict[str, Any] = {"what": name}
    for part, mask in (("all", everywhere), ("many", rows.many_N)):
        line[part], line[f"{part}_error"] = rows.mean_on(terms, mask)
    if before is not None:
        line["change"], line["change_error"] = rows.mean_on(terms - before, own)
    return line


def report(path: Path, seeds: int) -> dict[str, Any]:
    """Print the tables and return their figures."""
    rows = Rows.read(path)
    n_many, n = int(rows.many_N.sum()), len(rows.many_N)
    print(
        f"{n} records of {rows.patients_N.max() + 1} patients, {n_many} of them with ≥ {MANY_VOTES} votes, of "
        f"{len(np.unique(rows.patients_N[rows.many_N]))} patients; {seeds} nested cross-validations of five folds"
    )
    found: dict[str, Any] = {"records": n, "many": n_many, "seeds": seeds}
    for part, mask in (("all", np.ones(n, bool)), ("many", rows.many_N)):
        prior, uniform = floors(rows.targets_NK[mask])
        found[f"{part}_class_means"] = rows.targets_NK[mask].mean(axis=0).round(4).tolist()
        found[f"{part}_floors"] = {"prior": prior, "uniform": uniform}
        print(f"{part}: class means {found[f'{part}_class_means']}, prior {prior:.4f}, uniform {uniform:.4f}")
    found["mean_seizure"] = _seizures(rows)
    for model in MODELS:
        given_NK = rows.of(model)
        trained_on_all = np.ones(n, bool)
        tables = {
            "to all": compare(rows, given_NK, rows.many_N, "all", seeds),
            "stand-in, to many": compare(rows, first_stage(rows, given_NK), trained_on_all, "many", seeds),
        }
        for title, lines in tables.items():
            print(f"\n{model}, {title}")
            for line in lines:
                _print(line)
        found[model] = tables
    return found


def _seizures(rows: Rows) -> dict[str, list[float]]:
    """The least and largest mean probability of a seizure that a model gives, on either population."""
    names = [c.split(":")[0] for c in rows.table.columns if c.endswith(f":{CLASSES[0]}")]
    means = np.array([[rows.of(m)[:, 0].mean(), rows.of(m)[rows.many_N, 0].mean()] for m in names])
    found = {"all": [means[:, 0].min(), means[:, 0].max()], "many": [means[:, 1].min(), means[:, 1].max()]}
    for part, (low, high) in found.items():
        print(f"mean probability of a seizure, {len(names)} models, {part}: {low:.3f} to {high:.3f}")
    return {part: [float(value) for value in values] for part, values in found.items()}


def _print(line: dict[str, Any]) -> None:
    change = f"{line['change']:+.4f} ± {line['change_error']:.4f}" if "change" in line else ""
    fitted = f"1/T {1 / line['temperature']:.3f}, γ {line['exponent']:.3f}" if "temperature" in line else ""
    print(
        f"  {line['what']:48} all {line['all']:.4f} ± {line['all_error']:.4f}  many {line['many']:.4f} ± "
        f"{line['many_error']:.4f}  {change:18} {fitted}"
    )
