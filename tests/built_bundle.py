"""Fixtures of the tests around Kaggle: a user without credentials, two finished runs, a bundle built once."""

from __future__ import annotations

from pathlib import Path

import pytest
from runs_folder import make_run

from kagglehms.packing.build import Built, build

OWNER = "some-owner"


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home without anything in it, whoever runs the tests; returns it."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLE_CONFIG_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two finished runs."""
    make_run(tmp_path / "runs", "baseline")
    make_run(tmp_path / "runs", "panels+global")
    return tmp_path / "runs"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A bundle of one run, and its kernels; never to be written to."""
    folder = tmp_path_factory.mktemp("built")
    make_run(folder / "runs", "baseline")
    return build(folder / "runs", folder / "dist", owner=OWNER)
