"""Dataclasses → command line: every kind of type, the help, and one line per mistake, whatever the dataclass is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from kagglehms.cli.parsing import General, flags, help_page, parse
from kagglehms.errors import UsageError
from kagglehms.timing import Duration


@dataclass(frozen=True, kw_only=True)
class Base:
    """Something to inherit from.

    Attributes:
        data: Folder with 100% of the data.
        time_limit: Longest time,
            such as `8h`.
    """

    data: Path
    time_limit: Duration | None = None


@dataclass(frozen=True, kw_only=True)
class Options(Base):
    """Do something.

    A second paragraph.

    Attributes:
        names: Names of things.
        fold: Folds to take.
        push: Kernels to push.
        count: Number of things.
        rate: Rate of learning (default: a good one).
        exponent: Exponent of the correction.
        device: Device that computes.
        half: Use half precision.
    """

    names: tuple[str, ...] = field(default=(), metadata={"positional": True, "metavar": "THING"})
    fold: tuple[int, ...] = field(default=(), metadata={"metavar": "K"})
    push: tuple[str, ...] | None = None
    count: int = 3
    rate: float | None = None
    exponent: float | Literal["fit"] = 1.0
    device: Literal["cpu", "cuda"] | None = None
    half: bool = False


def parsed(*words: str) -> Any:
    return parse("act", (Options, General), words)[0]


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ((), "names", ()),
        (("a", "b"), "names", ("a", "b")),
        (("a", "--half", "b"), "names", ("a", "b")),
        ((), "fold", ()),
        (("--fold", "0", "2"), "fold", (0, 2)),
        (("--fold", "0", "--fold", "2", "3"), "fold", (0, 2, 3)),
        (("--fold=1",), "fold", (1,)),
        ((), "push", None),
        (("--push",), "push", ()),
        (("--push", "infer", "train"), "push", ("infer", "train")),
        (("--count", "-5"), "count", -5),
        (("--rate", "1e-3"), "rate", 0.001),
        (("--rate", "-0.5"), "rate", -0.5),
        (("--exponent", "0.5"), "exponent", 0.5),
        (("--exponent", "fit"), "exponent", "fit"),
        (("--device", "cuda"), "device", "cuda"),
        (("--time-limit", "8.5h"), "time_limit", "8.5h"),
        (("--half",), "half", True),
        ((), "half", False),
    ],
)
def test_types_decide_what_is_accepted(words: tuple[str, ...], name: str, value: object) -> None:
    options = parsed("--data", "d", *words)
    assert getattr(options, name) == value
    assert type(getattr(options, name)) is type(value)
    assert options.data == Path("d")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "act needs --data: Folder with 100% of the data"),
        (("--lr", "1"), "act has no option '--lr' (see"),
        (("--lr=1",), "act has no option '--lr' (see"),
        (("--dta", "x"), "act has no option '--dta'; did you mean '--data'?"),
        (("--time", "8h"), "'--time'; did you mean '--time-limit'?"),
        (("--time_limit", "8h"), "'--time_limit'; did you mean '--time-limit'?"),
        (("--dat", "x"), "'--dat'; did you mean '--data'?"),
        (("-x",), "act has no option '-x' (see"),
        (("--count", "two"), "--count: 'two' is not a whole number"),
        (("--count", "1.5"), "--count: '1.5' is not a whole number"),
        (("--count",), "--count: expected one argument"),
        (("--fold", "0", "a"), "--fold: 'a' is not a whole number"),
        (("--fold",), "--fold: expected at least one argument"),
        (("--rate", "fast"), "--rate: 'fast' is not a number"),
        (("--exponent", "fti"), "--exponent: 'fti' is not a number and not one of fit"),
        (("--device", "cudda"), "--device: 'cudda' is not one of cpu, cuda; did you mean 'cuda'?"),
        (("--device", "tpu-v5"), "--device: 'tpu-v5' is not one of cpu, cuda (see"),
        (("--time-limit", "soon"), "--time-limit: 'soon' is no duration"),
        (("--time-limit", "0h"), "--time-limit: '0h' is no duration"),
        (("--half=yes",), "--half: ignored explicit argument 'yes'"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_option(words: tuple[str, ...], says: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse("act", (Options, General), words)
    message = str(raised.value)
    assert says in message
    assert message.endswith("(see `kagglehms help act`)")
    assert "\n" not in message


def test_a_word_too_many_is_named() -> None:
    with pytest.raises(UsageError, match="act does not take 'x'"):
        parse("act", (Base, General), ["--data", "d", "x"])


def test_an_option_of_every_command_is_parsed_beside_the_others() -> None:
    options, general = parse("act", (Options, General), ["--json", "a", "--data", "d", "--quiet"])
    assert options.names == ("a",)
    assert general == General(json=True, quiet=True)


def test_the_help_explains_every_option_with_its_default() -> None:
    page = " ".join(help_page("act", Options).split())
    assert "Do something. A second paragraph." in page
    assert "usage: kagglehms act [--fold K [K ...]]" in page  # its own options, then those that it inherits
    assert "--data PATH [--time-limit DURATION]" in page  # required, and not
    for flag in flags(Options, General):
        assert flag in page
    assert "--data PATH Folder with 100% of the data" in page
    assert "--time-limit DURATION Longest time, such as `8h`" in page
    assert "--fold K [K ...] Folds to take" in page
    assert "--count N Number of things (default: 3)" in page
    assert "--rate X Rate of learning (default: a good one)" in page
    assert "--device {cpu,cuda} Device that computes" in page
    assert "THING Names of things" in page
    assert "None" not in page
    assert "Attributes" not in page


def test_an_option_without_a_description_is_found_out() -> None:
    @dataclass(frozen=True)
    class Undescribed:
        """Do something.

        Attributes:
            one: The first.
        """

        one: int = 1
        two: int = 2

    with pytest.raises(KeyError, match="two"):
        help_page("act", Undescribed)
