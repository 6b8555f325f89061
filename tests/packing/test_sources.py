"""What a bundle is built from; that an installed wheel suffices is tested with the command, in tests/test_build.py."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import kagglehms
from kagglehms.errors import RunError
from kagglehms.packing.sources import KERNEL_SCRIPTS, find_sources

ROOT = Path(__file__).resolve().parents[2]


def test_a_checkout_has_everything_in_its_own_places() -> None:
    sources = find_sources()
    assert sources.checkout == ROOT
    assert sources.kernels == ROOT / "kernels"
    assert (sources.card, sources.license) == (ROOT / "dataset-metadata.json", ROOT / "LICENSE")
    assert find_sources(ROOT) == sources


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a checkout"):
        find_sources(tmp_path)


def test_a_library_without_checkout_or_installation_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the package was copied into another project."""
    copy = tmp_path / "kagglehms"
    copy.mkdir()
    (copy / "__init__.py").touch()
    monkeypatch.setattr(kagglehms, "__file__", str(copy / "__init__.py"))
    with pytest.raises(RunError, match="not a checkout of kagglehms; install it"):
        find_sources()
    shutil.copytree(ROOT / "kernels", copy / KERNEL_SCRIPTS)
    with pytest.raises(RunError, match="was not installed from a wheel"):
        find_sources()


def test_the_commit_of_a_folder_without_history_is_unknown(tmp_path: Path) -> None:
    for name in ("kagglehms", "kernels", "pyproject.toml", "LICENSE", "dataset-metadata.json"):
        (tmp_path / name).symlink_to(ROOT / name)
    assert find_sources(tmp_path).commit() is None
