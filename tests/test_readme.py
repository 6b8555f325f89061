"""What the README says can be typed."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
from readme_text import README, ROOT, commands, python_blocks

from kagglehms.cli.commands import COMMANDS, parse
from kagglehms.cli.parsing import General, flags
from kagglehms.runs.named_blends import get_blend_spec
from kagglehms.training.recipes import get_recipe
from kagglehms.training.variants import FILES

PAGES = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md")]
OURS = [words for words in commands() if words[:1] == ["kagglehms"]]


def test_the_two_commands_stand_there() -> None:
    assert "    pip install -e . && kagglehms demo\n" in README
    assert "    pip install -e '.[test]' && pytest\n" in README


@pytest.mark.parametrize("words", OURS, ids=" ".join)
def test_commands_are_understood(words: list[str]) -> None:
    assert words[1] in COMMANDS
    options = parse(words[1], words[2:])
    names = getattr(options, "names", ())
    for name in names if words[1] in {"train", "ladder", "blend"} else ():
        if name.endswith(FILES):
            continue  # a file of the reader's own
        get_blend_spec(name) if words[1] == "blend" and len(names) == 1 else get_recipe(name)


@pytest.mark.parametrize("words", re.findall(r"`kagglehms (\w[^`]*)`", README))
def test_commands_in_the_text_are_understood(words: str) -> None:
    command, *rest = [word for word in shlex.split(words) if word != "…"]
    if command == "help":
        command, *rest = rest
    assert command in COMMANDS
    known = flags(COMMANDS[command].options, General)
    assert {word for word in rest if word.startswith("--")} <= set(known)


def test_the_vocabulary_is_that_of_the_commands() -> None:
    section = README.partition("one vocabulary")[2].partition("##")[0]
    named = set(re.findall(r"`(--[a-z-]+)", section))
    assert named == {
        *("--data", "--store", "--runs", "--dist", "--folds", "--fold", "--time-limit"),
        *("--json", "--quiet", "--debug"),
    }
    known = {flag for command in COMMANDS.values() for flag in flags(command.options, General)}
    assert named <= known


OF_OTHERS = {
    *("--index-url", "--no-deps", "--extra", "--target", "--strict"),  # pip, uv, docker, mkdocs
    *(
        "--dist",
        "--array",
        "--requeue",
        "--signal",
        "--gpus",
        "--nproc-per-node",
        "--nworkers",
    ),  # pytest, Slurm, Dask
}
"""Options of other programs that the pages mention."""


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "SECURITY.md", *sorted(PAGES)])
def test_every_option_that_a_page_names_exists(page: str) -> None:
    """Of a command, or of one of the scripts that the pages call."""
    known = {flag for command in COMMANDS.values() for flag in flags(command.options, General)} | OF_OTHERS
    for script in [*ROOT.glob("benchmarks/*.py"), *ROOT.glob("tests/campaign/*.py")]:
        known |= set(re.findall(r'"(--[a-z-]+)"', script.read_text()))
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", (ROOT / page).read_text())) <= known


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
    assert target.startswith("https://") or (ROOT / "docs" / target).exists()


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", README))
def test_links_lead_somewhere(target: str) -> None:
    assert target.startswith("https://") or (ROOT / target).exists()
