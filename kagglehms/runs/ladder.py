"""The ladder: the source's published figures, and beside them what has been trained here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kagglehms.errors import RunError, UsageError, counted
from kagglehms.inputs.kinds import describe
from kagglehms.runs.blends import Blend
from kagglehms.runs.contents import RunInfo
from kagglehms.runs.folder import find_runs
from kagglehms.runs.named_blends import LADDER_BLENDS, BlendSpec, read_blends
from kagglehms.runs.out_of_fold import load_oof
from kagglehms.runs.published_figures import RUNGS, noted, published
from kagglehms.runs.run_view import RunView, view_run
from kagglehms.runs.statistics import Scored
from kagglehms.training.metric import Standing, floors, kl_score, mean_scores, shortcoming
from kagglehms.training.recipes import RECIPES, Recipe, get_recipe

_POPULATIONS = ("all", "votes10", "settled")
"""Endings of the names of `Row`'s scores: all records, those with many votes, the settled ones."""


@dataclass(frozen=True)
class Row:
    """One line of the table: a recipe or blend as it was trained, beside what the source published of it.

    `cv_all` and `cv_votes10` are ours, out of fold, on `records` records of the data whose digest begins with
    `data`; rows of different data must not be compared. `cv_settled` is on records with at least 5 votes, or 4
    that agree. Beside each stands what the class means of the same records score (`prior_…`), and a uniform guess
    (`uniform_…`). `published_cv` is on the source's records, `published_settled` on the settled ones of them. On a
    simulated competition whose truth is at hand, `recovered` and `recovered_votes10` are the part of the way from
    the class prior (0) to the perfect predictor (1) on the same records; see `baselines`.
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
    kind: Literal["recipe", "blend"] = "recipe"
    published_settled: float | None = None
    prior_all: float | None = None
    prior_votes10: float | None = None
    prior_settled: float | None = None
    uniform_all: float | None = None
    uniform_votes10: float | None = None
    uniform_settled: float | None = None


def ladder(runs: Path, truth_csv: Path | None = None) -> list[Row]:
    """Read what has been trained below `runs`.

    Args:
        runs: folder of all runs.
        truth_csv: path of train_truth.csv, where the runs are on a simulated competition.

    Returns:
        Every recipe and every blend, trained or not: the source's rungs in its order, the other recipes, all other
        runs, the source's ensembles, the blends that were fitted here. What cannot be read of a run stands in its note.

    Raises:
        DataError: a run was trained on other data than the truth is of.
    """
    views = [view_run(folder) for folder in find_runs(runs)]
    unread = {view.name: view.problems for view in views}
    rows = recipe_rows(views, [*RUNGS, *RECIPES], truth_csv)
    blends, problems = read_blends(runs)
    return [
        *(replace(row, note=noted(row.note, *unread.get(row.recipe, ()))) for row in rows),
        *(_ensemble_row(spec, runs, views, truth_csv) for spec in LADDER_BLENDS),
        *map(_fitted_row, blends),
        *(Row(Path(problem.partition(":")[0]).stem, note=problem, kind="blend") for problem in problems),
    ]


def recipe_rows(views: Sequence[RunView], names: Iterable[str], truth_csv: Path | None = None) -> list[Row]:
    """Return the rows of the recipes of these names, trained or not, and of all other runs after them."""
    trained = {view.name: view for view in views}
    return [
        trained_row(trained[name], truth_csv) if name in trained else published_row(name)
        for name in dict.fromkeys([*names, *trained])
    ]


def untrained(rows: Sequence[Row]) -> list[str]:
    """Return the names of the rungs and other recipes that have no complete set of folds yet."""
    complete = {row.recipe for row in rows if row.folds and len(set(row.folds.split("/"))) == 1}
    return [name for name in RECIPES if name not in complete and name != "demo"]


def published_row(name: str) -> Row:
    """Return what the source published of a recipe or ensemble, without anything of ours."""
    figures = published(name)
    return Row(
        name,
        published_cv=figures.cv,
        published_lb=figures.lb,
        published_settled=figures.settled,
        note=figures.note,
    )


def trained_row(view: RunView, truth_csv: Path | None = None) -> Row:
    """Return the row of a run, as far as the run can be read.

    Raises:
        DataError: the run was trained on other data than the truth is of.
    """
    row, results, info, recipe = published_row(view.name), view.results, view.info, view.recipe
    scores = {} if view.scored is None else _scores(view.scored, info, truth_csv)
    if info is not None:
        row = replace(
            row,
            folds=f"{len(results)}/{info.n_folds}",
            records=info.records,
            data=info.identity.records[:6],
        )
    return replace(
        row,
        **scores,
        epochs=None if recipe is None else recipe.epochs,
        backbone="" if recipe is None else recipe.network,
        seconds_per_fold=sum(r.seconds for r in results) / len(results) if results else None,
        hardware=", ".join(sorted({result.device.removeprefix("device: ") for result in results})),
        note=noted(
            row.note,
            "" if recipe is None else _changes(recipe),
            "" if view.complete else "over the folds so far",
            _shortcoming(scores),
        ),
    )


def _changes(recipe: Recipe) -> str:
    """Describe where a run departs from the recipe of its name, as after `--epochs` or `--backbone`."""
    try:
        planned = get_recipe(recipe.name)
    except UsageError:
        return f"own recipe: {describe(recipe.layout)}"
    names = [f.name for f in fields(Recipe) if getattr(planned, f.name) != getattr(recipe, f.name)]
    return f"quick pass: other {', '.join(names)}" if names else ""


def _ensemble_row(spec: BlendSpec, runs: Path, views: Sequence[RunView], truth_csv: Path | None) -> Row:
    """Return the row of an ensemble, scored if all its members are trained on the same records."""
    row = published_row(spec.name)
    row = replace(row, note=noted(row.note, spec.note), kind="blend")
    infos = {view.name: view.info for view in views}
    if not set(spec.members) <= set(infos):
        return row
    try:
        oof = load_oof(runs, spec.members)
    except RunError as error:
        return replace(row, note=noted(row.note, f"not scored: {error}"))
    weights = spec.weights or (1 / len(spec.members),) * len(spec.members)
    blended_NK = Blend(spec.name, spec.members, weights).apply(oof.by_name)
    info = infos[spec.members[0]]
    assert info is not None  # or its predictions could not have been loaded
    scores = _scores(Scored(oof.records, blended_NK), info, truth_csv)
    return replace(
        row,
        **scores,
        records=info.records,
        data=info.identity.records[:6],
        note=noted(row.note, _shortcoming(scores)),
    )


def _fitted_row(blend: Blend) -> Row:
    """Return the row of a blend that `kagglehms blend` fitted here, with its nested scores."""
    scores = {
        f"{kind}_{part}": blend.scores.get(name + ending)
        for kind, name in (("cv", "nested"), ("prior", "prior"), ("uniform", "uniform"))
        for part, ending in (("all", ""), ("votes10", "_votes10"))
    }
    members = ", ".join(blend.active)
    of = f"{_fitted_how(blend)}, of {members}" if blend.fitting else members
    row = Row(blend.name, note=noted(of, _shortcoming(scores)), kind="blend")
    return replace(row, **scores)  # type: ignore[arg-type]


def _fitted_how(blend: Blend) -> str:
    """Describe what a blend was fitted to, and what its scores are."""
    if blend.fitting is None or (blend.fitting.population == "all" and blend.prior is None):
        return f"fitted: nested score on {counted(blend.n_rows, 'record')}"
    many = " with many votes" if blend.fitting.population == "many" else ""
    corrected = ", class priors corrected" if blend.prior else ""
    return f"fitted to {counted(blend.n_rows, 'record')}{many}{corrected}: nested scores"


def _scores(scored: Scored, info: RunInfo | None, truth_csv: Path | None) -> dict[str, Any]:
    """Return out-of-fold scores, their floors and the way to the truth, by the names of `Row`'s fields."""
    of_all, of_many = scored.standings
    found: dict[str, Standing | None] = {"all": of_all, "votes10": of_many}
    records, settled = scored.records, scored.records.settled
    if settled.any():
        own_NK = records.targets_NK[settled]
        found["settled"] = Standing(kl_score(own_NK, scored.predictions_NK[settled]), *floors(own_NK))
    columns = {
        f"{kind}_{part}": getattr(standing, name)
        for part, standing in found.items()
        if standing is not None
        for kind, name in (("cv", "score"), ("prior", "prior"), ("uniform", "uniform"))
    }
    if truth_csv is None or info is None:
        return columns
    return columns | _way_to_truth(scored, info, truth_csv)


def _way_to_truth(scored: Scored, info: RunInfo, truth_csv: Path) -> dict[str, float]:
    """Return how far scores have come from the class prior of the training to the perfect predictor."""
    from kagglehms.runs.baselines import read_truth, recovered

    records = scored.records
    prior_NK = np.tile(np.array(info.prior), (len(records), 1))
    worst, best = (
        mean_scores(records.targets_NK, predictions_NK, records.many)
        for predictions_NK in (prior_NK, read_truth(truth_csv, records.frame))
    )
    ways = {}
    for name, standing, prior, perfect in zip(
        ("recovered", "recovered_votes10"), scored.standings, worst, best, strict=True
    ):
        if standing is not None and prior is not None and perfect is not None:
            ways[name] = recovered(standing.score, prior, perfect)
    return ways


def _shortcoming(columns: Mapping[str, float | None]) -> str:
    """Describe where a row's scores are worse than knowing nothing; empty if nowhere."""
    kinds = ("cv", "prior", "uniform")
    return shortcoming(
        *(Standing.of(*(columns.get(f"{kind}_{part}") for kind in kinds)) for part in _POPULATIONS)
    )
