"""The logs of a fold: evaluations as a table, events as lines of JSON, and TensorBoard if it is asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kagglehms.errors import RunError, UsageError
from kagglehms.files import write_bytes

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from kagglehms.training.evaluation import Evaluation

HISTORY = "history.csv"
EVENTS = "log.jsonl"


class Journal:
    """The logs of one fold.

    Args:
        folder: folder of the fold.
        writes: whether this process writes for its team.
        tensorboard: whether to write event files for TensorBoard as well, to `folder`/tensorboard.

    Raises:
        UsageError: TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path, writes: bool = True, tensorboard: bool = False) -> None:
        self.folder, self.writes = folder, writes
        self._board = _summary_writer(folder / "tensorboard") if writes and tensorboard else None
        if writes:
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
        if self._board:
            for name in ("train_loss", "train_kl", "score_stage", "score_all", "score_votes10"):
                if last[name] is not None:
                    self._board.add_scalar(name, last[name], last["step"])
            self._board.flush()


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


def _summary_writer(folder: Path) -> SummaryWriter:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError(
            f"--tensorboard needs TensorBoard ({error}); pip install 'kagglehms[tensorboard]'"
        ) from error
    return SummaryWriter(str(folder))
