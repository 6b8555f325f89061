"""Prior correction: probabilities learned from one population → those of another whose classes have other shares.

    q ∝ p · (target / trained)^exponent

By Bayes' rule this is exact, with an exponent of 1, where recordings of one class look alike in both populations
(Saerens, Latinne and Decaestecker 2002, "Adjusting the outputs of a classifier to new a priori probabilities"). Records
with many votes are such a population: seizures are far rarer among them than among the others.

Shapes: M members, N rows, K classes (always the six).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kagglehms.data.competition import CLASSES
from kagglehms.errors import RunError, UsageError

if TYPE_CHECKING:
    from kagglehms.data.records import Records
    from kagglehms.training.recipes import Recipe

Target = Literal["all", "many"]
"""Records that a blend is for: all of them, or those with many votes."""
Shares = tuple[float, float, float, float, float, float]
Floats = NDArray[np.float64]

MOST = 2.0
"""The largest exponent."""


@dataclass(frozen=True)
class PriorCorrection:
    """The step from the class priors that models were trained with to that of the records they predict.

    Attributes:
        population: records that the models predict.
        target: class prior of those records.
        trained: class prior of the records that each model's last stage learned from.
        exponent: strength of the correction, from 0, which changes nothing, to 2; 1 is Bayes' rule.
    """

    population: Target
    target: Shares
    trained: tuple[Shares, ...]
    exponent: float = 1.0

    __pydantic_config__ = {"extra": "forbid", "strict": True, "allow_inf_nan": False}  # noqa: RUF012

    def __post_init__(self) -> None:
        if not 0 <= self.exponent <= MOST:
            raise UsageError(
                f"the exponent of a prior correction must be from 0 to {MOST:g}, but is {self.exponent}"
            )
        for shares in (self.target, *self.trained):
            values = np.asarray(shares, dtype=np.float64)
            # A class that is impossible in one population and not in the other has no ratio.
            if values.shape != (len(CLASSES),) or not (values > 0).all() or not np.isclose(values.sum(), 1):
                raise UsageError(
                    f"a class prior must be six numbers above 0 of sum 1, but got {list(shares)}"
                )

    def only(self, positions: Sequence[int]) -> PriorCorrection:
        """Return the correction of the models at these positions."""
        trained = tuple(self.trained[i] for i in positions)
        return PriorCorrection(self.population, self.target, trained, self.exponent)

    def apply(self, predictions_MNK: Floats) -> Floats:
        """Correct the probabilities of each model, (models, n, 6), by its own prior; rows still sum to 1."""
        ratios_MK = np.array(self.target) / np.array(self.trained)
        moved_MNK = predictions_MNK * (ratios_MK**self.exponent)[:, None, :]
        return moved_MNK / moved_MNK.sum(axis=2, keepdims=True)


def class_prior(targets_NK: ArrayLike, weights_N: ArrayLike) -> Shares:
    """Return the weighted class means, as if there were one record more, of mean weight and with equal votes.

    With it no class is impossible, and a class that no record has does not make a ratio infinite.

    Args:
        targets_NK: (n, 6) vote fractions.
        weights_N: (n,) weights ≥ 0.

    Raises:
        UsageError: all weights are 0.
    """
    weights = np.asarray(weights_N, dtype=np.float64)
    if not (weights > 0).any():
        raise UsageError("a class prior needs at least one record, but none counts")
    one = weights[weights > 0].mean()
    sums_K = weights @ np.asarray(targets_NK, dtype=np.float64) + one / len(CLASSES)
    a, b, c, d, e, f = (sums_K / sums_K.sum()).tolist()
    return a, b, c, d, e, f


def joint_prior(runs: Iterable[tuple[Shares, int]]) -> Shares:
    """Return the class prior of several runs, as if there were one record more, with equal votes.

    A class that no record has so still gets a probability; without one, a row that keeps the prior could cost more than
    34 nats, where a uniform guess costs at most 1.8.

    Args:
        runs: class prior and number of records of each run. Runs with the same prior were trained on the same records,
            which count once.

    Returns:
        Mean over all records; uniform without runs.
    """
    sizes_by_prior = dict(runs)
    sums_K = sum(
        (n * np.array(prior) for prior, n in sizes_by_prior.items()), np.full(len(CLASSES), 1 / len(CLASSES))
    )
    a, b, c, d, e, f = (sums_K / (sum(sizes_by_prior.values()) + 1)).tolist()
    return a, b, c, d, e, f


def training_weights(recipe: Recipe, records: Records) -> Floats:
    """Return what each record counts in a recipe's last stage, whose class means are the prior that its networks learn.

    Args:
        recipe: recipe of which only the last stage's records and loss matter.
        records: n records.

    Returns:
        (n,) weights: 0 where the stage leaves a record out, else what its loss makes of the record's votes.

    Raises:
        RunError: the stage leaves all of them out, or learns from pseudo labels, whose class prior is another.
    """
    import torch

    from kagglehms.training.losses import own_weights, vote_weights
    from kagglehms.training.stage_plan import population

    stage = recipe.stages[-1]
    if stage.pseudo_labels is not None:
        raise RunError(
            f"{recipe.name}: its last stage learned from pseudo labels, whose class prior is not that of the votes; "
            "leave it out of the blend, or blend without the correction of class priors"
        )
    learned = population(records, np.arange(len(records)), stage.records)
    weights_N = np.zeros(len(records))
    n_votes = torch.from_numpy(records.n_votes[learned])
    elapsed = (stage.epochs - 1) / stage.epochs  # weights that change with time: as at the end
    weights_N[learned] = vote_weights(n_votes, stage.weights or own_weights(stage.loss), elapsed).numpy()
    return weights_N
