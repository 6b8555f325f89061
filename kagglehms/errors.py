"""The errors that this project raises on purpose, each with the exit code of a command that ends in it.

Every one of them is a single line that says what is wrong, where, and what to do.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

EXIT_OK = 0
EXIT_FAILURE = 1
"""The run failed: a missing dependency, a full disk, a loss that is not finite."""
EXIT_USER = 2
"""The caller's mistake: unknown names, options that contradict each other, unusable input files."""
EXIT_UNFINISHED = 3
"""The time limit came first: the state is saved, and the same command continues from there."""
EXIT_INTERRUPTED = 130
"""Ctrl-C; what was finished before it is kept."""
EXIT_OUTPUT_CLOSED = 141
"""The reader of the output, such as `head`, closed it before the end; what was finished before it is kept."""
EXIT_TERMINATED = 143
"""SIGTERM or SIGHUP; what was finished before it is kept."""


class HMSError(Exception):
    """Base of all errors raised on purpose; `str(error)` is one line for a person to read."""

    exit_code: int = EXIT_FAILURE


class UsageError(HMSError):
    """The caller asked for something that cannot be: an unknown recipe, an option out of range."""

    exit_code = EXIT_USER


class DataError(HMSError):
    """One input file that cannot be used.

    Attributes:
        path: the file.
        reason: what is wrong with it.
        hint: what to do about it.
    """

    exit_code = EXIT_USER

    def __init__(self, path: Path | str, reason: str, hint: str = "") -> None:
        self.path = Path(path)
        self.reason = reason
        self.hint = hint
        super().__init__(f"{self.path}: {reason}" + (f"; {hint}" if hint else ""))

    def __reduce__(self) -> tuple[type[DataError], tuple[Path, str, str]]:
        # The default would rebuild it from the joined message, and errors travel between processes.
        return (type(self), (self.path, self.reason, self.hint))


class DataErrors(HMSError):
    """Several unusable input files, all of them listed, so that they can be mended in one go."""

    exit_code = EXIT_USER

    def __init__(self, errors: Sequence[DataError]) -> None:
        self.errors = tuple(errors)
        lines = "\n".join(f"  {error}" for error in self.errors)
        super().__init__(f"{counted(len(self.errors), 'input file')} cannot be used:\n{lines}")

    def __reduce__(self) -> tuple[type[DataErrors], tuple[tuple[DataError, ...]]]:
        return (type(self), (self.errors,))


class BundleError(HMSError):
    """A bundle that is not what its manifest says, or not the one that was expected."""


class RunError(HMSError):
    """A training run that cannot continue, or a finished one that does not fit what is asked of it."""


class Stopped(HMSError):
    """A training that ended before it was finished, with its state saved.

    Attributes:
        exit_code: `EXIT_UNFINISHED`, `EXIT_INTERRUPTED` or `EXIT_TERMINATED`, by what asked for it.
    """

    def __init__(self, message: str, exit_code: int = EXIT_UNFINISHED) -> None:
        self.exit_code = exit_code
        super().__init__(message)

    def __reduce__(self) -> tuple[type[Stopped], tuple[str, int]]:
        return (type(self), (str(self), self.exit_code))


def first_line(error: BaseException, longest: int = 160) -> str:
    """Return what an error says first, at most `longest` characters; the name of its class if it says nothing."""
    lines = str(error).strip().splitlines()
    line = lines[0].rstrip() if lines else type(error).__name__
    if len(line) <= longest:
        return line
    beginning = line[: longest - 1]
    return f"{beginning.rpartition(' ')[0] or beginning}…"


_LISTED = 12
"""Most names that are listed beside the one that was probably meant."""
_DISTRIBUTIONS = {"sklearn": "scikit-learn", "slugify": "python-slugify", "PIL": "pillow"}
"""Names of distributions that differ from the names that are imported."""


def not_installed(error: ModuleNotFoundError) -> str:
    """Return a sentence that says which package is missing and how to get it; empty if it is no third-party package."""
    name = (error.name or "").partition(".")[0]
    if name in {"", "kagglehms"} or name in sys.stdlib_module_names:
        return ""
    return f"{name} is not installed for {sys.executable}; pip install {_DISTRIBUTIONS.get(name, name)}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return which of the `known` names was probably meant; None if none is similar."""
    names = list(known)
    begun = [other for other in names if len(name) > 2 and other.startswith(name)]
    return next(iter(begun or difflib.get_close_matches(name, names, n=1, cutoff=0.6)), None)


def one_of(what: str, value: object, known: Iterable[str]) -> None:
    """Refuse a value that is none of the known names.

    Raises:
        UsageError: it is none of them.
    """
    names = list(known)
    if value not in names:
        raise UsageError(f"unknown {what} {value!r}; {closest(str(value), names)}")


def closest(name: str, known: Iterable[str]) -> str:
    """Return which of the `known` names was meant, and what they are unless that fills the screen: for errors."""
    names = list(known)
    listed = f"known are: {', '.join(names)}"
    near = nearest(name, names)
    if near is None:
        return listed
    return f"did you mean {near!r}?" + (f" {listed}" if len(names) <= _LISTED else "")


def counted(number: int, what: str, plural: str | None = None) -> str:
    """Return a number with its noun, such as `1 record` and `1,200 records`.

    Args:
        number: how many there are.
        what: the noun for one of them.
        plural: the noun for several; None appends an s.
    """
    return f"{number:,} {what if number == 1 else plural or what + 's'}"
