"""What errors say."""

from __future__ import annotations

import pytest

from kagglehms.errors import closest, counted, first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one"), "one"),
        (ValueError("\n  one  \ntwo"), "one"),
        (ValueError(), "ValueError"),
        (AssertionError("\n \n"), "AssertionError"),
        (OSError("x" * 500), "x" * 159 + "…"),
        (KeyError("name"), "'name'"),
    ],
)
def test_the_first_line_of_an_error_is_never_empty_and_never_long(error: BaseException, line: str) -> None:
    assert first_line(error) == line


def test_another_length() -> None:
    assert first_line(ValueError("abc"), 3) == "abc"
    assert first_line(ValueError("abc"), 2) == "a…"
    assert first_line(ValueError("please try again"), 14) == "please try…"


def test_numbers_have_the_noun_that_goes_with_them() -> None:
    assert [counted(n, "row") for n in (0, 1, 2, 4000)] == ["0 rows", "1 row", "2 rows", "4,000 rows"]
    assert [counted(n, "pass", "passes") for n in (1, 3)] == ["1 pass", "3 passes"]


def test_long_lists_of_names_are_left_out_where_one_of_them_was_meant() -> None:
    many = [f"recipe-{i}" for i in range(30)]
    assert closest("recpe-7", many) == "did you mean 'recipe-7'?"
    assert closest("xyz", many).endswith("recipe-29")
    assert closest("aple", ["apple", "pear"]) == "did you mean 'apple'? known are: apple, pear"
