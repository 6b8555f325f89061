"""The output of a session takes the place of the one before as a whole, whatever the disk does meanwhile."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from kagglehms.errors import RunError
from kagglehms.kaggle.outputs import keep


def test_the_session_before_comes_back_where_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of the two renames fails, as on a disk that has just gone."""
    made, place = tmp_path / "made", tmp_path / "train"
    for folder, content in ((made, "new"), (place, "old")):
        folder.mkdir()
        (folder / "state").write_text(content)
    rename = Path.rename

    def broken(path: Path, target: Path) -> Path:
        if path.name == ".train.new":
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(RunError, match="cannot be written"):
        keep(made, place, True)
    assert (place / "state").read_text() == "old"


def test_a_call_that_was_killed_between_its_renames_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had moved aside is found by the next call, which fails as well."""
    made, retired = tmp_path / "made", tmp_path / ".train.old"
    for folder, content in ((made, "new"), (retired, "old")):
        folder.mkdir()
        (folder / "state").write_text(content)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "move", full)
    with pytest.raises(RunError, match="cannot be written"):
        keep(made, tmp_path / "train", True)
    assert (tmp_path / "train" / "state").read_text() == "old"
