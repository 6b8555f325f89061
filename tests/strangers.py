"""Files in the working folder whose names are those of modules that a child process imports."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

MODULES = ("kaggle.py", "kaggle/__init__.py", "pip.py", "token.py", "logging.py", "pickle.py", "requests.py")


def work_among_strangers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder of such files the working folder, which an empty entry of PYTHONPATH stands for as well.

    Returns:
        The file that is there as soon as one of them has been executed; it says which.
    """
    witness = folder / "executed.txt"
    for name in MODULES:
        path = folder / "working" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"open({str(witness)!r}, 'a').write('{name} ')\n")
    monkeypatch.chdir(folder / "working")
    monkeypatch.setenv("PYTHONPATH", os.pathsep + os.environ.get("PYTHONPATH", ""))
    return witness
