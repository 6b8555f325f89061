"""What the README says can be typed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

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
    for name in getattr(options, "names", ()):
        get_blend_spec(name) if words[1] == "blend" else get_recipe(name)


def test_build_is_called_with_options_that_it_has() -> None:
    words = next(words for words in commands() if words[:2] == ["python", "build.py"])
    source = (ROOT / "build.py").read_text()
    for option in (word for word in words if word.startswith("--")):
        assert f'"{option}"' in source


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", README))
def test_links_lead_somewhere(target: str) -> None:
    assert target.startswith("https://") or (ROOT / target).exists()
