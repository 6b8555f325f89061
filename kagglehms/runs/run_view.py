"""A run as far as it can be read: everything that is there, and a sentence for whatever is not.

A report is needed most when something went wrong, so a missing or broken file costs only its own part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from kagglehms.data.competition import PROBABILITY_COLUMNS
from kagglehms.data.records import Records
from kagglehms.errors import HMSError, UsageError, closest
from kagglehms.runs.contents import FoldResult, RunInfo
from kagglehms.runs.folder import OOF, RunFolder, joined, named_origin, require_runs
from kagglehms.runs.statistics import Scored
from kagglehms.training.logs import HISTORY
from kagglehms.training.recipes import Recipe

if TYPE_CHECKING:
    import polars as pl

T = TypeVar("T")


@dataclass
class RunView:
    """One run, as far as it can be read.

    Attributes:
        folder: folder of the run.
        info: content of run.json.
        recipe: the recipe that was trained.
        results: results of the finished folds, in ascending order.
        history: evaluations of all folds that have any, with a column `fold`.
        oof: out-of-fold predictions of the finished folds.
        problems: a sentence for each thing that could not be read.
    """

    folder: RunFolder
    info: RunInfo | None = None
    recipe: Recipe | None = None
    results: list[FoldResult] = field(default_factory=list)
    history: pl.DataFrame | None = None
    oof: pl.DataFrame | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.folder.name

    @property
    def complete(self) -> bool:
        """Whether every fold is finished."""
        return self.info is not None and len(self.results) == self.info.n_folds

    @property
    def first_weights(self) -> list[str]:
        """Descriptions of what the networks started from; more than one is a problem."""
        parts = [part for part in (self.info, *self.results) if part is not None]
        return sorted({named_origin(part.first_weights) for part in parts})

    @cached_property
    def scored(self) -> Scored | None:
        """Predictions beside votes; None where no fold is finished."""
        if self.oof is None:
            return None
        return Scored(Records(self.oof), self.oof.select(PROBABILITY_COLUMNS).to_numpy())

    @cached_property
    def score(self) -> float | None:
        """Mean score of the finished folds' records."""
        return None if self.scored is None else float(self.scored.terms_N.mean())

    def attempt(self, read: Callable[..., T], *arguments: object) -> T | None:
        """Return what `read` returns; if it raises, add a sentence to the problems."""
        try:
            return read(*arguments)
        except HMSError as error:
            if str(error) not in self.problems:
                self.problems.append(str(error))
        return None


def view_runs(runs: Path) -> list[RunView]:
    """View every run below `runs`, by name.

    Raises:
        UsageError: there is no such folder, or no run in it.
    """
    return [view_run(folder) for folder in require_runs(runs)]


def view_run(folder: RunFolder) -> RunView:
    """Read as much of a run as can be read."""
    view = RunView(folder)

    def of_folds(read: Callable[[int], T], folds: list[int]) -> list[T]:
        found = [view.attempt(read, fold) for fold in folds]
        return [part for part in found if part is not None]

    view.info, view.recipe = view.attempt(folder.info), view.attempt(folder.recipe)
    view.results = of_folds(folder.result, folder.finished)
    if view.info is not None:
        view.attempt(folder.origin)
    view.history = view.attempt(joined, of_folds(folder.history, folder.folds(HISTORY)))
    view.oof = view.attempt(joined, of_folds(folder.fold_predictions, folder.finished))
    return view


def check_runs(runs: Path) -> list[str]:
    """Read every file of every run below `runs`, weights included, and return a sentence for whatever is wrong.

    Raises:
        UsageError: there is no such folder, or no run in it.
    """
    problems = []
    for view in view_runs(runs):
        for fold in view.folder.finished:
            view.attempt(view.folder.check_weights, fold)
        view.attempt(view.folder.stored_folds)
        if (view.folder.path / OOF).is_file():
            view.attempt(view.folder.predictions)
        problems += view.problems
    return problems


def focus_of(views: list[RunView], wanted: str | None = None) -> RunView | None:
    """Choose the run to look at closely: the wanted one, else the best complete one, else the best of all.

    Raises:
        UsageError: there is no such run, or none of its folds is finished.
    """
    by_name = {view.name: view for view in views}
    if wanted is not None:
        if wanted not in by_name:
            raise UsageError(f"no run of recipe {wanted!r}; {closest(wanted, by_name)}")
        if by_name[wanted].scored is None:
            raise UsageError(
                f"{wanted}: no fold of it is finished; finish it with `{by_name[wanted].folder.finishing}`"
            )
        return by_name[wanted]
    scored = [view for view in views if view.scored is not None]
    return min(scored, key=lambda view: (not view.complete, view.score), default=None)
