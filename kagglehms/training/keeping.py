"""Which evaluations of a stage are kept: the best, the best few for the mean of their weights, or the last.

Shape legend: N held-out records, K the six classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kagglehms.training.evaluation import Evaluation
from kagglehms.training.recipe import Recipe
from kagglehms.training.resume import State

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

Weights = Mapping[str, "Tensor"]


@dataclass(frozen=True)
class Kept:
    """An evaluation and the weights that it is of, in main memory."""

    evaluation: Evaluation
    weights: Weights


class Keeper:
    """Keeps weights and predictions of one stage's evaluations.

    Args:
        recipe: says whether the best or the last is kept, and of how many the mean.

    Attributes:
        kept: the best evaluations since `forget`, the best first, later ones before equal earlier ones; the last
            alone where the recipe keeps that.
        predictions_NK: (n_valid, 6) float64 probabilities of the first of them.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.keeps_last, self.n_kept = recipe.keep == "last", recipe.average_best
        self.kept: list[Kept] = []
        self.predictions_NK: NDArray[np.float64] = np.empty(0)

    @property
    def best(self) -> Evaluation | None:
        """The evaluation that stands, as things are."""
        return self.kept[0].evaluation if self.kept else None

    @property
    def weights(self) -> Weights:
        """Its weights."""
        return self.kept[0].weights if self.kept else {}

    def forget(self) -> None:
        """Begin anew, as if nothing had been evaluated."""
        self.kept = []

    def offer(
        self, now: Evaluation, weights: Callable[[], Weights], predictions_NK: NDArray[np.float64]
    ) -> bool:
        """Keep an evaluation if it is good enough.

        Args:
            now: the evaluation.
            weights: copies the weights, which is asked for only if they are kept.
            predictions_NK: its predictions.

        Returns:
            Whether it is the one that stands now.
        """
        better = [k for k in self.kept if not self.keeps_last and k.evaluation.score_stage < now.score_stage]
        if len(better) >= self.n_kept:
            return False
        rest = self.kept[len(better) :]
        self.kept = [*better, Kept(now, weights()), *rest][: self.n_kept]
        if better:
            return False
        self.predictions_NK = predictions_NK
        return True

    def mean(self) -> Weights | None:
        """Return the mean of the kept weights, buffers included; None if there are fewer than two.

        It is reckoned in float64. What is counted in whole numbers is taken from the best.
        """
        if len(self.kept) < 2:
            return None
        first = self.kept[0].weights
        return {
            name: torch.stack([k.weights[name].double() for k in self.kept]).mean(dim=0).to(value.dtype)
            if value.is_floating_point()
            else value
            for name, value in first.items()
        }

    def stand(self, evaluation: Evaluation, weights: Weights, predictions_NK: NDArray[np.float64]) -> None:
        """Let one evaluation take the place of all."""
        self.kept, self.predictions_NK = [Kept(evaluation, weights)], predictions_NK

    # -- what is saved ---------------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """Weights by name, the best below `best/`, the others below `best1/` and so on; and the predictions."""
        named = {
            f"{_part(number)}/{name}": value
            for number, kept in enumerate(self.kept)
            for name, value in kept.weights.items()
        }
        return {**named, "predictions/NK": torch.from_numpy(self.predictions_NK)}

    def numbers(self, history: Sequence[Evaluation]) -> list[int]:
        """Where in the history the kept evaluations stand."""
        return [history.index(kept.evaluation) for kept in self.kept]

    def restore(self, state: State, kept: Sequence[int], history: Sequence[Evaluation]) -> None:
        """Take back what was saved."""
        self.kept = [Kept(history[place], state.part(_part(number))) for number, place in enumerate(kept)]
        self.predictions_NK = state.tensors["predictions/NK"].numpy()


def averaged(last: Evaluation, n: int, seconds: float, columns: Mapping[str, Any]) -> Evaluation:
    """The evaluation of the mean of `n` weights, behind a stage's last one; its loss is the last one's."""
    return replace(last, averaged=n, seconds=seconds, **columns)


def _part(number: int) -> str:
    return f"best{number or ''}"
