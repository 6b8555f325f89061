"""Folds of a recipe → weights and out-of-fold predictions, one folder a run.

    RUNS/<recipe>/recipe.json                 what was trained
                  run.json                    on which data, folds and first weights; scores once all folds are done
                  folds.json                  the fold of each record: another scikit-learn would cut others
                  oof.parquet                 out-of-fold predictions, once all folds are done
                  fold<k>/weights.safetensors  the evaluation that is kept
                  fold<k>/oof.parquet          its predictions of the held-out records
                  fold<k>/history.csv          all evaluations
                  fold<k>/log.jsonl            all events: evaluations, savings, interruptions
                  fold<k>/state.safetensors    only while the fold is unfinished: training goes on from it
                  fold<k>/result.json          written last: a fold with it is finished; states the run's fingerprint

A second call trains what is missing and no more. A run is never continued on other data, folds, first weights or
settings, and an unfinished fold not by other code. Nothing is written before the network has been made.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kagglehms.console import say
from kagglehms.data.competition import PROBABILITY_COLUMNS
from kagglehms.data.records import Records
from kagglehms.device import Device
from kagglehms.environment import available_cpus
from kagglehms.errors import UsageError
from kagglehms.files import sweep_partials, write_bytes
from kagglehms.locks import exclusive
from kagglehms.runs.dataset import Dataset
from kagglehms.runs.folder import (
    FIRST_WEIGHTS,
    RESULT,
    RUN,
    begin,
    fingerprint,
    finished_folds,
    has_progress,
    is_finished,
    is_fresh,
    json_bytes,
    read_json,
    read_oof,
    refuse_other_run,
    versions,
    weights_for,
    with_stored_folds,
    write_table,
)
from kagglehms.training.metric import Standing, shortcoming, standing_text, standings
from kagglehms.training.recipes import Recipe
from kagglehms.training.resume import STATE, code_version

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

    from kagglehms.training.distributed import Team
    from kagglehms.training.first_weights import FirstWeights, Origin
    from kagglehms.training.loop import Fit
    from kagglehms.training.session import Session


@dataclass(frozen=True)
class Outcome:
    """A run as far as it has come.

    Attributes:
        folder: RUNS/<recipe>.
        finished: the folds that are done.
        n_folds: how many there are.
        all: out-of-fold score over all records, beside its floors; None until all folds are done.
        many: the same on records with at least 10 votes; None where there are none.
    """

    folder: Path
    finished: tuple[int, ...]
    n_folds: int
    all: Standing | None = None
    many: Standing | None = None

    @property
    def score_all(self) -> float | None:
        return None if self.all is None else self.all.score

    @property
    def score_votes10(self) -> float | None:
        return None if self.many is None else self.many.score

    @property
    def sentence(self) -> str:
        """How far the run is and how good, for a person."""
        name = self.folder.name
        if self.all is None:
            return f"{name}: {len(self.finished)} of {self.n_folds} folds trained, in {self.folder}"
        short = shortcoming({"all records": self.all, "those with many votes": self.many})
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
    pretrained: str = "none",
    only_folds: Sequence[int] | None = None,
    session: Session | None = None,
) -> Outcome:
    """Train the folds of a recipe that are not trained yet.

    Args:
        recipe: what to train.
        dataset: on what.
        runs: the folder of all runs.
        device: where to compute.
        pretrained: the first weights, see `first_weights.find_weights`.
        only_folds: leave the others for later, or for other machines.
        session: time limit, stop requests, and the team of processes, all of which make this call.

    Raises:
        RunError: the run folder holds another recipe, other data, other first weights or a fold of another run, or
            another process is training there.
        Stopped: the time is up or somebody asked for the end; the next call goes on.
        UsageError: a fold that does not exist, a batch with fewer records than the team has processes, or a network
            or first weights that cannot be had.
        DataError: a file of first weights that is missing or not of this network.
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
    folder, team = runs / recipe.name, session.team
    first = _first_weights(folder, recipe, dataset, pretrained, folds, team)
    if team.leads:
        begin(folder, recipe, dataset, first.origin)
    team.wait()
    dataset = with_stored_folds(folder, dataset)
    run = fingerprint(recipe, dataset, first.origin)
    for fold in folds:
        what = f"training of {recipe.name}, fold {fold},"
        with exclusive(folder / f"fold{fold}", what) if team.leads else nullcontext():
            # Only the one that leads knows what is finished: it alone writes.
            if team.agree(int(team.leads and is_finished(folder / f"fold{fold}", run))):
                say(f"{recipe.name} fold {fold}: already trained, in {folder / f'fold{fold}'}")
                continue
            _train_fold(recipe, dataset, fold, folder / f"fold{fold}", device, first, session)
    team.wait()
    return _conclude(folder, dataset, run, team.leads)


def _first_weights(
    folder: Path, recipe: Recipe, dataset: Dataset, pretrained: str, folds: Sequence[int], team: Team
) -> FirstWeights:
    """Find the first weights, and make the network if anything is left to train: before a word of it is written."""
    from kagglehms.training.models import check_model

    begun = team.leads and (folder / RUN).is_file() and has_progress(folder)
    if begun:  # what is refused anyway need not wait for the hub
        refuse_other_run(folder, recipe, with_stored_folds(folder, dataset), None)
    # Only the one that leads need know what is there.
    fresh = team.agree(int(team.leads and any(is_fresh(folder / f"fold{k}") for k in folds)))
    left = team.agree(int(team.leads and any(not (folder / f"fold{k}" / RESULT).is_file() for k in folds)))
    first = weights_for(folder, recipe, pretrained, bool(fresh))
    if begun:
        refuse_other_run(folder, recipe, with_stored_folds(folder, dataset), first.origin)
    if left:
        check_model(recipe, first)
    return first


def _alone() -> Session:
    from kagglehms.training.session import Session

    return Session()


def _train_fold(
    recipe: Recipe,
    dataset: Dataset,
    fold: int,
    folder: Path,
    device: Device,
    first: FirstWeights,
    session: Session,
) -> None:
    from kagglehms.training.albumentations_adapter import albumentations_adapter
    from kagglehms.training.feed import Feed, drawing_threads, measure
    from kagglehms.training.loop import fit

    if session.team.leads:
        sweep_partials(folder)
    session.team.wait()
    train, valid = np.flatnonzero(dataset.folds != fold), np.flatnonzero(dataset.folds == fold)
    say(
        f"{recipe.name} fold {fold} of {dataset.n_folds}: {len(train)} records to learn from, {len(valid)} held out"
    )
    normaliser = measure(dataset.store, dataset.records, train, recipe.layout.global_sources, recipe.windows)
    on_gpu = device.name == "cuda"
    feed = Feed(
        dataset.store,
        dataset.records,
        recipe.layout,
        normaliser,
        albumentations_adapter(recipe.augmentations, recipe.layout.shape),
        recipe.seed,
        threads=drawing_threads(max(1, available_cpus() // session.team.size_here), beside_gpu=on_gpu),
        pin=on_gpu,
        windows=recipe.windows,
    )
    identity = {
        "recipe": recipe.digest,
        **asdict(dataset.identity),
        "first weights": first.origin.key,
        "code": code_version(),
    }
    done = fit(recipe, feed, train, valid, device, folder, first, session, identity)
    if session.team.leads:
        _finish_fold(folder, recipe, dataset, fold, done, device, session.team.size, first.origin)


def _finish_fold(
    folder: Path,
    recipe: Recipe,
    dataset: Dataset,
    fold: int,
    done: Fit,
    device: Device,
    n_processes: int,
    origin: Origin,
) -> None:
    valid = np.flatnonzero(dataset.folds == fold)
    write_table(folder / "oof.parquet", _oof_table(dataset, valid, fold, done.predictions_NK))
    result = {
        "fold": fold,
        "fingerprint": fingerprint(recipe, dataset, origin),
        FIRST_WEIGHTS: origin.to_json(),
        "score_all": done.best.score_all,
        "score_votes10": done.best.score_many,
        "score_stage": done.best.score_stage,
        "prior_all": done.best.prior_all,
        "prior_votes10": done.best.prior_many,
        "uniform_all": done.best.uniform_all,
        "uniform_votes10": done.best.uniform_many,
        "best_step": done.best.step,
        "kept": recipe.kept,
        "n_records": len(valid),
        "seconds": round(done.seconds, 1),
        "device": device.reason,
        "processes": n_processes,
        "versions": versions(),
    }
    write_bytes(folder / RESULT, json_bytes(result))
    (folder / STATE).unlink(missing_ok=True)
    short = shortcoming(
        {"all held-out records": done.best.all, "the held-out ones with many votes": done.best.many}
    )
    if short:
        say(f"{recipe.name} fold {fold}: what was kept is {short}")


def _conclude(folder: Path, dataset: Dataset, run: str, writes: bool) -> Outcome:
    """Join the folds' predictions and score them together, once all are there."""
    n_folds = dataset.n_folds
    finished = finished_folds(folder, n_folds, run)
    oof = read_oof(folder) if len(finished) == n_folds else None
    if oof is None:
        return Outcome(folder, finished, n_folds)
    records, predictions_NK = Records(oof), oof.select(PROBABILITY_COLUMNS).to_numpy()
    of_all, of_many = standings(records.targets_NK, predictions_NK, records.many)
    outcome = Outcome(folder, finished, n_folds, of_all, of_many)
    if writes:
        write_table(folder / "oof.parquet", oof.sort("record"))
        scored = {
            name: {"all": getattr(of_all, kind), "votes10": getattr(of_many, kind, None)}
            for name, kind in (("scores", "score"), ("prior_scores", "prior"), ("uniform_scores", "uniform"))
        }
        write_bytes(folder / RUN, json_bytes(read_json(folder / RUN) | scored))
    return outcome


def _oof_table(
    dataset: Dataset, valid: NDArray[np.integer], fold: int, predictions_NK: NDArray[np.float64]
) -> pl.DataFrame:
    """One row per held-out record: all that is known of it, its number, fold and predicted probabilities."""
    import polars as pl

    return dataset.records.frame[valid].with_columns(
        pl.Series("record", valid, dtype=pl.Int64),
        pl.lit(fold, pl.Int8).alias("fold"),
        *(
            pl.Series(name, column)
            for name, column in zip(PROBABILITY_COLUMNS, predictions_NK.T, strict=True)
        ),
    )
