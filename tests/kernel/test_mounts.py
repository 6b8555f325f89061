"""The competition is found by name in any style, and nothing is walked."""

from __future__ import annotations

from pathlib import Path

import pytest

from kagglehms.data.competition import SLUG
from kagglehms.errors import DataError
from kagglehms.kernel.mounts import (
    MOUNT_STYLES,
    MountStyle,
    competition_mount,
    dataset_mount,
    find_competition,
)


@pytest.mark.parametrize("style", MOUNT_STYLES)
def test_the_competition_is_found_without_listing_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, style: MountStyle
) -> None:
    folder = tmp_path / "input" / competition_mount(SLUG, style)
    folder.mkdir(parents=True)
    (folder / "test.csv").write_text("eeg_id\n")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a mount of tens of thousands of files was listed")

    for name in ("iterdir", "glob", "rglob", "walk"):
        monkeypatch.setattr(Path, name, refuse, raising=False)
    assert find_competition(tmp_path) == folder


def test_where_it_is_not_the_error_says_where_it_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "input" / SLUG).mkdir(parents=True)
    with pytest.raises(DataError, match="competition_sources") as raised:
        find_competition(tmp_path)
    for style in MOUNT_STYLES:
        assert str(tmp_path / "input" / competition_mount(SLUG, style)) in str(raised.value)


def test_the_mounts_are_kaggles() -> None:
    assert [dataset_mount("me", "bundle", style) for style in MOUNT_STYLES] == [
        "bundle",
        "datasets/me/bundle",
    ]
    assert [competition_mount("hms", style) for style in MOUNT_STYLES] == ["hms", "competitions/hms"]
