"""What a child process of ours, and a child of that, can import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from strangers import work_among_strangers

from kagglehms.environment import child_environment, safe_children, safe_environment

CODE = "import pickle, token, logging, {module}; print({module}.__file__)"


def imported(code: str, environment: dict[str, str] | None) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_neither_a_child_nor_its_child_sees_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness = work_among_strangers(tmp_path, monkeypatch)
    imported(CODE.format(module="token"), dict(os.environ))
    assert "token.py" in witness.read_text()  # as it goes without
    witness.unlink()
    code = CODE.format(module="token")
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}], check=True)"
    assert Path(imported(child, safe_environment())).is_relative_to(sys.base_prefix)
    with safe_children():
        assert Path(imported(child, None)).is_relative_to(sys.base_prefix)
    assert not witness.exists()


def test_what_python_was_told_to_look_at_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", str(tmp_path), ""]))
    assert imported("import mine; print(mine.__file__)", safe_environment()) == str(tmp_path / "mine.py")
    monkeypatch.chdir(tmp_path)
    assert Path(imported(CODE.format(module="kagglehms"), child_environment())).parent.name == "kagglehms"
    monkeypatch.setenv("PYTHONPATH", "")
    assert "PYTHONPATH" not in safe_environment()


def test_the_environment_is_what_it_was_once_they_have_been_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    before = dict(os.environ)
    with safe_children():
        assert os.environ["PYTHONSAFEPATH"] == "1"
        assert "PYTHONPATH" not in os.environ
    assert dict(os.environ) == before
