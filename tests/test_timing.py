"""Durations and the clock."""

from __future__ import annotations

import math
import time

import pytest

from kagglehms.errors import UsageError
from kagglehms.timing import Clock, duration, seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"), [("8.5h", 30600), ("90m", 5400), ("45s", 45), ("45", 45), (" .5 h ", 1800)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "-3h", "0", "0.0m", "3d", "1h30m", "nan"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no duration; write hours, minutes or seconds"):
        seconds_of(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (91, "2 min"), (3600, "60 min"), (9000, "2.5 h")]
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_clock_counts_down() -> None:
    assert Clock().left_s == math.inf
    clock = Clock(100, started=time.monotonic() - 40)
    assert 59 < clock.left_s <= 60
    assert Clock(1, started=time.monotonic() - 2).left_s < 0
