"""The first signal is a request, the second ends."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from kagglehms.stop_signals import stop_signals


@pytest.fixture(params=[signal.default_int_handler, signal.SIG_IGN], ids=["foreground", "background"])
def interrupt_handler(request: pytest.FixtureRequest) -> Iterator[Any]:
    """What Ctrl-C does before; a shell has it ignored by what it starts in the background."""
    before = signal.signal(signal.SIGINT, request.param)
    yield request.param
    signal.signal(signal.SIGINT, before)


def test_the_first_signal_is_a_request_and_the_second_ends(interrupt_handler: Any) -> None:
    with pytest.raises(KeyboardInterrupt), stop_signals() as stop:  # noqa: PT012
        assert stop.signal is None
        signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT
        assert stop.exit_code == 130
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is interrupt_handler
    with stop_signals() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.fixture
def default_hang_up() -> Iterator[None]:
    """The system's own handler of SIGHUP, which `nohup` takes away from the tests."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="a system without terminals that hang up")
@pytest.mark.usefixtures("default_hang_up")
def test_a_terminal_that_goes_asks_for_the_end_however_often(monkeypatch: pytest.MonkeyPatch) -> None:
    with stop_signals() as stop:
        signal.raise_signal(signal.SIGHUP)
        assert (stop.signal, stop.exit_code) == (signal.SIGHUP, 143)
        signal.raise_signal(signal.SIGHUP)  # the shell's, after the terminal's
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with stop_signals() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop.signal is None
            signal.raise_signal(signal.SIGTERM)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_signals_that_a_system_lacks_are_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(signal, "SIGHUP", raising=False)
    with stop_signals() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.exit_code == 143
