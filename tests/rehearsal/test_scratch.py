"""Scratch folders of rehearsals: deleted by their own, or by the next one, and never while they are in use."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from kagglehms.rehearsal import scratch
from kagglehms.rehearsal.scratch import scratch_folder

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kernels are not rehearsed on Windows")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(scratch.tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_a_killed_one_left_is_deleted_and_what_is_in_use_is_not(temporary: Path) -> None:
    left = temporary / "kagglehms-rehearsal-left"
    (left / "kaggle/working").mkdir(parents=True)
    with scratch_folder() as first:
        (first / "file").touch()
        assert not left.exists()
        with scratch_folder() as second:
            assert (first / "file").exists()
            assert first != second
    assert list(temporary.iterdir()) == []


def test_a_folder_that_has_just_been_made_is_not_taken_from_its_maker(temporary: Path) -> None:
    fresh, old = temporary / "kagglehms-rehearsal-fresh", temporary / "kagglehms-rehearsal-old"
    for folder in (fresh, old):
        folder.mkdir()
    os.utime(old, (0, time.time() - 7200))
    with scratch_folder():
        assert fresh.exists()
        assert not old.exists()


def test_no_link_is_followed_out_of_the_folder(temporary: Path) -> None:
    ours = temporary / "ours"
    (ours / "deep").mkdir(parents=True)
    (ours / "deep/file").touch()
    (ours / "deep").chmod(0o500)
    (temporary / "kagglehms-rehearsal-link").symlink_to(ours)
    with scratch_folder() as folder:
        (folder / "link").symlink_to(ours / "deep")
    assert (ours / "deep/file").exists()
    assert (ours / "deep").stat().st_mode & 0o777 == 0o500
    assert (temporary / "kagglehms-rehearsal-link").is_symlink()


def test_folders_without_rights_are_deleted_too(temporary: Path) -> None:
    with scratch_folder() as folder:
        (folder / "closed/deep").mkdir(parents=True)
        (folder / "closed/deep/file").touch()
        (folder / "closed/deep").chmod(0)
        (folder / "closed").chmod(0)
    assert list(temporary.iterdir()) == []


def test_folders_of_others_are_left(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = temporary / "kagglehms-rehearsal-theirs"
    (theirs / "kaggle").mkdir(parents=True)
    monkeypatch.setattr(os, "geteuid", lambda: theirs.stat().st_uid + 1)
    with scratch_folder():
        assert theirs.exists()
