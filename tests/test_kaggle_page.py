"""What docs/kaggle.md says can be typed, and its three lines predict."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from kagglehms.cli.commands import COMMANDS, parse
from kagglehms.cli.parsing import flags
from kagglehms.kaggle.image import TABLE

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/kaggle.md").read_text()
LINES = [
    shlex.split(line) for line in re.findall(r"^    ((?:kagglehms|python) .+)$", PAGE, flags=re.MULTILINE)
]


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_commands_are_understood(words: list[str]) -> None:
    if words[:2] == ["python", "build.py"]:
        words = ["kagglehms", "build", *words[2:]]
    assert words[0] == "kagglehms"
    parse(words[1], words[2:])


def test_every_option_of_build_is_explained() -> None:
    options = set(flags(COMMANDS["build"].options))
    assert {"--half", "--push"} < options
    assert {option for option in options if option not in PAGE} == set()


def test_the_table_of_the_image_is_linked() -> None:
    (link,) = re.findall(r"\]\(([^)]+image\.toml)\)", PAGE)
    assert (ROOT / "docs" / link).resolve() == TABLE.resolve()


def test_the_three_lines_predict(dist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = re.search(r"((?:^    .*\n)*^    predictor\.predict.*\n)", PAGE, flags=re.MULTILINE)
    assert block is not None
    lines = [line.strip() for line in block[1].splitlines()]
    assert len(lines) == 3
    monkeypatch.chdir(dist.parent)
    scope = {
        "eeg_uv": np.random.default_rng(0).normal(0, 30, (10_000, 20)),
        "power": np.random.default_rng(1).lognormal(size=(300, 400)),
    }
    exec("\n".join([*lines[:2], f"result = {lines[2]}"]), scope)
    probabilities = np.asarray(scope["result"])
    assert probabilities.shape == (6,)
    assert np.isclose(probabilities.sum(), 1)
