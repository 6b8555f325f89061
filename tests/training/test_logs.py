"""Logs: every line whole, every evaluation in the table."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import polars as pl
import pytest

from kagglehms.errors import UsageError
from kagglehms.training.evaluation import Evaluation
from kagglehms.training.logs import EVENTS, HISTORY, Journal


def evaluation(step: int) -> Evaluation:
    return Evaluation(0, False, step, step / 3, 0.9, 0.8, 0.8, None, 1.5 * step, 1, 1, None, 1.8, 1.8, None)


def test_events_are_lines_of_json_and_evaluations_a_table(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.event("resumed", step=3)
    history = [evaluation(3)]
    journal.evaluated(history, improved=True, lr=1e-3)
    history.append(evaluation(6))
    journal.evaluated(history, improved=False, lr=1e-4)
    lines = [json.loads(line) for line in (tmp_path / EVENTS).read_text().splitlines()]
    assert [line["event"] for line in lines] == ["resumed", "evaluation", "evaluation"]
    assert (lines[2]["step"], lines[2]["improved"], lines[2]["lr"]) == (6, False, 1e-4)
    table = pl.read_csv(tmp_path / HISTORY)
    assert table["step"].to_list() == [3, 6]
    assert table["seconds"].to_list() == [4.5, 9.0]


def test_a_torn_line_does_not_spoil_the_next(tmp_path: Path) -> None:
    (tmp_path / EVENTS).write_text('{"event": "sav')
    Journal(tmp_path).event("resumed")
    torn, whole = (tmp_path / EVENTS).read_text().splitlines()
    assert torn == '{"event": "sav'
    assert json.loads(whole)["event"] == "resumed"


def test_members_of_a_team_that_do_not_lead_write_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path, writes=False, tensorboard=True)
    journal.event("resumed")
    journal.evaluated([evaluation(1)], improved=True)
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(
        UsageError, match=r"--tensorboard needs TensorBoard .*pip install 'kagglehms.tensorboard.'"
    ):
        Journal(tmp_path, tensorboard=True)


def test_tensorboard_gets_the_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason="needs the tensorboard extra")
    Journal(tmp_path, tensorboard=True).evaluated([evaluation(3)], improved=True)
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert b"score_all" in content
    assert b"score_votes10" not in content
