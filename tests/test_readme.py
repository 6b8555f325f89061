"""What the README says can be typed."""

from __future__ import annotations

import re
from typing import Any

import pytest
from readme_text import README, ROOT, commands, python_blocks

from kagglehms.cli.commands import COMMANDS, parse
from kagglehms.runs.blends import get_blend_spec
from kagglehms.training.recipes import get_recipe

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


def test_the_code_of_extending_runs() -> None:
    from kagglehms.inputs.layouts import Layout
    from kagglehms.training.recipes import recipe_from_json

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
