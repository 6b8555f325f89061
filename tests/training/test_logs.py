"""Logs: every line whole, every evaluation in the table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import polars as pl
import pytest

from kagglehms.training import logs
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
    journal = Journal(tmp_path, writes=False, trackers=["tensorboard"])
    journal.event("resumed")
    journal.evaluated([evaluation(1)], improved=True)
    assert list(tmp_path.iterdir()) == []


class Failing:
    """A tracker whose server is gone after the first scores."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def scores(self, values: Mapping[str, float], step: int) -> None:
        self.steps.append(step)
        if len(self.steps) > 1:
            raise ConnectionError("no route to host")

    def close(self) -> None:
        raise AssertionError("it has failed before")


def test_a_tracker_that_fails_is_left_out_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = Failing()
    monkeypatch.setattr(logs, "open_tracker", lambda *_: tracker)
    journal = Journal(tmp_path, trackers=["wandb"])
    history: list[Evaluation] = []
    for step in (1, 2, 3):
        history.append(evaluation(step))
        journal.evaluated(history, improved=True)
    journal.close()
    assert tracker.steps == [1, 2]
    assert capsys.readouterr().out.count("wandb fails (no route to host)") == 1
    assert len(pl.read_csv(tmp_path / HISTORY)) == 3
