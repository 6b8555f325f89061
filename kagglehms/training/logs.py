"""The logs of a fold: evaluations as a table, events as lines of JSON, and the trackers that are asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kagglehms.console import say
from kagglehms.errors import RunError, first_line
from kagglehms.files import write_bytes
from kagglehms.training.trackers import Tracker, Tracking, open_tracker

if TYPE_CHECKING:
    from kagglehms.training.evaluation import Evaluation

HISTORY = "history.csv"
EVENTS = "log.jsonl"
_TRACKED = ("train_loss", "train_kl", "score_stage", "score_all", "score_votes10")
"""Columns of an evaluation that trackers get."""


class Journal:
    """The logs of one fold.

    Args:
        folder: folder of the fold.
        writes: whether this process writes for its team.
        trackers: trackers that get the scores as well.
        settings: settings of the recipe, for the trackers.

    Raises:
        UsageError: a tracker is not installed, or does not start.
    """

    def __init__(
        self,
        folder: Path,
        writes: bool = True,
        trackers: Sequence[Tracking] = (),
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.writes = folder, writes
        self._trackers: dict[str, Tracker] = {}
        if writes:
            for name in dict.fromkeys(trackers):
                self._trackers[name] = open_tracker(name, folder, settings or {})
            _end_torn_line(folder / EVENTS)

    def event(self, event: str, **details: Any) -> None:
        """Append a line of JSON: {"time": …, "event": …, details}.

        Raises:
            RunError: the file cannot be written.
        """
        if self.writes:
            line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **details}
            try:
                with (self.folder / EVENTS).open("a") as file:
                    file.write(json.dumps(line) + "\n")
            except OSError as error:
                raise RunError(
                    f"{self.folder / EVENTS}: cannot be written ({error.strerror}); free space"
                ) from error

    def evaluated(self, history: Sequence[Evaluation], improved: bool, **details: Any) -> None:
        """Log the last of the evaluations.

        Args:
            history: all evaluations so far, in order.
            improved: whether the last one is the best.
            **details: further values for the line of JSON.
        """
        if not self.writes:
            return
        last = history[-1].row
        write_history(self.folder / HISTORY, history)
        self.event("evaluation", **last, improved=improved, **details)
        scores = {name: float(last[name]) for name in _TRACKED if last[name] is not None}
        self._track(lambda tracker: tracker.scores(scores, last["step"]))

    def close(self) -> None:
        """Let the trackers send what is left."""
        self._track(lambda tracker: tracker.close())

    def _track(self, call: Callable[[Tracker], None]) -> None:
        """Call every tracker; one that fails, as servers do, is left out from then on, and training goes on."""
        for name, tracker in list(self._trackers.items()):
            try:
                call(tracker)
            except Exception as error:  # each package has errors of its own
                del self._trackers[name]
                say(
                    f"warning: {name} fails ({first_line(error)}) and gets no more scores; {HISTORY} has them all"
                )


def _end_torn_line(path: Path) -> None:
    """Complete the line that a process was writing when it died, so that the next line is not appended to it."""
    if path.is_file() and not path.read_bytes().endswith(b"\n"):
        with path.open("a") as file:
            file.write("\n")


def write_history(path: Path, history: Sequence[Evaluation]) -> None:
    """Write evaluations as CSV, one row each."""
    import polars as pl

    optional = ("score_votes10", "prior_votes10", "uniform_votes10", "train_kl")
    table = pl.DataFrame([e.row for e in history], schema_overrides=dict.fromkeys(optional, pl.Float64))
    write_bytes(path, table.write_csv().encode())
