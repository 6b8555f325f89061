"""What a recipe can ask for: losses by name, augmentations as frozen dataclasses.

Only names and numbers; what they do stands in `losses` and `augment`. No torch here, so that recipes are read
quickly. In JSON every augmentation carries its `kind`.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from math import isfinite
from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import Discriminator

from kagglehms.errors import UsageError

LossName: TypeAlias = Literal[
    "kl",
    "kl-log-votes",
    "kl-votes",
    "kl-capped-votes",
    "kl-two-stage",
    "cross-entropy",
    "binary-cross-entropy",
]
"""What is minimised, see `losses`. `kl-X` is `kl` whose records are weighted as `X` says, the others weight them
equally unless the stage names `weights`."""

LOSSES: tuple[str, ...] = get_args(LossName)

WeightsName: TypeAlias = Literal[
    "equal", "log-votes", "log3-votes", "votes", "capped-votes", "two-stage", "quarter-few", "groups"
]
"""What a record counts by its votes, and by the epoch, see `losses.vote_weights`."""

WEIGHTS: tuple[str, ...] = get_args(WeightsName)

OptimizerName: TypeAlias = Literal["adamw", "adam"]
"""AdamW takes weight decay off the weights themselves, Adam adds it to the gradients."""

KeepName: TypeAlias = Literal["best", "last"]
"""Which evaluation of a stage stands in the end."""

Scalar: TypeAlias = bool | int | float | str | None
OptionValue: TypeAlias = Scalar | tuple[Scalar | tuple[Scalar, ...], ...]
"""What an option of an albumentations transform can be; a list of JSON is a tuple here."""


class _Strict:
    """Read by pydantic where JSON becomes one of these: a mistyped key or value must not pass."""

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012


@dataclass(frozen=True)
class SameClassCutMix(_Strict):
    """Records of one class exchange a band of their images, see `augmentations.same_class_cutmix`.

    Attributes:
        probability: that it happens to a batch.
        axis: what the band is of. `time`: the same stretch of every tile. `rows`: the rows of the image that have
            those columns' numbers, over its whole width, which is what the source's published runs exchanged.
    """

    probability: float = 0.4
    axis: Literal["time", "rows"] = "time"
    _: KW_ONLY
    kind: Literal["same-class-cutmix"] = "same-class-cutmix"

    def __post_init__(self) -> None:
        _check_probability(self.probability)
        if self.axis not in {"time", "rows"}:
            raise UsageError(f"Allowed values for axis are time and rows, but got {self.axis!r}")


@dataclass(frozen=True)
class HorizontalFlip(_Strict):
    """Time runs backwards, in each tile by itself, see `augmentations.flip_time`.

    Of a folded recording sample by sample: columns and phases are both turned around.

    Attributes:
        probability: that it happens to a record.
    """

    probability: float = 0.5
    _: KW_ONLY
    kind: Literal["horizontal-flip"] = "horizontal-flip"

    def __post_init__(self) -> None:
        _check_probability(self.probability)


@dataclass(frozen=True)
class TimeMask(_Strict):
    """Bands of time are blanked, the same ones in every tile, see `augmentations.mask_time`.

    Attributes:
        probability: that it happens to a record.
        max_width: of a band, in columns of the first tile; widths are drawn from 1 to it.
        count: bands per record; they may overlap.
    """

    probability: float = 0.5
    max_width: int = 30
    count: int = 1
    _: KW_ONLY
    kind: Literal["time-mask"] = "time-mask"

    def __post_init__(self) -> None:
        _check_probability(self.probability)
        _check_at_least_1(max_width=self.max_width, count=self.count)


@dataclass(frozen=True)
class FrequencyMask(_Strict):
    """Bands of frequency are blanked, the same ones in every panel, see `augmentations.mask_frequency`.

    In spectra of differences: in every block of every difference.

    Attributes:
        probability: that it happens to a record.
        max_height: of a band, in rows of a panel of the first tile, or of a block; heights are drawn from 1 to it.
        count: bands per record; they may overlap.
    """

    probability: float = 0.5
    max_height: int = 10
    count: int = 1
    _: KW_ONLY
    kind: Literal["frequency-mask"] = "frequency-mask"

    def __post_init__(self) -> None:
        _check_probability(self.probability)
        _check_at_least_1(max_height=self.max_height, count=self.count)


@dataclass(frozen=True)
class Transform(_Strict):
    """One transform of albumentations, by name.

    Attributes:
        name: of the class, such as `XYMasking`. Whether it exists is asked when it is built, since only then
            albumentations is imported.
        options: what the class is called with. Sorted by name, lists made tuples, so that equal options give
            the same JSON.
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
    """Transforms of albumentations, one after the other, see `albumentations_adapter`.

    They see the whole image, tiles and panels alike, and are applied while images are drawn, before every
    augmentation of the batch.
    """

    transforms: tuple[Transform, ...]
    _: KW_ONLY
    kind: Literal["albumentations"] = "albumentations"

    def __post_init__(self) -> None:
        if not self.transforms:
            raise UsageError("Allowed values for transforms are one or more transforms, but got none")


@dataclass(frozen=True)
class Mirror(_Strict):
    """Left and right are swapped before anything is drawn, see `features.inputs.draw`.

    Attributes:
        probability: that it happens to a record.
    """

    probability: float = 0.5
    _: KW_ONLY
    kind: Literal["mirror"] = "mirror"

    def __post_init__(self) -> None:
        _check_probability(self.probability)


@dataclass(frozen=True)
class VerticalFlip(_Strict):
    """Rows are turned upside down, the whole image at once, see `augmentations.flip_rows`.

    Attributes:
        probability: that it happens to a record.
    """

    probability: float = 0.5
    _: KW_ONLY
    kind: Literal["vertical-flip"] = "vertical-flip"

    def __post_init__(self) -> None:
        _check_probability(self.probability)


@dataclass(frozen=True)
class SignFlip(_Strict):
    """All signals of a record change their sign, see `augmentations.flip_sign`.

    Attributes:
        probability: that it happens to a record.
    """

    probability: float = 0.5
    _: KW_ONLY
    kind: Literal["sign-flip"] = "sign-flip"

    def __post_init__(self) -> None:
        _check_probability(self.probability)


@dataclass(frozen=True)
class Mixup(_Strict):
    """Each record is mixed with another of its batch, inputs and targets alike, see `augmentations.mix`.

    Source: Zhang et al. (2018), "mixup: Beyond Empirical Risk Minimization".

    Attributes:
        probability: that it happens to a batch.
        least: smallest share of the record itself; shares are drawn evenly between it and `most`.
        most: largest share of the record itself.
    """

    probability: float = 0.5
    least: float = 0.4
    most: float = 0.6
    _: KW_ONLY
    kind: Literal["mixup"] = "mixup"

    def __post_init__(self) -> None:
        _check_probability(self.probability)
        if not 0 <= self.least <= self.most <= 1:
            raise UsageError(
                f"Allowed values for least and most are 0 <= least <= most <= 1, but got {self.least}, {self.most}"
            )


@dataclass(frozen=True)
class DropDifferences(_Strict):
    """Some differences of a record become 0, wherever they stand in its input, see `augmentations.blank_rows`.

    Attributes:
        probability: that it happens to a record.
        least: fewest differences that are dropped; how many is drawn evenly between it and `most`.
        most: most of them, at most all sixteen; the two of the midline are drawn from as well where there are any.
    """

    probability: float = 0.5
    least: int = 1
    most: int = 8
    _: KW_ONLY
    kind: Literal["drop-differences"] = "drop-differences"

    def __post_init__(self) -> None:
        _check_probability(self.probability)
        _check_at_least_1(least=self.least, most=self.most)
        if not self.least <= self.most <= 16:
            raise UsageError(f"Allowed values for most are least ({self.least}) to 16, but got {self.most}")


@dataclass(frozen=True)
class ChainPermutation(_Strict):
    """The four chains change places, see `augmentations.permute_rows`; the midline stays.

    Every order is as likely, so that left and right are no longer neighbours: not for a network that finds the side of
    a pattern by its place.

    Attributes:
        probability: that it happens to a record.
    """

    probability: float = 0.5
    _: KW_ONLY
    kind: Literal["chain-permutation"] = "chain-permutation"

    def __post_init__(self) -> None:
        _check_probability(self.probability)


@dataclass(frozen=True)
class BandPass(_Strict):
    """The signals of a record pass through a causal Butterworth filter, see `augmentations.band_pass`.

    Attributes:
        probability: that it happens to a record.
        low_hz: between which two frequencies the lower edge (−3 dB) is drawn.
        high_hz: between which two the upper edge is.
    """

    probability: float = 0.2
    low_hz: tuple[float, float] = (0.5, 2.0)
    high_hz: tuple[float, float] = (10.0, 20.0)
    _: KW_ONLY
    kind: Literal["band-pass"] = "band-pass"

    def __post_init__(self) -> None:
        _check_probability(self.probability)
        edges = (*self.low_hz, *self.high_hz)
        if len(edges) != 4 or not 0.01 <= edges[0] <= edges[1] < edges[2] <= edges[3] < 100:
            raise UsageError(
                "Allowed values for low_hz and high_hz are two pairs that rise from 0.01 to below 100, but got "
                f"{self.low_hz}, {self.high_hz}"
            )


@dataclass(frozen=True)
class Shift(_Strict):
    """The window is moved along the recording, as far as there is any, see `feed.Feed`.

    Attributes:
        seconds: furthest to either side; how far is drawn evenly between.
    """

    seconds: float = 50 / 3
    _: KW_ONLY
    kind: Literal["shift"] = "shift"

    def __post_init__(self) -> None:
        if not 0 < self.seconds < float("inf"):
            raise UsageError(f"Allowed values for seconds are finite numbers above 0, but got {self.seconds}")


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
"""Applied to a batch, on its device."""

Augmentation: TypeAlias = Annotated[
    BatchAugmentation | Mirror | Shift | Albumentations, Discriminator("kind")
]
"""What a recipe can list."""


def _check_probability(probability: float) -> None:
    if not isinstance(probability, (int, float)) or not 0 <= probability <= 1:
        raise UsageError(f"Allowed values for probability are 0 to 1, but got {probability!r}")


def _check_at_least_1(**numbers: int) -> None:
    for name, number in numbers.items():
        if not isinstance(number, int) or number < 1:
            raise UsageError(f"Allowed values for {name} are 1 and above, but got {number!r}")


def _option(name: str, value: object) -> object:
    """Return `value` as JSON can hold it and nobody can change it."""
    if isinstance(value, (list, tuple)):
        return tuple(_option(name, v) for v in value)
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and isfinite(value)):
        return value
    raise UsageError(
        f"Allowed values for {name} are finite numbers, texts and lists of them, but got {value!r}"
    )
