"""What is done to differences of electrodes: from a specification to what compiled code reads.

`kagglehms.features.differences` explains the steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from kagglehms.data.competition import DIFFERENCES, MIDLINE_DIFFERENCES, N_TIMES
from kagglehms.features.arrays import check_spec, expected
from kagglehms.features.filters import FILTERS, Filter, FilterName, design


def n_differences(midline: bool) -> int:
    """Return 16, the differences of the double banana, or 18 with those of the midline."""
    return len(DIFFERENCES) + (len(MIDLINE_DIFFERENCES) if midline else 0)


class SignalSpec(Protocol):
    """A specification that says what is done to a difference before it becomes rows of an image."""

    @property
    def filter(self) -> FilterName: ...

    @property
    def step(self) -> int: ...

    @property
    def clip_uv(self) -> float: ...

    @property
    def scale_uv(self) -> float: ...


def check_signal(spec: SignalSpec) -> None:
    """Refuse settings that cannot be applied to a difference.

    Raises:
        UsageError: an unknown filter, a step below 1, a clip or scale that is no positive number.
    """
    finite = 0 < spec.clip_uv < math.inf and 0 < spec.scale_uv < math.inf
    check_spec(
        spec,
        {
            f"filter: expected one of {', '.join(FILTERS)}": spec.filter in FILTERS,
            "step: expected a whole number, 1 or more": isinstance(spec.step, int) and spec.step >= 1,
            "clip_uv and scale_uv: expected finite numbers above 0": finite,
        },
    )


@dataclass(frozen=True)
class DifferenceSpec:
    """What is done to differences that stay signals.

    Attributes:
        filter: `none`; `causal`, Butterworth 0.5–20 Hz of order 2; or `linear`, zero-phase FIR 0.5–20 Hz.
        step: samples from one that is kept to the next; 2 means 100 Hz.
        clip_uv: limit of a difference's magnitude, µV.
        scale_uv: divisor of a clipped difference, µV.
        midline: whether Fz−Cz and Cz−Pz follow the sixteen differences of the chains.

    Raises:
        UsageError: a value that cannot be used.
    """

    filter: FilterName = "causal"
    step: int = 1
    clip_uv: float = 1024.0
    scale_uv: float = 32.0
    midline: bool = False

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012

    def __post_init__(self) -> None:
        check_signal(self)

    @property
    def n_signals(self) -> int:
        """16, or 18 with the midline."""
        return n_differences(self.midline)

    @property
    def shape(self) -> tuple[int, int]:
        """(n_signals, samples kept) of a window of 50 s."""
        return self.shape_of(N_TIMES)

    def shape_of(self, n_times: int) -> tuple[int, int]:
        """Return (n_signals, samples kept) of a window of `n_times` samples.

        Raises:
            UsageError: an empty window.
        """
        if n_times < 1:
            raise expected("eeg_uv", "1 sample or more", n_times)
        return self.n_signals, -(-n_times // self.step)


class Signal(NamedTuple):
    """What is done to a difference, as compiled code reads it.

    Attributes:
        clip: limit of its magnitude, µV.
        factor: factor by which the clipped difference is multiplied.
        filter: filter of the result.
        step: samples from one that is kept to the next.
    """

    clip: float
    factor: float
    filter: Filter
    step: int


class Rows(NamedTuple):
    """How differences become rows of an image.

    Row `phases`·c + p holds, of the kept samples of difference c, the p-th and every `phases`-th after it.

    Attributes:
        width: samples in a row.
        phases: rows that a difference takes.
        with_midline: whether the rows of the midline follow those of the chains.
    """

    width: int
    phases: int
    with_midline: bool


def plan(spec: SignalSpec) -> Signal:
    """Derive what compiled code reads."""
    return Signal(spec.clip_uv, 1 / spec.scale_uv, design(spec.filter), spec.step)
