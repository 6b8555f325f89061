"""The Kaggle service: the client, the patience to use it, and a way to say what is going on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from kagglehms.console import say
from kagglehms.kaggle.answers import ClientError
from kagglehms.kaggle.client import KaggleClient

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds.

    Attributes:
        poll_s: seconds between two questions.
        ready_s: seconds for a new version of the dataset to become ready.
        confirm_s: seconds for a ready version to show the manifest and files of the bundle.
        run_s: seconds for a kernel's session, including its time in the queue.
        settle_s: seconds after a push during which Kaggle may still show the end of an older session.
        tries: how often a call is made that fails in a way that may pass.
        backoff_s: seconds before the second try; doubled before each further one.
    """

    poll_s: float = 15.0
    ready_s: float = 3600.0
    confirm_s: float = 300.0
    run_s: float = 13 * 3600.0
    settle_s: float = 90.0
    tries: int = 5
    backoff_s: float = 10.0


@dataclass(frozen=True)
class Kaggle:
    """The client with the patience to use it.

    Attributes:
        client: client that makes the calls.
        patience: how long to wait.
        say: called with one line for each step.
    """

    client: KaggleClient
    patience: Patience
    say: Callable[[str], None]

    def ask(self, question: Callable[[], T]) -> T:
        """Make a call that changes nothing, and repeat it after errors that may pass."""
        return self._repeat(question, lambda error: error.transient)

    def do(self, action: Callable[[], T]) -> T:
        """Make a call that changes something, and repeat it only if Kaggle refused it because of too many requests."""
        return self._repeat(action, lambda error: error.limited)

    def _repeat(self, call: Callable[[], T], may_pass: Callable[[ClientError], bool]) -> T:
        wait_s = self.patience.backoff_s
        for left in reversed(range(self.patience.tries)):
            try:
                return call()
            except ClientError as error:
                if not left or not may_pass(error):
                    raise
                self.say(f"{error}; trying again in {wait_s:.0f} s")
                time.sleep(wait_s)
                wait_s *= 2
        raise AssertionError("unreachable")


def kaggle() -> Kaggle:
    """Return the client of this machine, which prints what it does."""
    return Kaggle(KaggleClient(say), Patience(), say)
