"""The built kernels, one after the other, as the README has them run: prepare, train, build, infer."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import polars as pl
import pytest

from kagglehms.kernel.marker import Marker
from kagglehms.kernel.submission import read_submission
from kagglehms.packing.build import Built, build
from kagglehms.rehearsal.run import rehearse

TINY = {
    "fold": [0],
    "folds": 2,
    "epochs": 1,
    "backbone": "half:test_efficientnet",
    "batch_size": 8,
    "weights": "none",
}


@pytest.mark.slow(60)
def test_what_the_training_kernel_leaves_is_what_the_scored_kernel_predicts_with(
    competition_folder: Path, tmp_path: Path
) -> None:
    """Also the test of Kaggle's image: `.ci/run` runs it with the packages that the image has."""
    out, dist = tmp_path / "out", tmp_path / "dist"

    def session(name: str) -> None:
        report = rehearse(name, dist, competition_folder, out)
        assert report.ok, f"{report.sentence}\n{report.log.read_text()}"

    build(tmp_path / "none", dist, owner="somebody", library_only=True)
    script = dist / "kernels/train/train.py"
    text = re.sub(r"^RECIPES = .*$", 'RECIPES = ["baseline"]', script.read_text(), flags=re.MULTILINE)
    script.write_text(re.sub(r"^OPTIONS: dict = .*$", f"OPTIONS: dict = {TINY!r}", text, flags=re.MULTILINE))
    session("prepare")
    session("train")
    assert json.loads((out / "train/runs/session.json").read_text()) == {"left": [], "problems": []}

    build(out / "train/runs", dist, owner="somebody", folds=[0])
    session("infer")
    marker = Marker.read(out)
    assert marker is not None
    assert (marker.status, marker.models[0]) == ("complete", "baseline fold 0")
    assert marker.rows_with_prior == {}
    ids = pl.read_csv(competition_folder / "test.csv")["eeg_id"].to_list()
    assert read_submission(out / "submission.csv", ids).shape == (len(ids), 6)


def test_a_scored_kernel_that_leaves_nothing_but_the_sample_is_told(
    built: Built, competition_folder: Path, tmp_path: Path
) -> None:
    """The bundle's library is imported, and ends by what nobody foresaw; the exit code is 0 all the same."""
    dist = Path(shutil.copytree(built.dataset.parent, tmp_path / "dist"))
    script = dist / "kernels/infer/infer.py"
    text = script.read_text()
    assert text.count("infer(root, bundle, DIGEST, scratch)") == 1
    script.write_text(text.replace("infer(root, bundle, DIGEST, scratch)", "infer()"))
    report = rehearse("infer", dist, competition_folder, tmp_path / "out", isolation="guard")
    sample = (competition_folder / "sample_submission.csv").read_bytes()
    assert (tmp_path / "out/submission.csv").read_bytes() == sample
    assert report.kernel_exit_code == 0
    assert report.library is not None
    assert not report.ok
    assert "scored-run.json" in report.sentence
