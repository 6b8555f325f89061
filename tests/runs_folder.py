"""Run folders as training leaves them, with made-up weights and predictions: runs of many sorts, in no time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors.numpy import save_file

from kagglehms.data.competition import CLASSES, PROBABILITY_COLUMNS, VOTE_COLUMNS
from kagglehms.runs.contents import FoldResult, RunInfo
from kagglehms.runs.dataset import Identity
from kagglehms.runs.folder import RunFolder
from kagglehms.training.recipes import RECIPES, Recipe, get_recipe

PRIOR = (0.25, 0.125, 0.125, 0.0625, 0.0625, 0.375)
IDENTITY = {"store": "5" * 64, "records": "abcdef" * 10, "folds": "0" * 64}
HISTORY = """\
stage,warm_up,step,epoch,train_loss,score_stage,score_all,score_votes10,seconds
0,true,4,0.5,1.5,1.4,1.4,,2.0
0,false,8,1.0,1.2,1.1,1.1,0.9,4.0
1,false,12,1.5,1.0,1.0,1.0,0.8,6.0
"""


def votes(n: int, seed: int = 0) -> np.ndarray:
    """(n, 6) vote counts, from 1 to 20 votes a record."""
    rng = np.random.default_rng(seed)
    likely_NK = rng.dirichlet(np.full(len(CLASSES), 0.4), n)
    return np.stack([rng.multinomial(rng.integers(1, 21), p) for p in likely_NK])


def oof_table(n: int = 80, n_folds: int = 2, seed: int = 0) -> pl.DataFrame:
    """Out-of-fold predictions of `n` records, which no seed changes; patients of several records, whole in one fold."""
    rng = np.random.default_rng(seed)
    patients = np.sort(np.random.default_rng(1).integers(0, n // 3, n))
    predictions_NK = rng.dirichlet(np.full(len(CLASSES), 1.0), n)
    return pl.DataFrame(
        {
            "record": np.arange(n),
            "eeg_id": 1000 + np.arange(n) // 2,
            "spectrogram_id": 5000 + np.arange(n) // 2,
            "patient_id": patients,
            "expert_consensus": ["Other"] * n,
            **{
                f"{kind}_offset_{end}_s": np.full(n, 2.0 * i)
                for kind in ("eeg", "spectrogram")
                for i, end in enumerate(("min", "max"))
            },
            "fold": (patients % n_folds).astype(np.int8),
            **dict(zip(VOTE_COLUMNS, votes(n).T, strict=True)),
            **dict(zip(PROBABILITY_COLUMNS, predictions_NK.T, strict=True)),
        }
    )


def make_run(
    runs: Path,
    recipe: str | Recipe,
    finished: Iterable[int] = (0, 1),
    n_folds: int = 2,
    table: pl.DataFrame | None = None,
    begun: Iterable[int] = (),
    device: str = "device: cpu in float32, 2 cores",
    identity: Mapping[str, str] = IDENTITY,
    **info: Any,
) -> Path:
    """Write one run with some of its folds finished, and some that have a history only.

    Args:
        runs: folder of all runs.
        recipe: a recipe, or a name; one that no recipe has is given to `baseline`.
        table: its predictions; some that depend on the recipe's name by default.
        identity: what differs from `IDENTITY`.
        info: what run.json says in other ways than usual.
    """
    if isinstance(recipe, str):
        recipe = get_recipe(recipe) if recipe in RECIPES else replace(get_recipe("baseline"), name=recipe)
    folder, finished = RunFolder(runs / recipe.name), list(finished)
    given = table is not None
    table = oof_table(n_folds=n_folds, seed=len(recipe.name)) if table is None else table
    folder.path.mkdir(parents=True)
    folder.write_recipe(recipe)
    complete = len(finished) == n_folds
    usual = {
        "fingerprint": f"of {recipe.name}",
        "records": len(table) if given else 100,
        "prior": PRIOR,
        "versions": {"torch": "2.10.0", "timm": "1.0.26"},
        "scores": {"all": 0.9, "votes10": None} if complete else None,
    }
    content: dict[str, Any] = usual | info
    parts = Identity(**(IDENTITY | identity))
    for fold in (*begun, *finished):
        folder.fold(fold).mkdir(exist_ok=True)
        (folder.fold(fold) / "history.csv").write_text(HISTORY)
    for fold in finished:
        make_fold(folder.path, fold, table, device)
    if complete:
        folder.write_predictions(table)
    folder.write_info(RunInfo(recipe=recipe.name, n_folds=n_folds, identity=parts, **content))
    return folder.path


def make_fold(
    run: Path,
    fold: int,
    table: pl.DataFrame | None = None,
    device: str = "device: cpu in float32, 2 cores",
) -> Path:
    """Finish one fold: its weights are those of no real network."""
    folder = RunFolder(run)
    folder.fold(fold).mkdir(exist_ok=True)
    values = np.random.default_rng(fold).normal(size=(16, 8)).astype(np.float32)
    save_file({"weight": values}, folder.fold(fold) / "weights.safetensors")
    table = oof_table() if table is None else table
    folder.write_predictions(table.filter(pl.col("fold") == fold), fold)
    folder.write_result(
        FoldResult(
            fold=fold,
            score_all=0.9 + fold,
            score_votes10=None,
            prior_all=1.4,
            uniform_all=1.7,
            n_records=50,
            seconds=10.0 + fold,
            device=device,
            versions={"torch": "2.10.0"},
        )
    )
    return folder.fold(fold)


def forget_digests(run: Path) -> Path:
    """Let a run say nothing of its files' bytes, as older versions did, so that a test may replace them."""
    for path in (run / "run.json", *run.glob("fold*/result.json")):
        edit(path, files={})
    return run


def edit(path: Path, **changes: object) -> None:
    """Change what a JSON file says."""
    write_json(path, json.loads(path.read_text()) | changes)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file as older versions did, without a checksum."""
    path.write_text(json.dumps({name: value for name, value in content.items() if name != "sha256"}))


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` and its content, but for locks, which may be left behind or not."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".lock"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def visible(folder: Path) -> list[str]:
    """What lies in `folder`, but for locks."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".lock"))
