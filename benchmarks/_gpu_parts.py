"""Parts of `gpu.py` as child processes: each with its seconds, after which it is ended, whatever it does."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from _gpu_book import LOG, Book

GRACE_S = 12.0
"""A part that has not ended so long after its time is killed."""


@dataclass(frozen=True)
class Circumstances:
    """What all parts are told.

    Attributes:
        out: where the findings go.
        scratch: for everything else.
        dry_run: small, and on the CPU.
        weights: ImageNet weights of the ladder's backbone; None to begin from scratch.
        ladder: recipes of the ladder's part; none where it is left out.
        networks: sizes of the bundles of the scored runs; those that it does not make are left out.
    """

    out: Path
    scratch: Path
    dry_run: bool
    weights: Path | None
    ladder: tuple[str, ...]
    networks: Sequence[int]

    @property
    def device(self) -> str:
        return "cpu" if self.dry_run else "cuda"

    def book(self, part: str, seconds: float) -> Book:
        return Book(self.out, part, time.monotonic() + seconds)


def start(
    part: Callable[[Circumstances, float], None], seconds: float, told: Circumstances, niceness: int = 0
) -> ForkServerProcess:
    """Begin a part, in a process group of its own.

    It is forked from a server that has imported what takes seconds to import, and has not touched the card.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "timm", "numba", "polars"])
    process = context.Process(target=_be, args=(part, seconds, told, niceness))
    process.start()
    return process


def _be(
    part: Callable[[Circumstances, float], None], seconds: float, told: Circumstances, niceness: int
) -> None:
    os.setsid()
    os.nice(niceness)
    with (told.out / LOG).open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.stdout.reconfigure(line_buffering=True)
    part(told, seconds)


def launch(command: Sequence[str], log: Path, **more: str) -> subprocess.Popen[bytes]:
    """Begin a command in a process group of its own; what it prints goes to the end of `log`."""
    path = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).parent)]
    path += filter(None, [os.environ.get("PYTHONPATH")])
    # A pytest that is started is not one of a pytest's processes, whoever started this one.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    environment = inherited | {"PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1"} | more
    with log.open("ab") as file:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def finish(process: subprocess.Popen[bytes] | ForkServerProcess, seconds: float) -> str:
    """Wait for a process at most so long, then end it with all that it started; a word about how it ended."""
    try:
        code = _wait(process, max(0.0, seconds))
        if code is None:
            return "cut off, its time was up"
        return "done" if code == 0 else f"ended with {code}"
    finally:
        _end(process)


def _wait(process: subprocess.Popen[bytes] | ForkServerProcess, seconds: float) -> int | None:
    if isinstance(process, ForkServerProcess):
        process.join(seconds)
        return process.exitcode
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(seconds)
    return None


def _end(process: subprocess.Popen[bytes] | ForkServerProcess) -> None:
    assert process.pid is not None
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        _wait(process, 2)
    process.kill()  # where it had not yet got a group of its own
