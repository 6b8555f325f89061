"""What every kind of recording looks like to those who read from it: channels, stretches, blocks of samples.

A recording is stored in units: the data records of an EDF file, single samples elsewhere. In one unit every channel
has a number of samples of its own, so channels of different rates stand side by side. A recording with interruptions
is several stretches, each with its place in time.
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


NO_SCALE = "none"
"""The unit of a channel whose stored numbers cannot be told in any unit."""


@dataclass(frozen=True)
class Channel:
    """One signal of a recording.

    Attributes:
        label: the name that the recording gives it.
        samples_per_unit: the samples of this channel in one unit.
        unit: the physical unit as the recording spells it; empty where it names none.
        to_uv: what a stored value is multiplied by to be in µV; None where the unit is no voltage.
        step_uv: the least difference between two stored values in µV; 0 where it is not known.
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
        start_s: when its first sample was taken, in seconds after the recording's first.
        first: its first unit.
        stop: the unit after its last.
    """

    start_s: float
    first: int
    stop: int


class Recording(ABC):
    """A recording that is read in blocks.

    Attributes:
        name: how it is called in messages: the file's path, or what was passed.
        path: its file; None for an object of Python.
        channels: its signals, in stored order.
        stretches: its parts in the order of time; one for a recording without interruptions.
        unit_s: the duration of one unit in seconds.
        notes: what the reader should know of how it was understood.
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
            first: the first unit.
            stop: the unit after the last.

        Returns:
            One array a channel, (units × its samples per unit,) float64 in the channel's own unit; NaN where nothing
            was recorded.

        Raises:
            DataError: the file cannot be read there.
        """

    def rate_hz(self, channel: int) -> Fraction:
        """Return a channel's samples per second."""
        return self.channels[channel].samples_per_unit / self.unit_s

    @property
    def duration_s(self) -> float:
        """Seconds from the first sample to the end of the last, interruptions included."""
        last = self.stretches[-1]
        return last.start_s + float((last.stop - last.first) * self.unit_s)

    def refusal(self, reason: str, hint: str = "") -> HMSError:
        """Make the error that says why this recording cannot be used: of input for a file, of usage for an object."""
        if self.path is not None:
            return DataError(self.path, reason, hint)
        return UsageError(f"{self.name}: {reason}" + (f"; {hint}" if hint else ""))
