"""The one command that measures everything on a GPU: proven on a CPU, in small."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from striped import striped_feed

from kagglehms.training.recipes import RECIPES, get_recipe

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
PARTS = ("machine", "correctness", "compile", "feed", "steps", "graphs", "gains", "scored", "ladder", "team")


def _gpu(out: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--out", str(out), "--dry-run", *options]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | environment, timeout=1500
    )


def _found(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "gpu.jsonl").read_text().splitlines()]


@pytest.mark.slow(60)
def test_a_dry_run_goes_through_all_parts(tmp_path: Path) -> None:
    done = _gpu(tmp_path, "--ladder", "baseline", "raw-fold")
    assert done.returncode == 0, done.stdout + (tmp_path / "gpu.log").read_text()[-8000:]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "gpu.jsonl",
        "gpu.log",
        "gpu.md",
        "ladder-oof.parquet",
    ]
    found = _found(tmp_path)
    assert not [line for line in found if line["what"] in {"failed", "left out"}]
    assert found[-1]["endings"] == dict.fromkeys(PARTS, "done")
    of = {(line["part"], line["what"]): line for line in found}
    assert of["correctness", "tests"]["passed"] >= 2
    setting = of["steps", "setting"]
    ways = {"source", "conventional", "kagglehms", "kagglehms, CUDA graphs", "network alone"}
    assert set(setting["images_per_s"]) == ways
    assert all(rate > 0 for rate in setting["images_per_s"].values())
    runs = [line for line in found if line["what"] == "scored run"]
    assert [run["networks"] for run in runs] == [1, 2, 4]
    assert all(run["status"] == "complete" and run["rows_with_prior"] == 0 for run in runs)
    assert all(line["gflop"] > 0 for line in found if line["what"] == "rates")
    assert {"projection for a T4", "two against one", "floor"} <= {line["what"] for line in found}
    floors = {line["of"]: line["all"] for line in found if line["what"] == "floor"}
    assert floors["perfect predictor"] < floors["class prior"] < floors["uniform"]
    trained = [line for line in found if line["what"] == "trained"]
    assert [line["recipe"] for line in trained] == ["baseline", "raw-fold"]
    assert all(np.isfinite(line["scores"]).all() and line["note"] == "" for line in trained)
    page = (tmp_path / "gpu.md").read_text()
    assert all(f"## {part} " in page for part in PARTS)


@pytest.mark.slow
def test_parts_whose_time_is_up_are_cut_off_and_the_page_says_so(tmp_path: Path) -> None:
    done = _gpu(tmp_path, "--budget", "6", "--parts", "feed", "team")
    assert done.returncode == 1
    endings = _found(tmp_path)[-1]["endings"]
    assert set(endings) == {"feed", "team"}
    assert all(ending != "done" for ending in endings.values())
    assert "its time was up" in (tmp_path / "gpu.md").read_text()


@pytest.mark.parametrize("name", ["baseline", "eeg+percentiles", "raw-fold", "stft-50-10", "wave-stack"])
@pytest.mark.usefixtures("benchmarks")
def test_what_the_others_feed_is_what_we_feed(name: str) -> None:
    """The contenders of the feed's part make the same arrays, so that their times can be compared."""
    if name not in RECIPES:
        pytest.skip(f"{name} is no recipe of this version")
    from _items import ITEMS, InMemory

    from kagglehms.training.feed import Feed

    striped = striped_feed(2, get_recipe(name).layout)
    ours = (
        next(Feed(InMemory(), striped.records, striped.layout).batches(np.arange(1), 1))
        .images_BCHW[0]
        .numpy()
    )
    theirs = ITEMS[name](InMemory())(0)
    assert theirs.shape == ours.shape
    assert theirs.dtype == np.float32
    assert np.corrcoef(theirs.ravel(), ours.ravel())[0, 1] > 0.99
