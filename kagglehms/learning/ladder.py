"""The ladder: the source's published figures, and beside them what has been trained here.

Source: README and notebooks of the public solution "HMS-Harmful Brain Activity Classification" (Cranjis-McB). CV
is its out-of-fold score on all 20,183 records of train.csv, LB the public leaderboard; both KL divergence.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kagglehms.errors import RunError, UsageError, closest
from kagglehms.learning.ensemble import LADDER_BLENDS, Blend, blend_from_json, get_blend_spec
from kagglehms.learning.recipes import RECIPES, Recipe, recipe_from_json
from kagglehms.learning.run_folder import PROBABILITY_COLUMNS, read_json, read_oof

Format = Literal["table", "markdown", "csv", "json"]


@dataclass(frozen=True)
class Rung:
    """What the source published of one recipe.

    Attributes:
        recipe: its name here.
        cv: out-of-fold score on all records; None where it gives none, or on other records only.
        lb: public leaderboard.
        settled: out-of-fold score on settled records, which is another population than all records.
        note: what must be known to compare.
    """

    recipe: str
    cv: float | None = None
    lb: float | None = None
    settled: float | None = None
    note: str = ""


RUNGS = (
    Rung("baseline", 0.7287, 0.45, note="its notebook: 0.7289"),
    Rung("global-stats", 0.7324, 0.46),
    Rung("percentiles", 0.7644, note="from its notebook, whose last run was interrupted"),
    Rung("panels+global", 0.7027, 0.43),
    Rung("eeg-panels", 0.7528, note="from the notebook of eeg+percentiles"),
    Rung("eeg+percentiles", 0.7104, 0.45),
    Rung("eeg-global-stats", 0.7537, 0.46),
    Rung("vote-weighted-only", note="published: 0.02 better than baseline, CV and LB"),
    Rung("vote-weighted", 0.6767, 0.42),
    Rung("vote-weighted-global", 0.6971, 0.42),
    Rung("global-norm", 0.6355, 0.40, note="its notebook: 0.6294"),
    Rung("global-norm-stats", 0.6566, 0.41),
    Rung("mosaic-xloss", 0.6290, 0.37),
    Rung("mosaic-xloss-stats", 0.6402, 0.39),
    Rung("two-stage", settled=0.4142, note="published 0.4142, on settled records only"),
    Rung("two-stage-weighted", settled=0.4108, note="published 0.4108, on settled records only"),
    Rung("two-stage-stats", settled=0.4240, note="published 0.4240, on settled records only"),
    Rung("eeg-two-stage"),
    Rung("eeg-two-stage-stats"),
)
"""In the source's order. Its transformers were announced and never published."""


@dataclass(frozen=True)
class Row:
    """One line of the table: a recipe as it was trained, beside what the source published of it.

    `cv_all` and `cv_votes10` are ours, out of fold, on `records` records of the data whose digest begins with
    `data`; rows of different data must not be compared. `cv_settled` is on records with at least 5 votes, or 4
    that agree. `published_cv` is on the source's records. On a synthetic competition whose truth is at hand,
    `recovered` and `recovered_votes10` are the part of the way from the class prior (0) to the perfect predictor (1)
    on the same records; see `floor`.
    """

    recipe: str
    cv_all: float | None = None
    cv_votes10: float | None = None
    cv_settled: float | None = None
    recovered: float | None = None
    recovered_votes10: float | None = None
    folds: str = ""
    records: int | None = None
    data: str = ""
    epochs: int | None = None
    backbone: str = ""
    seconds_per_fold: float | None = None
    hardware: str = ""
    published_cv: float | None = None
    published_lb: float | None = None
    note: str = ""


def ladder(runs: Path, truth_csv: Path | None = None) -> list[Row]:
    """Read what has been trained below `runs`: first the rungs in the source's order, then all other runs.

    Args:
        runs: the folder of all runs.
        truth_csv: train_truth.csv, where the runs are on a synthetic competition.

    Raises:
        RunError, DataError: a run that cannot be read, or was trained on other data than the truth is of.
    """
    trained = {path.parent.name: path.parent for path in sorted(runs.glob("*/run.json"))}
    rungs = {rung.recipe: rung for rung in RUNGS}
    rows = []
    for name in [*rungs, *(name for name in trained if name not in rungs)]:
        rung = rungs.get(name, Rung(name))
        rows.append(_row(rung, trained[name], truth_csv) if name in trained else _published(rung))
    return rows


def trained_row(folder: Path) -> Row:
    """Read one run.

    Raises:
        RunError, DataError: it cannot be read.
    """
    rungs = {rung.recipe: rung for rung in RUNGS}
    return _row(rungs.get(folder.name, Rung(folder.name)), folder)


def untrained(rows: Sequence[Row]) -> list[str]:
    """Names of the rungs and other recipes that have no complete set of folds yet."""
    complete = {row.recipe for row in rows if row.folds and len(set(row.folds.split("/"))) == 1}
    return [name for name in RECIPES if name not in complete and name != "demo"]


def render(rows: Sequence[Row], form: Format = "table") -> str:
    """Return the table as text for a terminal, as Markdown, or, unrounded, as CSV with a header or as JSON."""
    names = [field.name for field in fields(Row)]
    if form == "json":
        return json.dumps([asdict(row) for row in rows], indent=1) + "\n"
    if form == "csv":
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([["" if (v := getattr(row, n)) is None else v for n in names] for row in rows])
        return out.getvalue()
    shown = [name for name in names if any(getattr(row, name) not in {None, ""} for row in rows)]
    cells = [[_cell(name, getattr(row, name)) for name in shown] for row in rows]
    heads = [name.replace("_", " ") for name in shown]
    widths = [max(len(line[i]) for line in [heads, *cells]) for i in range(len(heads))]
    lines = [
        [text.ljust(width) for text, width in zip(line, widths, strict=True)] for line in [heads, *cells]
    ]
    if form == "markdown":
        rule = ["-" * width for width in widths]
        return "".join(f"| {' | '.join(line)} |\n" for line in [lines[0], rule, *lines[1:]])
    return "".join("  ".join(line).rstrip() + "\n" for line in lines)


def blend_path(runs: Path, name: str) -> Path:
    """Where a fitted blend is kept."""
    return runs / "blends" / f"{name}.json"


def find_blend(runs: Path, name: str) -> Blend:
    """Look a blend up: a fitted one below `runs`, or one of the ladder whose weights are given.

    Raises:
        UsageError: neither; the message lists what exists.
    """
    path = blend_path(runs, name)
    if path.is_file():
        return blend_from_json(path.read_bytes(), path)
    given = [spec.name for spec in LADDER_BLENDS if spec.weights is not None]
    if name in given:
        return get_blend_spec(name).blend()
    known = [*sorted(p.stem for p in (runs / "blends").glob("*.json")), *given]
    raise UsageError(f"no blend {name!r}; {closest(name, known)}; `kagglehms blend` fits others")


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if name.startswith("recovered"):
        return f"{100 * value:.1f} %"
    if name == "seconds_per_fold":
        return f"{value:.0f}"
    if name == "published_lb":
        return f"{value:.2f}"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _published(rung: Rung) -> Row:
    return Row(rung.recipe, published_cv=rung.cv, published_lb=rung.lb, note=rung.note)


def _row(rung: Rung, folder: Path, truth_csv: Path | None = None) -> Row:
    run = read_json(folder / "run.json")
    recipe = recipe_from_json((folder / "recipe.json").read_bytes(), folder / "recipe.json")
    results = [read_json(path) for path in sorted(folder.glob("fold*/result.json"))]
    try:
        scores = _scores(folder, run, truth_csv)
        notes = [
            rung.note,
            _changes(recipe),
            "" if len(results) == run["n_folds"] else "over the folds so far",
        ]
        return Row(
            recipe=rung.recipe,
            cv_all=scores[0],
            cv_votes10=scores[1],
            cv_settled=scores[2],
            recovered=scores[3],
            recovered_votes10=scores[4],
            folds=f"{len(results)}/{run['n_folds']}",
            records=run["records"],
            data=run["identity"]["records"][:6],
            epochs=recipe.epochs,
            backbone=recipe.backbone,
            seconds_per_fold=sum(r["seconds"] for r in results) / len(results) if results else None,
            hardware=", ".join(sorted({str(r["device"]).removeprefix("device: ") for r in results})),
            published_cv=rung.cv,
            published_lb=rung.lb,
            note="; ".join(note for note in notes if note),
        )
    except (KeyError, TypeError) as error:
        raise RunError(f"{folder}: its run.json or a result.json lacks {error}; train it again") from error


def _changes(recipe: Recipe) -> str:
    """Where a run departs from the recipe of its name, as after `--epochs` or `--backbone`."""
    planned = RECIPES.get(recipe.name)
    if planned is None:
        return "no recipe of this version"
    names = [f.name for f in fields(Recipe) if getattr(planned, f.name) != getattr(recipe, f.name)]
    return f"quick pass: other {', '.join(names)}" if names else ""


def _scores(folder: Path, run: dict[str, Any], truth_csv: Path | None) -> tuple[float | None, ...]:
    """Out-of-fold scores over the folds that are there: all records, ≥ 10 votes, settled; and what part of the way
    to the truth the first two are."""
    from kagglehms.data.records import Records
    from kagglehms.learning.floor import read_truth, recovered
    from kagglehms.learning.metric import kl_score, mean_scores

    oof = read_oof(folder)
    if oof is None:
        return (None,) * 5
    records, predictions_NK = Records(oof), oof.select(PROBABILITY_COLUMNS).to_numpy()
    targets_NK, many = records.targets_NK, records.many_votes
    scores = mean_scores(targets_NK, predictions_NK, many)
    settled = records.settled
    score_settled = kl_score(targets_NK[settled], predictions_NK[settled]) if settled.any() else None
    if truth_csv is None:
        return (*scores, score_settled, None, None)
    priors = mean_scores(targets_NK, np.tile(np.array(run["prior"]), (len(records), 1)), many)
    perfect = mean_scores(targets_NK, read_truth(truth_csv, oof), many)
    parts = (
        None if score is None or p is None or best is None else recovered(score, p, best)
        for score, p, best in zip(scores, priors, perfect, strict=True)
    )
    return (*scores, score_settled, *parts)
