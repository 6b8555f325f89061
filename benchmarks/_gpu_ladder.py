"""Recipes trained on a simulated competition, with one network of little cost that begins from ImageNet weights."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from _gpu_book import Book, figure
from _gpu_data import SEED, simulated, train_folder, truth_csv
from _gpu_parts import Circumstances
from _measure import group_interval
from numpy.typing import NDArray

from kagglehms.data.competition import PROBABILITY_COLUMNS
from kagglehms.data.preparing import prepare, recordings_of
from kagglehms.data.records import Records, read_records
from kagglehms.device import Device, choose_device
from kagglehms.errors import HMSError, Stopped
from kagglehms.runs.baselines import read_truth
from kagglehms.runs.cross_validation import cross_validate
from kagglehms.runs.dataset import Dataset
from kagglehms.timing import Clock
from kagglehms.training.metric import kl_terms, mean_scores
from kagglehms.training.recipes import RECIPES, Recipe
from kagglehms.training.session import Session

BACKBONE, BACKBONE_DRY = "tf_efficientnet_lite0", "half:test_efficientnet"
N_FOLDS, FOLD = 5, 0
REFERENCE = "global-norm"
"""The recipe that the others are compared with."""
HEADER = ("recipe", "all records", "≥ 10 votes", "epochs", "s an epoch", "images/s", "note")


@dataclass(frozen=True)
class Trained:
    """A recipe as far as its time has brought it."""

    scores: tuple[float, float | None]
    epochs: float
    seconds: float
    note: str


def run(told: Circumstances, book: Book) -> None:
    device, dataset = choose_device(told.device), _dataset(told, book)
    train, valid = (np.flatnonzero((dataset.folds == FOLD) == held_out) for held_out in (False, True))
    weights = _upcast(told.weights, told.scratch) if told.weights is not None and not told.dry_run else "none"
    n_many = int(dataset.records.many[valid].sum())
    backbone = BACKBONE_DRY if told.dry_run else BACKBONE
    book.text(
        f"{backbone} in all recipes, {'from scratch' if weights == 'none' else 'from ImageNet weights'}; {len(train)} "
        f"records to learn from, {len(valid)} held out, {n_many} of them with ten and more votes; simulated with seed "
        f"{SEED}; fold {FOLD} of {dataset.n_folds}; {device.reason}. Scores are KL divergences; lower is better."
    )
    names = [name for name in told.ladder if name in RECIPES]
    missing = [name for name in told.ladder if name not in RECIPES]
    if missing:
        book.text(f"Not recipes of this version, left out: {', '.join(missing)}.")
    _floors(book, told, dataset, train, valid)
    for number, name in enumerate(names):
        share = (book.left_s - 3) / (len(names) - number)
        if not book.has_time(f"training of {name}", 4):
            continue
        with book.guarded(f"training of {name}"):
            recipe = RECIPES[name].changed(backbone=backbone)
            recipe = recipe.changed(epochs=1) if told.dry_run else recipe
            trained = _train(recipe, dataset, told.scratch / "runs", device, str(weights), share)
            _write(book, name, trained, len(train))
    with book.guarded("paired differences"):
        _differences(told, book, names)


def _differences(told: Circumstances, book: Book, names: Sequence[str]) -> None:
    """Keep all predictions, and compare each recipe with one, record by record, on both populations."""
    tables = {name: told.scratch / "runs" / name / f"fold{FOLD}" / "oof.parquet" for name in names}
    oof = {name: pl.read_parquet(path).sort("record") for name, path in tables.items() if path.exists()}
    if len(oof) < 2:
        return
    together = pl.concat([table.with_columns(recipe=pl.lit(name)) for name, table in oof.items()])
    together.write_parquet(told.out / "ladder-oof.parquet")
    reference = REFERENCE if REFERENCE in oof else next(iter(oof))
    records = Records(oof[reference])
    patients_N = records.patients
    loss_N = {
        name: kl_terms(records.targets_NK, table.select(PROBABILITY_COLUMNS).to_numpy())
        for name, table in oof.items()
    }
    rows = []
    for name in (name for name in oof if name != reference):
        cells = []
        for population, chosen in (("all", np.ones(len(records), bool)), ("many", records.many)):
            difference = (loss_N[name] - loss_N[reference])[chosen]
            low, high = group_interval(difference, patients_N[chosen], 2000)
            found = {"mean": float(difference.mean()), "low": low, "high": high, "n": len(difference)}
            book.note("difference", recipe=name, less=reference, population=population, **found)
            cells.append(f"{difference.mean():+.3f} ({low:+.3f} … {high:+.3f})")
        rows.append((name, *cells))
    title = f"Less {reference}, record by record; in brackets 95 % of draws of whole patients"
    book.table(title, ("recipe", "all records", "≥ 10 votes"), rows)


def _dataset(told: Circumstances, book: Book) -> Dataset:
    competition = simulated(train_folder(told.scratch))
    records = read_records(competition.train_csv)
    start = time.monotonic()
    store = prepare(recordings_of(competition, records), told.scratch / "store").store
    book.note("prepared", records=len(records), seconds=round(time.monotonic() - start, 1))
    return Dataset.of(store, records, 2 if told.dry_run else N_FOLDS)


def _upcast(path: Path, scratch: Path) -> Path:
    """timm's file in single precision, under the name that `make_model` looks for."""
    from safetensors.torch import load_file, save_file

    target = scratch / f"{BACKBONE}.safetensors"
    save_file({k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}, target)
    return target


def _floors(
    book: Book,
    told: Circumstances,
    dataset: Dataset,
    train: NDArray[np.integer],
    valid: NDArray[np.integer],
) -> None:
    """What the held-out records score without a network, and with the truth."""
    records = dataset.records
    many, targets_NK = records.many[valid], records.targets_NK[valid]
    of_many = train[records.many[train]]
    predictors = {
        "perfect predictor": read_truth(truth_csv(train_folder(told.scratch)), records.frame[valid]),
        "class prior": _repeated(records.targets_NK[train], len(valid)),
        "class prior of ≥ 10 votes": _repeated(
            records.targets_NK[of_many if len(of_many) else train], len(valid)
        ),
        "uniform": np.full(targets_NK.shape, 1 / targets_NK.shape[1]),
    }
    rows = []
    for name, predictions_NK in predictors.items():
        scores = mean_scores(targets_NK, predictions_NK, many)
        book.note("floor", of=name, all=scores[0], votes10=scores[1])
        rows.append((name, figure(scores[0], ".4f"), figure(scores[1], ".4f"), *[""] * 4))
    book.table("", HEADER, rows)


def _repeated(targets_NK: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    mean_K = np.maximum(targets_NK.mean(axis=0), 1e-3)
    return np.tile(mean_K / mean_K.sum(), (n, 1))


def _train(
    recipe: Recipe, dataset: Dataset, runs: Path, device: Device, weights: str, seconds: float
) -> Trained:
    """All epochs, or as many as the time allows; the best evaluation counts, as in any run."""
    session = Session(clock=Clock(seconds, time.monotonic()))
    folder, start, note = runs / recipe.name / f"fold{FOLD}", time.monotonic(), ""
    try:
        cross_validate(recipe, dataset, runs, device, weights, [FOLD], session)
    except Stopped as stopped:
        note = "cut short"
        print(stopped)
    except HMSError as error:
        note = str(error)[:200]
        print(error)
    history = pl.read_csv(folder / "history.csv")
    last = history.row(-1, named=True)
    return Trained(
        _scores(history, folder, dataset), last["epoch"], min(last["seconds"], time.monotonic() - start), note
    )


def _scores(history: pl.DataFrame, folder: Path, dataset: Dataset) -> tuple[float, float | None]:
    """Of the predictions that were kept; of the best evaluation so far, where the fold was cut short."""
    if (folder / "oof.parquet").exists():
        oof = pl.read_parquet(folder / "oof.parquet")
        index = oof["record"].to_numpy()
        records = dataset.records
        return mean_scores(
            records.targets_NK[index], oof.select(PROBABILITY_COLUMNS).to_numpy(), records.many[index]
        )
    kept = history.filter(pl.col("stage") == pl.col("stage").max())
    if not kept["warm_up"].all():
        kept = kept.filter(~pl.col("warm_up"))
    best = kept.sort("score_stage").row(0, named=True)
    return best["score_all"], best["score_votes10"]


def _write(book: Book, name: str, trained: Trained, n_train: int) -> None:
    per_epoch = trained.seconds / trained.epochs
    book.note(
        "trained", recipe=name, **vars(trained), seconds_per_epoch=per_epoch, images_per_s=n_train / per_epoch
    )
    row: Sequence[Any] = (
        name,
        figure(trained.scores[0], ".4f"),
        figure(trained.scores[1], ".4f"),
        figure(trained.epochs, ".1f"),
        figure(per_epoch, ".2f"),
        figure(n_train / per_epoch),
        trained.note,
    )
    book.row(row)
