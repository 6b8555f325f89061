"""The common interface of all recordings: channels, stretches, blocks of samples.

A recording consists of units: the data records of an EDF file, single samples elsewhere. Each channel has its own
number of samples in a unit, so that channels of different rates can stand side by side. A recording with interruptions
has several stretches, each with its place in time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kagglehms.errors import DataError, HMSError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray


_NO_TIME_S = 1e-6
"""Time between two stretches below which there is none, but for the rounding of floating-point numbers."""
NO_SCALE = "none"
"""Unit of a channel whose stored numbers have no known unit."""


@dataclass(frozen=True)
class Channel:
    """One signal of a recording.

    Attributes:
        label: name in the recording.
        samples_per_unit: number of samples in one unit of the recording.
        unit: spelling of the physical unit; empty if the recording gives none.
        to_uv: factor from stored values to µV; None if the unit is not one of voltage.
        step_uv: step between neighbouring stored values in µV; 0 if it is unknown.
    """

    label: str
    samples_per_unit: int
    unit: str = "uV"
    to_uv: float | None = 1.0
    step_uv: float = 0.0


@dataclass(frozen=True)
class Stretch:
    """A part of a recording without interruption.

    Attributes:
        start_s: seconds from the recording's first sample to the stretch's.
        first: first unit.
        stop: unit after the last one.
    """

    start_s: float
    first: int
    stop: int


def is_joint(one: Stretch, other: Stretch, unit_s: Fraction) -> bool:
    """Return whether no time is known to lie between a stretch and the next one.

    Args:
        one: stretch of a recording.
        other: the one after it.
        unit_s: duration of one unit in seconds.
    """
    end_s = one.start_s + (one.stop - one.first) * float(unit_s)
    return other.start_s - end_s < _NO_TIME_S


Span = tuple[float, float]
"""First and last second of a part of a recording."""


class Recording(ABC):
    """A recording that is read in blocks.

    Attributes:
        name: name in messages: the path of the file, or the kind of object.
        path: file of the recording; None for an object in memory.
        channels: signals in stored order.
        stretches: parts without interruption in order of time.
        unit_s: duration of one unit in seconds.
        notes: remarks for the reader on how the recording was understood.
    """

    def __init__(
        self,
        name: str,
        path: Path | None,
        channels: Sequence[Channel],
        stretches: Sequence[Stretch],
        unit_s: Fraction,
        notes: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.path = path
        self.channels = tuple(channels)
        self.stretches = tuple(stretches)
        self.unit_s = unit_s
        self.notes = tuple(notes)

    @abstractmethod
    def read(self, channels: Sequence[int], first: int, stop: int) -> list[NDArray[np.float64]]:
        """Read some units of some channels.

        Args:
            channels: positions in `self.channels`.
            first: first unit.
            stop: unit after the last one.

        Returns:
            One array per channel, (units × its samples per unit,) float64 in the channel's own unit; NaN where nothing
            was recorded.

        Raises:
            DataError: the file cannot be read.
        """

    def rate_hz(self, channel: int) -> Fraction:
        """Return a channel's samples per second."""
        return self.channels[channel].samples_per_unit / self.unit_s

    def refusal(self, reason: str, hint: str = "") -> HMSError:
        """Make the error for a recording that cannot be used: `DataError` for a file, `UsageError` for an object."""
        if self.path is not None:
            return DataError(self.path, reason, hint)
        return UsageError(f"{self.name}: {reason}" + (f"; {hint}" if hint else ""))
