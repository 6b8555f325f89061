"""The commands of this room: their options, and what they print."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

from kagglehms.errors import EXIT_OK


@dataclass(frozen=True)
class Report:
    """Write all runs of a folder on one page: ladder, learning curves, where the score comes from, confusion,
    calibration, blends, the hardest records with their EEG, provenance. It opens in any browser and fetches nothing.

    Attributes:
        runs: the folder of all runs, finished or not.
        store: decoded recordings, for the EEG of the hardest records; without it they are listed without.
        out: the page to write.
        recipe: the run to look at closely (default: the best).
        hardest: how many of its hardest records to show.
        json: print what was written as JSON.
    """

    runs: tyro.conf.Positional[Path] = Path("runs")
    store: Path = Path("store")
    out: Path = Path("report.html")
    recipe: str | None = None
    hardest: int = 6
    json: bool = False


def report(options: Report) -> int:
    from kagglehms.report.page import write_report
    from kagglehms.runtime import say

    written = write_report(
        options.runs, options.out, options.store, options.recipe, options.hardest, _progress("report")
    )
    if options.json:
        return print_json(asdict(written))
    say(f"{written.n_runs} run(s) in {written.path}; open it in a browser")
    if written.problems:
        say(f"{len(written.problems)} file(s) could not be read; the page lists them")
    return EXIT_OK


def print_json(content: Any) -> int:
    """Print what a program is to read, whatever `--quiet` says."""
    json.dump(content, sys.stdout, indent=1, default=str)
    print(flush=True)
    return EXIT_OK


def _progress(what: str) -> Callable[[Iterable[Any], int], Iterable[Any]]:
    from kagglehms.runtime import progress

    return lambda items, total: progress(items, total, what)


COMMANDS: dict[str, tuple[str, type[Any], Callable[[Any], int]]] = {
    "report": ("all runs on one page, for a browser", Report, report),
}
