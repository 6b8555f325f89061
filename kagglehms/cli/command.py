"""Define a command: a dataclass of options, and a function from its options to a result."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import webbrowser
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kagglehms.console import say, visible
from kagglehms.environment import leads
from kagglehms.errors import EXIT_OK


@dataclass(frozen=True)
class Result:
    """What a command ends with.

    Attributes:
        content: result for programs, which `--json` prints; paths and dataclasses may be part of it.
        text: the same for a person; empty if the command has printed everything on its way.
        exit_code: exit code of the command.
        coloured: whether the text has colours, and whatever it quotes has been made `visible`.
        page: written page or picture that was asked to be opened in a browser; None opens nothing.
    """

    content: Any = None
    text: str = ""
    exit_code: int = EXIT_OK
    coloured: bool = False
    page: Path | None = None

    def print(self, as_json: bool) -> None:
        """Print the result, as JSON or for a person.

        Raises:
            OSError: the result cannot be written, as on a full disk: a command whose answer is lost has failed.
        """
        text = self.text if self.coloured else visible(self.text)
        text = json.dumps(self.content, indent=1, allow_nan=False, default=_plain) if as_json else text
        if text and leads():
            print(text, flush=True)

    def open_page(self) -> None:
        """Open the page, if there is one, in the browser; where there is no display, say so instead."""
        if self.page is None:
            return
        # Without a display `webbrowser` would start one for terminals, which ends only when its reader leaves it.
        seen = sys.platform in {"darwin", "win32"} or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
        if not (seen and webbrowser.open(self.page.resolve().as_uri())):
            say(f"--open: no {'browser' if seen else 'display'} was found; open {self.page} yourself")


@dataclass(frozen=True)
class Command:
    """A command of `kagglehms`.

    Attributes:
        options: dataclass of its options, see `kagglehms.cli.parsing`; its docstring is the help.
        run: function that does the work; the first line of its docstring stands in the list of commands.
    """

    options: type[Any]
    run: Callable[[Any], Result]

    @property
    def summary(self) -> str:
        """One line for the list of commands."""
        return (self.run.__doc__ or "").partition("\n")[0].rstrip(".")


def watched(what: str) -> Callable[[Iterable[Any], int], Iterable[Any]]:
    """Return what wraps an iteration, given its length, to show its progress under the name `what`."""
    from kagglehms.progress import progress

    return lambda items, total: progress(items, total, what)


def _plain(value: object) -> object:
    """Turn into JSON's own types what it has no type for."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")
