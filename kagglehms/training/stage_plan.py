"""The plan of a stage: the epoch and records of each step, and the steps after which to evaluate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from kagglehms.data.records import Records
from kagglehms.errors import RunError
from kagglehms.training.batches import shuffled, split
from kagglehms.training.feed import Feed
from kagglehms.training.recipe import Recipe
from kagglehms.training.stages import Population

if TYPE_CHECKING:
    from numpy.typing import NDArray


def population(records: Records, positions: NDArray[np.integer], which: Population) -> NDArray[np.integer]:
    """Select the records that a stage learns from or is judged by.

    Args:
        records: all records.
        positions: positions to select from.
        which: name of the population.

    Returns:
        The selected positions, in the same order.

    Raises:
        RunError: none of the records is selected.
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
    """Return the steps of an epoch, counted from 1, after which to evaluate: evenly spread, including the last."""
    return frozenset(max(1, steps_per_epoch * i // per_epoch) for i in range(1, per_epoch + 1))


class StagePlan:
    """The steps of one stage.

    Args:
        recipe: recipe of the run.
        number: number of the stage, counted from 0.
        feed: feed that draws the batches.
        train: positions of the training records in the feed.
        valid: positions of the N held-out records in the feed.
        n_members: number of processes that train together.

    Attributes:
        train: positions of the stage's training records.
        judged: (N,) bool, the held-out records by which the stage is judged.
        first_epoch: number of epochs in the stages before.
        steps_per_epoch: number of steps in an epoch.
        n_steps: number of steps in the stage.
        batch_sizes: number of records in each batch of an epoch.
        evaluate_after: steps of an epoch, counted from 1, after which to evaluate.

    Raises:
        RunError: the stage has no records, or batches that are too small for the processes.
    """

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
        """Return the positions of the records of each batch of an epoch, which is counted over all stages."""
        return split(shuffled(self.train, self.recipe.seed, epoch), self.recipe.batch_size)

    def chunks_from(self, step: int) -> Iterator[tuple[int, NDArray[np.integer]]]:
        """Yield epoch and positions of every batch that remains after `step` steps."""
        first, place = self.epoch_of(step)
        for epoch in range(first, self.first_epoch + self.stage.epochs):
            yield from ((epoch, chunk) for chunk in self.chunks(epoch)[place if epoch == first else 0 :])

    def epoch_of(self, step: int) -> tuple[int, int]:
        """Return the epoch, counted over all stages, and the position in it of the step that follows `step` others."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return self.first_epoch + epoch, place

    def warms_up(self, epoch: int) -> bool:
        """Return whether an epoch, counted over all stages, is part of the warm-up on mosaics."""
        return epoch - self.first_epoch < self.stage.mosaic_epochs

    def resets_best(self, step: int) -> bool:
        """Return whether the best evaluation is discarded before the one after `step` steps."""
        epoch, place = divmod(step - 1, self.steps_per_epoch)
        first = place + 1 == min(self.evaluate_after)
        return 0 < self.stage.mosaic_epochs == epoch and (first or self.stage.reset_all_epoch)

    def evaluates_after(self, step: int) -> bool:
        """Return whether an evaluation is due after `step` steps."""
        return step > 0 and (step - 1) % self.steps_per_epoch + 1 in self.evaluate_after
