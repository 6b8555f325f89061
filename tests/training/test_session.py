"""When a session goes on, saves and stops."""

from __future__ import annotations

import signal
import time

import pytest

from kagglehms.stop_signals import StopRequest
from kagglehms.timing import Clock
from kagglehms.training.session import Pace, Session


def pace_with(left_s: float, save_every_s: float = 600.0) -> Pace:
    """A session with so many seconds left, whose steps take 1 s, evaluations 20 s and savings 4 s."""
    pace = Pace(Session(Clock(left_s, started=time.monotonic()), save_every_s=save_every_s))
    for seconds in (0.5, 1.0, 0.7):
        pace.stepped(seconds)
    pace._seconds["evaluation"].append(20.0)
    pace._seconds["saving"].append(4.0)
    return pace


@pytest.mark.parametrize(
    ("left_s", "evaluation_follows", "wish"),
    [(60, False, "go on"), (60, True, "go on"), (20, False, "go on"), (20, True, "stop"), (6, False, "stop")],
)
def test_there_must_be_time_for_what_follows_and_for_saving(
    left_s: float, evaluation_follows: bool, wish: str
) -> None:
    assert pace_with(left_s).wish(evaluation_follows) == wish


def test_it_is_saved_before_an_evaluation_of_unknown_length() -> None:
    pace = Pace(Session(Clock(1000, started=time.monotonic())))
    assert pace.wish(evaluation_follows=False) == "go on"
    assert pace.wish(evaluation_follows=True) == "save"
    with pace.measured("evaluation"):
        pass
    assert pace.wish(evaluation_follows=True) == "go on"
    assert Pace(Session()).wish(evaluation_follows=True) == "go on"  # there is all the time of the world


def test_the_state_is_saved_now_and_then() -> None:
    pace = pace_with(1000, save_every_s=0)
    assert pace.wish(False) == "save"
    pace = pace_with(1000, save_every_s=0.05)
    with pace.measured("saving"):
        pass
    assert pace.wish(False) == "go on"
    time.sleep(0.06)
    assert pace.wish(False) == "save"


def test_whoever_asks_for_the_end_gets_it() -> None:
    stop = StopRequest()
    pace = Pace(Session(stop=stop))
    assert pace.wish(True) == "go on"
    stop.signal = signal.SIGTERM
    assert pace.wish(True) == "stop"


def test_what_was_measured() -> None:
    pace = pace_with(60)
    assert pace.longest("step") == 1.0
    assert pace.mean("step") == pytest.approx((0.5 + 1.0 + 0.7) / 3)
    assert Pace(Session()).mean("evaluation") == 0.0
