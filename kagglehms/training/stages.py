"""A stage of a recipe: epochs with one optimizer and one run of the learning-rate schedule."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from kagglehms.errors import UsageError, one_of
from kagglehms.training.options import (
    ADDED_LATER,
    LOSSES,
    WEIGHTS,
    Albumentations,
    Augmentation,
    LossName,
    OptimizerName,
    PseudoLabels,
    WeightsName,
    check_storable,
)

Population = Literal["all", "few", "unsettled", "settled", "many"]
"""Records that a stage learns from or is judged by, see `few`, `settled` and `many` of `data.records.Records`."""
Schedule = Literal["one-cycle", "cosine", "constant"]
"""Learning-rate schedule of a stage, see `optimization.make_schedule`."""

_KNOWN: dict[str, tuple[str, ...]] = {
    "loss": LOSSES,
    "weights": WEIGHTS,
    "records": get_args(Population),
    "judged_by": get_args(Population),
    "optimizer": get_args(OptimizerName),
    "schedule": get_args(Schedule),
}
"""Names that a script may misspell: what comes from JSON has been checked before."""


@dataclass(frozen=True)
class Stage:
    """Epochs with one optimizer and one run of the learning-rate schedule.

    A stage starts from the kept weights of the stage before. Settings that are None are taken from the recipe.

    Attributes:
        epochs: number of passes over the stage's training records.
        mosaic_epochs: number of epochs at the start that warm up on mosaics, with the loss `kl` and equal weights;
            the best evaluation is reset afterwards.
        records: training records of the stage: `all`, the `unsettled` or `settled` ones, or those with `few` or
            `many` votes.
        loss: name of the loss, see `losses.weighted_loss`.
        weights: weighting of records by their votes, see `losses.vote_weights`; None for the one in the loss's name.
        judged_by: held-out records whose score decides which evaluation is best; by default those of `records`.
        optimizer: name of the optimizer.
        lr: highest learning rate.
        head_lr: highest learning rate of the layers that compute the logits, see `recipe.Recipe`.
        schedule: learning-rate schedule.
        warm_up_steps: number of steps in which a `cosine` schedule rises from 0, at most half of the stage's steps.
        last_lr: learning rate at the end of a `cosine` schedule.
        weight_decay: weight decay of the optimizer.
        clip_norm: largest norm of the gradients of all parameters together; None for no limit.
        smoothing: amount by which targets of records with at most three votes are smoothed, see
            `augmentations.smooth`.
        augmentations: augmentations that replace those of the recipe, albumentations among them.
        reset_all_epoch: whether to reset the best evaluation before every evaluation of the first epoch after the
            warm-up, instead of only before the first one. The last of them is then kept, as in the source's
            notebooks.
        pseudo_labels: targets that other runs predict, in place of those of the records with few votes.
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
    pseudo_labels: PseudoLabels | None = field(default=None, metadata=ADDED_LATER)

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012

    def __post_init__(self) -> None:
        check_storable(self)
        for name, known in _KNOWN.items():
            if (value := getattr(self, name)) is not None:
                one_of(name.replace("_", " "), value, known)
        if self.epochs < 1:
            raise UsageError(f"epochs must be at least 1, but got {self.epochs}")
        if not 0 <= self.mosaic_epochs < self.epochs:
            raise UsageError(
                f"mosaic_epochs must be less than epochs ({self.epochs}), but got {self.mosaic_epochs}"
            )
        for name in ("warm_up_steps", "last_lr", "weight_decay"):
            if (getattr(self, name) or 0) < 0:
                raise UsageError(f"{name} must be at least 0, but got {getattr(self, name)}")
        for name in ("lr", "head_lr", "clip_norm"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise UsageError(f"{name} must be above 0, but got {getattr(self, name)}")
        if not 0 <= self.smoothing < 1:
            raise UsageError(f"smoothing must be in [0, 1), but got {self.smoothing}")
        if self.weights is not None and self.loss.removeprefix("kl-") in WEIGHTS:
            raise UsageError(
                f"weights must be None where the loss has its own, but got {self.weights}, {self.loss}"
            )
        if any(isinstance(a, Albumentations) for a in self.augmentations or ()):
            raise UsageError("albumentations belong to the recipe; a stage cannot have its own")

    @property
    def judging(self) -> Population:
        """Held-out records whose score decides which evaluation is best."""
        return self.judged_by or self.records
