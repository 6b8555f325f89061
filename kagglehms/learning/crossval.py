"""Folds of a recipe → weights and out-of-fold predictions, one folder a run.

    RUNS/<recipe>/recipe.json                 what was trained
                  run.json                    on which data and folds; scores once all folds are done
                  oof.parquet                 out-of-fold predictions, once all folds are done
                  fold<k>/weights.safetensors  best evaluation
                  fold<k>/oof.parquet          its predictions of the held-out records
                  fold<k>/history.csv          all evaluations
                  fold<k>/log.jsonl            all events: evaluations, savings, interruptions
                  fold<k>/state.safetensors    only while the fold is unfinished: training goes on from it
                  fold<k>/result.json          written last: a fold with it is finished

A second call trains what is missing and no more. A run is never continued on other data, folds or settings, and an
unfinished fold not by other code.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kagglehms import __version__
from kagglehms.data.competition import CLASSES, Competition
from kagglehms.data.records import Records, assign_folds, limit_records, make_records, read_train_table
from kagglehms.data.store import Store
from kagglehms.errors import RunError, UsageError
from kagglehms.learning.metric import mean_scores
from kagglehms.learning.recipes import Recipe, recipe_from_json
from kagglehms.learning.state import STATE, code_version
from kagglehms.runtime import (
    Device,
    available_cpus,
    exclusive,
    say,
    sweep_partials,
    write_bytes,
    writing,
)

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

    from kagglehms.learning.session import Session
    from kagglehms.learning.trainer import Fit

PROBABILITY_COLUMNS = tuple(f"{name}_probability" for name in CLASSES)
_VERSIONED = ("torch", "timm", "numba", "numpy", "polars", "scikit-learn", "safetensors")


@dataclass(frozen=True)
class Dataset:
    """All that a run needs of the data.

    Attributes:
        store: decoded recordings.
        records: labelled records.
        folds: (n_records,) fold of each.
    """

    store: Store
    records: Records
    folds: NDArray[np.int8]

    @classmethod
    def of(cls, store: Store, records: Records, n_folds: int) -> Dataset:
        return cls(store, records, assign_folds(records, n_folds))

    @property
    def n_folds(self) -> int:
        return int(self.folds.max()) + 1

    @cached_property
    def identity(self) -> dict[str, str]:
        """Digests of the three parts: runs with equal ones have seen the same data."""
        return {
            "store": self.store.fingerprint,
            "records": self.records.digest,
            "folds": hashlib.sha256(self.folds.tobytes()).hexdigest(),
        }


def open_dataset(data: Path, store: Path, n_folds: int = 5, limit: int | None = None) -> Dataset:
    """Open what `kagglehms train` trains on.

    Args:
        data: the competition's folder.
        store: what `kagglehms prepare` made of it.
        n_folds: folds of whole patients.
        limit: only about so many records, of whole patients.

    Raises:
        UsageError, DataError: no store, no train.csv, too few patients.
    """
    opened = Store(store)
    records = make_records(read_train_table(Competition(data).train_csv))
    return Dataset.of(opened, records if limit is None else limit_records(records, limit), n_folds)


@dataclass(frozen=True)
class Outcome:
    """A run as far as it has come.

    Attributes:
        folder: RUNS/<recipe>.
        finished: the folds that are done.
        n_folds: how many there are.
        score_all: out-of-fold score over all records; None until all folds are done.
        score_votes10: the same on records with at least 10 votes.
    """

    folder: Path
    finished: tuple[int, ...]
    n_folds: int
    score_all: float | None = None
    score_votes10: float | None = None

    @property
    def sentence(self) -> str:
        """How far the run is and how good, for a person."""
        name = self.folder.name
        if self.score_all is None:
            return f"{name}: {len(self.finished)} of {self.n_folds} folds trained, in {self.folder}"
        many = "" if self.score_votes10 is None else f", {self.score_votes10:.4f} on records with ≥ 10 votes"
        return f"{name}: out-of-fold score {self.score_all:.4f}{many}; lower is better; in {self.folder}"


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
        pretrained: see `models.make_model`.
        only_folds: leave the others for later, or for other machines.
        session: time limit, stop requests, and the team of processes, all of which make this call.

    Raises:
        RunError: the run folder holds another recipe or other data, or another process is training there.
        Stopped: the time is up or somebody asked for the end; the next call goes on.
        UsageError: a fold that does not exist.
    """
    session = session or _alone()
    folds = range(dataset.n_folds) if only_folds is None else only_folds
    unknown = [fold for fold in folds if not 0 <= fold < dataset.n_folds]
    if unknown:
        raise UsageError(
            f"there is no fold {unknown[0]}; this data is cut into folds 0 to {dataset.n_folds - 1}"
        )
    folder, team = runs / recipe.name, session.team
    if team.leads:
        _begin(folder, recipe, dataset)
    for fold in folds:
        what = f"training of {recipe.name}, fold {fold},"
        with exclusive(folder / f"fold{fold}", what) if team.leads else nullcontext():
            # Only the one that leads knows what is finished: it alone writes.
            if team.agree(int(team.leads and (folder / f"fold{fold}" / "result.json").is_file())):
                say(f"{recipe.name} fold {fold}: already trained, in {folder / f'fold{fold}'}")
                continue
            _train_fold(recipe, dataset, fold, folder / f"fold{fold}", device, pretrained, session)
    team.wait()
    return _conclude(folder, dataset, team.leads)


def _alone() -> Session:
    from kagglehms.learning.session import Session

    return Session()


def continue_from(earlier: Path, runs: Path, recipe: str) -> int:
    """Take over what an earlier session has trained of a recipe, finished folds and states of unfinished ones.

    What `runs` itself has come further with is left alone. `earlier` is only read: on Kaggle it is the output of the
    kernel's previous version.

    Args:
        earlier: its folder of all runs.
        runs: this session's.
        recipe: whose run to take over.

    Returns:
        How many folds were taken over.

    Raises:
        RunError: the folder cannot be written.
        UsageError: `earlier` is no folder.
    """
    if not earlier.is_dir():
        raise UsageError(
            f"{earlier}: no such folder; --resume-from takes an earlier session's folder of runs"
        )
    taken = 0
    for fold in sorted((earlier / recipe).glob("fold*")):
        target = runs / recipe / fold.name
        last = next((name for name in ("result.json", STATE) if (fold / name).is_file()), None)
        if last is None or any((target / name).is_file() for name in ("result.json", STATE)):
            continue
        with exclusive(target, f"training of {recipe}, {fold.name},"):
            # What makes a fold count, its result or its state, comes last.
            names = [p.name for p in fold.iterdir() if p.is_file() and p.name[0] != "." and p.name != last]
            for name in (*sorted(names), last):
                write_bytes(target / name, (fold / name).read_bytes())
        taken += 1
    for name in ("recipe.json", "run.json"):
        if taken and not (runs / recipe / name).is_file():
            write_bytes(runs / recipe / name, (earlier / recipe / name).read_bytes())
    return taken


def _begin(folder: Path, recipe: Recipe, dataset: Dataset) -> None:
    """Write down what this run is, or refuse if the folder holds another."""
    path = folder / "run.json"
    if path.is_file():
        _refuse_other_run(folder, recipe, dataset)
        return
    fingerprint = hashlib.sha256(json.dumps([recipe.digest, dataset.identity]).encode()).hexdigest()
    run = {
        "recipe": recipe.name,
        "n_folds": dataset.n_folds,
        "fingerprint": fingerprint,
        "identity": dataset.identity,
        "records": len(dataset.records),
        "prior": dataset.records.targets_NK.mean(axis=0).tolist(),
        "versions": versions(),
        "scores": None,
    }
    write_bytes(folder / "recipe.json", recipe.to_json())
    write_bytes(path, _json(run))


def _refuse_other_run(folder: Path, recipe: Recipe, dataset: Dataset) -> None:
    run = read_json(folder / "run.json")
    trained = recipe_from_json((folder / "recipe.json").read_bytes(), folder / "recipe.json")
    different = [
        f"{field.name} {getattr(trained, field.name)!r} there, {getattr(recipe, field.name)!r} now"
        for field in dataclasses.fields(Recipe)
        if getattr(trained, field.name) != getattr(recipe, field.name)
    ]
    different += [
        f"other {name}" for name, digest in dataset.identity.items() if run["identity"][name] != digest
    ]
    if different:
        raise RunError(
            f"{folder}: holds another run ({'; '.join(different)}); give another --out or delete it"
        )


def _train_fold(
    recipe: Recipe,
    dataset: Dataset,
    fold: int,
    folder: Path,
    device: Device,
    pretrained: str,
    session: Session,
) -> None:
    from kagglehms.learning.albumentations_adapter import albumentations_adapter
    from kagglehms.learning.feed import Feed, measure
    from kagglehms.learning.trainer import fit

    if session.team.leads:
        sweep_partials(folder)
    session.team.wait()
    train, valid = np.flatnonzero(dataset.folds != fold), np.flatnonzero(dataset.folds == fold)
    say(
        f"{recipe.name} fold {fold} of {dataset.n_folds}: {len(train)} records to learn from, {len(valid)} held out"
    )
    normaliser = measure(dataset.store, dataset.records, train, recipe.layout.global_sources)
    feed = Feed(
        dataset.store,
        dataset.records,
        recipe.layout,
        normaliser,
        albumentations_adapter(recipe.augmentations, recipe.layout.shape),
        recipe.seed,
        threads=max(1, available_cpus() // session.team.size_here),
        pin=device.name == "cuda",
        windows=recipe.windows,
    )
    identity = {"recipe": recipe.digest, **dataset.identity, "code": code_version()}
    done = fit(recipe, feed, train, valid, device, folder, pretrained, session, identity)
    if session.team.leads:
        _finish_fold(folder, dataset, fold, valid, done, device, session.team.size)


def _finish_fold(
    folder: Path,
    dataset: Dataset,
    fold: int,
    valid: NDArray[np.integer],
    done: Fit,
    device: Device,
    n_processes: int,
) -> None:
    write_table(folder / "oof.parquet", _oof_table(dataset, valid, fold, done.predictions_NK))
    result = {
        "fold": fold,
        "score_all": done.best.score_all,
        "score_votes10": done.best.score_votes10,
        "score_stage": done.best.score_stage,
        "best_step": done.best.step,
        "n_records": len(valid),
        "seconds": round(done.seconds, 1),
        "device": device.reason,
        "processes": n_processes,
        "versions": versions(),
    }
    write_bytes(folder / "result.json", _json(result))
    (folder / STATE).unlink(missing_ok=True)


def _conclude(folder: Path, dataset: Dataset, writes: bool = True) -> Outcome:
    """Join the folds' predictions and score them together, once all are there."""
    import polars as pl

    n_folds = dataset.n_folds
    finished = tuple(k for k in range(n_folds) if (folder / f"fold{k}" / "result.json").is_file())
    if len(finished) < n_folds:
        return Outcome(folder, finished, n_folds)
    oof = pl.concat([pl.read_parquet(folder / f"fold{k}" / "oof.parquet") for k in finished])
    records, predictions_NK = Records(oof), oof.select(PROBABILITY_COLUMNS).to_numpy()
    score_all, score_votes10 = mean_scores(records.targets_NK, predictions_NK, records.many_votes)
    if writes:
        write_table(folder / "oof.parquet", oof.sort("record"))
        run = read_json(folder / "run.json") | {"scores": {"all": score_all, "votes10": score_votes10}}
        write_bytes(folder / "run.json", _json(run))
    return Outcome(folder, finished, n_folds, score_all, score_votes10)


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


def write_table(path: Path, table: pl.DataFrame) -> None:
    """Write a parquet file atomically."""
    with writing(path) as file:
        table.write_parquet(file)


def versions() -> dict[str, str]:
    """Versions of all that can change a result."""
    found = {"kagglehms": __version__, "python": platform.python_version()}
    for name in _VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that this project wrote.

    Raises:
        RunError: missing or broken.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path}: cannot be read ({error}); delete the run's folder and train again"
        ) from error
    if not isinstance(content, dict):
        raise RunError(f"{path}: is not a JSON object; delete the run's folder and train again")
    return content


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=1).encode() + b"\n"
