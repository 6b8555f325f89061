"""Caches of compiled code: whose they have to be, told by modes and owners alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kagglehms.caches import others_can_write, use_own_compile_cache
from kagglehms.errors import UsageError

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder whose own path others cannot write to."""
    folder = tmp_path / "outer" / "cache"
    folder.mkdir(parents=True, mode=0o700)
    return folder


def test_modes_of_the_folder_and_of_those_around_it_count(place: Path) -> None:
    assert others_can_write(place) == ""
    place.chmod(0o777)
    assert others_can_write(place) == f"other users can write to {place}"
    place.chmod(0o1777)  # a file of the cache could be put there by anybody
    assert others_can_write(place) == f"other users can write to {place}"
    place.chmod(0o755)
    place.parent.chmod(0o777)  # the folder could be replaced
    assert others_can_write(place) == f"other users can write to {place.parent}"
    place.parent.chmod(0o1777)  # as /tmp is
    assert others_can_write(place) == ""
    place.parent.chmod(0o777)
    assert others_can_write(place, trusted=place.parent) == ""


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can give files away")
def test_another_owner_and_a_group_of_others_count(place: Path) -> None:
    os.chown(place, 12345, 0)
    assert others_can_write(place) == f"{place} belongs to another user"
    os.chown(place, 0, 12345)
    place.chmod(0o770)
    assert others_can_write(place) == f"other users can write to {place}"
    os.chown(place.parent, 12345, 12345)
    os.chown(place, 12345, 12345)
    assert others_can_write(place, trusted=place.parent) == ""


def test_compiled_networks_are_cached_in_a_folder_of_the_users_own(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(place))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    folder = use_own_compile_cache()
    assert folder == place / "kagglehms/torchinductor"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(folder)
    folder.chmod(0o777)
    with pytest.raises(UsageError, match="other users can write to"):
        use_own_compile_cache()


def test_a_user_without_a_home_has_a_temporary_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/nowhere")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    folder = use_own_compile_cache()
    assert folder.stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/dev/null/nowhere")
    with pytest.raises(UsageError, match="cannot be written"):
        use_own_compile_cache()


def test_pytorch_takes_the_folder(place: Path) -> None:
    code = (
        "from kagglehms.caches import use_own_compile_cache as use; folder = use()\n"
        "from torch._inductor.runtime.runtime_utils import cache_dir; print(cache_dir() == str(folder))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    environment["XDG_CACHE_HOME"] = str(place)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"


@pytest.mark.parametrize("mode", [0o700, 0o777])
def test_no_index_of_compiled_features_is_unpickled_that_others_could_have_written(
    place: Path, mode: int
) -> None:
    """The features then work without the cache, and one line says why."""
    place.chmod(mode)
    code = (
        "import numpy as np; from kagglehms.features.panels import normalise\n"
        "print(normalise(np.ones((4, 100, 300), np.float32)).shape == (4, 100, 300))"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(place)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"
    assert ("other users can write to" in done.stderr) == (mode == 0o777)
    assert bool(list(place.rglob("*.nbi"))) == (mode == 0o700)
