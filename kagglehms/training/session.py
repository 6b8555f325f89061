"""How long a training session goes on, and when its state is saved: nothing here changes what is learned."""

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


@dataclass(frozen=True)
class Session:
    """The circumstances of a run.

    Attributes:
        clock: the time that may be taken.
        stop: whether somebody asked for the end.
        team: the processes that train together.
        save_every_s: the state is saved after every evaluation, and so often in between; under a time limit also
            before the first one.
        compile: run the network through `torch.compile`.
        tensorboard: write TensorBoard's event files beside the logs.
    """

    clock: Clock = field(default_factory=Clock)
    stop: StopRequest = field(default_factory=StopRequest)
    team: Team = ALONE
    save_every_s: float = 600.0
    compile: bool = False
    tensorboard: bool = False


Wish = Literal["go on", "save", "stop"]
WISHES: tuple[Wish, ...] = ("go on", "save", "stop")
_RESERVE = 1.5
"""The longest step, evaluation and saving seen are taken so many times, when it is reckoned whether time is left."""
_RESERVE_S = 2.0


class Pace:
    """Measures steps, evaluations and savings, and says before each step whether there is time for it."""

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
        start = time.monotonic()
        yield
        self._seconds[what].append(time.monotonic() - start)
        if what == "saving":
            self._saved = time.monotonic()

    def stepped(self, seconds: float) -> None:
        self._seconds["step"].append(seconds)

    def longest(self, what: str) -> float:
        return max(self._seconds[what], default=0.0)

    def mean(self, what: str) -> float:
        seconds = self._seconds[what]
        return sum(seconds) / len(seconds) if seconds else 0.0

    def wish(self, evaluation_follows: bool) -> Wish:
        """What to do before the next step; all members of the team get the same answer."""
        return WISHES[self.session.team.agree(WISHES.index(self._own_wish(evaluation_follows)))]

    def _own_wish(self, evaluation_follows: bool) -> Wish:
        if self.session.stop.signal is not None:
            return "stop"
        needed = self.longest("step") + self.longest("saving")
        if evaluation_follows:  # which is followed by another saving
            needed += self.longest("evaluation")
        if self.session.clock.left_s < _RESERVE * needed + _RESERVE_S:
            return "stop"
        if evaluation_follows and self.session.clock.limit_s is not None and not self._seconds["evaluation"]:
            return "save"  # nobody knows how long it takes
        return "save" if time.monotonic() - self._saved >= self.session.save_every_s else "go on"
