"""Run folders as a reader wants them: everything that is there, and a sentence for what is not.

A report is asked for most when something went wrong, so a missing or broken file costs its own part and is named.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from kagglehms.data.competition import PROBABILITY_COLUMNS, VOTE_COLUMNS
from kagglehms.data.records import Records
from kagglehms.errors import HMSError, RunError, UsageError, first_line
from kagglehms.runs.blends import Blend, blend_from_json
from kagglehms.runs.folder import all_origins, named_origin, origin_of, read_json
from kagglehms.runs.ladder import Row, blend_files, trained_row
from kagglehms.runs.statistics import Scored
from kagglehms.training.recipes import Recipe, recipe_from_json

if TYPE_CHECKING:
    import polars as pl

T = TypeVar("T")

HISTORY_COLUMNS = ("stage", "warm_up", "epoch", "train_loss", "score_all")
"""Those of history.csv that a report draws."""
PLACE_COLUMNS = (
    "eeg_id", "eeg_offset_min_s", "eeg_offset_max_s",
    "spectrogram_id", "spectrogram_offset_min_s", "spectrogram_offset_max_s",
)  # fmt: skip
"""Those of oof.parquet that say where in its recordings a record lies."""


@dataclass
class RunView:
    """One run, as far as it can be read.

    Attributes:
        folder: RUNS/<name>.
        info: run.json.
        recipe: what was trained.
        first_weights: what its networks started from, each origin in words; more than one is a problem.
        row: its line of the ladder's table.
        results: result.json of each finished fold.
        history: evaluations of every fold that has any, with a column `fold`.
        oof: out-of-fold predictions of the finished folds.
        problems: what could not be read, a sentence each.
    """

    folder: Path
    info: dict[str, Any] = field(default_factory=dict)
    recipe: Recipe | None = None
    first_weights: list[str] = field(default_factory=list)
    row: Row | None = None
    results: list[dict[str, Any]] = field(default_factory=list)
    history: pl.DataFrame | None = None
    oof: pl.DataFrame | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def complete(self) -> bool:
        """Whether every fold is finished."""
        return bool(self.results) and len(self.results) == self.info.get("n_folds")

    @cached_property
    def scored(self) -> Scored | None:
        """Predictions beside votes; None where no fold is finished."""
        if self.oof is None:
            return None
        return Scored(
            self.oof.select(VOTE_COLUMNS).to_numpy().astype(np.int64),
            self.oof.select(PROBABILITY_COLUMNS).to_numpy(),
            self.oof["patient_id"].to_numpy(),
        )

    @cached_property
    def score(self) -> float | None:
        """The mean over the finished folds' records."""
        return None if self.scored is None else float(self.scored.terms_N.mean())

    @property
    def records(self) -> Records | None:
        """The records of `oof`; None if this run did not write down where their labels are."""
        if self.oof is None or not set(PLACE_COLUMNS) <= set(self.oof.columns):
            return None
        return Records(self.oof)


def read_runs(runs: Path) -> list[RunView]:
    """Read every run below `runs`, by name.

    Raises:
        UsageError: no such folder, or no run in it.
    """
    if not runs.is_dir():
        raise UsageError(f"{runs}: no such folder; give the one that `kagglehms train --runs` wrote")
    folders = sorted({path.parent for name in ("run.json", "recipe.json") for path in runs.glob(f"*/{name}")})
    if not folders:
        raise UsageError(f"{runs}: holds no run; train one with `kagglehms train`")
    return [read_run(folder) for folder in folders]


def read_run(folder: Path) -> RunView:
    """Read one run; what cannot be read is among its `problems`."""
    run = RunView(folder)

    def attempt(read: Callable[[], T]) -> T | None:
        try:
            return read()
        except HMSError as error:
            if str(error) not in run.problems:
                run.problems.append(str(error))
        return None

    run.info = attempt(lambda: read_json(folder / "run.json")) or {}
    run.recipe = attempt(lambda: _recipe(folder))
    if run.info:
        attempt(lambda: origin_of(folder))
        origins = attempt(lambda: all_origins(folder)) or {}
        run.first_weights = sorted({named_origin(origin) for origin in origins.values()})
    run.results = [
        result
        for path in _numbered(folder, "result.json")
        if (result := attempt(lambda p=path: read_json(p)))  # type: ignore[misc]
    ]
    if run.info and run.recipe:
        run.row = attempt(lambda: _row(folder))
    run.history = _stacked([attempt(lambda p=path: _history(p)) for path in _numbered(folder, "history.csv")])  # type: ignore[misc]
    finished = [path.parent / "oof.parquet" for path in _numbered(folder, "result.json")]
    run.oof = _stacked([attempt(lambda p=path: _oof(p)) for path in finished])  # type: ignore[misc]
    return run


def read_blends(runs: Path) -> tuple[list[Blend], list[str]]:
    """Read every blend that was fitted below `runs`, and the sentences for those that cannot be read."""
    blends, problems = [], []
    for path in blend_files(runs):
        try:
            blends.append(blend_from_json(path.read_bytes(), path))
        except (HMSError, OSError) as error:
            problems.append(str(error))
    return blends, problems


def focus_of(runs: list[RunView], wanted: str | None = None) -> RunView | None:
    """The run to look at closely: the one that is `wanted`, or the best complete one, or the best of all.

    Raises:
        UsageError: no such run, or none of its folds is finished.
    """
    from kagglehms.errors import closest

    scored = [run for run in runs if run.scored is not None]
    if wanted is not None:
        if wanted not in [run.name for run in runs]:
            raise UsageError(f"no run of recipe {wanted!r}; {closest(wanted, [run.name for run in runs])}")
        if wanted not in [run.name for run in scored]:
            raise UsageError(
                f"{wanted}: no fold of it is finished; finish it with `kagglehms train {wanted}`"
            )
        return next(run for run in scored if run.name == wanted)
    return min(scored, key=lambda run: (not run.complete, run.score), default=None)


def _numbered(folder: Path, name: str) -> list[Path]:
    """fold0/<name>, fold1/<name> …, in the order of their numbers."""
    found = [path for path in folder.glob(f"fold*/{name}") if path.parent.name[4:].isdecimal()]
    return sorted(found, key=lambda path: int(path.parent.name[4:]))


def _row(folder: Path) -> Row:
    import polars as pl

    try:
        return trained_row(folder)
    except pl.exceptions.PolarsError as error:
        raise RunError(
            f"{folder}: its scores cannot be read ({first_line(error)}); train it again"
        ) from error


def _recipe(folder: Path) -> Recipe:
    path = folder / "recipe.json"
    try:
        return recipe_from_json(path.read_bytes(), path)
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror}); train it again") from error


def _history(path: Path) -> pl.DataFrame:
    import polars as pl

    table = _table(path, lambda: pl.read_csv(path), HISTORY_COLUMNS)
    types = {"stage": pl.Int64, "epoch": pl.Float64, "train_loss": pl.Float64, "score_all": pl.Float64}
    try:
        table = table.select(HISTORY_COLUMNS).with_columns(
            *(pl.col(name).cast(dtype) for name, dtype in types.items()),
            pl.col("warm_up").cast(pl.String).str.to_lowercase() == "true",
        )
    except pl.exceptions.PolarsError as error:
        raise RunError(f"{path}: {first_line(error)}; train this fold again") from error
    return table.with_columns(pl.lit(int(path.parent.name[4:])).alias("fold"))


def _oof(path: Path) -> pl.DataFrame:
    import polars as pl

    needed = ("record", "patient_id", *VOTE_COLUMNS, *PROBABILITY_COLUMNS)
    table = _table(path, lambda: pl.read_parquet(path), needed)
    values = table.select(needed)
    probabilities_NK = table.select(PROBABILITY_COLUMNS).to_numpy()
    sums = probabilities_NK.sum(axis=1)
    if any(values.null_count().row(0)) or (probabilities_NK < 0).any() or not np.isclose(sums, 1).all():
        raise RunError(f"{path}: holds rows that are no votes or probabilities; train this fold again")
    return table


def _table(path: Path, read: Callable[[], pl.DataFrame], needed: tuple[str, ...]) -> pl.DataFrame:
    import polars as pl

    try:
        table = read()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise RunError(f"{path}: cannot be read ({first_line(error)}); train this fold again") from error
    missing = [name for name in needed if name not in table.columns]
    if missing:
        raise RunError(f"{path}: lacks {', '.join(missing)}; train this fold again")
    return table


def _stacked(tables: list[pl.DataFrame | None]) -> pl.DataFrame | None:
    import polars as pl

    found = [table for table in tables if table is not None and len(table)]
    return pl.concat(found, how="diagonal_relaxed") if found else None
