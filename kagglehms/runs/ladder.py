"""The ladder: the source's published figures, and beside them what has been trained here.

Source: README and notebooks of the public solution "HMS-Harmful Brain Activity Classification" (Cranjis-McB). CV
is its out-of-fold score on all 20,183 records of train.csv, LB the public leaderboard; both KL divergence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import PROBABILITY_COLUMNS
from kagglehms.errors import RunError, UsageError, closest
from kagglehms.runs.blends import LADDER_BLENDS, Blend, BlendSpec, blend_from_json, get_blend_spec
from kagglehms.runs.folder import BLENDS, FOLDS, RECIPE, RUN, read_json, read_oof
from kagglehms.training.metric import Standing, floors, kl_score, shortcoming, standings
from kagglehms.training.published import SUFFIX
from kagglehms.training.recipes import RECIPES, Recipe, get_recipe, recipe_from_json

if TYPE_CHECKING:
    from kagglehms.data.records import Records


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
    """One line of the table: a recipe or blend as it was trained, beside what the source published of it.

    `cv_all` and `cv_votes10` are ours, out of fold, on `records` records of the data whose digest begins with
    `data`; rows of different data must not be compared. `cv_settled` is on records with at least 5 votes, or 4
    that agree. Beside each stands what the class means of the same records score (`prior_…`), and a uniform guess
    (`uniform_…`). `published_cv` is on the source's records, `published_settled` on the settled ones of them. On a
    simulated competition whose truth is at hand, `recovered` and `recovered_votes10` are the part of the way from
    the class prior (0) to the perfect predictor (1) on the same records; see `floor`.
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
        runs: the folder of all runs.
        truth_csv: train_truth.csv, where the runs are on a simulated competition.

    Returns:
        Every recipe and every blend, trained or not: the source's rungs in its order, the other recipes, all other
        runs, the source's ensembles, the blends that were fitted here.

    Raises:
        RunError, DataError: a run that cannot be read, or was trained on other data than the truth is of.
    """
    trained = {path.parent.name: path.parent for path in sorted(runs.glob("*/run.json"))}
    names = dict.fromkeys([*(rung.recipe for rung in RUNGS), *RECIPES, *trained])
    rows = [
        _row(rung_of(name), trained[name], truth_csv) if name in trained else published_row(name)
        for name in names
    ]
    blends = [_given_blend(spec, runs, trained, truth_csv) for spec in LADDER_BLENDS]
    return [*rows, *blends, *_fitted_blends(runs)]


def rung_of(name: str) -> Rung:
    """What the source published of a recipe, also of its run as published; nothing of others."""
    rungs = {rung.recipe: rung for rung in RUNGS}
    rung = rungs.get(name.removesuffix(SUFFIX), Rung(name))
    return replace(rung, recipe=name)


def trained_row(folder: Path) -> Row:
    """Read one run.

    Raises:
        RunError, DataError: it cannot be read.
    """
    return _row(rung_of(folder.name), folder)


def untrained(rows: Sequence[Row]) -> list[str]:
    """Names of the rungs and other recipes that have no complete set of folds yet."""
    complete = {row.recipe for row in rows if row.folds and len(set(row.folds.split("/"))) == 1}
    return [name for name in RECIPES if name not in complete and name != "demo"]


def blend_path(runs: Path, name: str) -> Path:
    """Where a fitted blend is kept.

    Raises:
        UsageError: a name that would make the folder of all blends look like a run.
    """
    if f"{name}.json".lower() in {RECIPE, RUN, FOLDS}:
        raise UsageError(f"a blend cannot be called {name!r}, as a file of a run is; choose another name")
    return runs / BLENDS / f"{name}.json"


def blend_files(runs: Path) -> list[Path]:
    """Where the fitted blends are. Older versions let a run take their folder, whose own files are none."""
    paths = {*(runs / BLENDS).glob("*.json")}
    return sorted(paths - {runs / BLENDS / name for name in (RECIPE, RUN, FOLDS)})


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
    known = [*(path.stem for path in blend_files(runs)), *given]
    raise UsageError(f"no blend {name!r}; {closest(name, known)}; `kagglehms blend` fits others")


def blend_members(runs: Path, names: Sequence[str]) -> tuple[str, ...]:
    """The runs that names on the command line mean: themselves, or the members of one blend of the ladder.

    Raises:
        UsageError: no names, or one that is neither a run nor a blend.
    """
    if not names:
        raise UsageError("name the runs to blend, or one blend of the ladder, such as kaggle-ensemble")
    if len(names) > 1 or (runs / names[0] / RUN).is_file():
        return tuple(names)
    given = {spec.name: spec.members for spec in LADDER_BLENDS}
    if names[0] not in given:
        known = [*sorted(path.parent.name for path in runs.glob(f"*/{RUN}")), *given]
        raise UsageError(f"no run or blend {names[0]!r}; {closest(names[0], known)}")
    return given[names[0]]


def published_row(name: str) -> Row:
    """What the source published of a recipe, without anything of ours."""
    rung = rung_of(name)
    return Row(
        rung.recipe,
        published_cv=rung.cv,
        published_lb=rung.lb,
        published_settled=rung.settled,
        note=rung.note,
    )


def _given_blend(spec: BlendSpec, runs: Path, trained: dict[str, Path], truth_csv: Path | None) -> Row:
    """An ensemble of the ladder, scored if all its members are trained on the same records."""
    row = Row(
        spec.name,
        published_lb=spec.published_lb,
        published_settled=spec.published_settled,
        note=spec.note,
        kind="blend",
    )
    if not set(spec.members) <= set(trained):
        return row
    from kagglehms.data.records import Records
    from kagglehms.runs.out_of_fold import load_oof

    try:
        oof = load_oof(runs, spec.members)
    except RunError as error:
        return replace(row, note="; ".join(part for part in (spec.note, f"not scored: {error}") if part))
    members = Blend(spec.name, spec.members, spec.weights or (1 / len(spec.members),) * len(spec.members))
    first = trained[spec.members[0]]
    frame = read_oof(first)
    assert frame is not None  # or its predictions could not have been loaded
    run = read_json(first / "run.json")
    scores = _scores(Records(frame.sort("record")), members.apply(oof.by_name), run, truth_csv)
    return replace(
        row,
        **scores.columns,
        records=run["records"],
        data=run["identity"]["records"][:6],
        note="; ".join(part for part in (spec.note, scores.shortcoming) if part),
    )


def _fitted_blends(runs: Path) -> list[Row]:
    """The blends that `kagglehms blend` fitted here, with their nested scores."""
    rows = []
    for path in blend_files(runs):
        blend = blend_from_json(path.read_bytes(), path)
        found = {
            f"{kind}_{part}": blend.scores.get(name + ending)
            for kind, name in (("cv", "nested"), ("prior", "prior"), ("uniform", "uniform"))
            for part, ending in (("all", ""), ("votes10", "_votes10"))
        }
        names = ", ".join(blend.active)
        of = f"{_fitted_how(blend)}, of {names}" if blend.fitting else names
        short = _shortcoming(found)
        rows.append(
            Row(blend.name, **found, note="; ".join(part for part in (of, short) if part), kind="blend")  # type: ignore[arg-type]
        )
    return rows


def _fitted_how(blend: Blend) -> str:
    """What a blend was fitted to, and what its scores are."""
    if blend.fitting is None or (blend.fitting.population == "all" and blend.prior is None):
        return f"fitted: nested score on {blend.n_rows} records"
    many = " with many votes" if blend.fitting.population == "many" else ""
    corrected = ", class priors corrected" if blend.prior else ""
    return f"fitted to {blend.n_rows} records{many}{corrected}: nested scores"


def _row(rung: Rung, folder: Path, truth_csv: Path | None = None) -> Row:
    run = read_json(folder / "run.json")
    recipe = recipe_from_json((folder / "recipe.json").read_bytes(), folder / "recipe.json")
    results = [read_json(path) for path in sorted(folder.glob("fold*/result.json"))]
    try:
        scores = _run_scores(folder, run, truth_csv)
        notes = [
            rung.note,
            _changes(recipe),
            "" if len(results) == run["n_folds"] else "over the folds so far",
            scores.shortcoming,
        ]
        return Row(
            recipe=rung.recipe,
            **scores.columns,
            folds=f"{len(results)}/{run['n_folds']}",
            records=run["records"],
            data=run["identity"]["records"][:6],
            epochs=recipe.epochs,
            backbone=recipe.network,
            seconds_per_fold=sum(r["seconds"] for r in results) / len(results) if results else None,
            hardware=", ".join(sorted({str(r["device"]).removeprefix("device: ") for r in results})),
            published_cv=rung.cv,
            published_lb=rung.lb,
            published_settled=rung.settled,
            note="; ".join(note for note in notes if note),
        )
    except (KeyError, TypeError) as error:
        raise RunError(f"{folder}: its run.json or a result.json lacks {error}; train it again") from error


def _changes(recipe: Recipe) -> str:
    """Where a run departs from the recipe of its name, as after `--epochs` or `--backbone`."""
    try:
        planned = get_recipe(recipe.name)
    except UsageError:
        return "no recipe of this version"
    names = [f.name for f in fields(Recipe) if getattr(planned, f.name) != getattr(recipe, f.name)]
    return f"quick pass: other {', '.join(names)}" if names else ""


@dataclass(frozen=True)
class _Scores:
    """Out-of-fold scores, and what part of the way to the truth the first two are."""

    all: Standing | None = None
    votes10: Standing | None = None
    settled: Standing | None = None
    recovered: float | None = None
    recovered_votes10: float | None = None

    @property
    def columns(self) -> dict[str, Any]:
        """The same by name of `Row`'s fields."""
        parts = {"all": self.all, "votes10": self.votes10, "settled": self.settled}
        found: dict[str, Any] = {
            f"{kind}_{part}": None if value is None else getattr(value, field)
            for part, value in parts.items()
            for kind, field in (("cv", "score"), ("prior", "prior"), ("uniform", "uniform"))
        }
        return found | {"recovered": self.recovered, "recovered_votes10": self.recovered_votes10}

    @property
    def shortcoming(self) -> str:
        return _shortcoming(self.columns)


def _shortcoming(columns: Mapping[str, float | None]) -> str:
    """Where a row's scores are worse than knowing nothing, in words; empty if nowhere."""
    found: dict[str, Standing | None] = {}
    for part, records in (
        ("all", "all records"),
        ("votes10", "those with many votes"),
        ("settled", "the settled ones"),
    ):
        numbers = [columns.get(f"{kind}_{part}") for kind in ("cv", "prior", "uniform")]
        if None not in numbers:
            found[records] = Standing(*numbers)  # type: ignore[arg-type]
    return shortcoming(found)


def _run_scores(folder: Path, run: dict[str, Any], truth_csv: Path | None) -> _Scores:
    """The scores of a run over the folds that are there."""
    from kagglehms.data.records import Records

    oof = read_oof(folder)
    if oof is None:
        return _Scores()
    return _scores(Records(oof), oof.select(PROBABILITY_COLUMNS).to_numpy(), run, truth_csv)


def _scores(
    records: Records, predictions_NK: NDArray[np.float64], run: dict[str, Any], truth_csv: Path | None
) -> _Scores:
    from kagglehms.runs.baselines import read_truth, recovered
    from kagglehms.training.metric import mean_scores

    targets_NK, many, settled = records.targets_NK, records.many, records.settled
    of_all, of_many = standings(targets_NK, predictions_NK, many)
    of_settled = None
    if settled.any():
        own_NK = targets_NK[settled]
        of_settled = Standing(kl_score(own_NK, predictions_NK[settled]), *floors(own_NK))
    if truth_csv is None:
        return _Scores(of_all, of_many, of_settled)
    priors = mean_scores(targets_NK, np.tile(np.array(run["prior"]), (len(records), 1)), many)
    perfect = mean_scores(targets_NK, read_truth(truth_csv, records.frame), many)
    parts = (
        None if standing is None or p is None or best is None else recovered(standing.score, p, best)
        for standing, p, best in zip((of_all, of_many), priors, perfect, strict=True)
    )
    return _Scores(of_all, of_many, of_settled, *parts)
