"""A stage of a recipe: epochs that share an optimizer and one run of the learning-rate schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kagglehms.errors import UsageError
from kagglehms.training.options import Albumentations, Augmentation, LossName, OptimizerName, WeightsName

Population = Literal["all", "few", "unsettled", "settled", "many"]
"""Which records a stage learns from and is judged by, see `data.records.Records.few`, `settled`, `many`."""
Schedule = Literal["one-cycle", "cosine", "constant"]
"""How the learning rate moves along a stage, see `learner.make_schedule`."""


@dataclass(frozen=True)
class Stage:
    """Epochs that share an optimizer and one run of the learning-rate schedule.

    What is None is taken from the recipe.

    Attributes:
        epochs: passes over the stage's training records.
        mosaic_epochs: how many of them, at the start, are a warm-up on mosaics, with the plain loss; the best
            evaluation is reset after it.
        records: learn from `all` records, the `unsettled` or the `settled` ones, or those of `few` or `many`
            votes. A later stage starts from the best weights of the one before.
        loss: see `losses.weighted_loss`.
        weights: what a record counts by its votes, see `losses.vote_weights`; None for those in the loss's name.
        judged_by: the held-out records whose score decides which evaluation is best; `records` when None.
        optimizer: see `Recipe`.
        lr: the highest learning rate.
        head_lr: that of the layers that make the logits, see `Recipe`.
        schedule: of the learning rate.
        warm_up_steps: steps along which a `cosine` schedule rises from 0, at most half of the stage's.
        last_lr: where a `cosine` schedule ends.
        weight_decay: of the optimizer.
        clip_norm: the largest norm of all gradients together; None for no limit.
        smoothing: taken off the largest targets of records with at most three votes, see `augmentations.smooth`.
        augmentations: in place of the recipe's.
        reset_all_epoch: reset the best before every evaluation of the first epoch after the warm-up and not before
            the first alone, so that the last of them stands, as in the source's notebooks.
    """

    epochs: int = 6
    mosaic_epochs: int = 0
    records: Population = "all"
    loss: LossName = "kl"
    weights: WeightsName | None = None
    judged_by: Population | None = None
    optimizer: OptimizerName | None = None
    lr: float | None = None
    head_lr: float | None = None
    schedule: Schedule | None = None
    warm_up_steps: int = 0
    last_lr: float = 0.0
    weight_decay: float | None = None
    clip_norm: float | None = None
    smoothing: float = 0.0
    augmentations: tuple[Augmentation, ...] | None = None
    reset_all_epoch: bool = False

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise UsageError(f"epochs must be at least 1, but got {self.epochs}")
        if not 0 <= self.mosaic_epochs < self.epochs:
            raise UsageError(
                f"mosaic_epochs must be less than epochs ({self.epochs}), but got {self.mosaic_epochs}"
            )
        for field in ("warm_up_steps", "last_lr", "weight_decay"):
            if (getattr(self, field) or 0) < 0:
                raise UsageError(f"{field} must be at least 0, but got {getattr(self, field)}")
        for field in ("lr", "head_lr", "clip_norm"):
            if getattr(self, field) is not None and getattr(self, field) <= 0:
                raise UsageError(f"{field} must be above 0, but got {getattr(self, field)}")
        if not 0 <= self.smoothing < 1:
            raise UsageError(f"smoothing must be in [0, 1), but got {self.smoothing}")
        if self.weights is not None and self.loss.startswith("kl-"):
            raise UsageError(
                f"weights must be None where the loss has its own, but got {self.weights}, {self.loss}"
            )
        if any(isinstance(a, Albumentations) for a in self.augmentations or ()):
            raise UsageError("albumentations belong to the recipe; a stage cannot have its own")

    @property
    def judging(self) -> Population:
        """The held-out records whose score decides which evaluation is best."""
        return self.judged_by or self.records
