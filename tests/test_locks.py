"""A folder is held by one process at a time, and nobody waits for one that has died."""

from __future__ import annotations

import errno
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from kagglehms.errors import RunError, UsageError
from kagglehms.locks import HOLDER, exclusive


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    code = "import sys, pathlib; from kagglehms.locks import exclusive\n"
    code += "with exclusive(pathlib.Path(sys.argv[1]), 'work'): print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        with (
            pytest.raises(RunError, match=f"work is under way by process {child.pid} on"),
            exclusive(tmp_path, "work"),
        ):
            pass
        child.kill()
    with exclusive(tmp_path, "work"):
        pass


@pytest.mark.parametrize(
    ("number", "says"),
    [(errno.ENOLCK, "cannot be locked"), (errno.EWOULDBLOCK, "is under way by another process")],
)
def test_only_a_lock_that_is_held_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, says: str
) -> None:
    fcntl = pytest.importorskip("fcntl", reason="a lock's failure is made through it")

    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.raises(RunError, match=says), exclusive(tmp_path, "work"):
        pass


def test_what_a_killed_holder_wrote_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / HOLDER).write_text("process 1 on a machine that has gone")
    with exclusive(tmp_path, "work"):
        assert (tmp_path / HOLDER).read_text() == f"process {os.getpid()} on {platform.node()}"
        with pytest.raises(RunError, match=f"process {os.getpid()} on"), exclusive(tmp_path, "other work"):
            pass
    assert not (tmp_path / HOLDER).exists()
    with exclusive(tmp_path, "work"):
        pass


def test_a_folder_that_cannot_be_written_is_a_users_mistake(tmp_path: Path) -> None:
    if os.name != "posix" or os.geteuid() == 0:
        pytest.skip("nothing is forbidden to this user")
    tmp_path.chmod(0o555)
    with pytest.raises(UsageError, match="cannot be written"), exclusive(tmp_path, "work"):
        pass


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "open", full)
    with (
        pytest.raises(RunError, match="cannot be locked .*No space left.*with space left"),
        exclusive(tmp_path, "work"),
    ):
        pass


def test_a_file_in_place_of_the_folder_is_a_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(UsageError, match="cannot be written"), exclusive(folder, "work"):
            pass
