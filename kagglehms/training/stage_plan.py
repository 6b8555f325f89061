"""The steps of a stage: which epoch and records each has, and after which the held-out fold is scored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from kagglehms.data.records import Records
from kagglehms.errors import RunError
from kagglehms.training.feed import Feed, shuffled, split
from kagglehms.training.recipe import Recipe
from kagglehms.training.stages import Population

if TYPE_CHECKING:
    from numpy.typing import NDArray


def population(records: Records, positions: NDArray[np.integer], which: Population) -> NDArray[np.integer]:
    """Those of `positions` that a stage learns from or is judged by.

    Raises:
        RunError: there are none.
    """
    chosen = {
        "all": np.ones(len(records), bool),
        "few": records.few,
        "unsettled": ~records.settled,
        "settled": records.settled,
        "many": records.many,
    }[which]
    kept = positions[chosen[positions]]
    if not len(kept):
        raise RunError(f"none of {len(positions)} records is {which}, and a stage of the recipe needs some")
    return kept


def evaluation_steps(steps_per_epoch: int, per_epoch: int) -> frozenset[int]:
    """Steps of an epoch (from 1) after which to evaluate: evenly spread, the last one always among them."""
    return frozenset(max(1, steps_per_epoch * i // per_epoch) for i in range(1, per_epoch + 1))


class Plan:
    """The steps of one stage: which epoch and records each has, and where the stage is evaluated."""

    def __init__(
        self,
        recipe: Recipe,
        number: int,
        feed: Feed,
        train: NDArray[np.integer],
        valid: NDArray[np.integer],
        n_members: int,
    ) -> None:
        self.recipe, self.number, self.stage = recipe, number, recipe.stages[number]
        self.train = population(feed.records, train, self.stage.records)
        self.judged = np.isin(valid, population(feed.records, valid, self.stage.judging))
        """Which of the held-out records the stage is judged by."""
        self.first_epoch = sum(stage.epochs for stage in recipe.stages[:number])
        self.steps_per_epoch = -(-len(self.train) // recipe.batch_size)
        self.n_steps = self.steps_per_epoch * self.stage.epochs
        self.batch_sizes = [len(chunk) for chunk in split(self.train, recipe.batch_size)]
        self.evaluate_after = evaluation_steps(self.steps_per_epoch, recipe.evaluations_per_epoch)
        if min(self.batch_sizes) < n_members:
            raise RunError(
                f"stage {number + 1} of {recipe.name} learns from {len(self.train)} records, in batches of down to "
                f"{min(self.batch_sizes)}, too few for {n_members} processes; start fewer, or choose another "
                "--batch-size"
            )

    def chunks(self, epoch: int) -> list[NDArray[np.integer]]:
        """Positions of the records of each batch of an epoch (counted over all stages)."""
        return split(shuffled(self.train, self.recipe.seed, epoch), self.recipe.batch_size)

    def chunks_from(self, step: int) -> Iterator[tuple[int, NDArray[np.integer]]]:
        """Epoch and positions of every batch that is left after `step` steps."""
        first, place = self.epoch_of(step)
        for epoch in range(first, self.first_epoch + self.stage.epochs):
            yield from ((epoch, chunk) for chunk in self.chunks(epoch)[place if epoch == first else 0 :])

    def epoch_of(self, step: int) -> tuple[int, int]:
        """Epoch (over all stages) and place in it of the step after `step` others."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return self.first_epoch + epoch, place

    def warms_up(self, epoch: int) -> bool:
        return epoch - self.first_epoch < self.stage.mosaic_epochs

    def resets_best(self, step: int) -> bool:
        """Whether the best so far is forgotten before the evaluation after `step` steps."""
        epoch, place = divmod(step - 1, self.steps_per_epoch)
        first = place + 1 == min(self.evaluate_after)
        return 0 < self.stage.mosaic_epochs == epoch and (first or self.stage.reset_all_epoch)

    def evaluates_after(self, step: int) -> bool:
        """Whether an evaluation is due when `step` steps are done."""
        return step > 0 and (step - 1) % self.steps_per_epoch + 1 in self.evaluate_after
