"""The commands of this room: their options, and what they print."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from kagglehms.errors import EXIT_FAILURE, EXIT_OK

if TYPE_CHECKING:
    from kagglehms.cli.doctor import Check


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
    from kagglehms.console import say
    from kagglehms.report.page import write_report

    written = write_report(
        options.runs, options.out, options.store, options.recipe, options.hardest, _progress("report")
    )
    if options.json:
        return print_json(asdict(written))
    say(f"{written.n_runs} run(s) in {written.path}; open it in a browser")
    if written.problems:
        say(f"{len(written.problems)} file(s) could not be read; the page lists them")
    return EXIT_OK


@dataclass(frozen=True)
class View:
    """Show an EEG as a neurologist expects it: double banana with the labelled seconds marked, mel images, Kaggle's
    spectrogram, votes and prediction. A PNG of one sub-window, and a page that steps through all of them.

    Attributes:
        eeg_id: as train.csv or test.csv names it.
        data: the competition's folder.
        offset: begin with the sub-window nearest to this `eeg_label_offset_seconds` (default: the first).
        store: decoded recordings, read instead of the files where it has them.
        runs: the folder of all runs, for a prediction beside the votes.
        recipe: whose prediction (default: the best run's).
        out: a name that ends in .png or .html, or one without an ending for both (default: eeg-ID).
        json: print what was written as JSON.
    """

    eeg_id: Annotated[tyro.conf.Positional[int], tyro.conf.arg(metavar="EEG_ID")]
    data: Path
    offset: float | None = None
    store: Path = Path("store")
    runs: Path = Path("runs")
    recipe: str | None = None
    out: Path | None = None
    json: bool = False


def view(options: View) -> int:
    from kagglehms.console import say
    from kagglehms.report.viewer import load_view, write_view

    seen = load_view(options.eeg_id, options.data, options.store, options.runs, options.recipe)
    position = seen.nearest(options.offset)
    out = options.out or Path(f"eeg-{options.eeg_id}")
    written = write_view(seen, options.offset, out)
    offsets = [window.offset_s for window in seen.windows]
    if options.json:
        content = {
            "written": written,
            "offset_s": offsets[position],
            "offsets_s": offsets,
            "prediction_of": seen.who,
        }
        return print_json(content)
    say(f"EEG {seen.eeg_id}: sub-window {position + 1} of {len(offsets)}, at {offsets[position]:g} s")
    say(
        f"in {' and '.join(map(str, written))}"
        + ("; the page steps with ← and →" if len(written) == 2 else "")
    )
    return EXIT_OK


@dataclass(frozen=True)
class Doctor:
    """Say what this machine can do and why: device, versions against Kaggle's image, data and store, disk, rehearsal,
    credentials (present or not, never what they are). Every problem comes with its cure.

    Ends with code 1 if something would stop you.

    Attributes:
        data: the competition's folder (default: it is looked for).
        store: where `kagglehms prepare` put or will put the store.
        json: print the findings as JSON.
    """

    data: Path | None = None
    store: Path = Path("store")
    json: bool = False


def doctor(options: Doctor) -> int:
    from kagglehms.cli.doctor import diagnose

    checks = diagnose(options.data, options.store, _progress("look"))
    stops = [check for check in checks if check.state == "stop"]
    if options.json:
        print_json([asdict(check) for check in checks])
    else:
        print("\n".join(_check_lines(checks)))
        names = ", ".join(dict.fromkeys(check.name for check in stops))
        print(f"\nto be mended first: {names}" if stops else "\nnothing stops you")
    return EXIT_FAILURE if stops else EXIT_OK


def _check_lines(checks: Sequence[Check]) -> Iterator[str]:
    from kagglehms.console import coloured

    marks = {
        "ok": coloured("ok  ", "green", sys.stdout),
        "note": coloured("note", "yellow", sys.stdout),
        "stop": coloured("STOP", "red", sys.stdout),
    }
    width = max(len(check.name) for check in checks)
    for check in checks:
        yield f"{marks[check.state]}  {check.name:<{width}}  {check.finding}"
        if check.cure:
            yield f"{'':<{width + 6}}  → {check.cure}"


def print_json(content: Any) -> int:
    """Print what a program is to read, whatever `--quiet` says."""
    json.dump(content, sys.stdout, indent=1, default=str)
    print(flush=True)
    return EXIT_OK


def _progress(what: str) -> Callable[[Iterable[Any], int], Iterable[Any]]:
    from kagglehms.progress import progress

    return lambda items, total: progress(items, total, what)


COMMANDS: dict[str, tuple[str, type[Any], Callable[[Any], int]]] = {
    "report": ("all runs on one page, for a browser", Report, report),
    "doctor": ("what this machine can do, and cures for what it cannot", Doctor, doctor),
    "view": ("one EEG as a neurologist expects it", View, view),
}
