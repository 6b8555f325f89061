"""A command's words → its options, or one line that says which word is wrong and what was probably meant.

The options are frozen dataclasses, from which tyro makes the command line and its help. tyro explains a mistake in a
box of many lines; here it becomes one line like every other error of this project.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, get_type_hints

import tyro

from kagglehms.errors import UsageError, closest

T = TypeVar("T")

_LEAST_COLUMNS = 20
"""In fewer, tyro looks for ever for a place to break a line."""

_POSITIONAL = tyro.conf.Positional[int].__metadata__[0]  # type: ignore[attr-defined]


def parse(command: str, options: type[T], words: Sequence[str]) -> T:
    """Make `options` out of the words behind a command. `--help` prints the help and ends the process with code 0.

    Raises:
        UsageError: an option that does not exist, is missing, or has a value that cannot be.
    """
    asks_for_help = any(word in {"-h", "--help"} for word in words)
    if not asks_for_help:
        _refuse_unknown(command, options, words)
        _refuse_missing(command, options, words)
    help_text, complaint = _Page(), _Page()
    try:
        with _columns(), contextlib.redirect_stdout(help_text), contextlib.redirect_stderr(complaint):
            return tyro.cli(
                options,
                args=list(words),
                prog=f"kagglehms {command}",
                config=(
                    tyro.conf.OmitArgPrefixes,
                    tyro.conf.HelptextFromCommentsOff,
                    tyro.conf.FlagCreatePairsOff,
                ),
            )
    except SystemExit as ended:
        if not ended.code:
            print(_without_none(help_text.getvalue()), end="")
            raise
    raise UsageError(f"{_one_line(complaint.getvalue())}; `kagglehms {command} --help` explains the options")


def option_names(options: type[Any]) -> list[str]:
    """The options of a command as they are typed, such as `--batch-size`."""
    return [_typed(field) for field in dataclasses.fields(options) if not _is_positional(options, field)]


def _refuse_unknown(command: str, options: type[Any], words: Sequence[str]) -> None:
    known = [*option_names(options), "--help", "--debug", "--quiet"]
    for word in words:
        name = word.partition("=")[0].replace("_", "-")
        if re.match(r"--?[a-z]", name, flags=re.IGNORECASE) and name not in known:
            raise UsageError(f"{command} has no option {word.partition('=')[0]!r}; {closest(name, known)}")


def _refuse_missing(command: str, options: type[Any], words: Sequence[str]) -> None:
    given = {word.partition("=")[0].replace("_", "-") for word in words}
    for field in dataclasses.fields(options):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and not _is_positional(options, field) and _typed(field) not in given:
            raise UsageError(f"{command} needs {_typed(field)}: {_meaning(options, field)}")


def _meaning(options: type[Any], field: dataclasses.Field[Any]) -> str:
    """What the class's documentation says of a field, without the full stop."""
    found = re.search(rf"^ +{field.name}: ((?:.|\n(?! +\w+: ))+)", options.__doc__ or "", flags=re.MULTILINE)
    return (
        " ".join(found[1].split()).rstrip(".")
        if found
        else f"it has no default, see `{_typed(field)}` in --help"
    )


def _typed(field: dataclasses.Field[Any]) -> str:
    return f"--{field.name.replace('_', '-')}"


def _is_positional(options: type[Any], field: dataclasses.Field[Any]) -> bool:
    hint = get_type_hints(options, include_extras=True)[field.name]
    return _POSITIONAL in getattr(hint, "__metadata__", ())


class _Page(io.StringIO):
    """Where tyro prints. It draws lines where standard output, which gets the page in the end, can show them."""

    def __init__(self) -> None:
        super().__init__()
        self._encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # an attribute that can be written, there
        return self._encoding


@contextlib.contextmanager
def _columns() -> Iterator[None]:
    """Let nobody believe that the terminal is narrower than a help text can be made."""
    before = os.environ.get("COLUMNS")
    if shutil.get_terminal_size().columns < _LEAST_COLUMNS:
        os.environ["COLUMNS"] = str(_LEAST_COLUMNS)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("COLUMNS", None)
        else:
            os.environ["COLUMNS"] = before


def _without_none(text: str) -> str:
    """Take out of a help text what says that an option without a value has none; nothing else moves."""
    spaces = {"(default: None)": "", "(default: )": "", "{None}|": "", "{None,": "{"}
    for found, instead in spaces.items():
        ending = r"(\S*)" if found.startswith("{") else "()"
        pattern = re.escape(found) + ending
        text = re.sub(pattern, lambda m, i=instead, f=found: i + m[1] + " " * (len(f) - len(i)), text)  # type: ignore[misc]
    broken = r"\(default:(\s*[│|]?\n[│|]?\s*)None\)"
    text = re.sub(broken, lambda m: " " * 9 + m[1] + " " * 5, text)
    return "".join(line for line in text.splitlines(keepends=True) if not line.strip() or line.strip(" │|\n"))


def _one_line(box: str) -> str:
    """What stands in tyro's box between its first two rules, which are lines or, in an ASCII terminal, dashes."""
    lines = [line.strip(" │|") for line in box.splitlines()]
    rules = [i for i, line in enumerate(lines) if re.search(r"[─-]{8}", line)]
    begin, end = (*rules, len(lines), len(lines))[:2]
    text = " ".join(line for line in lines[begin + 1 : end] if line)
    return re.sub(r" ?\(required\)", "", text).rstrip(".") or "the options cannot be understood"
