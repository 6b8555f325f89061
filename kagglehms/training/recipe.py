"""A recipe: everything that decides what a training run learns, as a frozen dataclass and as strict JSON."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kagglehms.data.competition import SFREQ_HZ
from kagglehms.data.records import Windows
from kagglehms.errors import DataError, UsageError, counted
from kagglehms.inputs.kinds import Folded, Input, Signals, View, Views, Zoomed
from kagglehms.inputs.layouts import Layout
from kagglehms.strict_json import JSONError, validate
from kagglehms.training.backbones import EEG
from kagglehms.training.front_ends.options import (
    AnyEncoder,
    Encoder,
    FoldOptions,
    FrontEnd,
    ImageFrontEnd,
    PanelResNetOptions,
    PoolingName,
    SpectrumOptions,
)
from kagglehms.training.options import (
    ADDED_LATER,
    Augmentation,
    BandPass,
    KeepName,
    OptimizerName,
    check_storable,
)
from kagglehms.training.stages import Schedule, Stage

if TYPE_CHECKING:
    from pydantic import TypeAdapter


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training run learns, apart from its data and folds.

    Attributes:
        name: name of the recipe on the command line.
        layout: input of the network: an image, signals, two images, or signals and an image.
        front_end: part of the network that turns signals into the image that the backbone sees, or into an embedding;
            None if the input has no signals, or if the backbone sees them as they are.
        backbone: name of any timm model. The prefix `ast:` gives a timm ViT overlapping patches; `half:` shows any
            model images of half the height and width. `eeg:` and the name of a model of braindecode is a network for
            an input that is nothing but signals. Empty if there is no such network, and no image or one that
            `panel_encoder` sees.
        stages: stages of the training, in order.
        augmentations: augmentations of the training records, except during a warm-up, see `options`.
        drop_path_rate: rate of stochastic depth in the backbone.
        dropout: dropout rate before the linear head.
        batch_size: number of records per step.
        optimizer: `adamw`, or `adam`, whose weight decay passes through its moments.
        lr: highest learning rate of the schedule.
        head_lr: highest learning rate of the layers that compute the logits; None for the same `lr`. A stage with
            its own `lr` still uses the recipe's `head_lr`.
        weight_decay: weight decay of all parameters.
        schedule: learning-rate schedule. `one-cycle` falls from `lr` to a tenth of it; `cosine` rises and falls as
            the stage says (see `optimization.make_schedule`); `constant` keeps `lr` and a beta1 of 0.85, which is what
            the source's notebooks did, since they never stepped their scheduler.
        ema: decay per step of an exponential moving average of the weights, which is then evaluated and kept; None
            for the weights themselves. At step t of a stage, counted from 0, it is at most (1 + t) / (10 + t), so
            that the first weights are soon forgotten.
        evaluations_per_epoch: number of evaluations on the held-out fold in each epoch.
        keep: which evaluation of a stage is kept. The `best` is chosen on the held-out records, so its score is
            slightly optimistic; the score of the `last` is not. The next stage starts from the kept weights, and
            those of the last stage are the run's.
        average_best: number of a stage's best evaluations whose weights and buffers are averaged; the average is
            scored and kept. 1 keeps the best evaluation itself.
        windows: which 50 s represent a record: the `middle` between its first and last sub-window, its sub-window
            `nearest` to the middle, or, in training, a `random` position between the two; see
            `data.records.Windows`.
        seed: seed of the initial weights, the order of the records, augmentations and dropout.
        second_backbone: name of the timm model that sees the second of two images; None for the same as `backbone`,
            and if there is one image.
        pooling: pooling of every backbone's last feature map; None for that of timm's model.
        panel_encoder: network that embeds an image of one tile, panel by panel; None if a backbone sees it.
        view_loss: weight of the loss of each of two views by itself, whose logits a layer of its own computes in
            training, beside the loss of both together; 0 for no such layers.
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
    second_backbone: str | None = field(default=None, metadata=ADDED_LATER)
    pooling: PoolingName | None = field(default=None, metadata=ADDED_LATER)
    panel_encoder: PanelResNetOptions | None = field(default=None, metadata=ADDED_LATER)
    view_loss: float = field(default=0.0, metadata=ADDED_LATER)

    # For Pydantic, which makes recipes from JSON: refuse mistyped keys and values of another type.
    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012

    def __post_init__(self) -> None:
        check_storable(self)
        if not self.name or any(c not in "abcdefghijklmnopqrstuvwxyz0123456789-+_" for c in self.name):
            raise UsageError(f"a recipe's name is made of a-z, 0-9, '-', '+' and '_', but got {self.name!r}")
        if not self.stages:
            raise UsageError("a recipe needs at least one stage")
        for name in ("batch_size", "evaluations_per_epoch", "average_best"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, but got {getattr(self, name)}")
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
        for name in ("drop_path_rate", "dropout", "ema"):
            if not 0 <= (getattr(self, name) or 0) < 1:
                raise UsageError(f"{name} must be in [0, 1), but got {getattr(self, name)}")
        if self.view_loss < 0:
            raise UsageError(f"view_loss must be at least 0, but got {self.view_loss}")
        if self.name in self.teachers:
            raise UsageError(f"a run cannot be its own teacher, but {self.name} names itself")
        self._check_input()

    def _check_input(self) -> None:
        """Refuse settings that do not fit the input."""
        if self.second_backbone is not None and not isinstance(self.layout, Views):
            raise UsageError(
                f"second_backbone must be None where there is one image, but got {self.second_backbone!r}"
            )
        if self.view_loss and not isinstance(self.layout, Views):
            raise UsageError(f"view_loss must be 0 where there is one view, but got {self.view_loss}")
        if self.panel_encoder is not None and not any(map(_is_one_tile, self.views)):
            raise UsageError("panel_encoder must be None where no image is a single tile of stacked panels")
        signals = [view for view in self.views if isinstance(view, Signals)]
        if self.eeg_model:
            self._check_eeg_model()
        elif bool(signals) != (self.front_end is not None) or len(signals) > 1:
            raise UsageError(
                "signals need a front end that turns them into an image or an embedding, and images must have none"
            )
        elif bool(self.backbone) != bool(self.image_shapes):
            raise UsageError(
                f"backbone must name a timm model if there is an image for it, and be empty if there is none, but got "
                f"{self.backbone!r}; {self.name} has {'one' if self.image_shapes else 'none'}"
            )
        if isinstance(self.front_end, SpectrumOptions) and self.front_end.planes:
            raise UsageError("planes must be false: networks see images of one plane")
        if isinstance(self.front_end, SpectrumOptions):
            self._check_units(self.front_end, signals[0])
        if not self.layout.makes_mosaics and any(stage.mosaic_epochs for stage in self.stages):
            raise UsageError("mosaic_epochs must be 0: mosaics can only be made of images of tiles")
        asked = [a for stage in self.stages for a in self.augmentations_of(stage)] + [*self.augmentations]
        fitting = self.layout.fitting
        if isinstance(self.front_end, FoldOptions | SpectrumOptions):
            fitting -= {"chain-permutation"}  # a position in their images stands for a side of the head
        unfit = sorted({a.kind for a in asked} - fitting)
        if unfit:
            which = "both images of this input" if isinstance(self.layout, Views) else "this input"
            raise UsageError(
                f"augmentations {', '.join(unfit)} do not fit {which}; {', '.join(sorted(fitting))} do"
            )
        self._check_band_pass(asked)

    def _check_eeg_model(self) -> None:
        """Refuse what a network for signals has no use for."""
        if not isinstance(self.layout, Signals) or self.front_end is not None or self.pooling is not None:
            raise UsageError(
                f"backbone {self.backbone!r} sees signals alone, as they are: the input must be Signals, front_end and "
                "pooling must be None; it makes no embedding for two views"
            )

    @staticmethod
    def _check_units(front_end: SpectrumOptions, layout: Signals) -> None:
        """Refuse a spectrum whose settings state other units or samples than those of the signals."""
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
        """Refuse a cut-off frequency that is too high for the input's sampling frequency."""
        highest = max((a.high_hz[1] for a in asked if isinstance(a, BandPass)), default=0.0)
        if isinstance(self.layout, Folded | Signals | Zoomed) and highest >= self.layout.sfreq_hz / 2:
            raise UsageError(
                f"high_hz of band-pass must be below half of the input's {self.layout.sfreq_hz:g} samples per second, "
                f"but got {highest:g}"
            )

    @property
    def image_shapes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of the image that each backbone sees: of the input, or of the output of the front end."""
        shapes = (self._image_shape(view) for view in self.views)
        return tuple(shape for shape in shapes if shape is not None)

    @property
    def seen_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of what the network of each view sees: (height, width) of an image, or (signals, samples)."""
        return tuple(self._image_shape(view) or view.shape for view in self.views)

    def _image_shape(self, view: View) -> tuple[int, int] | None:
        """Return (height, width) of the image that is made of a view; None for a view that is embedded directly."""
        if not isinstance(view, Signals):
            return view.shape if self.encoder_of(view) is None else None
        return None if self.image_front_end is None else self.image_front_end.image_shape(*view.shape)

    @property
    def image_front_end(self) -> ImageFrontEnd | None:
        """Front end that turns signals into an image; None if there is none, or one that embeds them."""
        return None if isinstance(self.front_end, Encoder) else self.front_end

    def encoder_of(self, view: View) -> AnyEncoder | None:
        """Return the options of the network that embeds a view without a backbone; None if a backbone sees it."""
        if _is_one_tile(view):
            return self.panel_encoder
        if isinstance(view, Signals) and isinstance(self.front_end, Encoder):
            return self.front_end
        return None

    @property
    def views(self) -> tuple[View, ...]:
        """The one or two inputs that the layout consists of."""
        return self.layout.parts if isinstance(self.layout, Views) else (self.layout,)

    @property
    def backbones(self) -> tuple[str, ...]:
        """Name of the backbone that sees each of these images."""
        both = (self.backbone, self.second_backbone or self.backbone)
        return both[: len(self.image_shapes)]

    @property
    def eeg_model(self) -> str:
        """Name of braindecode's model that sees the signals; empty if the network is none of braindecode's."""
        return self.backbone.removeprefix(EEG) if self.backbone.startswith(EEG) else ""

    @property
    def packages(self) -> tuple[str, ...]:
        """Names of the optional packages that the network is made from."""
        return ("braindecode",) if self.eeg_model else ()

    @property
    def network(self) -> str:
        """Description of the networks that see the views."""
        backbones = iter(self.backbones or (self.backbone,))
        encoders = map(self.encoder_of, self.views)
        return " beside ".join(next(backbones) if encoder is None else encoder.kind for encoder in encoders)

    def described(self, stage: Stage) -> str:
        """Describe a stage of this recipe in a line."""
        epochs = counted(stage.epochs, "epoch") + (
            f", {stage.mosaic_epochs} of mosaics" if stage.mosaic_epochs else ""
        )
        weights = f" × {stage.weights}" if stage.weights else ""
        parts = [f"{epochs} on {stage.records} records", f"loss {stage.loss}{weights}"]
        parts += [f"rate {stage.lr or self.lr:g}, {stage.schedule or self.schedule}"]
        parts += [", ".join(a.kind for a in self.augmentations_of(stage)) or "no augmentation"]
        return "; ".join(parts)

    def augmentations_of(self, stage: Stage) -> tuple[Augmentation, ...]:
        """Return the augmentations of a stage: its own, or the recipe's."""
        return self.augmentations if stage.augmentations is None else stage.augmentations

    @property
    def teachers(self) -> tuple[str, ...]:
        """Names of the runs whose predictions any stage learns from, each once."""
        asked = (stage.pseudo_labels for stage in self.stages)
        return tuple(dict.fromkeys(name for labels in asked if labels for name in labels.teachers))

    @property
    def kept(self) -> str:
        """Description of the weights that a run keeps, and of what that means for their score."""
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
        """Number of epochs of all stages together."""
        return sum(stage.epochs for stage in self.stages)

    def with_epochs(self, epochs: int) -> Recipe:
        """Return this recipe with `epochs` epochs in each stage, at most half of them warm-up: for quick runs."""
        stages = (
            replace(s, epochs=epochs, mosaic_epochs=min(s.mosaic_epochs, epochs // 2)) for s in self.stages
        )
        return replace(self, stages=tuple(stages))

    def changed(
        self, epochs: int | None = None, batch_size: int | None = None, backbone: str | None = None
    ) -> Recipe:
        """Return this recipe with the settings that are given; for the epochs see `with_epochs`.

        A backbone replaces both of two; one of braindecode also replaces the front end.
        """
        recipe = self if epochs is None else self.with_epochs(epochs)
        recipe = recipe if batch_size is None else replace(recipe, batch_size=batch_size)
        if backbone is not None and backbone.startswith(EEG):
            return replace(recipe, backbone=backbone, second_backbone=None, front_end=None, pooling=None)
        if backbone is not None and not self.image_shapes:
            raise UsageError(f"{self.name} has no image network that {backbone} could replace; leave it out")
        return recipe if backbone is None else replace(recipe, backbone=backbone, second_backbone=None)

    def to_json(self) -> bytes:
        """Return strict JSON, the same bytes for equal recipes.

        Settings that later versions added appear only where they are used, so that the digests of older recipes stay.
        """
        return _adapter().dump_json(self, indent=1, exclude=_unused(self)) + b"\n"

    def settings(self) -> dict[str, Any]:
        """Return every setting in the form that JSON has, also those that `to_json` leaves out."""
        settings: dict[str, Any] = _adapter().dump_python(self, mode="json")
        return settings

    @property
    def digest(self) -> str:
        """sha256 of the JSON; runs of recipes with different digests must not be mixed."""
        return hashlib.sha256(self.to_json()).hexdigest()


def _unused(settings: Any) -> dict[Any, Any]:
    """Return which settings of a dataclass, or of a tuple of them, are `ADDED_LATER` and have their defaults.

    Settings within settings are found as well; the result is what Pydantic excludes.
    """
    found: dict[Any, Any] = {}
    if isinstance(settings, tuple):
        found = {number: _unused(value) for number, value in enumerate(settings)}
    elif is_dataclass(settings):
        for each in fields(settings):
            value = getattr(settings, each.name)
            later = each.metadata == ADDED_LATER and value == each.default
            found[each.name] = later or _unused(value)
    return {key: value for key, value in found.items() if value}


def _is_one_tile(view: View) -> bool:
    """Return whether a view is an image of one tile, whose panels are stacked."""
    return isinstance(view, Layout) and len(view.tiles) == 1


def recipe_from_json(content: bytes, path: Path | str = "recipe") -> Recipe:
    """Make a recipe from JSON.

    Args:
        content: output of `Recipe.to_json`.
        path: file that the content was read from, for error messages.

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
