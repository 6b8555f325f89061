"""One command in a process forked from a server that has everything imported (`preload`), with a fault inside it."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from standing_clock import Noon

FILE_EVENTS = {
    "open",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.listdir",
    "os.scandir",
    "os.truncate",
}
"""Operations on files that Python announces before it does them."""
ERRNOS = (errno.EIO, errno.ENOSPC, errno.EACCES, errno.EMFILE, errno.EROFS, errno.EDQUOT, errno.ENOMEM)
CAPABILITIES = (1, 2, 3)
"""Root's right to read and write all the same: CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER."""


def _no_commit(sources: object) -> None:
    """What a bundle says of the checkout, which may be edited while the campaign goes on."""


@dataclass(frozen=True)
class Inside:
    """A fault inside the process.

    Attributes:
        operation: number of the file operation below the working folder that fails or kills, counted from 0.
        error: what that operation fails with; None kills the process there.
        cpu_s: processor time after which `number` arrives.
        number: signal; SIGPROF ends the process as SIGKILL would, between any two instructions.
        file_bytes: largest size of any file.
        memory_bytes: memory that the process may take beyond what it has.
        powerless: whether root's right to ignore permissions is given up.
        waits: whether the process stops itself before the command, until somebody continues it.
    """

    operation: int | None = None
    error: int | None = None
    cpu_s: float | None = None
    number: int = signal.SIGPROF
    file_bytes: int | None = None
    memory_bytes: int | None = None
    powerless: bool = False
    waits: bool = False


def run(words: list[str], folder: Path, log: Path, inside: Inside | None = None) -> None:
    """`kagglehms` in `folder`, with its output in `log`, and beside it what it took."""
    from kagglehms.cli.commands import main
    from kagglehms.packing.sources import Sources
    from kagglehms.report import templating

    templating.datetime = Noon  # type: ignore[attr-defined]
    Sources.commit = _no_commit  # type: ignore[method-assign]
    os.chdir(folder)
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    operations = [0]
    begun = time.process_time()
    _begin(inside or Inside(), folder, operations)
    code = main(words)
    with contextlib.suppress(OSError):
        taken = {"cpu_s": time.process_time() - begun, "operations": operations[0]}
        log.with_suffix(".json").write_text(json.dumps(taken))
    sys.exit(code)


def _begin(inside: Inside, folder: Path, operations: list[int]) -> None:
    if inside.powerless:
        give_up_capabilities()
    if inside.file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (inside.file_bytes, resource.RLIM_INFINITY))
    if inside.memory_bytes is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + inside.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    if inside.cpu_s is not None:
        if inside.number != signal.SIGPROF:
            signal.signal(signal.SIGPROF, lambda *_: os.kill(os.getpid(), inside.number))
        signal.setitimer(signal.ITIMER_PROF, inside.cpu_s)
    if inside.waits:
        os.kill(os.getpid(), signal.SIGSTOP)
    sys.addaudithook(_hook(inside, str(folder), operations))


def _hook(inside: Inside, folder: str, operations: list[int]) -> Callable[[str, tuple[Any, ...]], None]:
    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in FILE_EVENTS or not isinstance(arguments[0], (str, bytes, os.PathLike)):
            return
        path = os.fsdecode(arguments[0])
        if Path(path).is_absolute() and not f"{path}/".startswith(f"{folder}/"):
            return
        number, operations[0] = operations[0], operations[0] + 1
        if number != inside.operation:
            return
        if inside.error is None:
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(inside.error, os.strerror(inside.error), path)

    return hook


def give_up_capabilities() -> None:
    """Let permissions hold for root as well."""
    if os.getuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets):
        raise OSError(ctypes.get_errno(), "capget")
    for capability in CAPABILITIES:
        for place in range(3):
            sets[place] &= ~(1 << capability)
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")
