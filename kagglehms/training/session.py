"""When a training session saves its state and when it stops; nothing here changes what is learned."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from kagglehms.stop_signals import StopRequest
from kagglehms.timing import Clock
from kagglehms.training.distributed import ALONE, Team
from kagglehms.training.trackers import Tracking


@dataclass(frozen=True)
class Session:
    """The circumstances of a training session.

    Attributes:
        clock: time limit of this process.
        stop: requests to stop, by signals.
        team: the processes that train together.
        save_every_s: seconds between two saved states. The state is also saved after every evaluation and, under a
            time limit, before the first one.
        compile: whether to compile the network with `torch.compile`.
        cuda_graphs: whether to replay the network as a CUDA graph, where there is one process.
        trackers: trackers of experiments that get the scores beside the logs.
        place: where the fold stands in the command, in words.
        later: work of the command that comes after the fold, in multiples of the fold's.
    """

    clock: Clock = field(default_factory=Clock)
    stop: StopRequest = field(default_factory=StopRequest)
    team: Team = ALONE
    save_every_s: float = 600.0
    compile: bool = False
    cuda_graphs: bool = False
    trackers: tuple[Tracking, ...] = ()
    place: str = ""
    later: float = 0.0


Wish = Literal["go on", "save", "stop"]
WISHES: tuple[Wish, ...] = ("go on", "save", "stop")
_RESERVE = 1.5
"""Safety factor on the longest step, evaluation and saving seen, when deciding whether there is time for more."""
_RESERVE_S = 2.0
"""Seconds that are kept in reserve in addition."""


class Pace:
    """Measured durations of steps, evaluations and savings, which decide when to save and when to stop.

    Args:
        session: the session.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._seconds: dict[str, deque[float]] = {
            "step": deque(maxlen=200),
            "evaluation": deque(maxlen=4),
            "saving": deque(maxlen=4),
        }
        self._saved = time.monotonic()

    @contextmanager
    def measured(self, what: Literal["evaluation", "saving"]) -> Iterator[None]:
        """Measure the duration of a `with` block."""
        start = time.monotonic()
        yield
        self._seconds[what].append(time.monotonic() - start)
        if what == "saving":
            self._saved = time.monotonic()

    def stepped(self, seconds: float) -> None:
        """Add the duration of a step."""
        self._seconds["step"].append(seconds)

    def longest(self, what: str) -> float:
        """Return the longest recent duration in seconds; 0 before the first."""
        return max(self._seconds[what], default=0.0)

    def mean(self, what: str) -> float:
        """Return the mean of the recent durations in seconds; 0 before the first."""
        seconds = self._seconds[what]
        return sum(seconds) / len(seconds) if seconds else 0.0

    def wish(self, evaluation_follows: bool) -> Wish:
        """Decide what to do before the next step; all processes of the team get the same answer.

        Args:
            evaluation_follows: whether an evaluation is due after the step.
        """
        return WISHES[self.session.team.agree(WISHES.index(self._own_wish(evaluation_follows)))]

    def _own_wish(self, evaluation_follows: bool) -> Wish:
        if self.session.stop.signal is not None:
            return "stop"
        needed = self.longest("step") + self.longest("saving")
        if evaluation_follows:
            needed += self.longest("evaluation")
        if self.session.clock.left_s < _RESERVE * needed + _RESERVE_S:
            return "stop"
        if (
            evaluation_follows
            and self.session.clock.time_limit_s is not None
            and not self._seconds["evaluation"]
        ):
            return "save"  # the evaluation may take any time
        return "save" if time.monotonic() - self._saved >= self.session.save_every_s else "go on"
