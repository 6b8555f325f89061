"""The first signal is a request, the second ends."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from kagglehms.stop_signals import Terminated, stop_signals, unwinding


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


@pytest.mark.parametrize("asked", [stop_signals, unwinding])
def test_within_work_that_unwinds_the_second_sigterm_ends_at_once_too(asked: Any) -> None:
    with unwinding():
        outer = signal.getsignal(signal.SIGTERM)
        with contextlib.suppress(Terminated), asked():
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is outer
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


_BLOCKED = """
import ctypes, sys, threading
from kagglehms.stop_signals import Terminated, stop_signals, unwinding

libc = ctypes.CDLL(None)
step = ctypes.create_string_buffer(256)  # a mutex: compiled code that no signal interrupts waits for it
libc.pthread_mutex_lock(step)
threading.Thread(target=lambda: (sys.stdin.readline(), libc.pthread_mutex_unlock(step)), daemon=True).start()
with stop_signals() as stop:
    print("in a step", flush=True)
    libc.pthread_mutex_lock(step)
    print(stop.signal.name, flush=True)
"""


@contextlib.contextmanager
def blocked_step() -> Iterator[subprocess.Popen[str]]:
    """Yield a process whose main thread is in compiled code until a line is written to it."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", _BLOCKED]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "in a step\n"
            yield process
        finally:
            process.kill()


@pytest.mark.skipif(
    sys.platform != "linux", reason="the mutex of another system may not be unlocked by a thread"
)
def test_a_signal_is_answered_before_the_step_ends() -> None:
    with blocked_step() as process:
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.readline() == "stopping after this step; press again to quit now\n"
        rest, _ = process.communicate("end the step\n")
    assert rest == "SIGINT\n"
    assert process.returncode == 0


@pytest.mark.skipif(
    sys.platform != "linux", reason="the mutex of another system may not be unlocked by a thread"
)
def test_a_second_interrupt_ends_a_step_that_does_not_return() -> None:
    with blocked_step() as process:
        assert process.stderr is not None
        process.send_signal(signal.SIGINT)
        process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130


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
