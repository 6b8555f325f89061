"""Ctrl-C, SIGTERM and SIGHUP turned into requests that the running work checks."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from kagglehms.errors import EXIT_INTERRUPTED, EXIT_TERMINATED


class StopRequest:
    """A request to end this process: Ctrl-C, SIGTERM, or SIGHUP, which says that the terminal has gone."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @property
    def exit_code(self) -> int:
        return EXIT_INTERRUPTED if self.signal == signal.SIGINT else EXIT_TERMINATED


@contextlib.contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Turn the first Ctrl-C, SIGTERM or SIGHUP into a request that the running work checks.

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
            else:  # a shell starts what it puts in the background with signals ignored
                signal.signal(known, defaults[known] if handler is signal.SIG_IGN else handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
