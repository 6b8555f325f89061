"""The tables of `ladder_on_simulated.py`, out of the runs' out-of-fold predictions.

Shape suffixes: N record, K class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean

import numpy as np
import polars as pl
from _measure import group_interval, table
from _oracles import knows_the_class, knows_the_kind, sees_the_strengths
from numpy.typing import NDArray

from kagglehms.data.competition import PROBABILITY_COLUMNS
from kagglehms.data.records import Records
from kagglehms.runs.baselines import energy_baseline, read_truth, recovered
from kagglehms.runs.folder import RunFolder
from kagglehms.runs.named_blends import LADDER_BLENDS
from kagglehms.runs.published_figures import RUNGS, published
from kagglehms.training.metric import kl_terms

F64 = NDArray[np.float64]

N_BOOTSTRAP = 4000
STEPS = (
    ("baseline", "global-stats", "summaries over panels instead of the panels"),
    ("baseline", "panels+global", "both side by side"),
    ("global-stats", "panels+global", "both side by side"),
    ("baseline", "vote-weighted", "percentiles beside, loss × log(votes + 1), CutMix"),
    ("global-stats", "vote-weighted-global", "loss × log(votes + 1), CutMix"),
    ("vote-weighted", "global-norm", "one normalisation for all records; no percentiles, no CutMix"),
    ("vote-weighted-global", "global-norm-stats", "one normalisation for all records"),
    ("baseline", "global-norm", "one normalisation for all records, loss × log(votes + 1)"),
    ("global-norm", "mosaic-xloss", "mosaics first, loss × min(votes, 10)"),
    ("global-norm-stats", "mosaic-xloss-stats", "mosaics first, loss × min(votes, 10)"),
    ("baseline", "eeg+percentiles", "50 s of EEG instead of ten minutes"),
    ("eeg+percentiles", "eeg-global-stats", "summaries of the EEG's images"),
    ("mosaic-xloss", "two-stage", "few votes first, then many"),
    ("two-stage", "two-stage-weighted", "another weight in the second stage"),
    ("vote-weighted", "kaggle+eeg", "both recordings in one image (not of the source)"),
    ("global-stats", "kaggle-ensemble", "mean with `baseline`"),
    ("eeg-global-stats", "eeg-ensemble", "mean with `eeg+percentiles`"),
    ("kaggle-ensemble", "kaggle+eeg-ensemble", "mean of the two ensembles"),
    ("vote-weighted-global", "vote-weighted-ensemble", "mean with `vote-weighted`"),
    ("global-norm-stats", "global-norm-ensemble", "mean with `global-norm`"),
    ("mosaic-xloss-stats", "mosaic-xloss-ensemble", "mean with `mosaic-xloss`"),
    ("baseline", "vote-weighted-only", "loss × log(votes + 1), nothing else"),
    ("eeg-panels", "eeg+percentiles", "percentiles beside the panels of the EEG"),
    ("two-stage", "two-stage-stats", "summaries of the panels"),
    ("eeg-ensemble", "eeg-two-stage-ensemble", "few votes first, then many, both models"),
    ("two-stage-stats", "two-stage-ensemble", "mean with `two-stage`"),
    ("two-stage-ensemble", "final", "mean with the two-stage models of the EEG"),
    ("kaggle+eeg-ensemble", "single-models", "mean of all single models (not of the source)"),
    # Not steps of the source, but what some of its steps are made of.
    ("baseline", "baseline-together", "the four panels normalised together"),
    ("baseline-together", "global-stats", "summaries instead of panels, nothing else"),
    ("baseline-together", "global-norm-plain-loss", "one normalisation for all records, nothing else"),
    ("global-norm-plain-loss", "global-norm", "loss × log(votes + 1), nothing else"),
)
"""From, to, and what changes. The source's own figure is the difference of its two cross-validated scores, or, for an
ensemble, of which it gives no other, on the public leaderboard."""
ON_SETTLED = {name: rung.settled for name, rung in RUNGS.items() if rung.settled is not None}
"""Published on settled records only, and so compared on those."""

STRENGTHS, KIND, CLASS = "measures each pattern", "knows each kind of window", "knows each majority"
"""Predictors of `_oracles`, in words for the table."""
MEAN = "mean of all"
"""The plain mean of all single models that were trained, whichever they are."""
AGAINST = ("global-norm", "mosaic-xloss", "raw-fold")
"""What recipes beyond the source are compared with: two of its rungs, and the folded signal."""


@dataclass(frozen=True)
class Results:
    """Out-of-fold predictions of everything trained, on the records that all of them were scored on.

    Attributes:
        records: those records.
        truth_NK: their true probabilities.
        predictions: name → seed → (N, 6).
        floors: name → (N, 6): the perfect predictor, three that know less of the truth, the energy baseline, the class
            prior.
        folds: how many folds were trained, of how many.
    """

    records: Records
    truth_NK: F64
    predictions: Mapping[str, Mapping[int, F64]]
    floors: Mapping[str, F64]
    folds: tuple[int, int]

    @property
    def blends(self) -> set[str]:
        """Which of them are means of others."""
        return ({spec.name for spec in LADDER_BLENDS} | {MEAN}) & set(self.predictions)


def load(
    runs: Mapping[int, Path],
    names: Sequence[str],
    n_folds: int,
    records: Records,
    truth_csv: Path,
    energies_ND: F64,
) -> Results:
    """Read what was trained; folds that not every run has are left out, so that all are on the same records."""
    found: dict[str, dict[int, dict[int, pl.DataFrame]]] = {}
    for name in names:
        for seed, folder in runs.items():
            run = RunFolder(folder / name)
            folds = {fold: run.fold_predictions(fold) for fold in run.finished}
            if folds:
                found.setdefault(name, {})[seed] = folds
    if not found:
        raise SystemExit("nothing is trained yet")
    common = set.intersection(*(set(folds) for of_seed in found.values() for folds in of_seed.values()))
    if not common:
        raise SystemExit(f"no fold is trained in all of {', '.join(found)}")
    predictions: dict[str, dict[int, F64]] = {}
    for name, of_seed in found.items():
        for seed, folds in of_seed.items():
            frame = pl.concat([folds[fold] for fold in sorted(common)]).sort("record")
            index = frame["record"].to_numpy()
            predictions.setdefault(name, {})[seed] = frame.select(PROBABILITY_COLUMNS).to_numpy()
    scored = records.take(index)
    prior_NK = np.tile(records.targets_NK.mean(axis=0), (len(scored), 1))
    truth_NK = read_truth(truth_csv, records.frame)
    floors = {
        "perfect predictor": truth_NK[index],
        STRENGTHS: sees_the_strengths(truth_NK[index], scored.n_votes),
        KIND: knows_the_kind(truth_NK, records.n_votes)[index],
        CLASS: knows_the_class(truth_NK)[index],
        "electrodes' energy": energy_baseline(energies_ND, records)[index],
        "class prior": prior_NK,
    }
    predictions |= _blends(predictions)
    return Results(scored, floors["perfect predictor"], predictions, floors, (len(common), n_folds))


def _blends(predictions: Mapping[str, Mapping[int, F64]]) -> dict[str, dict[int, F64]]:
    """The source's ensembles whose members are there, where it gives no weights as plain means, and `MEAN`."""
    blends = {
        spec.name: _averaged([predictions[member] for member in spec.members], spec.weights)
        for spec in LADDER_BLENDS
        if all(member in predictions for member in spec.members)
    }
    of_all = _averaged(list(predictions.values()))
    return blends | ({MEAN: of_all} if of_all and len(predictions) > 1 else {})


def _averaged(members: Sequence[Mapping[int, F64]], weights: Sequence[float] | None = None) -> dict[int, F64]:
    """The mean of several models for each seed that all of them have."""
    seeds = set.intersection(*map(set, members))
    return {
        seed: np.average([of_seed[seed] for of_seed in members], axis=0, weights=weights)
        for seed in sorted(seeds)
    }


def report(results: Results, made: str) -> str:
    """Tables as Markdown, with everything that must be known to read them."""
    settled, many = results.records.settled, results.records.many
    sizes = (
        f"{len(settled)} records are held out and scored, {int(many.sum())} of them with ten and more votes, "
    )
    sizes += f"{int(settled.sum())} settled (five and more votes, or four that agree)."
    columns = (
        "predictor",
        "all records",
        "≥ 10 votes",
        "settled",
        "way",
        "way, ≥ 10",
        "published CV",
        "LB",
    )
    lines = [
        made,
        "",
        f"{results.folds[0]} of {results.folds[1]} folds; {sizes}",
        "",
        "### Scores",
        "",
        "KL divergence, out of fold: mean over seeds ± half their range. The way is the part of the distance from",
        "the class prior to the perfect predictor, which knows the probabilities that the votes were drawn from.",
        "Three others know a part of the truth: which class has the majority in every record, which of the",
        "simulator's sixteen kinds of window it is, and how strong each pattern is in its signal, down to half a",
        "standard deviation of the background (`benchmarks/_oracles.py`).",
        "",
        table(columns, _score_rows(results)),
        *_steps(results),
        *_comparison(results),
    ]
    return "\n".join(lines)


def _steps(results: Results) -> list[str]:
    """The source's steps, if any of them was taken."""
    rows = [line for step in STEPS if (line := _step_row(results, *step))]
    if not rows:
        return []
    return [
        "",
        "### Which steps help",
        "",
        "Each line is one step of the source. Here: the change of the expected score (negative helps), that is,",
        "with every record's true probabilities in place of its votes; mean over seeds, and in brackets the 95 %",
        f"interval over patients ({N_BOOTSTRAP} bootstrap draws). A step is undecided if that interval, or the",
        "seeds among themselves, allow both signs.",
        "",
        table(("from", "to", "what changes", "published", "here", "each seed", "as published?"), rows),
    ]


def _comparison(results: Results) -> list[str]:
    """Recipes beyond the source against its rungs and the folded signal, if any of them was trained."""
    source = set(RUNGS) | {spec.name for spec in LADDER_BLENDS}
    rows = [
        [
            f"`{name}`",
            f"`{rung}`",
            *(_change(results, rung, name, mask) for mask in (None, results.records.many)),
        ]
        for name in results.predictions
        for rung in AGAINST
        if name not in {*source, rung} and rung in results.predictions
    ]
    if not rows:
        return []
    many, patients = results.records.many, results.records.patients
    n_patients, n_many = (len(np.unique(of)) for of in (patients, patients[many]))
    return [
        "",
        "### Beyond the source",
        "",
        "The change of the expected score against a rung of the source or the folded signal, record by record:",
        f"negative is better. In brackets the 95 % interval over patients ({N_BOOTSTRAP} paired bootstrap draws of",
        f"{n_patients} patients, of {n_many} where there are ten and more votes); mean over seeds.",
        "",
        table(("recipe", "against", "all records", "≥ 10 votes"), rows),
    ]


def _change(results: Results, before: str, after: str, mask: NDArray[np.bool_] | None) -> str:
    mask = np.ones(len(results.truth_NK), bool) if mask is None else mask
    differences_SN = _differences(results, before, after, mask)
    low, high = group_interval(differences_SN.mean(axis=0), results.records.patients[mask], N_BOOTSTRAP)
    return f"{differences_SN.mean():+.4f} ({low:+.3f} … {high:+.3f})"


def _differences(results: Results, before: str, after: str, mask: NDArray[np.bool_]) -> F64:
    """(seeds, n) change of every record's expected score."""
    a, b, truth_NK = results.predictions[before], results.predictions[after], results.truth_NK[mask]
    return np.array(
        [
            kl_terms(truth_NK, b[seed][mask]) - kl_terms(truth_NK, a[seed][mask])
            for seed in sorted(a.keys() & b.keys())
        ]
    )


def scores(results: Results) -> dict[str, list[list[float]]]:
    """KL divergence of the floors and of everything trained.

    Returns:
        name → for each seed, over all records, those with ten and more votes, and settled ones.
    """
    masks = (np.ones(len(results.records), bool), results.records.many, results.records.settled)
    found: dict[str, list[list[float]]] = {}
    for name, of_seed in (*((n, {0: p}) for n, p in results.floors.items()), *results.predictions.items()):
        terms_SN = [kl_terms(results.records.targets_NK, p) for p in of_seed.values()]
        found[name] = [[float(terms_N[mask].mean()) for mask in masks] for terms_N in terms_SN]
    return found


def ways(found: Mapping[str, list[list[float]]]) -> dict[str, list[list[float]]]:
    """How far each of the `scores` is from that of the class prior to that of the perfect predictor, as a share."""
    (prior,), (perfect,) = found["class prior"], found["perfect predictor"]
    return {
        name: [
            [recovered(score, *limits) for score, *limits in zip(of_seed, prior, perfect, strict=True)]
            for of_seed in of_seeds
        ]
        for name, of_seeds in found.items()
    }


def _score_rows(results: Results) -> list[list[str]]:
    found = scores(results)
    rows = []
    for name, far in ways(found).items():
        cv, lb = published(name).cv, published(name).lb
        rows.append(
            [
                name if name in results.floors else f"`{name}`",
                *(_spread([row[k] for row in found[name]]) for k in range(3)),
                *(_spread([100 * row[k] for row in far], 1, " %") for k in range(2)),
                "–" if cv is None else f"{cv:.4f}",
                "–" if lb is None else f"{lb:.2f}",
            ]
        )
    return rows


def _spread(values: Sequence[float], digits: int = 4, unit: str = "") -> str:
    half = (max(values) - min(values)) / 2
    around = f" ± {half:.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{around}{unit}"


def _step_row(results: Results, before: str, after: str, what: str) -> list[str] | None:
    """One step: the source's difference, and ours, record by record and seed by seed."""
    if before not in results.predictions or after not in results.predictions:
        return None
    on_settled = after in ON_SETTLED
    mask = results.records.settled if on_settled else np.ones(len(results.truth_NK), bool)
    differences_SN = _differences(results, before, after, mask)
    per_seed = differences_SN.mean(axis=1)
    patients = results.records.patients[mask]
    low, high = group_interval(differences_SN.mean(axis=0), patients, N_BOOTSTRAP)
    theirs, told = _published(before, after)
    decided = low * high > 0 and all(x * y > 0 for x, y in pairwise(per_seed))
    agrees = "yes" if theirs is not None and theirs * per_seed.mean() > 0 else "**no**"
    return [
        f"`{before}`",
        f"`{after}`",
        what + (" (settled records)" if on_settled else ""),
        told,
        f"{per_seed.mean():+.4f} ({low:+.3f} … {high:+.3f})",
        ", ".join(f"{value:+.3f}" for value in per_seed),
        "undecided" if not decided else "–" if theirs is None else agrees,
    ]


def _published(before: str, after: str) -> tuple[float | None, str]:
    """The source's difference between two of its experiments, as a number and as the table has it."""
    old, new = published(before), published(after)
    cv = (ON_SETTLED.get(before), ON_SETTLED.get(after)) if before in ON_SETTLED else (old.cv, new.cv)
    for (first, second), form in ((cv, "{:+.4f}"), ((old.lb, new.lb), "{:+.2f} (LB)")):
        if first is not None and second is not None:
            return second - first, form.format(second - first)
    return None, "–"
