"""An evaluation of the held-out fold: when it was made, and its scores.

Shape legend: N held-out records, K the six classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kagglehms.training.metric import Standing, floors, kl_score, standings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kagglehms.data.records import Records
    from kagglehms.training.recipe import Recipe

_IN_FILES = {
    "score_many": "score_votes10",
    "prior_many": "prior_votes10",
    "uniform_many": "uniform_votes10",
}
"""Attributes of `Evaluation` that have other names in history.csv, log.jsonl and the saved state."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of the held-out fold.

    Attributes:
        stage: stage of the recipe, counted from 0.
        warm_up: whether the stage had only trained on mosaics so far.
        step: number of optimizer steps before the evaluation, over all stages.
        epoch: number of passes over the training records before the evaluation, over all stages; a fraction within
            an epoch.
        train_loss: mean training loss since the previous evaluation, as the stage weights it.
        score_stage: the competition's score on the held-out records by which the stage is judged; it decides which
            evaluation is best.
        score_all: score on all held-out records.
        score_many: score on the held-out records with many votes; None if there are none.
        seconds: time spent on training and evaluation so far, over all sessions.
        prior_stage: score of the class prior on the records of `score_stage`.
        prior_all: score of the class prior on all held-out records.
        prior_many: score of the class prior on those with many votes.
        uniform_stage: score of a uniform prediction on the records of `score_stage`.
        uniform_all: score of a uniform prediction on all held-out records.
        uniform_many: score of a uniform prediction on those with many votes.
        averaged: number of evaluations whose weights were averaged; 1 for the weights at that step.
        train_kl: mean unweighted KL divergence of the training batches since the previous evaluation, which can be
            compared with held-out scores; None in the files of earlier versions.
    """

    stage: int
    warm_up: bool
    step: int
    epoch: float
    train_loss: float
    score_stage: float
    score_all: float
    score_many: float | None
    seconds: float
    prior_stage: float
    prior_all: float
    prior_many: float | None
    uniform_stage: float
    uniform_all: float
    uniform_many: float | None
    averaged: int = 1
    train_kl: float | None = None

    @property
    def row(self) -> dict[str, Any]:
        """The evaluation as files hold it, by column."""
        return {_IN_FILES.get(name, name): value for name, value in asdict(self).items()}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Evaluation:
        """Make an evaluation from its `row`."""
        attributes = {column: name for name, column in _IN_FILES.items()}
        return cls(**{attributes.get(column, column): value for column, value in row.items()})

    @property
    def all(self) -> Standing:
        """Score on all held-out records, and its floors."""
        return Standing(self.score_all, self.prior_all, self.uniform_all)

    @property
    def many(self) -> Standing | None:
        """Score on the held-out records with many votes, and its floors; None if there are none."""
        return Standing.of(self.score_many, self.prior_many, self.uniform_many)

    def line(self, recipe: Recipe, improved: bool) -> str:
        """Describe the evaluation in one line.

        Args:
            recipe: recipe of the run.
            improved: whether it is the best evaluation so far.
        """
        many = "" if self.many is None else f", many (≥ 10 votes) {self.many.text}"
        records = recipe.stages[self.stage].judging
        own = Standing(self.score_stage, self.prior_stage, self.uniform_stage)
        judged = "" if records in {"all", "many"} else f", {records} {own.text}"
        held_out = f"held out {self.all.text}{many}{judged}, {self.seconds:.0f} s"
        if self.averaged > 1:
            return f"  mean of the weights of the {self.averaged} best evaluations: {held_out}  (kept)"
        warm_up = " (warm-up)" if self.warm_up else ""
        best = "  (the last so far, kept)" if recipe.keep == "last" else "  (best so far)" if improved else ""
        place = f"epoch {self.epoch:.1f}/{recipe.epochs}{warm_up}, step {self.step}"
        return f"  {place}: {self._training}, {held_out}{best}"

    @property
    def _training(self) -> str:
        """The training loss in words: what can be compared with held-out scores first."""
        loss = f"{self.train_loss:.4f}"
        if self.train_kl is None:
            return f"loss {loss}"
        divergence = f"{self.train_kl:.4f}"
        return f"training KL {divergence}" + ("" if loss == divergence else f" (loss {loss})")


@dataclass(frozen=True)
class Scores:
    """Scores of held-out predictions, each with its floors.

    Attributes:
        stage: on the records by which the stage is judged.
        all: on all held-out records.
        many: on those with many votes; None if there are none.
    """

    stage: Standing
    all: Standing
    many: Standing | None

    @property
    def attributes(self) -> dict[str, Any]:
        """The scores by the names of the attributes of `Evaluation`."""
        parts = {"stage": self.stage, "all": self.all, "many": self.many}
        return {
            f"{kind}_{name}": None if part is None else getattr(part, kind)
            for kind in ("score", "prior", "uniform")
            for name, part in parts.items()
        }


def score(
    records: Records,
    valid: NDArray[np.integer],
    judged: NDArray[np.bool_],
    predictions_NK: NDArray[np.float64],
) -> Scores:
    """Score held-out predictions.

    Args:
        records: all records.
        valid: positions of the N held-out records.
        judged: (N,) True for the records by which the stage is judged.
        predictions_NK: predicted probabilities.
    """
    targets_NK = records.targets_NK[valid]
    stage = Standing(kl_score(targets_NK[judged], predictions_NK[judged]), *floors(targets_NK[judged]))
    return Scores(stage, *standings(targets_NK, predictions_NK, records.many[valid]))
