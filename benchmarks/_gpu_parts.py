"""Parts of `gpu.py` as child processes: each with its seconds, after which it is ended, whatever it does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
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
    """

    out: Path
    scratch: Path
    dry_run: bool
    weights: Path | None
    ladder: tuple[str, ...]

    @property
    def device(self) -> str:
        return "cpu" if self.dry_run else "cuda"

    def book(self, part: str, seconds: float) -> Book:
        return Book(self.out, part, time.monotonic() + seconds)


def start(part: str, seconds: float, told: Circumstances, niceness: int = 0) -> subprocess.Popen[bytes]:
    """Begin a part, in a process group of its own."""
    command = [sys.executable, str(Path(__file__).with_name("gpu.py")), "--part", part]
    command += ["--budget", f"{seconds:.1f}", "--out", str(told.out), "--scratch", str(told.scratch)]
    command += ["--dry-run"] * told.dry_run
    command += [] if told.weights is None else ["--weights", str(told.weights)]
    command += ["--ladder", *told.ladder]
    if niceness:
        command = ["nice", "-n", str(niceness), *command]
    return launch(command, told.out / LOG)


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


def finish(process: subprocess.Popen[bytes], seconds: float) -> str:
    """Wait for a process at most so long, then end it with all that it started; a word about how it ended."""
    try:
        code = process.wait(max(0.0, seconds))
        return "done" if code == 0 else f"ended with {code}"
    except subprocess.TimeoutExpired:
        return "cut off, its time was up"
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(2)
