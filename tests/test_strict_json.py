"""JSON is read as RFC 8259 has it, and what it leaves open is refused in one line."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from pydantic import TypeAdapter, ValidationError

from kagglehms.errors import UsageError
from kagglehms.strict_json import (
    MAX_DEPTH,
    JSONError,
    first_problem,
    parse,
    parse_beginning,
    parse_object,
    sealed,
    unchanged,
    validate,
)


@dataclass(frozen=True)
class Point:
    x: float
    names: tuple[str, ...] = ()

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012

    def __post_init__(self) -> None:
        if self.x < 0:
            raise UsageError(f"x must be at least 0, but got {self.x}")


POINT = TypeAdapter(Point)

REFUSED = [
    (b"", "is not JSON"),
    (b"{", "is not JSON"),
    (b"{} {}", "is not JSON"),
    (b"\xef\xbb\xbf{}", "is not JSON"),
    (b'{"a": "\xff"}', "is not UTF-8"),
    (b'{"a": "\xed\xa0\x80"}', "is not UTF-8"),
    (b'{"a": NaN}', "has NaN"),
    (b"[-Infinity]", "has -Infinity"),
    (b"[1e999]", "has 1e999"),
    (b"[" + b"9" * 5000 + b"]", "digits"),
    (b'{"a": 1, "b": 2, "a": 1}', "has the key 'a' twice"),
    (b'[{"x": {"a": 1, "a": 2}}]', "has the key 'a' twice"),
    (b'{"a": "\\ud800"}', "in the middle of a character"),
    (b'{"\\udfff": 1}', "in the middle of a character"),
    (b'["a", ["b\\ud83dc"]]', "in the middle of a character"),
    (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested more than"),
    (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "nested more than"),
    (b"[" * 1_000_000, "nested more than"),
]


@pytest.mark.parametrize(("content", "reason"), REFUSED, ids=lambda value: str(value)[:24])
def test_what_is_not_strict_json_is_refused_in_one_line(content: bytes, reason: str) -> None:
    with pytest.raises(JSONError) as caught:
        parse(content)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 200
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -1.5e-300,
        2**70,
        "",
        "Größe 👍 \u2028 \ufeff",
        {"a": [1, {"a": "a"}], "b": {}},
        [[]] * 3,
    ],
)
def test_json_comes_back_as_it_was_written(value: object) -> None:
    assert parse(json.dumps(value)) == value
    assert parse(json.dumps(value, ensure_ascii=False).encode()) == value


def test_the_deepest_nesting_is_accepted() -> None:
    value = parse(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    for _ in range(MAX_DEPTH - 1):
        (value,) = value
    assert value == []


@pytest.mark.parametrize("content", [b"[]", b"1", b"null", b'"{}"'])
def test_what_is_no_object_is_refused(content: bytes) -> None:
    with pytest.raises(JSONError, match="is not a JSON object"):
        parse_object(content)
    assert parse_object(b'{"a": 1}') == {"a": 1}


def test_what_follows_the_beginning_is_ignored() -> None:
    assert parse_beginning('[{"a": 1}]\nNext Page Token = x') == [{"a": 1}]
    with pytest.raises(JSONError, match="has NaN"):
        parse_beginning("[NaN] and more")


def test_objects_are_made_of_json() -> None:
    assert validate(POINT, b'{"x": 1.5, "names": ["a"]}') == Point(1.5, ("a",))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"x": NaN}', "has NaN"),
        (b'{"x": 1, "x": 1}', "twice"),
        (b'{"x": "1"}', "x: Input should be a valid number, but got '1'"),
        (b'{"names": []}', "x: Field required"),
        (b'{"x": 1, "y": 1}', "y: Unexpected keyword argument, but got 1"),
        (b'{"x": 1, "names": [{}]}', "names.0: Input should be a valid string"),
        (b'{"x": -1}', "x must be at least 0, but got -1"),
        (b"[]", "Input should be an object"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(content: bytes, reason: str) -> None:
    with pytest.raises(JSONError) as caught:
        validate(POINT, content)
    assert str(caught.value).startswith(reason) or reason in {"twice"}
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_sealed_object_is_refused_once_a_value_or_its_seal_is_another() -> None:
    whole = sealed({"a": 1, "b": [None, "ü"]})
    assert unchanged(whole) == whole
    content = json.loads(whole)
    for key, value in (("a", 2), ("b", [None, "u"]), ("sha256", None), ("sha256", "0" * 64), ("c", 1)):
        with pytest.raises(JSONError, match="was changed after it was written"):
            unchanged(json.dumps(content | {key: value}).encode())
    older = {key: value for key, value in content.items() if key != "sha256"}
    assert json.loads(unchanged(json.dumps(older).encode())) == older


def test_a_long_value_is_cut() -> None:
    with pytest.raises(ValidationError) as caught:
        POINT.validate_python({"x": "y" * 10_000})
    assert len(first_problem(caught.value)) < 200
