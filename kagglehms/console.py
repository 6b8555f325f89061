"""Printing for people, on standard streams of any encoding, closed ones included: no work ends because of it."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from typing import IO, Any, Literal

from kagglehms.environment import leads

_STRICT = frozenset({"strict", "surrogateescape"})
"""Error handlers of an encoding with which a character that it lacks is an error."""

_INVISIBLE = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]"
)
"""Control characters but for tabs and ends of lines, marks of writing direction, and halves of characters."""


class _Unfailing:
    """A stream that loses what cannot be written."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def open_streams(unfailing: bool = False) -> None:
    """Make the standard streams of this process printable; every command begins with it.

    A stream that was closed at the start leads to the null device, and a character that its encoding lacks becomes `?`.

    Args:
        unfailing: discard text that cannot be written, because the reader has gone or the disk is full. For work that
            is worth more than what it says; other commands end in an error then.
    """
    _occupy_descriptors()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115  open to the end
            setattr(sys, name, stream)
        if getattr(stream, "errors", None) in _STRICT and hasattr(stream, "reconfigure"):
            with contextlib.suppress(OSError):  # a file system that fails here may take the text all the same
                stream.reconfigure(errors="replace")
        if unfailing and not isinstance(stream, _Unfailing):
            setattr(sys, name, _Unfailing(stream))


def _occupy_descriptors() -> None:
    """Point closed standard descriptors to the null device, so that no file opened later receives printed text."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere == descriptor:
                os.set_inheritable(descriptor, True)
            else:
                os.dup2(nowhere, descriptor)
                os.close(nowhere)


def printable(text: str, stream: IO[str]) -> str:
    """Return `text` as it can be shown: visible, with a `?` for each character that the stream's encoding lacks."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return visible(text).encode(encoding, "replace").decode(encoding)


def visible(text: str) -> str:
    """Return `text` with control characters and marks of writing direction as escapes, such as `\\x1b` and `\\u202e`.

    Names of files, columns and recipes may hold them; a terminal would obey, and a page show words in another order.
    Tabs and ends of lines stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return _INVISIBLE.sub(lambda found: ascii(found[0])[1:-1], text)


def discard_output() -> None:
    """Point standard output to the null device, so that Python does not try to flush it again at exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


_quiet = False


def be_quiet(quiet: bool = True) -> None:
    """Stop printing progress, and print only results and errors from here on."""
    global _quiet
    _quiet = quiet


def coloured(text: str, colour: Literal["red", "green", "yellow", "bold"], stream: IO[str] | None) -> str:
    """Return `text` in a colour if `stream` is a terminal and colours are not disabled (https://no-color.org)."""
    if not is_terminal(stream) or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    code = {"red": 31, "green": 32, "yellow": 33, "bold": 1}[colour]
    return f"\033[{code}m{text}\033[0m"


def is_terminal(stream: IO[str] | None) -> bool:
    """Return whether `stream` is an open terminal."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def quiet() -> bool:
    """Return whether progress is silenced."""
    return _quiet


def say(line: str) -> None:
    """Print one line of progress; nothing with `--quiet`."""
    if not _quiet:
        tell(line)


def tell(line: str) -> None:
    """Print one line of a command's result at once, without tearing a progress bar.

    What cannot be printed ends nothing here, unless the reader has gone: what is left of it is tried again when the
    command ends, which is when that becomes an error.
    """
    if leads():
        show(visible(line) + "\n")


def warn(line: str) -> None:
    """Print one line on standard error, with `--quiet` too."""
    if leads():
        with contextlib.suppress(BrokenPipeError):
            show(visible(line) + "\n", sys.stderr)


def show(text: str, stream: IO[str] | None = None) -> None:
    """Print text without adding a newline, otherwise like `tell`, on `stream` or else on standard output.

    Carriage returns, which bars are made of, stay.
    """
    stream = stream or sys.stdout
    if stream is None:  # a process can have none
        return
    from tqdm import tqdm

    try:
        text = "\r".join(printable(part, stream) for part in text.split("\r"))
        tqdm.write(text, file=stream, end="")
        stream.flush()
    except BrokenPipeError:
        raise
    except (OSError, ValueError):
        pass
