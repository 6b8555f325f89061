"""Files written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kagglehms.errors import RunError
from kagglehms.files import PARTIAL_SUFFIX, home, sweep_partials, write_bytes, writing


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_bytes(path, b"before")
    with pytest.raises(TypeError), writing(path) as file:
        file.writelines([b"half", None])  # type: ignore[list-item]
    assert path.read_bytes() == b"before"
    assert os.listdir(path.parent) == ["file"]


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes(tmp_path / "file", b"before")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"file: cannot be written \(No space left on device\); free space"):
        write_bytes(tmp_path / "file", b"after")
    assert (tmp_path / "file").read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_is_flushed_after_the_renaming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, flushed = os.fsync, []

    def noted(descriptor: int) -> None:
        flushed.append((os.fstat(descriptor).st_ino, sorted(os.listdir(tmp_path))))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    write_bytes(tmp_path / "file", b"content")
    assert flushed[-1] == (tmp_path.stat().st_ino, ["file"])
    assert flushed[0][0] == (tmp_path / "file").stat().st_ino


def test_stale_partial_files_are_swept(tmp_path: Path) -> None:
    (tmp_path / f".model.1234{PARTIAL_SUFFIX}").write_bytes(b"x")
    (tmp_path / "model").write_bytes(b"y")
    sweep_partials(tmp_path)
    assert os.listdir(tmp_path) == ["model"]
    old, young = (tmp_path / f".{name}{PARTIAL_SUFFIX}" for name in ("old", "young"))
    old.touch()
    young.touch()
    os.utime(old, (0, 0))
    sweep_partials(tmp_path, older_than_s=3600)
    assert sorted(os.listdir(tmp_path)) == [young.name, "model"]


@pytest.mark.parametrize("variables", [{}, {"HOME": "/somewhere"}])
def test_a_user_can_have_no_home(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    pwd = pytest.importorskip("pwd", reason="of users that a system does not know")

    def unknown(_: int) -> None:
        raise KeyError("no such user")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("HOME")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert home() == (Path("/somewhere") if variables else None)
