"""The command line: `kagglehms COMMAND …`.

A command is a frozen dataclass of options and a function, which stand together in one of the `*_commands` modules; here
is the list of all, their help, and what becomes of errors. `kagglehms --help` answers at once, because everything heavy
is imported by the command that needs it.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

from kagglehms import __version__
from kagglehms.cli import parsing
from kagglehms.cli.address_space import claim_address_space
from kagglehms.cli.command import Command
from kagglehms.cli.data_commands import Prepare, Simulate, Verify, prepare, simulate, verify
from kagglehms.cli.kaggle_commands import (
    Build,
    Fetch,
    Preflight,
    Publish,
    Push,
    Rehearse,
    Status,
    build,
    fetch,
    preflight,
    publish,
    push,
    rehearse,
    status,
)
from kagglehms.cli.parsing import General
from kagglehms.cli.recording_commands import Predict, predict
from kagglehms.cli.report_commands import Demo, Doctor, Report, View, demo, doctor, report, view
from kagglehms.cli.training_commands import FitBlend, Ladder, Recipes, Train, blend, ladder, recipes, train
from kagglehms.console import be_quiet, coloured, discard_output, open_streams, visible
from kagglehms.errors import (
    EXIT_FAILURE,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_OUTPUT_CLOSED,
    EXIT_TERMINATED,
    EXIT_UNFINISHED,
    EXIT_USER,
    HMSError,
    Stopped,
    not_installed,
    one_of,
)
from kagglehms.stop_signals import Terminated, unwinding

COMMANDS: dict[str, Command] = {
    "prepare": Command(Prepare, prepare),
    "verify": Command(Verify, verify),
    "simulate": Command(Simulate, simulate),
    "recipes": Command(Recipes, recipes),
    "train": Command(Train, train),
    "ladder": Command(Ladder, ladder),
    "blend": Command(FitBlend, blend),
    "build": Command(Build, build),
    "rehearse": Command(Rehearse, rehearse),
    "preflight": Command(Preflight, preflight),
    "push": Command(Push, push),
    "status": Command(Status, status),
    "fetch": Command(Fetch, fetch),
    "publish": Command(Publish, publish),
    "predict": Command(Predict, predict),
    "report": Command(Report, report),
    "view": Command(View, view),
    "doctor": Command(Doctor, doctor),
    "demo": Command(Demo, demo),
}
"""Every command by its name, in the order in which they are used."""

_HELP = frozenset({"-h", "--help"})


def usage() -> str:
    """Return the text of `kagglehms --help`."""
    commands = "\n".join(f"  {name:<10} {command.summary}" for name, command in COMMANDS.items())
    return f"""\
kagglehms {__version__}: from EEG recordings to six vote probabilities

usage: kagglehms COMMAND [options]        kagglehms help COMMAND says more

{commands}

`kagglehms demo` shows all of it on simulated data.
every command: `--json` prints the result for programs, `--quiet` no progress, `--debug` the traceback of an error
exit codes: {EXIT_OK} done, {EXIT_FAILURE} the run failed, {EXIT_USER} unusable options or input files, \
{EXIT_UNFINISHED} the time limit came first,
            {EXIT_INTERRUPTED} interrupted, {EXIT_OUTPUT_CLOSED} the reader of the output has gone, \
{EXIT_TERMINATED} terminated or hung up;
            what was finished is kept"""


def parse(command: str, words: Sequence[str]) -> Any:
    """Parse the words after a command into its options; see `kagglehms.cli.parsing.parse`."""
    return parsing.parse(command, (COMMANDS[command].options, General), words)[0]


_PANIC = "PanicException"
"""What libraries written in Rust, such as polars, raise where they cannot go on; it is no `Exception`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        arguments: words of the command line after `kagglehms`; None takes those of this process.
    """
    open_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    words = _command_first(words)
    if words[:1] == ["help"] and len(words) > 1:
        words = [*words[1:], "--help"]
    if not words or words[0] in {*_HELP, "help"}:
        print(usage())
        return EXIT_OK if words else EXIT_USER
    if words[0] in {"-V", "--version"}:
        print(f"kagglehms {__version__}")
        return EXIT_OK
    try:
        return _run_command(words[0], words[1:])
    except BrokenPipeError:  # the command may have been in the middle of something, so this is no success
        discard_output()
        return EXIT_OUTPUT_CLOSED
    except (Exception, KeyboardInterrupt) as error:
        return _end_in_error(error, debug="--debug" in words)
    except BaseException as error:
        if type(error).__name__ != _PANIC:
            raise
        return _end_in_error(error, debug="--debug" in words)


def _command_first(words: list[str]) -> list[str]:
    """Move the options of every command behind the command, before which they may stand as well."""
    general = set(parsing.flags(General)) - _HELP
    first = next((position for position, word in enumerate(words) if word not in general), None)
    return [] if first is None else [*words[first:], *words[:first]]


def _run_command(name: str, words: Sequence[str]) -> int:
    one_of("command", name, COMMANDS)
    command = COMMANDS[name]
    if not _HELP.isdisjoint(words):
        print(parsing.help_page(name, command.options), end="", flush=True)
        return EXIT_OK
    options, general = parsing.parse(name, (command.options, General), words)
    claim_address_space()
    with _voice(general), unwinding():
        result = command.run(options)
    result.print(general.json)
    sys.stdout.flush()
    if not (general.json or general.quiet):  # a program reads the answer
        result.open_page()
    return result.exit_code


@contextlib.contextmanager
def _voice(general: General) -> Iterator[None]:
    """Print no progress, or keep standard output free for JSON, while a command runs."""
    be_quiet(general.quiet)
    try:
        with contextlib.redirect_stdout(sys.stderr) if general.json else contextlib.nullcontext():
            yield
    finally:  # a caller from Python goes on hearing things
        be_quiet(False)


def _end_in_error(error: BaseException, debug: bool) -> int:
    """Print the one line of an error and return its exit code."""
    if debug:
        traceback.print_exception(error)
    if not isinstance(error, HMSError) and (interrupt := _interrupt_behind(error)):
        error = interrupt
    message, code = _explain(error)
    stopped = isinstance(error, Stopped | Terminated)
    start = "kagglehms:" if stopped else coloured("kagglehms: error:", "red", sys.stderr)
    with contextlib.suppress(OSError, ValueError):  # the code says it too
        print(start, visible(message), file=sys.stderr)
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        discard_output()
    return code


def _interrupt_behind(error: BaseException) -> KeyboardInterrupt | None:
    """Return the Ctrl-C during whose handling this error came, as where a library is caught between two lines."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, KeyboardInterrupt):
        seen = seen.__context__
    return seen


def _explain(error: BaseException) -> tuple[str, int]:
    """Return one line for a person, and the exit code."""
    if isinstance(error, HMSError):
        return str(error), error.exit_code
    if isinstance(error, Terminated):
        return str(error), EXIT_TERMINATED
    if isinstance(error, KeyboardInterrupt):
        return (
            "interrupted; what was finished is kept, the same command continues from there",
            EXIT_INTERRUPTED,
        )
    if isinstance(error, ModuleNotFoundError) and (said := not_installed(error)):
        return said, EXIT_FAILURE
    return f"{type(error).__name__}: {error} (--debug shows where)", EXIT_FAILURE


if __name__ == "__main__":
    sys.exit(main())
