"""What progress says in a log."""

from __future__ import annotations

import re

import pytest

from kagglehms.progress import progress


def test_progress_passes_everything_on_and_speaks_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(range(4), 4, "count", every_s=0)) == [0, 1, 2, 3]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == ["count: 1/4", "count: 2/4", "count: 3/4"]


def test_progress_says_what_was_done_before_and_how_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress("ab", 5, "count", every_s=0, before=3, status=lambda: "loss 0.5")) == ["a", "b"]
    (line,) = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"count: 4/5, [\d.e+]+/s, about 0 s left, loss 0\.5", line)
