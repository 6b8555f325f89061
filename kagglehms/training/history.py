"""The history of a fold: its evaluations so far, the weights that are kept, and the time spent."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from kagglehms.console import say
from kagglehms.training.evaluation import Evaluation
from kagglehms.training.keeping import Keeper
from kagglehms.training.logs import Journal
from kagglehms.training.recipe import Recipe
from kagglehms.training.resume import State


class History:
    """Evaluations, kept weights and time of a fold, over all sessions.

    Args:
        recipe: recipe of the run.
        journal: logs that every evaluation is written to.

    Attributes:
        evaluations: all evaluations, in order.
        keeper: the kept weights and predictions.
    """

    def __init__(self, recipe: Recipe, journal: Journal) -> None:
        self.recipe, self.journal = recipe, journal
        self.evaluations: list[Evaluation] = []
        self.keeper = Keeper(recipe)
        self._seconds_before, self._start = 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        """Time spent on training and evaluation, over all sessions."""
        return self._seconds_before + time.monotonic() - self._start

    @property
    def last(self) -> Evaluation | None:
        """The last evaluation."""
        return self.evaluations[-1] if self.evaluations else None

    def add(self, evaluation: Evaluation, improved: bool, lr: float) -> None:
        """Add an evaluation, and write it to the logs and the console.

        Args:
            evaluation: the evaluation.
            improved: whether it is the best so far.
            lr: current learning rate.
        """
        self.evaluations.append(evaluation)
        self.journal.evaluated(self.evaluations, improved, lr=lr)
        say(evaluation.line(self.recipe, improved))

    def tensors(self) -> Mapping[str, Tensor]:
        """Return the kept weights and predictions, by name, for the saved state."""
        return self.keeper.tensors()

    def numbers(self) -> dict[str, Any]:
        """Return the rest of the history, for the JSON of the saved state."""
        return {
            "history": [evaluation.row for evaluation in self.evaluations],
            "kept": self.keeper.numbers(self.evaluations),
            "seconds": self.seconds,
        }

    def restore(self, state: State) -> None:
        """Continue from a saved state."""
        self.evaluations = [Evaluation.from_row(row) for row in state.numbers["history"]]
        self.keeper.restore(state, state.numbers["kept"], self.evaluations)
        self._seconds_before = float(state.numbers["seconds"])
