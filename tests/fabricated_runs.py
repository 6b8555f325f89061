"""Runs as training leaves them, with made-up predictions: for reports of many sorts of runs, in no time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from kagglehms.data.competition import CLASSES, PROBABILITY_COLUMNS, VOTE_COLUMNS
from kagglehms.training.recipes import get_recipe

IDENTITY = {"store": "5" * 64, "records": "abcdef" * 10, "folds": "0" * 64}


def votes(n: int, seed: int = 0) -> np.ndarray:
    """(n, 6) vote counts, from 1 to 20 votes a record."""
    rng = np.random.default_rng(seed)
    likely_NK = rng.dirichlet(np.full(len(CLASSES), 0.4), n)
    return np.stack([rng.multinomial(rng.integers(1, 21), p) for p in likely_NK])


def oof_table(n: int = 80, n_folds: int = 2, seed: int = 0) -> pl.DataFrame:
    """Out-of-fold predictions of `n` records; patients of one to five records, whole in one fold."""
    rng = np.random.default_rng(seed)
    votes_NK = votes(n)
    predictions_NK = rng.dirichlet(np.full(len(CLASSES), 1.0), n)
    patients = np.sort(np.random.default_rng(1).integers(0, n // 3, n))
    return pl.DataFrame(
        {
            "record": np.arange(n),
            "eeg_id": 1000 + np.arange(n) // 2,
            "patient_id": patients,
            "expert_consensus": ["Other"] * n,
            "fold": (patients % n_folds).astype(np.int8),
            **dict(zip(VOTE_COLUMNS, votes_NK.T, strict=True)),
            **dict(zip(PROBABILITY_COLUMNS, predictions_NK.T, strict=True)),
        }
    )


def fabricate(
    runs: Path,
    recipe: str,
    finished: Sequence[int] = (0, 1),
    n_folds: int = 2,
    table: pl.DataFrame | None = None,
    device: str = "device: cpu in float32, 2 cores",
) -> Path:
    """Write a run of a known recipe with some of its folds finished; the others have a history only."""
    folder = runs / recipe
    table = oof_table(n_folds=n_folds, seed=len(recipe)) if table is None else table
    folder.mkdir(parents=True)
    (folder / "recipe.json").write_bytes(get_recipe(recipe).to_json())
    run = {
        "recipe": recipe, "n_folds": n_folds, "fingerprint": "f" * 64, "identity": IDENTITY, "records": len(table),
        "prior": [1 / 6] * 6, "versions": {"torch": "2.10.0"}, "scores": None,
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(run))
    for fold in range(n_folds):
        part = folder / f"fold{fold}"
        part.mkdir()
        (part / "history.csv").write_text(
            "stage,warm_up,step,epoch,train_loss,score_stage,score_all,score_votes10,seconds\n"
            "0,true,4,0.5,1.5,1.4,1.4,,2.0\n0,false,8,1.0,1.2,1.1,1.1,0.9,4.0\n1,false,12,1.5,1.0,1.0,1.0,0.8,6.0\n"
        )
        if fold in finished:
            table.filter(pl.col("fold") == fold).write_parquet(part / "oof.parquet")
            result = {"fold": fold, "score_all": 1.0, "score_votes10": 0.9, "n_records": 5, "seconds": 6.0}
            (part / "result.json").write_text(
                json.dumps(result | {"device": device, "versions": {"torch": "2.10.0"}})
            )
    return folder
