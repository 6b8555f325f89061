"""Options of recipes: losses by name, and augmentations as frozen dataclasses.

This module holds only names and numbers, and imports no PyTorch, so that recipes can be read quickly. The losses
themselves are in `losses`, the augmentations in `augmentations`. In JSON every augmentation carries its `kind`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, is_dataclass
from math import isfinite
from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import Discriminator

from kagglehms.errors import UsageError

ADDED_LATER = {"added_later": True}
"""Metadata of settings that are younger than the first runs; JSON leaves them out where they have no effect."""

LossName: TypeAlias = Literal[
    "kl",
    "kl-log-votes",
    "kl-votes",
    "kl-capped-votes",
    "kl-two-stage",
    "cross-entropy",
    "binary-cross-entropy",
]
"""The loss to minimise, see `losses`. `kl-X` is `kl` with records weighted by `X`; the others weight all records
equally, unless the stage names `weights`."""

LOSSES: tuple[str, ...] = get_args(LossName)

WeightsName: TypeAlias = Literal[
    "equal", "log-votes", "log3-votes", "votes", "capped-votes", "two-stage", "quarter-few", "groups"
]
"""How the loss of a record is weighted by its number of votes and the epoch, see `losses.vote_weights`."""

WEIGHTS: tuple[str, ...] = get_args(WeightsName)

OptimizerName: TypeAlias = Literal["adamw", "adam"]
"""AdamW subtracts weight decay from the weights directly, Adam adds it to the gradients."""

KeepName: TypeAlias = Literal["best", "last"]
"""Which evaluation of a stage is kept."""

LOWEST_HZ = 0.01
"""Lowest cut-off frequency of a band-pass, as its response lasts the longer, the lower it is."""

Scalar: TypeAlias = bool | int | float | str | None
OptionValue: TypeAlias = Scalar | tuple[Scalar | tuple[Scalar, ...], ...]
"""Type of an option of an albumentations transform; a JSON list becomes a tuple."""


class _Strict:
    """Base of what Pydantic makes from JSON: a mistyped key or a value of another type is refused."""

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012


@dataclass(frozen=True)
class PseudoLabels(_Strict):
    """Targets that are partly the predictions of other runs, see `pseudo_labels`.

    Attributes:
        teachers: names of the runs whose out-of-fold predictions are averaged.
        share: share of that mean in the new target, above 0 and at most 1; the votes keep the rest.
        most_votes: largest number of votes of a record whose target changes; records with more votes keep theirs.
    """

    teachers: tuple[str, ...]
    share: float = 0.9
    most_votes: int = 9

    def __post_init__(self) -> None:
        if not self.teachers or len(set(self.teachers)) < len(self.teachers):
            raise UsageError(
                f"Allowed values for teachers are one or more runs, each once, but got {self.teachers}"
            )
        if not 0 < self.share <= 1:
            raise UsageError(f"Allowed values for share are above 0 to 1, but got {self.share}")
        _check_at_least_1(most_votes=self.most_votes)


@dataclass(frozen=True)
class _Chance(_Strict):
    """Base of the augmentations that are applied with some probability.

    Attributes:
        probability: probability that a record is changed, or, where records of a batch are mixed, the batch.
    """

    probability: float = 0.5

    def __post_init__(self) -> None:
        if not isinstance(self.probability, (int, float)) or not 0 <= self.probability <= 1:
            raise UsageError(f"Allowed values for probability are 0 to 1, but got {self.probability!r}")


@dataclass(frozen=True)
class HorizontalFlip(_Chance):
    """Reverse time, in each tile separately, see `augmentations.flip_time`.

    A folded recording is reversed sample by sample: both its columns and its phases.
    """

    kind: Literal["horizontal-flip"] = field(default="horizontal-flip", kw_only=True)


@dataclass(frozen=True)
class VerticalFlip(_Chance):
    """Reverse the rows of the whole image, see `augmentations.flip_rows`."""

    kind: Literal["vertical-flip"] = field(default="vertical-flip", kw_only=True)


@dataclass(frozen=True)
class SignFlip(_Chance):
    """Invert all signals of a record, see `augmentations.flip_sign`."""

    kind: Literal["sign-flip"] = field(default="sign-flip", kw_only=True)


@dataclass(frozen=True)
class Mirror(_Chance):
    """Swap left and right before the input is drawn, see `inputs.drawing.draw`."""

    kind: Literal["mirror"] = field(default="mirror", kw_only=True)


@dataclass(frozen=True)
class ChainPermutation(_Chance):
    """Permute the four chains, see `augmentations.permute_rows`; the midline stays in place.

    Every order is equally likely, so left and right are no longer neighbours. This does not suit a network that
    tells the side of a pattern by its position.
    """

    kind: Literal["chain-permutation"] = field(default="chain-permutation", kw_only=True)


@dataclass(frozen=True)
class TimeMask(_Chance):
    """Blank bands of time, the same ones in every tile, see `augmentations.mask_time`.

    Attributes:
        max_width: largest width of a band, in columns of the first tile; widths are drawn from 1 to this.
        count: number of bands per record; they may overlap.
    """

    max_width: int = 30
    count: int = 1
    kind: Literal["time-mask"] = field(default="time-mask", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_at_least_1(max_width=self.max_width, count=self.count)


@dataclass(frozen=True)
class FrequencyMask(_Chance):
    """Blank bands of frequency, the same ones in every panel, see `augmentations.mask_frequency`.

    In spectra of differences, the bands are the same in every block of every difference.

    Attributes:
        max_height: largest height of a band, in rows of a panel of the first tile, or of a block; heights are drawn
            from 1 to this.
        count: number of bands per record; they may overlap.
    """

    max_height: int = 10
    count: int = 1
    kind: Literal["frequency-mask"] = field(default="frequency-mask", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_at_least_1(max_height=self.max_height, count=self.count)


@dataclass(frozen=True)
class DropDifferences(_Chance):
    """Set some differences of a record to 0, wherever they are in its input, see `augmentations.blank_rows`.

    Attributes:
        least: smallest number of differences to drop; the number is drawn uniformly from `least` to `most`.
        most: largest number of differences to drop, up to 16. Midline differences, where the input has them, can be
            dropped as well.
    """

    least: int = 1
    most: int = 8
    kind: Literal["drop-differences"] = field(default="drop-differences", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_at_least_1(least=self.least, most=self.most)
        if not self.least <= self.most <= 16:
            raise UsageError(f"Allowed values for most are least ({self.least}) to 16, but got {self.most}")


@dataclass(frozen=True)
class BandPass(_Chance):
    """Filter the signals of a record with a causal Butterworth band-pass, see `augmentations.band_pass`.

    Attributes:
        low_hz: range from which the lower cut-off frequency (−3 dB) is drawn.
        high_hz: range from which the upper cut-off frequency is drawn.
    """

    probability: float = 0.2
    low_hz: tuple[float, float] = (0.5, 2.0)
    high_hz: tuple[float, float] = (10.0, 20.0)
    kind: Literal["band-pass"] = field(default="band-pass", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        edges = (*self.low_hz, *self.high_hz)
        if len(edges) != 4 or not LOWEST_HZ <= edges[0] <= edges[1] < edges[2] <= edges[3] < 100:
            raise UsageError(
                f"Allowed values for low_hz and high_hz are two pairs that rise from {LOWEST_HZ} to below 100, but got "
                f"{self.low_hz}, {self.high_hz}"
            )


@dataclass(frozen=True)
class SameClassCutMix(_Chance):
    """Exchange a band of the image between records of one class, see `augmentations.same_class_cutmix`.

    Attributes:
        axis: axis of the band. `time` exchanges the same stretch of time in every tile. `rows` exchanges the rows
            of the image with those columns' numbers, over its whole width, as the source's published runs did.
    """

    probability: float = 0.4
    axis: Literal["time", "rows"] = "time"
    kind: Literal["same-class-cutmix"] = field(default="same-class-cutmix", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.axis not in {"time", "rows"}:
            raise UsageError(f"Allowed values for axis are time and rows, but got {self.axis!r}")


@dataclass(frozen=True)
class Mixup(_Chance):
    """Mix each record with another of its batch, inputs and targets alike, see `augmentations.mix`.

    Source: Zhang et al. (2018), "mixup: Beyond Empirical Risk Minimization".

    Attributes:
        least: smallest share of the record itself; shares are drawn uniformly from `least` to `most`.
        most: largest share of the record itself.
    """

    least: float = 0.4
    most: float = 0.6
    kind: Literal["mixup"] = field(default="mixup", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.least <= self.most <= 1:
            raise UsageError(
                f"Allowed values for least and most are 0 <= least <= most <= 1, but got {self.least}, {self.most}"
            )


@dataclass(frozen=True)
class Shift(_Strict):
    """Move the window along the recording, no further than it goes, see `feed.Feed`.

    Attributes:
        seconds: largest shift to either side; shifts are drawn uniformly.
    """

    seconds: float = 50 / 3
    kind: Literal["shift"] = field(default="shift", kw_only=True)

    def __post_init__(self) -> None:
        if not 0 < self.seconds < float("inf"):
            raise UsageError(f"Allowed values for seconds are finite numbers above 0, but got {self.seconds}")


@dataclass(frozen=True)
class Transform(_Strict):
    """One transform of albumentations, by name.

    Attributes:
        name: name of the class, such as `XYMasking`. Whether it exists is checked when the transform is built, since
            albumentations is only imported then.
        options: keyword arguments of the class. They are sorted by name, with lists made tuples, so that equal
            options give the same JSON.
    """

    name: str
    options: dict[str, OptionValue]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.isidentifier():
            raise UsageError(f"Allowed values for name are names of classes, but got {self.name!r}")
        options = {name: _option(name, value) for name, value in sorted(self.options.items())}
        object.__setattr__(self, "options", options)

    def __hash__(self) -> int:
        return hash((self.name, tuple(self.options.items())))


@dataclass(frozen=True)
class Albumentations(_Strict):
    """Apply transforms of albumentations in order, see `albumentations_adapter`.

    They see the whole image, across tiles and panels, and are applied while images are drawn, before all augmentations
    of the batch.

    Attributes:
        transforms: the transforms, in order.
    """

    transforms: tuple[Transform, ...]
    kind: Literal["albumentations"] = field(default="albumentations", kw_only=True)

    def __post_init__(self) -> None:
        if not self.transforms:
            raise UsageError("Allowed values for transforms are one or more transforms, but got none")


BatchAugmentation: TypeAlias = (
    SameClassCutMix
    | HorizontalFlip
    | VerticalFlip
    | TimeMask
    | FrequencyMask
    | SignFlip
    | Mixup
    | DropDifferences
    | ChainPermutation
    | BandPass
)
"""Augmentations of a batch, applied on its device."""

Augmentation: TypeAlias = Annotated[
    BatchAugmentation | Mirror | Shift | Albumentations, Discriminator("kind")
]
"""Every augmentation that a recipe can list."""


def check_storable(settings: object, place: str = "") -> None:
    """Refuse settings of a script that JSON would not give back as they are.

    Args:
        settings: a dataclass, or whatever is in it at any depth.
        place: where it is in the recipe, such as `stages.0`; empty for the recipe itself.

    Raises:
        UsageError: there is a list or another sequence that is no tuple, or a number that is not finite.
    """
    if is_dataclass(settings):
        inner = [(each.name, getattr(settings, each.name)) for each in fields(settings)]
    elif isinstance(settings, tuple):
        inner = [(str(number), value) for number, value in enumerate(settings)]
    elif isinstance(settings, Iterable) and not isinstance(settings, (str, dict)):
        raise UsageError(f"{place} must be a tuple, but got a {type(settings).__name__}")
    elif isinstance(settings, float) and not isfinite(settings):
        raise UsageError(f"{place} must be finite, but got {settings}")
    else:
        return
    for name, value in inner:
        check_storable(value, f"{place}.{name}" if place else name)


def _check_at_least_1(**numbers: int) -> None:
    for name, number in numbers.items():
        if not isinstance(number, int) or number < 1:
            raise UsageError(f"Allowed values for {name} are 1 and above, but got {number!r}")


def _option(name: str, value: object) -> object:
    """Return `value` in an immutable form that JSON can hold."""
    if isinstance(value, (list, tuple)):
        return tuple(_option(name, v) for v in value)
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and isfinite(value)):
        return value
    raise UsageError(
        f"Allowed values for {name} are finite numbers, texts and lists of them, but got {value!r}"
    )
