"""What a recipe is: all that decides what a training run learns, as a frozen dataclass and as strict JSON."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from kagglehms.data.competition import SFREQ_HZ
from kagglehms.data.records import Windows
from kagglehms.errors import DataError, UsageError
from kagglehms.inputs.kinds import Folded, Input, Signals
from kagglehms.strict_json import JSONError, validate
from kagglehms.training.front_ends.options import FoldOptions, FrontEnd, SpectrumOptions
from kagglehms.training.options import Augmentation, BandPass, KeepName, OptimizerName
from kagglehms.training.stages import Schedule, Stage

if TYPE_CHECKING:
    from pydantic import TypeAdapter


@dataclass(frozen=True)
class Recipe:
    """All that decides what a training run learns, apart from its data and folds.

    Attributes:
        name: how commands call it.
        layout: what the network is given, an image or signals.
        front_end: turns signals into the image that the backbone sees; None where the input is an image.
        backbone: any timm model by name; `ast:` before the name of a timm ViT makes its patches overlap, `half:`
            before any makes it see images of half the height and width.
        stages: what is trained on, one after the other.
        augmentations: of the training images outside of a warm-up, see `options`.
        drop_path_rate: stochastic depth inside the backbone.
        dropout: before the linear head.
        batch_size: records per step.
        optimizer: `adamw`, or `adam`, whose weight decay goes through its moments.
        lr: the highest learning rate of the schedule.
        head_lr: that of the layers that make the logits, which then follow the schedule at a rate of their own; `lr`
            when None. A stage that has an `lr` of its own keeps the recipe's `head_lr`.
        weight_decay: of the optimizer, on all parameters.
        schedule: `one-cycle` falls from `lr` to a tenth of it; `cosine` rises and falls as the stage says (see
            `learner.make_schedule`); `constant` is what the source's notebooks really did, as they never stepped
            their scheduler: `lr`, and a beta1 of 0.85.
        ema: decay per step of an exponential moving average of the weights, which then is what is evaluated and
            kept; None for the weights themselves.
        evaluations_per_epoch: how often the held-out fold is scored.
        keep: the `best` evaluation of a stage, which is chosen on the held-out records and a little optimistic for
            that, or the `last`, which is not. The next stage starts from it, and the last stage's is the run's.
        average_best: of so many of a stage's best evaluations the mean of the weights and buffers is taken, scored and
            kept; 1 for the best alone.
        windows: which 50 s stand for a record: the `middle` between its first and last sub-window, its own sub-window
            `nearest` to that, or in training a `random` place between the two; see `data.records.Windows`.
        seed: of the initial weights, the order of records, augmentations and dropout.
    """

    name: str
    layout: Input
    backbone: str = "efficientnet_b2"
    stages: tuple[Stage, ...] = (Stage(),)
    augmentations: tuple[Augmentation, ...] = ()
    drop_path_rate: float = 0.2
    dropout: float = 0.3
    batch_size: int = 32
    optimizer: OptimizerName = "adamw"
    lr: float = 1e-3
    head_lr: float | None = None
    weight_decay: float = 1e-2
    schedule: Schedule = "one-cycle"
    ema: float | None = None
    evaluations_per_epoch: int = 2
    keep: KeepName = "best"
    average_best: int = 1
    windows: Windows = "middle"
    seed: int = 42
    front_end: FrontEnd | None = None

    # Read by pydantic where JSON becomes a Recipe: a mistyped key or value must not pass.
    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012

    def __post_init__(self) -> None:
        if not self.name or any(c not in "abcdefghijklmnopqrstuvwxyz0123456789-+_" for c in self.name):
            raise UsageError(f"a recipe's name is made of a-z, 0-9, '-', '+' and '_', but got {self.name!r}")
        if not self.stages:
            raise UsageError("a recipe needs at least one stage")
        for field in ("batch_size", "evaluations_per_epoch", "average_best"):
            if getattr(self, field) < 1:
                raise UsageError(f"{field} must be at least 1, but got {getattr(self, field)}")
        if self.seed < 0:
            raise UsageError(f"seed must be at least 0, but got {self.seed}")
        if self.lr <= 0 or self.weight_decay < 0:
            raise UsageError(
                f"lr must be above and weight_decay at least 0, but got {self.lr}, {self.weight_decay}"
            )
        if self.head_lr is not None and self.head_lr <= 0:
            raise UsageError(f"head_lr must be above 0, but got {self.head_lr}")
        if self.keep == "last" and self.average_best > 1:
            raise UsageError(f"average_best must be 1 where the last is kept, but got {self.average_best}")
        for field in ("drop_path_rate", "dropout", "ema"):
            if not 0 <= (getattr(self, field) or 0) < 1:
                raise UsageError(f"{field} must be in [0, 1), but got {getattr(self, field)}")
        self._check_input()

    def _check_input(self) -> None:
        """Refuse, by name, what does not fit the input."""
        if isinstance(self.layout, Signals) != (self.front_end is not None):
            raise UsageError(
                "signals need a front end that turns them into images, and images must have none"
            )
        if isinstance(self.front_end, SpectrumOptions) and self.front_end.planes:
            raise UsageError("planes must be false: networks see images of one plane")
        if isinstance(self.front_end, SpectrumOptions) and isinstance(self.layout, Signals):
            self._check_units(self.front_end, self.layout)
        if not self.layout.makes_mosaics and any(stage.mosaic_epochs for stage in self.stages):
            raise UsageError("mosaic_epochs must be 0: mosaics can only be made of images of tiles")
        asked = [a for stage in self.stages for a in self.augmentations_of(stage)] + [*self.augmentations]
        fitting = self.layout.fitting
        if isinstance(self.front_end, FoldOptions | SpectrumOptions):
            fitting -= {"chain-permutation"}  # in their images a place tells the side
        unfit = sorted({a.kind for a in asked} - fitting)
        if unfit:
            raise UsageError(
                f"augmentations {', '.join(unfit)} do not fit this input; {', '.join(sorted(fitting))} do"
            )
        self._check_band_pass(asked)

    @staticmethod
    def _check_units(front_end: SpectrumOptions, layout: Signals) -> None:
        """Refuse a spectrum of signals in other units, or of other samples, than it takes them for."""
        given = layout.signals
        for name, asked, found in (
            ("unit_uv", front_end.unit_uv, given.scale_uv),
            ("sfreq_hz", front_end.sfreq_hz, SFREQ_HZ / given.step),
        ):
            if asked != found:
                raise UsageError(
                    f"{name} of the front end must be that of the signals, {found:g}, but got {asked:g}"
                )

    def _check_band_pass(self, asked: list[Augmentation]) -> None:
        """Refuse an edge that the input's samples are too few for."""
        highest = max((a.high_hz[1] for a in asked if isinstance(a, BandPass)), default=0.0)
        if isinstance(self.layout, Folded | Signals) and highest >= self.layout.sfreq_hz / 2:
            raise UsageError(
                f"high_hz of band-pass must be below half of the input's {self.layout.sfreq_hz:g} samples per second, "
                f"but got {highest:g}"
            )

    @property
    def image_shape(self) -> tuple[int, int]:
        """(height, width) of the image that the backbone sees: the input, or what the front end makes of it."""
        return self.layout.shape if self.front_end is None else self.front_end.image_shape(*self.layout.shape)

    def augmentations_of(self, stage: Stage) -> tuple[Augmentation, ...]:
        """What is done to the training records of a stage: its own augmentations, or the recipe's."""
        return self.augmentations if stage.augmentations is None else stage.augmentations

    @property
    def kept(self) -> str:
        """Which weights a run keeps, and what that says about their score."""
        of = " of the moving average" if self.ema is not None else ""
        if self.keep == "last":
            return f"the last evaluation{of}, whatever its score"
        chosen = "chosen on the held-out records, so that its score is a little optimistic"
        if self.average_best > 1:
            mean = f"the mean of the weights of the {self.average_best} best evaluations"
            return f"{mean}{of}, or of as many as there were, {chosen}"
        return f"the best evaluation{of}, {chosen}"

    @property
    def epochs(self) -> int:
        """Of all stages together."""
        return sum(stage.epochs for stage in self.stages)

    def with_epochs(self, epochs: int) -> Recipe:
        """The same recipe with so many epochs per stage, at most half of them a warm-up: for a quick pass."""
        stages = (
            replace(s, epochs=epochs, mosaic_epochs=min(s.mosaic_epochs, epochs // 2)) for s in self.stages
        )
        return replace(self, stages=tuple(stages))

    def changed(
        self, epochs: int | None = None, batch_size: int | None = None, backbone: str | None = None
    ) -> Recipe:
        """The same recipe with what is given in place of its own; epochs as in `with_epochs`."""
        recipe = self if epochs is None else self.with_epochs(epochs)
        recipe = recipe if batch_size is None else replace(recipe, batch_size=batch_size)
        return recipe if backbone is None else replace(recipe, backbone=backbone)

    def to_json(self) -> bytes:
        """Strict JSON, the same bytes for the same recipe."""
        return _adapter().dump_json(self, indent=1) + b"\n"

    @property
    def digest(self) -> str:
        """sha256 of the JSON: runs of recipes with different digests must not be mixed."""
        return hashlib.sha256(self.to_json()).hexdigest()


def recipe_from_json(content: bytes, path: Path | str = "recipe") -> Recipe:
    """Read a recipe back.

    Args:
        content: what `Recipe.to_json` wrote.
        path: where it came from, for the error.

    Raises:
        DataError: the content is not strict JSON, or has unknown or missing keys or values of another type.
    """
    try:
        return validate(_adapter(), content)
    except JSONError as error:
        raise DataError(path, f"is no recipe of this version: {error}", "train it again") from error


@cache
def _adapter() -> TypeAdapter[Recipe]:
    from pydantic import TypeAdapter

    return TypeAdapter(Recipe)
