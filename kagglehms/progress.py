"""How far a long piece of work is: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from kagglehms.console import is_terminal, quiet, say
from kagglehms.environment import leads
from kagglehms.timing import duration

T = TypeVar("T")

Watch = Callable[[Iterable[Any], int], Iterable[Any]]
"""Function that wraps an iteration, given the number of its items, such as one that shows `progress`."""


def progress(
    items: Iterable[T],
    total: int,
    what: str,
    every_s: float = 30.0,
    before: int = 0,
    status: Callable[[], str] | None = None,
) -> Iterator[T]:
    """Yield `items` and show progress: a bar on a terminal, an occasional line in a log.

    Args:
        items: items that remain to be done.
        total: number of all items, including those done `before`.
        what: short description of the work, such as `decode`.
        every_s: number of seconds between two lines of a log.
        before: number of items done in an earlier session; they do not count for the rate.
        status: function that returns a few more words to show, such as the loss.
    """
    if quiet() or not leads():
        yield from items
    elif is_terminal(sys.stderr):
        yield from _bar(items, total, what, before, status)
    else:
        yield from _lines(items, total, what, every_s, before, status)


def _bar(
    items: Iterable[T], total: int, what: str, before: int, status: Callable[[], str] | None
) -> Iterator[T]:
    from tqdm import tqdm

    shown = time.monotonic()
    with tqdm(total=total, desc=what, initial=before, dynamic_ncols=True, leave=False) as bar:
        for item in items:
            yield item
            if status and time.monotonic() - shown >= 1:
                shown = time.monotonic()
                bar.set_postfix_str(status(), refresh=False)
            bar.update()


def _lines(
    items: Iterable[T], total: int, what: str, every_s: float, before: int, status: Callable[[], str] | None
) -> Iterator[T]:
    start = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= every_s and before + done < total:
            last, rate = now, done / (now - start)
            more = f", {status()}" if status else ""
            left = duration((total - before - done) / rate)
            say(f"{what}: {before + done}/{total}, {rate:.3g}/s, about {left} left{more}")
