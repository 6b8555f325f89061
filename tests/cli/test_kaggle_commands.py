"""What the commands around Kaggle ask for before they begin."""

from __future__ import annotations

from pathlib import Path

import pytest

from kagglehms.cli.commands import main
from kagglehms.errors import EXIT_USER


def test_the_owner_is_asked_for_before_anything_is_built_for_a_push(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("KAGGLE_USERNAME", "KAGGLE_CONFIG_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    dist = tmp_path / "dist"
    words = ["build", "--library-only", "--dist", str(dist), "--push", "train", "--no-follow"]
    assert main(words) == EXIT_USER
    assert "--owner" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("pushed", [[], ["infer"], ["train", "infer"]])
def test_a_kernel_that_a_build_leaves_out_is_refused_before_anything_is_built(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pushed: list[str]
) -> None:
    words = ["build", "--library-only", "--owner", "some-owner", "--dist", str(tmp_path / "dist")]
    assert main([*words, "--out", str(tmp_path / "out"), "--push", *pushed]) == EXIT_USER
    assert "give --push prepare train" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
