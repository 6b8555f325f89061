"""The commands that look at things, and the demo: report, view, doctor, demo."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kagglehms.cli.command import Result, watched
from kagglehms.cli.data_folder import data_folder
from kagglehms.console import say
from kagglehms.errors import EXIT_FAILURE, EXIT_OK, counted

if TYPE_CHECKING:
    from kagglehms.cli.doctor import Check
    from kagglehms.report.eeg_view import EegView
    from kagglehms.report.explaining import Reasons


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write all runs of a folder on one page: ladder, learning curves, where the score comes from, confusion,
    calibration, blends, the hardest records with their EEG, provenance. It opens in any browser and fetches nothing.

    Attributes:
        runs: folder of all runs, finished or not.
        store: folder of the decoded recordings, for the EEG of the hardest records; without it they are only listed.
        out: page to write.
        recipe: run to look at closely (default: the best).
        hardest: number of its hardest records to show.
        open: open the page in the browser; not with --json or --quiet, nor where there is no display.
    """

    runs: Path = Path("runs")
    store: Path = Path("store")
    out: Path = Path("report.html")
    recipe: str | None = None
    hardest: int = 6
    open: bool = False


def report(options: Report) -> Result:
    """Write all runs on one page, for a browser."""
    from kagglehms.report.page import write_report

    written = write_report(
        options.runs, options.out, options.store, options.recipe, options.hardest, watched("report")
    )
    say(f"{counted(written.n_runs, 'run')} in {written.path}; open it in a browser")
    if written.problems:
        say(f"{counted(len(written.problems), 'file')} could not be read; the page lists them")
    return Result(written, page=written.path if options.open else None)


@dataclass(frozen=True, kw_only=True)
class View:
    """Show an EEG as a neurologist expects it: double banana with the labelled seconds marked, mel images, Kaggle's
    spectrogram, votes and prediction. A PNG of one sub-window, and a page for going through the whole EEG with
    montages, filters and all labelled sub-windows.

    Attributes:
        eeg_id: id of the EEG in train.csv or test.csv.
        data: the competition's folder (default: KAGGLEHMS_DATA, or where `kagglehms doctor` finds it).
        store: folder of the decoded recordings, which are read instead of the files where it has them.
        runs: folder of all runs, for a prediction beside the votes.
        recipe: run whose prediction is shown (default: the best).
        offset: begin with the sub-window nearest to this `eeg_label_offset_seconds` (default: the first).
        out: name of the PNG or of the page, ending in .png or .html, or one without an ending for both
            (default: eeg-ID).
        explain: measure which chains and seconds mattered to the run's network, by hiding them one at a time, and find
            the training records that it finds most similar. The first time, it embeds all records of a fold.
        open: open the page in the browser, or the PNG if it alone is written; not with --json or --quiet, nor where
            there is no display.
    """

    eeg_id: int = field(metadata={"positional": True, "metavar": "EEG_ID"})
    data: Path | None = None
    store: Path = Path("store")
    runs: Path = Path("runs")
    recipe: str | None = None
    offset: float | None = None
    out: Path | None = None
    explain: bool = False
    open: bool = False


def view(options: View) -> Result:
    """Show one EEG as a neurologist expects it."""
    from kagglehms.report.eeg_view import load_view
    from kagglehms.report.viewer import write_view

    seen = load_view(options.eeg_id, data_folder(options.data), options.store, options.runs, options.recipe)
    position = seen.nearest(options.offset)
    why = _reasons(options, seen, position) if options.explain else None
    if why is not None:
        say(why.text)
    written = write_view(seen, options.offset, options.out or Path(f"eeg-{options.eeg_id}"), why)
    offsets = [window.offset_s for window in seen.windows]
    say(f"EEG {seen.eeg_id}: sub-window {position + 1} of {len(offsets)}, at {offsets[position]:g} s")
    steps = "; the page turns with ← and →, n and p step through sub-windows" if len(written) == 2 else ""
    say(f"in {' and '.join(map(str, written))}{steps}")
    return Result(
        {
            "written": written,
            "offset_s": offsets[position],
            "offsets_s": offsets,
            "prediction_of": seen.who,
            "reasons": None if why is None else why.content,
        },
        page=written[-1] if options.open else None,
    )


def _reasons(options: View, seen: EegView, position: int) -> Reasons:
    from kagglehms.device import choose_device
    from kagglehms.report.explaining import reasons

    data, window = data_folder(options.data), seen.windows[position]
    device, shown = choose_device(None), watched("embed")
    return reasons(seen, window, data, options.store, options.runs, options.recipe, device, shown)


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Say what this machine can do and why: device, versions against Kaggle's image, data and store, disk, rehearsal,
    credentials (whether they are there, never what they are). Every problem comes with what to do about it.

    The exit code is 1 if something would stop a command.

    Attributes:
        data: the competition's folder (default: the one that KAGGLEHMS_DATA names, else the first folder with
            train.csv or test.csv among hms, the competition's name, data and its subfolders of these names, the working
            folder, demo/competition and Kaggle's mounts).
        store: folder of the store, made or to be made.
    """

    data: Path | None = None
    store: Path = Path("store")


def doctor(options: Doctor) -> Result:
    """Say what this machine can do, and what to do about what it cannot."""
    from kagglehms.cli.doctor import diagnose

    checks = diagnose(options.data, options.store, watched("look"))
    stops = list(dict.fromkeys(check.name for check in checks if check.state == "stop"))
    verdict = f"mend first: {', '.join(stops)}" if stops else "nothing stops you"
    text = "\n".join([*_check_lines(checks), "", verdict])
    return Result(checks, text, EXIT_FAILURE if stops else EXIT_OK, coloured=True)


def _check_lines(checks: Sequence[Check]) -> Iterator[str]:
    from kagglehms.console import coloured, visible

    marks = {
        "ok": coloured("ok  ", "green", sys.stdout),
        "note": coloured("note", "yellow", sys.stdout),
        "stop": coloured("STOP", "red", sys.stdout),
    }
    width = max(len(check.name) for check in checks)
    for check in checks:
        yield f"{marks[check.state]}  {check.name:<{width}}  {visible(check.finding)}"
        if check.fix:
            yield f"{'':<{width + 6}}  → {visible(check.fix)}"


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Go the whole way once, on a simulated competition: data, training, bundle, offline kernel, score, report.

    The exit code is 1 if the kernel's submission is no better than the class prior.

    Attributes:
        out: folder for everything.
        seed: random seed of the simulated competition.
        eegs: number of recordings to learn from, at least 16; fewer take less time and teach less.
    """

    out: Path = Path("demo")
    seed: int = 0
    eegs: int = 240


def demo(options: Demo) -> Result:
    """Go the whole way once, on simulated data."""
    from kagglehms.cli.demo import run_demo

    outcome = run_demo(options.out, options.seed, options.eegs)
    return Result(outcome, exit_code=outcome.exit_code)
