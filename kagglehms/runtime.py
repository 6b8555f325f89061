"""What every room needs from the machine: files that are written whole or not at all, progress, time, the device."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import platform
import re
import signal
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TypeVar

from kagglehms.environment import safe_environment
from kagglehms.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, RunError, UsageError, first_line

if TYPE_CHECKING:
    from concurrent.futures import Future

T = TypeVar("T")

LOCK = ".lock"
"""In a folder that a process can hold for itself; see `exclusive`."""
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
        partial.replace(path)
    except OSError as error:
        raise RunError(
            f"{path}: cannot be written ({error.strerror or error}); free space or give another folder"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # the folder itself may be what could not be made
            partial.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically (see `writing`)."""
    with writing(path) as file:
        file.write(content)


def sweep_partials(folder: Path) -> None:
    """Delete what an interrupted `writing` left in `folder`."""
    for path in folder.glob(f".*{PARTIAL_SUFFIX}"):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def exclusive(folder: Path, what: str) -> Iterator[None]:
    """Hold `folder` for this process; the system lets go of it when the process ends, however it ends.

    Raises:
        UsageError: it is no folder, or may not be written.
        RunError: another process holds it; the message says which. Or the disk is full, or knows no locks.
    """
    import fcntl

    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+b", buffering=0)
    except OSError as error:
        mistaken = isinstance(error, FileExistsError | NotADirectoryError | PermissionError)
        message = f"{folder}: cannot be written ({error.strerror}); give another folder"
        raise (UsageError if mistaken else RunError)(message) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
                reason = f"cannot be locked ({error.strerror}); give a folder on a disk of this machine"
                raise RunError(f"{folder}: {reason}") from error
            file.seek(0)
            holder = file.read().decode(errors="replace").strip() or "another process"
            raise RunError(
                f"{folder}: {what} is under way by {holder}; wait for it or give another folder"
            ) from error
        with contextlib.suppress(OSError):  # who holds it is good to know, and no more than that
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}".encode())
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                file.truncate(0)


def child_environment() -> dict[str, str]:
    """The environment in which a child process imports this very library, wherever it was imported from."""
    import kagglehms

    environment = safe_environment()
    library = str(Path(kagglehms.__file__).resolve().parents[1])
    path = [library, *filter(None, [environment.get("PYTHONPATH")])]
    return environment | {"PYTHONPATH": os.pathsep.join(path)}


def available_cpus() -> int:
    """CPU cores this process may use, which in a container can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def leads() -> bool:
    """Whether this process speaks and writes for all that `torchrun` started; true for one that runs alone."""
    return os.environ.get("RANK", "0") == "0"


def in_advance(futures: Iterable[Future[T]], ready: int) -> Generator[T]:
    """Yield results in order, with `ready` more asked of `futures` than are in use; cancel what nobody wants."""
    pending: deque[Future[T]] = deque()
    try:
        for future in futures:
            pending.append(future)
            if len(pending) > ready:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


_quiet = False


def be_quiet(quiet: bool = True) -> None:
    """Print no progress from here on: only what a command was asked for, and errors."""
    global _quiet
    _quiet = quiet


def coloured(text: str, colour: Literal["red", "green", "yellow", "bold"], stream: IO[str]) -> str:
    """Return `text` in a colour if `stream` is a terminal and nobody objects (https://no-color.org)."""
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    code = {"red": 31, "green": 32, "yellow": 33, "bold": 1}[colour]
    return f"\033[{code}m{text}\033[0m"


def quiet() -> bool:
    """Whether no progress is to be printed."""
    return _quiet


def say(line: str) -> None:
    """Print one line about how it goes, for a person; nothing with `--quiet`."""
    if not _quiet:
        tell(line)


def tell(line: str) -> None:
    """Print one line of what a command was asked for, at once, without tearing a progress bar."""
    if not leads():
        return
    from tqdm import tqdm

    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()


def progress(
    items: Iterable[T],
    total: int,
    what: str,
    every_s: float = 30.0,
    before: int = 0,
    status: Callable[[], str] | None = None,
) -> Iterator[T]:
    """Pass `items` on and show how far they are: a bar on a terminal, a plain line now and then in a log.

    Args:
        items: what remains to be done.
        total: how many there are, with those done `before`.
        what: is done, for the reader.
        every_s: seconds between two lines of a log.
        before: done in an earlier session; they do not count for the rate.
        status: asked now and then for a few words more, such as the loss.
    """
    if _quiet or not leads():
        yield from items
    elif sys.stderr.isatty():
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


def duration(seconds: float) -> str:
    """Write a duration for a person: 45 s, 12 min, 3.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_STARTED = time.monotonic()


def seconds_of(text: str) -> float:
    """Read a duration such as `8.5h`, `90m`, `45s` or `45` (seconds).

    Raises:
        UsageError: not such a text, or not above zero.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([smh]?)\s*", text)
    if not found or float(found[1]) <= 0:
        raise UsageError(f"{text!r} is no duration; write hours, minutes or seconds such as 8.5h, 90m or 45s")
    return float(found[1]) * _SECONDS[found[2]]


@dataclass(frozen=True)
class Clock:
    """What is left of the time that this process may take.

    Attributes:
        limit_s: seconds from the start; None for no limit.
        started: `time.monotonic()` at the start; by default when this module was imported.
    """

    limit_s: float | None = None
    started: float = _STARTED

    @property
    def left_s(self) -> float:
        """Seconds left, negative when the time is up; infinite without a limit."""
        return math.inf if self.limit_s is None else self.started + self.limit_s - time.monotonic()


class StopRequest:
    """Whether somebody asked this process to end: Ctrl-C or SIGTERM."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @property
    def exit_code(self) -> int:
        return EXIT_TERMINATED if self.signal == signal.SIGTERM else EXIT_INTERRUPTED


@contextlib.contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Turn the first Ctrl-C or SIGTERM into a request that the work in hand looks at; a second one ends at once.

    Outside the main thread, which alone can receive signals, nothing is changed.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    defaults: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}

    def note(number: int, _: object) -> None:
        request.signal = signal.Signals(number)
        for known, handler in before.items():
            # A shell starts what it puts in the background with signals ignored.
            signal.signal(known, defaults[known] if handler is signal.SIG_IGN else handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class Device:
    """Where and in which precision to compute, and why.

    Attributes:
        name: `cuda` or `cpu`, as torch.device takes it.
        amp: the dtype of mixed precision, `float16` (needs loss scaling) or `bfloat16`; None for float32.
        reason: one line for the log.
    """

    name: str
    amp: Literal["float16", "bfloat16"] | None
    reason: str


def choose_device(wanted: str | None = None) -> Device:
    """Choose the best device that really works.

    A GPU counts only if this build of torch has code for its architecture and a tiny operation runs: on Kaggle's
    P100 `torch.cuda.is_available()` is true and every kernel launch fails.

    Args:
        wanted: `cpu`, `cuda`, or None for the best.

    Raises:
        UsageError: another name, or a GPU was asked for and none is usable; the message says why.
    """
    if wanted not in {None, "cpu", "cuda"}:
        raise UsageError(f"device must be cpu or cuda, but got {wanted!r}")
    if wanted == "cpu":
        return Device("cpu", None, "device: cpu in float32, as asked for")
    why_not = _gpu_unusable()
    if why_not is None:
        return _gpu()
    if wanted == "cuda":
        raise UsageError(f"no usable GPU: {why_not}; leave --device away to use the CPU")
    return Device("cpu", None, f"device: cpu in float32, {available_cpus()} cores ({why_not})")


def _gpu_unusable() -> str | None:
    import torch

    if not torch.cuda.is_available():
        return "torch sees no GPU"
    major, minor = torch.cuda.get_device_capability()
    name = torch.cuda.get_device_name()
    # A binary for sm_80 also runs on sm_86 and sm_89, but none for sm_60 exists any more in current builds.
    built = [a for a in torch.cuda.get_arch_list() if a.startswith("sm_")]
    if not any(int(a[3:-1]) == major and int(a[-1]) <= minor for a in built if a[3:].isdigit()):
        return f"this torch has no code for {name} (sm_{major}{minor}, built for {' '.join(built)})"
    try:
        torch.ones(8, device="cuda").sum().item()
    except RuntimeError as error:
        return f"{name} fails at a tiny sum ({first_line(error)})"
    return None


def _gpu() -> Device:
    import torch

    major, minor = torch.cuda.get_device_capability()
    name = f"{torch.cuda.get_device_name()} (sm_{major}{minor})"
    if major >= 8:
        return Device(
            "cuda", "bfloat16", f"device: {name} in bfloat16, which this architecture computes natively"
        )
    return Device(
        "cuda", "float16", f"device: {name} in float16 with loss scaling, as it has no bfloat16 units"
    )
