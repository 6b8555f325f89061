"""What the README says can be typed."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest

from kagglehms.cli import COMMANDS, parse
from kagglehms.learning.ensemble import get_blend_spec
from kagglehms.learning.recipes import get_recipe

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def commands() -> list[list[str]]:
    blocks = re.findall(r"^    (.+)$", README, flags=re.MULTILINE)
    return [shlex.split(part, comments=True) for line in blocks for part in line.split(" && ")]


OURS = [words for words in commands() if words[:1] == ["kagglehms"]]


def test_the_two_commands_stand_there() -> None:
    assert "    pip install -e . && kagglehms demo\n" in README
    assert "    pip install -e '.[test]' && pytest\n" in README


@pytest.mark.parametrize("words", OURS, ids=" ".join)
def test_commands_are_understood(words: list[str]) -> None:
    assert words[1] in COMMANDS
    options = parse(words[1], words[2:])
    names = getattr(options, "names", ())
    for name in names:
        get_blend_spec(name) if words[1] == "blend" and len(names) == 1 else get_recipe(name)


def test_build_is_called_with_options_that_it_has() -> None:
    called = [words for words in commands() if words[:2] == ["python", "build.py"]]
    source = (ROOT / "build.py").read_text()
    assert len(called) == 2
    for option in (word for words in called for word in words if word.startswith("--")):
        assert f'"{option}"' in source


def test_six_commands_lead_from_data_to_a_submission() -> None:
    section = README.partition("in six commands")[2].partition("##")[0]
    assert len(re.findall(r"^    ", section, flags=re.MULTILINE)) == 6


def quick(words: list[str], eeg_id: int) -> list[str]:
    """The same command on a small competition: fewer epochs of a tiny network, an EEG that is there."""
    known = {"1628180742": str(eeg_id), "YOUR-KAGGLE-NAME": "somebody"}
    words = [known.get(word, word) for word in words]
    if words[1] == "train" or "--run" in words:
        small = {"--epochs": "1", "--backbone": "test_efficientnet", "--folds": "2", "--weights": "none"}
        for name, value in small.items():
            at = words.index(name) if name in words else len(words)
            words[at : at + 2] = [name, value]
    if words[1] == "ladder" and "--run" in words:
        words[2:2] = ["baseline"]  # all twenty would take many minutes here
    return words


@pytest.mark.slow
def test_every_command_does_what_it_says(
    competition_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In the README's order, in a folder that holds nothing but the data. Kaggle's own client is left out."""
    import polars as pl

    from kagglehms.cli import main

    build = runpy.run_path(str(ROOT / "build.py"))["main"]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "hms").symlink_to(competition_folder)
    eeg_id = pl.read_csv("hms/train.csv")["eeg_id"][0]
    done = []
    for words in commands():
        if words[:1] == ["kagglehms"] and words[1] != "demo":
            assert main(quick(words, eeg_id)[1:]) == 0, (words, capsys.readouterr().err)
        elif words[:2] == ["python", "build.py"] and "--push" not in words:
            assert build(words[2:]) == 0, capsys.readouterr().err
        else:
            continue
        done.append(words[1])
    assert done[:5] == ["prepare", "train", "blend", "build.py", "rehearse"]
    submission = pl.read_csv("rehearsal/submission.csv")
    assert submission["eeg_id"].to_list() == pl.read_csv("hms/test.csv")["eeg_id"].to_list()
    assert (tmp_path / "report.html").is_file()
    assert (tmp_path / f"eeg-{eeg_id}.html").is_file()
    run_python_of_the_readme(tmp_path)


def run_python_of_the_readme(folder: Path) -> None:
    """Its three blocks, one after the other, with recordings of the test set and a tiny network of that name."""
    import numpy as np

    from kagglehms.learning import recipes

    names: dict[str, Any] = {
        "eeg_uv": np.random.default_rng(0).normal(0, 30, (10_000, 20)).astype(np.float32),
        "power": np.random.default_rng(0).lognormal(1, 1, (300, 400)).astype(np.float32),
    }
    bundle, features, recipe = python_blocks(README)
    exec(compile(bundle, "README.md", "exec"), names)
    assert names["predictor"].predict(names["eeg_uv"], spectrogram=names["power"]).sum() == pytest.approx(1)
    exec(compile(features, "README.md", "exec"), names)
    assert names["mel_images"](names["eeg_uv"][None]).shape == (1, 4, 128, 256)
    assert len(recipe.splitlines()) <= 10
    small = recipe.replace("efficientnet_b3", "test_efficientnet").replace('"auto"', '"none"')
    small = small.replace("n_folds=5", "n_folds=2").replace(
        '"mosaic-xloss")', '"mosaic-xloss").with_epochs(1)'
    )
    exec(compile(small, "README.md", "exec"), names)
    assert names["recipe"].name not in recipes.RECIPES
    assert (folder / "runs/mosaic-b3/run.json").is_file()


def python_blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def test_the_code_of_extending_runs() -> None:
    from kagglehms.features.images import Layout
    from kagglehms.learning.recipes import recipe_from_json

    names: dict[str, Any] = {}
    for block in python_blocks((ROOT / "docs/extending.md").read_text()):
        exec(compile(block, "extending.md", "exec"), names)
    assert isinstance(names["layout"], Layout)
    assert recipe_from_json(names["recipe"].to_json()) == names["recipe"]


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", (ROOT / "docs/extending.md").read_text()))
def test_links_of_extending_lead_somewhere(target: str) -> None:
    assert (ROOT / "docs" / target).exists()


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", README))
def test_links_lead_somewhere(target: str) -> None:
    assert target.startswith("https://") or (ROOT / target).exists()
