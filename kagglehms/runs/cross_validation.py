"""Folds of a recipe → weights and out-of-fold predictions, in one folder a run; see `folder` for its files.

A second call trains what is missing and no more. A run is never continued on other data, folds, first weights or
settings, and an unfinished fold not by other code. Nothing is written before the network has been made.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kagglehms.console import say
from kagglehms.data.competition import PROBABILITY_COLUMNS
from kagglehms.data.records import Records
from kagglehms.device import Device
from kagglehms.environment import available_cpus
from kagglehms.errors import UsageError, counted
from kagglehms.files import sweep_partials
from kagglehms.locks import exclusive
from kagglehms.runs.contents import FoldResult
from kagglehms.runs.dataset import Dataset
from kagglehms.runs.folder import RESULT, RunFolder, versions
from kagglehms.runs.identity import (
    begin,
    fingerprint,
    has_progress,
    is_finished,
    refuse_other_run,
    weights_for,
    with_stored_folds,
)
from kagglehms.runs.teachers import with_teachers
from kagglehms.training.metric import Standing, shortcoming, standing_text, standings
from kagglehms.training.recipes import Recipe
from kagglehms.training.resume import STATE, code_version

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

    from kagglehms.training.distributed import Team
    from kagglehms.training.feed import Feed
    from kagglehms.training.first_weights import FirstWeights
    from kagglehms.training.loop import Fit
    from kagglehms.training.session import Session


@dataclass(frozen=True)
class Outcome:
    """A run as far as it has come.

    Attributes:
        folder: folder of the run.
        finished: numbers of the folds that are finished.
        n_folds: number of folds.
        all: out-of-fold score on all records, beside its floors; None until all folds are finished.
        many: out-of-fold score on records with at least 10 votes; None where there are none.
    """

    folder: Path
    finished: tuple[int, ...]
    n_folds: int
    all: Standing | None = None
    many: Standing | None = None

    @property
    def score_all(self) -> float | None:
        """Out-of-fold score on all records; None until all folds are finished."""
        return None if self.all is None else self.all.score

    @property
    def sentence(self) -> str:
        """How far the run has come and how good it is, for people to read."""
        name = self.folder.name
        if self.all is None:
            return f"{name}: {len(self.finished)} of {self.n_folds} folds trained, in {self.folder}"
        short = shortcoming(self.all, self.many)
        scores = standing_text(self.all, self.many)
        return (
            f"{name}: out-of-fold score {scores}; lower is better"
            f"{f'; it is {short}' if short else ''}; in {self.folder}"
        )


def cross_validate(
    recipe: Recipe,
    dataset: Dataset,
    runs: Path,
    device: Device,
    weights: str = "none",
    only_folds: Sequence[int] | None = None,
    session: Session | None = None,
    earlier_runs: Sequence[Path] = (),
) -> Outcome:
    """Train the folds of a recipe that are not trained yet.

    Args:
        recipe: recipe to train.
        dataset: data and folds to train on.
        runs: folder of all runs.
        device: device that computes.
        weights: kind or file of first weights, see `first_weights.find_weights`.
        only_folds: numbers of the folds to train now; None trains all.
        session: time limit, stop requests, and the team of processes, each of which makes this call; None trains alone
            and without a limit.
        earlier_runs: further folders of runs, in which teachers are looked for that are not in `runs`.

    Raises:
        RunError: the run folder holds another recipe, other data, other first weights or a fold of another run,
            another process is training there, or a teacher of the recipe cannot be used, see `teachers.with_teachers`.
        Stopped: the time is up or a stop was requested; the next call continues.
        UsageError: a fold does not exist, a batch has fewer records than the team has processes, or there is no such
            network or no such first weights.
        DataError: the file of first weights is missing or not of this network.
    """
    session = session or _alone()
    if recipe.batch_size < session.team.size:
        raise UsageError(
            f"{recipe.name}: a batch of {recipe.batch_size} cannot be shared by {session.team.size} processes; give "
            f"--batch-size {session.team.size} or more, or start fewer"
        )
    folds = range(dataset.n_folds) if only_folds is None else only_folds
    unknown = [fold for fold in folds if not 0 <= fold < dataset.n_folds]
    if unknown:
        raise UsageError(
            f"there is no fold {unknown[0]}; this data is cut into folds 0 to {dataset.n_folds - 1}"
        )
    folder, team = RunFolder(runs / recipe.name), session.team
    if recipe.teachers:
        dataset = with_teachers(with_stored_folds(folder, dataset), recipe, runs, *earlier_runs)
    first = _first_weights(folder, recipe, dataset, weights, folds, team)
    if team.leads:
        begin(folder, recipe, dataset, first.origin)
    team.wait()
    run = _Run(folder, recipe, with_stored_folds(folder, dataset), device, first, session)
    for number, fold in enumerate(folds, 1):
        what = f"training of {recipe.name}, fold {fold},"
        with exclusive(folder.fold(fold), what) if team.leads else nullcontext():
            # Only the leading process knows what is finished: it alone writes.
            if team.agree(int(team.leads and is_finished(folder, fold, run.fingerprint))):
                say(f"{recipe.name} fold {fold}: already trained, in {folder.fold(fold)}")
            else:
                place = f"{session.place}fold {number} of {len(folds)}, "
                run.train(fold, replace(session, place=place, later=session.later + len(folds) - number))
    team.wait()
    return run.conclude()


def _first_weights(
    folder: RunFolder, recipe: Recipe, dataset: Dataset, weights: str, folds: Sequence[int], team: Team
) -> FirstWeights:
    """Find the first weights, and make the network if anything is left to train, before anything is written."""
    from kagglehms.training.models import check_model

    begun = team.leads and folder.begun and has_progress(folder)
    if begun:  # a run that is refused anyway need not wait for the hub
        refuse_other_run(folder, recipe, with_stored_folds(folder, dataset), None)
    # Only the leading process needs to know what is there.
    fresh = team.agree(int(team.leads and not set(folds) <= set(folder.folds(RESULT, STATE))))
    left = team.agree(int(team.leads and not set(folds) <= set(folder.finished)))
    first = weights_for(folder, recipe, weights, bool(fresh))
    if begun:
        refuse_other_run(folder, recipe, with_stored_folds(folder, dataset), first.origin)
    if left:
        check_model(recipe, first)
    return first


def _alone() -> Session:
    from kagglehms.training.session import Session

    return Session()


@dataclass(frozen=True)
class _Run:
    """The training of one run in one session."""

    folder: RunFolder
    recipe: Recipe
    dataset: Dataset
    device: Device
    first: FirstWeights
    session: Session

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(self.recipe, self.dataset, self.first.origin)

    def train(self, fold: int, session: Session) -> None:
        """Train one fold, or continue it, and write its files; `session` says where it stands in the command."""
        from kagglehms.training.loop import fit

        dataset, folder, team = self.dataset, self.folder.fold(fold), session.team
        if team.leads:
            sweep_partials(folder)
        team.wait()
        train, valid = np.flatnonzero(dataset.folds != fold), np.flatnonzero(dataset.folds == fold)
        say(
            f"{session.place}{self.recipe.name} fold {fold}: {counted(len(train), 'record')} to learn from, "
            f"{len(valid)} held out"
        )
        identity = {
            "recipe": self.recipe.digest,
            **dataset.identity.parts,
            "first weights": self.first.origin.key,
            "code": code_version(),
        }
        done = fit(
            self.recipe,
            self._feed(train),
            train,
            valid,
            self.device,
            folder,
            self.first,
            session,
            identity,
        )
        if team.leads:
            self._finish(fold, done)

    def _feed(self, train: NDArray[np.integer]) -> Feed:
        """Return the feed of a fold, normalised by the records that it learns from."""
        from kagglehms.inputs.measuring import measure
        from kagglehms.training.albumentations_adapter import albumentations_adapter
        from kagglehms.training.feed import Feed, drawing_threads

        recipe, dataset, on_gpu = self.recipe, self.dataset, self.device.name == "cuda"
        layout, n_cpus = recipe.layout, max(1, available_cpus() // self.session.team.size_here)
        return Feed(
            dataset.store,
            dataset.records,
            layout,
            measure(dataset.store, dataset.records, train, layout.global_sources, recipe.windows),
            albumentations_adapter(recipe.augmentations, layout.shape),
            recipe.seed,
            threads=drawing_threads(n_cpus, beside_gpu=on_gpu),
            pin=on_gpu,
            windows=recipe.windows,
            teachers=dataset.teachers,
        )

    def _finish(self, fold: int, done: Fit) -> None:
        """Write a fold's predictions and result, and remove its state."""
        valid, best = np.flatnonzero(self.dataset.folds == fold), done.best
        self.folder.write_predictions(_oof_table(self.dataset, valid, fold, done.predictions_NK), fold)
        self.folder.write_result(
            FoldResult(
                fold=fold,
                fingerprint=self.fingerprint,
                first_weights=self.first.origin,
                score_all=best.score_all,
                score_votes10=best.score_many,
                score_stage=best.score_stage,
                prior_all=best.prior_all,
                prior_votes10=best.prior_many,
                uniform_all=best.uniform_all,
                uniform_votes10=best.uniform_many,
                best_step=best.step,
                kept=self.recipe.kept,
                n_records=len(valid),
                seconds=round(done.seconds, 1),
                device=self.device.reason,
                processes=self.session.team.size,
                versions=versions(self.recipe.packages),
            )
        )
        (self.folder.fold(fold) / STATE).unlink(missing_ok=True)
        short = shortcoming(best.all, best.many)
        if short:
            say(f"{self.recipe.name} fold {fold}: what was kept is, held out, {short}")

    def conclude(self) -> Outcome:
        """Join the folds' predictions and score them together, once all are there."""
        folder, n_folds = self.folder, self.dataset.n_folds
        finished = tuple(fold for fold in range(n_folds) if is_finished(folder, fold, self.fingerprint))
        oof = folder.finished_predictions() if len(finished) == n_folds else None
        if oof is None:
            return Outcome(folder.path, finished, n_folds)
        records, predictions_NK = Records(oof), oof.select(PROBABILITY_COLUMNS).to_numpy()
        of_all, of_many = standings(records.targets_NK, predictions_NK, records.many)
        if self.session.team.leads:
            folder.write_predictions(oof.sort("record"))
            scores, prior_scores, uniform_scores = (
                {"all": getattr(of_all, kind), "votes10": getattr(of_many, kind, None)}
                for kind in ("score", "prior", "uniform")
            )
            info = folder.info()
            folder.write_info(
                replace(info, scores=scores, prior_scores=prior_scores, uniform_scores=uniform_scores)
            )
        return Outcome(folder.path, finished, n_folds, of_all, of_many)


def _oof_table(
    dataset: Dataset, valid: NDArray[np.integer], fold: int, predictions_NK: NDArray[np.float64]
) -> pl.DataFrame:
    """Return one row per held-out record: all that is known of it, its number, fold and predicted probabilities."""
    import polars as pl

    return dataset.records.frame[valid].with_columns(
        pl.Series("record", valid, dtype=pl.Int64),
        pl.lit(fold, pl.Int8).alias("fold"),
        *(
            pl.Series(name, column)
            for name, column in zip(PROBABILITY_COLUMNS, predictions_NK.T, strict=True)
        ),
    )
