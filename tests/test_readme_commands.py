"""What the README says can be typed, typed: every command and every block of Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from own_recordings import simulated_uv, write_referential
from readme_text import README, commands, python_blocks

MINE = """
from dataclasses import replace
from kagglehms.training.recipes import get_recipe
mine = replace(get_recipe("demo"), name="mine", dropout=0.2)
"""


def quick(words: list[str], eeg_id: int) -> list[str]:
    """The same command on a small competition: fewer epochs of a tiny network, an EEG that is there."""
    known = {"1628180742": str(eeg_id), "YOUR-KAGGLE-NAME": "somebody"}
    words = [known.get(word, word) for word in words]
    if words[1] == "train" or "--run" in words:
        small = {"--epochs": "1", "--backbone": "half:test_efficientnet", "--folds": "2", "--weights": "none"}
        for name, value in small.items():
            at = words.index(name) if name in words else len(words)
            words[at : at + 2] = [name, value]
    if words[1] == "ladder" and "--run" in words:
        words[2:2] = ["baseline"]  # all twenty would take many minutes here
    return words


@pytest.mark.slow(40)
def test_every_command_does_what_it_says(
    competition_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In the README's order, in a folder that holds nothing but the data. Kaggle's own client is left out."""
    import polars as pl

    from kagglehms.cli.commands import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "hms").symlink_to(competition_folder)
    write_referential(tmp_path / "night.edf", simulated_uv(90))
    (tmp_path / "mine.py").write_text(MINE)
    eeg_id = pl.read_csv("hms/train.csv")["eeg_id"][0]
    done = []
    for words in commands():
        if words[:1] == ["kagglehms"] and words[1] not in {"demo", "push"}:
            assert main(quick(words, eeg_id)[1:]) == 0, (words, capsys.readouterr().err)
            done.append(words[1])
    assert done[:5] == ["prepare", "train", "blend", "build", "rehearse"]
    submission = pl.read_csv("rehearsal/submission.csv")
    assert submission["eeg_id"].to_list() == pl.read_csv("hms/test.csv")["eeg_id"].to_list()
    assert (tmp_path / "report.html").is_file()
    assert pl.read_csv("predictions/night_windows.csv")["judged"].sum() == 5
    assert (tmp_path / f"eeg-{eeg_id}.html").is_file()
    run_python_of_the_readme(tmp_path)


def run_python_of_the_readme(folder: Path) -> None:
    """Its four blocks, one after the other, with recordings of the test set and a tiny network of that name."""
    import numpy as np

    from kagglehms.training import recipes

    names: dict[str, Any] = {
        "eeg_uv": np.random.default_rng(0).normal(0, 30, (10_000, 20)).astype(np.float32),
        "power": np.random.default_rng(0).lognormal(1, 1, (300, 400)).astype(np.float32),
    }
    bundle, frames, features, recipe = python_blocks(README)
    exec(compile(bundle, "README.md", "exec"), names)
    found = names["predictor"].predict(names["eeg_uv"], spectrogram=names["power"])
    assert found.probabilities.sum() == pytest.approx(1)
    exec(compile(frames, "README.md", "exec"), names)
    assert len(names["mine"]) == len(names["tables"].records(folder / "hms"))
    assert (folder / "submission.csv").read_text().splitlines()[1].startswith("853520,")
    exec(compile(features, "README.md", "exec"), names)
    assert names["mel_images"](names["eeg_uv"][None]).shape == (1, 4, 128, 256)
    assert len(recipe.splitlines()) <= 10
    small = recipe.replace("efficientnet_b3", "half:test_efficientnet").replace('"auto"', '"none"')
    small = small.replace("n_folds=5", "n_folds=2").replace(
        '"mosaic-xloss")', '"mosaic-xloss").with_epochs(1)'
    )
    exec(compile(small, "README.md", "exec"), names)
    assert names["recipe"].name not in recipes.RECIPES
    assert (folder / "runs/mosaic-b3/run.json").is_file()
