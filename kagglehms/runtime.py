"""What every room needs from the machine: files that are written whole or not at all, progress, time, the device."""

from __future__ import annotations

import contextlib
import math
import os
import re
import signal
import sys
import threading
import time
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TypeVar

from kagglehms.console import CHILDREN_PRINT, printable
from kagglehms.environment import safe_environment
from kagglehms.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, RunError, UsageError, first_line
from kagglehms.locks import HOLDER as HOLDER
from kagglehms.locks import LOCK as LOCK
from kagglehms.locks import exclusive as exclusive

if TYPE_CHECKING:
    from concurrent.futures import Future

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


def home() -> Path | None:
    """The user's home; None for a user who has none, as in some containers."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def child_environment() -> dict[str, str]:
    """The environment in which a child process imports this very library, wherever it was imported from."""
    import kagglehms

    environment = safe_environment()
    library = str(Path(kagglehms.__file__).resolve().parents[1])
    path = [library, *filter(None, [environment.get("PYTHONPATH")])]
    return environment | CHILDREN_PRINT | {"PYTHONPATH": os.pathsep.join(path)}


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


def coloured(text: str, colour: Literal["red", "green", "yellow", "bold"], stream: IO[str] | None) -> str:
    """Return `text` in a colour if `stream` is a terminal and nobody objects (https://no-color.org)."""
    if not _is_terminal(stream) or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    code = {"red": 31, "green": 32, "yellow": 33, "bold": 1}[colour]
    return f"\033[{code}m{text}\033[0m"


def _is_terminal(stream: IO[str] | None) -> bool:
    """Whether there is a stream, and somebody sits before it."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def quiet() -> bool:
    """Whether no progress is to be printed."""
    return _quiet


def say(line: str) -> None:
    """Print one line about how it goes, for a person; nothing with `--quiet`."""
    if not _quiet:
        tell(line)


def tell(line: str) -> None:
    """Print one line of what a command was asked for, at once, without tearing a progress bar.

    What cannot be printed ends nothing here, unless the reader has gone: what is left of it is tried again when the
    command ends, which is when that becomes an error.
    """
    if leads():
        show(line + "\n")


def show(text: str) -> None:
    """Print text as it is, at once; else like `tell`."""
    stream: IO[str] | None = sys.stdout  # a process can have none
    if stream is None:
        return
    from tqdm import tqdm

    try:
        tqdm.write(printable(text, stream), file=stream, end="")
        stream.flush()
    except BrokenPipeError:
        raise
    except (OSError, ValueError):
        pass


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
    elif _is_terminal(sys.stderr):
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
    """Whether somebody asked this process to end: Ctrl-C, SIGTERM, or SIGHUP, which says that the terminal has gone."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @property
    def exit_code(self) -> int:
        return EXIT_INTERRUPTED if self.signal == signal.SIGINT else EXIT_TERMINATED


@contextlib.contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Turn the first Ctrl-C, SIGTERM or SIGHUP into a request that the work in hand looks at.

    A second Ctrl-C or SIGTERM ends at once. A second SIGHUP does not: a terminal that goes sends one, and its shell
    another. Who was started under `nohup` does not hear of either. Outside the main thread, which alone can receive
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


@dataclass(frozen=True)
class Device:
    """Where and in which precision to compute, and why.

    Attributes:
        name: `cuda` (NVIDIA's or AMD's), `mps` (Apple's) or `cpu`, as torch.device takes it.
        amp: the dtype of mixed precision, `float16` (needs loss scaling) or `bfloat16`; None for float32.
        reason: one line for the log.
    """

    name: str
    amp: Literal["float16", "bfloat16"] | None
    reason: str


DEVICES = ("cpu", "cuda", "mps")
"""What can be asked for."""


def choose_device(wanted: str | None = None) -> Device:
    """Choose the best device that really works.

    A GPU counts if it computes a tiny sum: on Kaggle's P100 `torch.cuda.is_available()` is true and every kernel launch
    fails, while the architectures that a build of torch names say neither what it compiles for others when it first
    meets them nor what builds for AMD can do.

    Args:
        wanted: one of `DEVICES`, or None for the best of `cuda` and `cpu`.

    Raises:
        UsageError: another name, or a GPU was asked for and none is usable; the message says why.
    """
    if wanted not in {None, *DEVICES}:
        raise UsageError(f"device must be one of {', '.join(DEVICES)}, but got {wanted!r}")
    if wanted == "cpu":
        return Device("cpu", None, "device: cpu in float32, as asked for")
    why_not = _mps_unusable() if wanted == "mps" else _cuda_unusable()
    if why_not is None:
        return (
            Device("mps", None, "device: Apple's GPU in float32, as asked for") if wanted == "mps" else _gpu()
        )
    if wanted is not None:
        raise UsageError(f"no usable GPU: {why_not}; leave --device away to use the CPU")
    return Device("cpu", None, f"device: cpu in float32, {available_cpus()} cores ({why_not})")


def _cuda_unusable() -> str | None:
    import torch

    if not torch.cuda.is_available():
        return "torch sees no GPU"
    return _fails("cuda")


def _mps_unusable() -> str | None:
    import torch

    if not torch.backends.mps.is_built():
        return "this torch is built without Metal, which is there on macOS alone"
    if not torch.backends.mps.is_available():
        return "torch sees no GPU of Apple's, or needs a newer macOS"
    return _fails("mps")


def _fails(device: str) -> str | None:
    """Why a device cannot compute a tiny sum; None if it can."""
    import torch

    name = "the GPU"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of what the sum is about to prove or to refute
            name = torch.cuda.get_device_name() if device == "cuda" else name
            right = torch.ones(8, device=device).sum().item() == 8
    except Exception as error:  # a driver that does not fit can raise almost anything
        return f"{name} fails at a tiny sum ({first_line(error)})"
    return None if right else f"{name} gets a tiny sum wrong"


def _gpu() -> Device:
    import torch

    major, minor = torch.cuda.get_device_capability()
    name = torch.cuda.get_device_name()
    if torch.version.hip:
        name += f" ({torch.cuda.get_device_properties().gcnArchName})"
        return Device(
            "cuda", "bfloat16", f"device: {name} in bfloat16, which torch has for each GPU of AMD's"
        )
    name += f" (sm_{major}{minor})"
    if major >= 8:
        return Device(
            "cuda", "bfloat16", f"device: {name} in bfloat16, which this architecture computes natively"
        )
    return Device(
        "cuda", "float16", f"device: {name} in float16 with loss scaling, as it has no bfloat16 units"
    )
