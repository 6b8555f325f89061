"""Keep the best evaluations of a stage, or the last one, with their weights.

Shape legend: N held-out records, K the six classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    """A kept evaluation.

    Attributes:
        evaluation: the evaluation.
        weights: the weights that were evaluated, in main memory.
    """

    evaluation: Evaluation
    weights: Weights


class Keeper:
    """The kept evaluations of one stage.

    Args:
        recipe: recipe of the run, which decides whether the best or the last evaluation is kept, and how many are
            averaged.

    Attributes:
        kept: the best evaluations since `forget`, best first, and of equal ones the later first; or only the last
            one, if the recipe keeps that.
        predictions_NK: float64 probabilities of the first of them.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.keeps_last, self.n_kept = recipe.keep == "last", recipe.average_best
        self.kept: list[Kept] = []
        self.predictions_NK: NDArray[np.float64] = np.empty(0)

    @property
    def best(self) -> Evaluation | None:
        """The best evaluation, or the last one, if the recipe keeps that; None if there is none."""
        return self.kept[0].evaluation if self.kept else None

    @property
    def weights(self) -> Weights:
        """Weights of `best`; empty if there is none."""
        return self.kept[0].weights if self.kept else {}

    def forget(self) -> None:
        """Discard all evaluations."""
        self.kept = []

    def offer(
        self, now: Evaluation, weights: Callable[[], Weights], predictions_NK: NDArray[np.float64]
    ) -> bool:
        """Keep an evaluation if it is good enough.

        Args:
            now: the evaluation.
            weights: function that copies the weights; it is only called if they are kept.
            predictions_NK: predictions of the evaluation.

        Returns:
            Whether the evaluation is the new `best`.
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
        """Return the mean of the kept weights and buffers; None if there are fewer than two evaluations.

        It is computed in float64. Integer buffers are those of the best evaluation.
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
        """Replace all kept evaluations by one.

        Args:
            evaluation: the evaluation.
            weights: the weights that were evaluated, in main memory.
            predictions_NK: predictions of the evaluation.
        """
        self.kept, self.predictions_NK = [Kept(evaluation, weights)], predictions_NK

    # -- saving and restoring --------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """Return the weights by name, those of the best as `best/…`, then `best1/…` and so on; and the predictions."""
        named = {
            f"{_part(number)}/{name}": value
            for number, kept in enumerate(self.kept)
            for name, value in kept.weights.items()
        }
        return {**named, "predictions/NK": torch.from_numpy(self.predictions_NK)}

    def numbers(self, history: Sequence[Evaluation]) -> list[int]:
        """Return the positions of the kept evaluations in the history."""
        return [history.index(kept.evaluation) for kept in self.kept]

    def restore(self, state: State, kept: Sequence[int], history: Sequence[Evaluation]) -> None:
        """Continue from a saved state.

        Args:
            state: the saved state.
            kept: positions of the kept evaluations in the history.
            history: all evaluations, in order.
        """
        self.kept = [Kept(history[place], state.part(_part(number))) for number, place in enumerate(kept)]
        self.predictions_NK = state.tensors["predictions/NK"].numpy()


def _part(number: int) -> str:
    return f"best{number or ''}"
