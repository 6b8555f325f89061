"""What every room needs from the machine: files that are written whole or not at all, progress, threads."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TypeVar

from kagglehms.errors import RunError

T = TypeVar("T")

PARTIAL_SUFFIX = ".partial"
"""Ends the names of files that are being written; whoever finds one after a crash may delete it."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """Write `path` whole or not at all: beside it, flushed to the disk, then renamed over it.

    Raises:
        RunError: the disk is full or the folder cannot be written; what stood at `path` is still there.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{PARTIAL_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise RunError(
            f"{path}: cannot be written ({error.strerror or error}); free space or give another folder"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically (see `writing`)."""
    with writing(path) as file:
        file.write(content)


def sweep_partials(folder: Path) -> None:
    """Delete what an interrupted `writing` left in `folder`."""
    for path in folder.glob(f".*{PARTIAL_SUFFIX}"):
        path.unlink(missing_ok=True)


def available_cpus() -> int:
    """CPU cores this process may use, which in a container can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def say(line: str) -> None:
    """Print one line for a person, at once, without tearing a progress bar."""
    from tqdm import tqdm

    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()


def progress(items: Iterable[T], total: int, what: str, every_s: float = 15.0) -> Iterator[T]:
    """Pass `items` on and show how far they are: a bar on a terminal, a plain line now and then in a log."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, total=total, desc=what, dynamic_ncols=True, leave=False)
        return
    start = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= every_s:
            last = now
            left = (now - start) / done * (total - done)
            say(f"{what}: {done}/{total}, about {left:.0f} s left")
