"""A folder of finished runs, small enough to bundle in no time; its weights are those of no real network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from kagglehms.training.recipes import get_recipe

PRIOR = (0.25, 0.125, 0.125, 0.0625, 0.0625, 0.375)


def make_run(
    runs: Path, recipe: str, finished: Sequence[int] = (0, 1), n_folds: int = 2, **info: Any
) -> Path:
    """Write one run with some of its folds finished; `info` overrides what run.json says."""
    folder = runs / recipe
    folder.mkdir(parents=True)
    (folder / "recipe.json").write_bytes(replace(get_recipe("baseline"), name=recipe).to_json())
    content = {
        "recipe": recipe,
        "n_folds": n_folds,
        "fingerprint": "0123456789abcdef",
        "records": 100,
        "prior": PRIOR,
        "versions": {"torch": "2.10.0", "timm": "1.0.26"},
        "scores": {"all": 0.9, "votes10": None},
    }
    write_json(folder / "run.json", content | info)
    for fold in finished:
        make_fold(folder, fold)
    return folder


def make_fold(run: Path, fold: int) -> Path:
    """Write one finished fold."""
    folder = run / f"fold{fold}"
    folder.mkdir()
    values = np.random.default_rng(fold).normal(size=(16, 8)).astype(np.float32)
    save_file({"weight": values}, folder / "weights.safetensors")
    result = {"fold": fold, "score_all": 0.9 + fold, "score_votes10": None, "n_records": 50, "seconds": 3.5}
    result |= {"prior_all": 1.4, "prior_votes10": None, "uniform_all": 1.7, "uniform_votes10": None}
    write_json(folder / "result.json", result)
    return folder


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content))


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` and its content, but for locks, which may be left behind or not."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".lock"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def visible(folder: Path) -> list[str]:
    """What lies in `folder`, but for locks."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".lock"))
