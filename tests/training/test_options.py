"""What a recipe can ask for travels as strict JSON, and nonsense is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
from pydantic import TypeAdapter, ValidationError

from kagglehms.errors import UsageError
from kagglehms.training.options import (
    LOSSES,
    Albumentations,
    Augmentation,
    BandPass,
    ChainPermutation,
    DropDifferences,
    FrequencyMask,
    HorizontalFlip,
    PseudoLabels,
    SameClassCutMix,
    Shift,
    TimeMask,
    Transform,
)

ADAPTER: TypeAdapter[Augmentation] = TypeAdapter(Augmentation)
XY = Transform("XYMasking", {"num_masks_x": [1, 3], "p": 0.5, "fill": 0, "mask_x_length": (5, 10)})
ALL = [
    SameClassCutMix(),
    SameClassCutMix(0.3, axis="rows"),
    HorizontalFlip(0.25),
    TimeMask(0.5, max_width=40, count=2),
    FrequencyMask(1, max_height=12, count=3),
    DropDifferences(0.3, least=2, most=16),
    ChainPermutation(0.1),
    BandPass(0.4, low_hz=(0.1, 1.0), high_hz=(12.0, 40.0)),
    Shift(2.0),
    Albumentations(
        (XY, Transform("D4", {}), Transform("X", {"a": True, "b": None, "c": "s", "d": [[1, 2]]}))
    ),
]


@pytest.mark.parametrize("augmentation", ALL, ids=lambda a: a.kind)
def test_json_and_back(augmentation: Augmentation) -> None:
    content = ADAPTER.dump_json(augmentation)
    again = ADAPTER.validate_json(content)
    assert again == augmentation
    assert hash(again) == hash(augmentation)
    assert type(again) is type(augmentation)
    assert ADAPTER.dump_json(again) == content


def test_kinds_and_defaults_are_those_of_the_ladder() -> None:
    assert [a.kind for a in ALL] == [
        "same-class-cutmix",
        "same-class-cutmix",
        "horizontal-flip",
        "time-mask",
        "frequency-mask",
        "drop-differences",
        "chain-permutation",
        "band-pass",
        "shift",
        "albumentations",
    ]
    assert (SameClassCutMix().probability, HorizontalFlip().probability) == (0.4, 0.5)
    dropped, passed = DropDifferences(), BandPass()
    assert (dropped.probability, dropped.least, dropped.most) == (0.5, 1, 8)
    assert (passed.probability, passed.low_hz, passed.high_hz) == (0.2, (0.5, 2.0), (10.0, 20.0))
    assert (ChainPermutation().probability, Shift().seconds) == (0.5, 50 / 3)
    assert SameClassCutMix().axis == "time"
    assert {"kl", "kl-log-votes", "kl-votes", "kl-capped-votes", "kl-two-stage"} <= set(LOSSES)


def test_equal_options_give_equal_json() -> None:
    other = Transform("XYMasking", {"mask_x_length": [5, 10], "fill": 0, "p": 0.5, "num_masks_x": (1, 3)})
    assert other == XY
    assert ADAPTER.dump_json(Albumentations((other,))) == ADAPTER.dump_json(Albumentations((XY,)))


@pytest.mark.parametrize(
    ("content", "where", "what"),
    [
        ('{"probability": 0.5}', (), "union_tag_not_found"),
        ('{"kind": "cutmix"}', (), "union_tag_invalid"),
        ('{"kind": "time-mask", "max_widht": 3}', ("time-mask", "max_widht"), "unexpected_keyword_argument"),
        ('{"kind": "time-mask", "max_width": "3"}', ("time-mask", "max_width"), "int_type"),
        ('{"kind": "horizontal-flip", "probability": "1"}', ("horizontal-flip", "probability"), "float_type"),
        ('{"kind": "same-class-cutmix", "axis": "columns"}', ("same-class-cutmix", "axis"), "literal_error"),
        ('{"kind": "albumentations"}', ("albumentations", "transforms"), "missing"),
        (
            '{"kind": "albumentations", "transforms": [{"name": "D4", "options": {}, "p": 1}]}',
            ("albumentations", "transforms", 0, "p"),
            "unexpected_keyword_argument",
        ),
    ],
)
def test_mistyped_json_is_refused(content: str, where: tuple[str | int, ...], what: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ADAPTER.validate_json(content)
    problem = caught.value.errors()[0]
    assert (problem["loc"], problem["type"]) == (where, what)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda: DropDifferences(least=0), "least are 1 and above, but got 0"),
        (lambda: DropDifferences(least=5, most=4), r"most are least \(5\) to 16, but got 4"),
        (lambda: DropDifferences(most=17), r"most are least \(1\) to 16, but got 17"),
        (lambda: BandPass(low_hz=(2.0, 0.5)), "two pairs that rise"),
        (lambda: BandPass(low_hz=(0.0, 0.5)), "two pairs that rise from 0.01"),
        (lambda: BandPass(low_hz=(0.5, 12.0)), "two pairs that rise"),
        (lambda: BandPass(high_hz=(10.0, 100.0)), "to below 100"),
        (lambda: PseudoLabels(()), r"teachers are one or more runs, each once, but got \(\)"),
        (lambda: PseudoLabels(("a", "b", "a")), "each once, but got"),
        (lambda: PseudoLabels(("a",), share=0.0), "share are above 0 to 1, but got 0"),
        (lambda: PseudoLabels(("a",), share=1.1), "share are above 0 to 1, but got 1.1"),
        (lambda: PseudoLabels(("a",), most_votes=0), "most_votes are 1 and above, but got 0"),
        (lambda: Shift(0.0), "seconds are finite numbers above 0, but got 0"),
        (lambda: Shift(float("inf")), "seconds are finite numbers above 0, but got inf"),
    ],
)
def test_ranges_that_cannot_be_are_refused(change: Callable[[], object], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        change()


KINDS = [
    SameClassCutMix,
    HorizontalFlip,
    TimeMask,
    FrequencyMask,
    DropDifferences,
    ChainPermutation,
    BandPass,
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan"), "0.5"])
def test_probabilities_are_probabilities(kind: type, probability: object) -> None:
    with pytest.raises(
        UsageError, match=f"Allowed values for probability are 0 to 1, but got {probability!r}"
    ):
        kind(probability)


@pytest.mark.parametrize(
    ("kind", "field"),
    [(TimeMask, "max_width"), (TimeMask, "count"), (FrequencyMask, "max_height"), (FrequencyMask, "count")],
)
@pytest.mark.parametrize("number", [0, -3, 1.5])
def test_sizes_and_counts_are_whole_and_positive(kind: type, field: str, number: float) -> None:
    with pytest.raises(UsageError, match=f"Allowed values for {field} are 1 and above, but got {number}"):
        kind(**{field: number})


def test_json_with_a_value_out_of_range_is_refused() -> None:
    with pytest.raises(UsageError, match="max_height are 1 and above, but got 0"):
        ADAPTER.validate_json('{"kind": "frequency-mask", "max_height": 0}')


def test_transforms_are_names_with_plain_options() -> None:
    with pytest.raises(
        UsageError, match="Allowed values for name are names of classes, but got 'core.Compose'"
    ):
        Transform("core.Compose", {})
    with pytest.raises(UsageError, match="Allowed values for p are finite numbers.*but got nan"):
        Transform("D4", {"p": float("nan")})
    with pytest.raises(UsageError, match="Allowed values for scale are .*but got {'x': 1}"):
        Transform("Affine", {"scale": {"x": 1}})  # type: ignore[dict-item]
    with pytest.raises(UsageError, match="one or more transforms, but got none"):
        Albumentations(())


def test_options_are_read_without_torch() -> None:
    code = "import sys, kagglehms.training.options; print(*{'torch', 'albumentations'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_an_axis_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match="Allowed values for axis are time and rows, but got 'height'"):
        SameClassCutMix(axis="height")  # type: ignore[arg-type]
