"""Durations as people write and read them, and what is left of the time that a process may take."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from typing import NewType, overload

from kagglehms.errors import UsageError

Duration = NewType("Duration", str)
"""A duration as people type it, such as `8.5h`, `90m` or `45s`; `seconds_of` reads it."""


def duration(seconds: float) -> str:
    """Write a duration for a person: 45 s, 12 min, 3.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_STARTED = time.monotonic()


@overload
def seconds_of(text: str) -> float: ...
@overload
def seconds_of(text: None) -> None: ...
@overload
def seconds_of(text: str | None) -> float | None: ...
def seconds_of(text: str | None) -> float | None:
    """Read a duration such as `8.5h`, `90m`, `45s` or `45` (seconds); None stays None.

    Raises:
        UsageError: the text is no duration, or one that is not above zero.
    """
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([smh]?)\s*", text)
    if not found or float(found[1]) <= 0:
        raise UsageError(f"{text!r} is no duration; write hours, minutes or seconds such as 8.5h, 90m or 45s")
    return float(found[1]) * _SECONDS[found[2]]


@dataclass(frozen=True)
class Clock:
    """What is left of the time that this process may take.

    Attributes:
        time_limit_s: seconds from the start; None for no limit.
        started: `time.monotonic()` at the start; by default when this module was imported.
    """

    time_limit_s: float | None = None
    started: float = _STARTED

    @property
    def passed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    @property
    def left_s(self) -> float:
        """Seconds left, negative when the time is up; infinite without a limit."""
        return math.inf if self.time_limit_s is None else self.time_limit_s - self.passed_s
