"""Ctrl-C, SIGTERM and SIGHUP turned into requests that the running work checks."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from kagglehms.console import warn
from kagglehms.errors import EXIT_INTERRUPTED, EXIT_TERMINATED

_ANSWER = "stopping after this step"
_UNWINDING_S = 5.0
"""Seconds that a second Ctrl-C gives the running work to end in an orderly way."""


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP came; like Ctrl-C it is no `Exception`, so that nobody takes it for a failure of one part."""


class StopRequest:
    """A request to end this process: Ctrl-C, SIGTERM, or SIGHUP, which says that the terminal has gone."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @property
    def exit_code(self) -> int:
        return EXIT_INTERRUPTED if self.signal == signal.SIGINT else EXIT_TERMINATED


@contextlib.contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Turn the first Ctrl-C, SIGTERM or SIGHUP into a request that the running work checks, and answer it at once.

    A second Ctrl-C or SIGTERM ends at once. A second SIGHUP does not: a terminal that goes sends one, and its shell
    another. A process started under `nohup` receives neither. Outside the main thread, which alone can receive
    signals, nothing is changed.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    defaults: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    hang_up = getattr(signal, "SIGHUP", None)  # Windows has none
    if hang_up is not None and signal.getsignal(hang_up) is not signal.SIG_IGN:
        before[hang_up] = signal.getsignal(hang_up)

    def note(number: int, _: object) -> None:
        request.signal = signal.Signals(number)
        for known, handler in before.items():
            if known == hang_up:
                signal.signal(known, signal.SIG_IGN)
                continue
            # A shell starts what it puts in the background with signals ignored, and `unwinding` has a SIGTERM wait.
            kept = known == signal.SIGINT and handler is not signal.SIG_IGN
            signal.signal(known, handler if kept else defaults[known])

    with _answered(before):
        for number in before:
            signal.signal(number, note)
        try:
            yield request
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def unwinding() -> Iterator[None]:
    """Let the first SIGTERM or SIGHUP raise an error, so that the work cleans up behind itself; a second ends at once.

    Outside the main thread, which alone can receive signals, nothing is changed.

    Raises:
        Terminated: one of them came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}
    before: dict[int, Any] = {number: signal.getsignal(number) for number in numbers}

    def stop(number: int, _: object) -> None:
        for known, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(known, signal.SIG_DFL)  # and not that of an `unwinding` around this one
        raise Terminated(f"{signal.Signals(number).name} came; what was running has been ended")

    def restore() -> None:
        for known, handler in before.items():
            signal.signal(known, handler)

    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:  # under `nohup`, or as the shell started it
                signal.signal(number, stop)
        yield
    finally:
        restore()


@contextlib.contextmanager
def _answered(numbers: Iterable[int]) -> Iterator[None]:
    """Say what becomes of each signal as soon as it comes, from a thread.

    Python's own handlers wait until the main thread leaves the compiled code that it is in, such as a backward pass.
    """
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    over = threading.Event()
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=_answer, args=(ours, frozenset(numbers), over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(before)
        theirs.close()
        thread.join()
        ours.close()


def _answer(wakes: socket.socket, numbers: frozenset[int], over: threading.Event) -> None:
    """Answer each signal whose number arrives, until the other end is closed."""
    asked = False
    while received := wakes.recv(1):
        number = received[0]
        if number not in numbers:
            continue
        if number != signal.SIGINT:
            warn(f"{signal.Signals(number).name} came; {_ANSWER}")
        elif not asked:
            warn(f"{_ANSWER}; press again to quit now")
        elif not over.wait(_UNWINDING_S) and "ipykernel" not in sys.modules:  # a notebook outlives its cells
            os._exit(EXIT_INTERRUPTED)
        asked = True
