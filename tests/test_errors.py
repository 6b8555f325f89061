"""What errors say."""

from __future__ import annotations

import pytest

from kagglehms.errors import first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one"), "one"),
        (ValueError("\n  one  \ntwo"), "one"),
        (ValueError(), "ValueError"),
        (AssertionError("\n \n"), "AssertionError"),
        (OSError("x" * 500), "x" * 160),
        (KeyError("name"), "'name'"),
    ],
)
def test_the_first_line_of_an_error_is_never_empty_and_never_long(error: BaseException, line: str) -> None:
    assert first_line(error) == line


def test_another_length() -> None:
    assert first_line(ValueError("abc"), 2) == "ab"
