"""Parse the words after a command into dataclasses of options, with argparse.

A field of such a dataclass is an option. Its name is the flag (`time_limit` → `--time-limit`), its type decides what
is accepted, and its entry under `Attributes:` is the help. `metadata={"positional": True}` makes it an argument without
a flag, and `metadata={"metavar": "K"}` names its value in the help. Adding an option takes no more than a field.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import shutil
import textwrap
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from kagglehms.errors import UsageError, nearest
from kagglehms.timing import Duration, seconds_of

_MOST_COLUMNS = 100
_LEAST_COLUMNS = 20


@dataclasses.dataclass(frozen=True)
class General:
    """The options that every command has.

    Attributes:
        json: print the result as JSON on standard output, and everything else on standard error.
        quiet: print no progress.
        debug: show the traceback of an error.
        help: show this page.
    """

    json: bool = False
    quiet: bool = False
    debug: bool = False
    help: bool = False


def parse(command: str, classes: Sequence[type[Any]], words: Sequence[str]) -> list[Any]:
    """Parse the words after a command.

    Args:
        command: name of the command, for messages.
        classes: dataclasses of options, no two of which share the name of a field.
        words: words of the command line after the command.

    Returns:
        One instance of each class.

    Raises:
        UsageError: an option is unknown, missing or has a value that it cannot have.
    """
    hint = f"(see `kagglehms help {command}`)"
    try:
        given, unknown = _parser(command, classes).parse_known_intermixed_args(list(words))
    except argparse.ArgumentError as error:
        raise UsageError(f"{error.argument_name}: {error.message} {hint}") from None
    if unknown:
        raise UsageError(f"{_unknown_word(command, classes, unknown)} {hint}")
    instances = []
    for options in classes:
        fields = dataclasses.fields(options)
        values = {f.name: value for f in fields if (value := getattr(given, f.name, None)) is not None}
        for field in fields:
            if field.name not in values and _is_required(field):
                meaning = _entries(options)[field.name].rstrip(".")
                raise UsageError(f"{command} needs {_spelling(options, field)}: {meaning} {hint}")
        instances.append(
            options(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})
        )
    return instances


def help_page(command: str, options: type[Any]) -> str:
    """Return the help of a command: usage, what it does, and each option with its default."""
    return _parser(command, (options, General), for_help=True).format_help()


def flags(*classes: type[Any]) -> list[str]:
    """Return the options of some classes as they are typed, such as `--batch-size`, without positional arguments."""
    return [
        _flag(field) for options in classes for field in dataclasses.fields(options) if not _positional(field)
    ]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def _parser(command: str, classes: Sequence[type[Any]], for_help: bool = False) -> _Parser:
    """Return a parser for which nothing is required and nothing has a default: the dataclasses decide on both.

    Args:
        command: name of the command.
        classes: dataclasses of options.
        for_help: show as required what is.
    """
    width = min(max(shutil.get_terminal_size().columns, _LEAST_COLUMNS), _MOST_COLUMNS) - 2
    parser = _Parser(
        prog=f"kagglehms {command}",
        description=_description(classes[0], width),
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
            prog, max_help_position=26, width=width
        ),
        argument_default=argparse.SUPPRESS,
        add_help=False,
        allow_abbrev=False,
        exit_on_error=False,
    )
    options_group = parser.add_argument_group("options")
    for options in classes:
        group = parser.add_argument_group("options of every command") if options is General else options_group
        entries, hints = _entries(options), get_type_hints(options)
        own = inspect.get_annotations(options)
        for field in sorted(dataclasses.fields(options), key=lambda field: field.name not in own):
            target = parser if _positional(field) else group
            _add(target, field, _kind(hints[field.name]), entries[field.name], for_help)
    return parser


def _add(
    group: argparse._ActionsContainer, field: dataclasses.Field[Any], kind: _Kind, entry: str, for_help: bool
) -> None:
    text = (entry.rstrip(".") + _default(field, entry)).replace("%", "%%")
    metavar = field.metadata.get("metavar", kind.metavar)
    required = for_help and _is_required(field)
    if kind.is_flag:
        names = ("-h", "--help") if field.name == "help" else (_flag(field),)
        group.add_argument(*names, action="store_true", help=text)
    elif kind.is_many:
        none_will_do = field.default is None or (_positional(field) and not required)
        names = (field.name,) if _positional(field) else (_flag(field),)
        group.add_argument(
            *names,
            type=kind.convert,
            nargs="*" if none_will_do else "+",
            action="extend",
            metavar=metavar,
            help=text,
        )
    elif _positional(field):
        nargs = None if required else "?"
        # argparse would convert the default SUPPRESS as if it had been typed
        group.add_argument(
            field.name, type=kind.convert, nargs=nargs, default=None, metavar=metavar, help=text
        )
    else:
        group.add_argument(_flag(field), type=kind.convert, required=required, metavar=metavar, help=text)


@dataclasses.dataclass(frozen=True)
class _Kind:
    """How words become the value of a field.

    Attributes:
        convert: function that turns one word into a value, or raises `argparse.ArgumentTypeError`.
        metavar: stands for the value in the help.
        is_many: whether the field takes several values, as a tuple.
        is_flag: whether the field takes no value.
    """

    convert: Callable[[str], Any]
    metavar: str
    is_many: bool = False
    is_flag: bool = False


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def _duration(text: str) -> Duration:
    try:
        seconds_of(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return Duration(text)


def _choice(choices: Sequence[str], text: str) -> str:
    if text in choices:
        return text
    near = nearest(text, choices)
    meant = f"; did you mean {near!r}?" if near else ""
    raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(choices)}{meant}")


def _any_of(kinds: Sequence[_Kind], text: str) -> Any:
    reasons = []
    for kind in kinds:
        try:
            return kind.convert(text)
        except argparse.ArgumentTypeError as error:
            reasons.append(str(error).removeprefix(f"{text!r} is "))
    raise argparse.ArgumentTypeError(f"{text!r} is {' and '.join(reasons)}")


_KINDS = {
    bool: _Kind(bool, "", is_flag=True),
    int: _Kind(_whole_number, "N"),
    float: _Kind(_number, "X"),
    str: _Kind(str, "NAME"),
    Path: _Kind(Path, "PATH"),
    Duration: _Kind(_duration, "DURATION"),
}


def _kind(hint: Any) -> _Kind:
    parts = [part for part in get_args(hint) if part is not NoneType]
    if get_origin(hint) is tuple:
        return dataclasses.replace(_kind(parts[0]), is_many=True)
    if get_origin(hint) is Literal:
        return _Kind(partial(_choice, parts), f"{{{','.join(parts)}}}")
    if get_origin(hint) in (Union, UnionType):
        kinds = [_kind(part) for part in parts]
        one_of = _Kind(partial(_any_of, kinds), "|".join(kind.metavar for kind in kinds))
        return kinds[0] if len(kinds) == 1 else one_of
    return _KINDS[hint]


def _unknown_word(command: str, classes: Sequence[type[Any]], unknown: Sequence[str]) -> str:
    """Say which word was not understood, and which option was probably meant."""
    word = next((word for word in unknown if word.startswith("-")), unknown[0]).partition("=")[0]
    if not word.startswith("-"):
        meant = _option_for(word, classes)
        return f"{command} does not take {word!r}" + (f"; did you mean '{meant} {word}'?" if meant else "")
    known = [flag.removeprefix("--") for flag in flags(*classes)]
    near = nearest(word.lstrip("-").replace("_", "-"), known)
    return f"{command} has no option {word!r}" + (f"; did you mean '--{near}'?" if near else "")


def _option_for(word: str, classes: Sequence[type[Any]]) -> str | None:
    """The option whose value a stray word probably is: of its name, the one that is required, or for folders --data."""
    fields = [field for options in classes for field in dataclasses.fields(options)]
    required = [_flag(field) for field in fields if _is_required(field) and not _positional(field)]
    folder = ["--data"] if Path(word).is_dir() else []
    likely = [f"--{word}", *required, *folder]
    return next((flag for flag in likely if flag in flags(*classes)), None)


def _flag(field: dataclasses.Field[Any]) -> str:
    return f"--{field.name.replace('_', '-')}"


def _positional(field: dataclasses.Field[Any]) -> bool:
    return bool(field.metadata.get("positional", False))


def _spelling(options: type[Any], field: dataclasses.Field[Any]) -> str:
    if not _positional(field):
        return _flag(field)
    return str(field.metadata.get("metavar", _kind(get_type_hints(options)[field.name]).metavar))


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _default(field: dataclasses.Field[Any], entry: str) -> str:
    """Return the default for the help, unless it says nothing or the entry explains it."""
    if _is_required(field) or field.default in (None, False, ()) or "(default" in entry:
        return ""
    value = " ".join(field.default) if isinstance(field.default, tuple) else field.default
    return f" (default: {value})"


def _description(options: type[Any], width: int) -> str:
    text = inspect.cleandoc(options.__doc__ or "").partition("Attributes:")[0].strip()
    return "\n\n".join(textwrap.fill(paragraph, width) for paragraph in text.split("\n\n"))


def _entries(options: type[Any]) -> dict[str, str]:
    """Return what the docstrings of a class and of its bases say of each field, each on one line."""
    return dict(entry for base in reversed(options.__mro__) for entry in _entries_of(base.__doc__ or ""))


def _entries_of(docstring: str) -> Iterator[tuple[str, str]]:
    section = inspect.cleandoc(docstring).partition("Attributes:\n")[2].partition("\n\n")[0]
    for entry in re.split(r"\n(?=    \w)", f"\n{section}"):
        name, _, text = entry.partition(":")
        if text:
            yield name.strip(), " ".join(text.split())
