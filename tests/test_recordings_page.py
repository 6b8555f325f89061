"""What docs/recordings.md says can be typed, typed; its example made and judged."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from readme_text import python_blocks

from kagglehms.cli.commands import COMMANDS, main, parse
from kagglehms.cli.parsing import flags
from kagglehms.recordings.folders import ENDINGS
from kagglehms.recordings.results import RecordingPrediction
from kagglehms.recordings.sliding import FLAGS

PAGE = (Path(__file__).resolve().parents[1] / "docs/recordings.md").read_text()
COMMAND_LINES = re.findall(r"^    (?:\$ )?(kagglehms .+)$", PAGE, flags=re.MULTILINE)


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_commands_are_understood(line: str) -> None:
    words = shlex.split(line)
    parse(words[1], words[2:])


def test_every_flag_option_and_file_is_explained() -> None:
    options = set(flags(COMMANDS["predict"].options)) - {"--device"}
    assert {word for word in options | {f"`{flag}`" for flag in FLAGS} if word not in PAGE} == set()
    kinds = {ending.rpartition("_")[2] for ending in ENDINGS}
    assert {kind for kind in kinds if f".{kind.rpartition('.')[2]}" not in PAGE} == set()
    assert "not a medical device" in PAGE


@pytest.mark.slow(20)
def test_the_example_does_what_it_says(
    dist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/dist").symlink_to(dist)
    monkeypatch.chdir(tmp_path)
    make, predict, with_mne = python_blocks(PAGE)
    exec(compile(make, "recordings.md", "exec"), {})
    shown = re.findall(r"^    night.edf: (.+)$", PAGE, flags=re.MULTILINE)
    assert main(["predict", "night.edf", "--bundle", "demo/dist"]) == 0
    assert f"night.edf: {shown[0]}" in capsys.readouterr().out
    names: dict[str, Any] = {}
    exec(compile(predict, "recordings.md", "exec"), names)
    assert isinstance(names["found"], RecordingPrediction)
    assert names["table"].height == pl.read_csv("predictions/night_windows.csv").height == 120
    mne = pytest.importorskip("mne", reason="MNE is an extra")
    plt = pytest.importorskip("matplotlib.pyplot", reason="draws the traces")
    plt.switch_backend("Agg")
    mne.viz.set_browser_backend("matplotlib")
    exec(compile(with_mne, "recordings.md", "exec"), names)
    assert set(names["names"]) == set(names["annotations"].description) == {e.name for e in names["events"]}
    assert len(names["starts"]) == len(names["events"])
    assert isinstance(names["figure"], plt.Figure)
