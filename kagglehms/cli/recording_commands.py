"""The command for people's own recordings: predict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kagglehms.cli.command import Result
from kagglehms.console import say
from kagglehms.errors import EXIT_USER, DataError, RunError, UsageError, counted
from kagglehms.timing import Duration, seconds_of

if TYPE_CHECKING:
    from kagglehms.recordings.channels import Montage
    from kagglehms.recordings.folders import Done, Outcome, Pages


_EVERY = Duration("10s")


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Predict every ten seconds of EEG recordings with the models of a bundle.

    Reads EDF, EDF+, BDF and parquet files, and all formats of MNE after `pip install 'kagglehms[mne]'`. For research
    only; not a medical device.

    Files that cannot be used are listed with the reason and do not end the run; files that an earlier run has judged
    are not judged again. The exit code is 2 if some could not be used.

    Attributes:
        files: recordings, and folders that are searched for them.
        bundle: folder that `kagglehms build` made, `dist` or its `dataset`; or `hf:owner/name`, a bundle on the hub.
        out: folder of the results: a table of windows, events, annotations, a summary and a page of each recording.
        every: time from one window to the next.
        allow_missing: use recordings that lack electrodes; their differences are then missing, not zero.
        keep_flagged: also judge windows at edges and gaps, flat ones and those of artefacts.
        threshold: least probability of a window's likeliest class that makes an event; `other` makes none.
        rename: channels whose labels are no electrode names, such as `E22=Fp1`.
        stretch: also write pages that hold all signal of these times, such as `3:20:00-3:40:00`.
        no_timeline: write no page.
        device: `cpu`, `cuda` (NVIDIA's or AMD's) or `mps` (Apple's) (default: `cuda` if it works).
    """

    files: tuple[Path, ...] = field(metadata={"positional": True, "metavar": "FILE"})
    bundle: Path
    out: Path = Path("predictions")
    every: Duration = _EVERY
    allow_missing: bool = False
    keep_flagged: bool = False
    threshold: float = 0.5
    rename: tuple[str, ...] = field(default=(), metadata={"metavar": "LABEL=ELECTRODE"})
    stretch: tuple[str, ...] = field(default=(), metadata={"metavar": "FROM-TO"})
    no_timeline: bool = False
    device: str | None = None


def predict(options: Predict) -> Result:
    """Predict people's own EEG recordings with the models of a bundle."""
    from kagglehms.bundle.manifest import MANIFEST
    from kagglehms.bundle.predictor import load_bundle
    from kagglehms.recordings.folders import predict_files
    from kagglehms.recordings.prediction import Options, rename_of
    from kagglehms.recordings.reading import find_recordings
    from kagglehms.recordings.results import WARNING

    every_s, rename = seconds_of(options.every), rename_of(options.rename)
    how = Options(every_s, options.allow_missing, options.keep_flagged, rename)
    pages = _pages(options)
    paths = find_recordings(options.files)
    inside = options.bundle / "dataset"
    predictor = load_bundle(inside if (inside / MANIFEST).is_file() else options.bundle, options.device)
    say(predictor.device.reason)
    if predictor.caveat:
        say(f"warning: {predictor.caveat}")
    digest, told = predictor.manifest.digest, _Mappings().show
    outcome = predict_files(predictor, paths, options.out, how, options.threshold, digest, told, pages)
    if len(paths) == 1 and outcome.failed:
        raise _error(outcome)
    _refuse_stretches_of_none(outcome, pages)
    lines = [line for done in outcome.done for line in _lines(done)]
    lines += [f"{failed.path}: cannot be used: {failed.reason}" for failed in outcome.failed]
    lines.append(f"{len(outcome.done)} of {counted(len(paths), 'recording')} in {options.out}; {WARNING}")
    return Result({"warning": WARNING, **outcome.as_json()}, "\n".join(lines), outcome.exit_code)


def _pages(options: Predict) -> Pages | None:
    """The pages that were asked for; a stretch asks for its own in any case."""
    from kagglehms.recordings.folders import Pages
    from kagglehms.report.timeline import stretch_of, stretch_text, timeline_page

    if options.no_timeline and options.stretch:
        raise UsageError("--stretch asks for a page, and --no-timeline for none; leave one of them out")
    stretches = {stretch_text(s).replace(":", "."): s for s in map(stretch_of, options.stretch)}
    draw = partial(timeline_page, threshold=options.threshold)
    return None if options.no_timeline else Pages(draw, stretches)


def _refuse_stretches_of_none(outcome: Outcome, pages: Pages | None) -> None:
    """Refuse stretches that begin after the end of every recording, once the results are written."""
    from kagglehms.report.timeline import clock, stretch_text

    if pages is None or not outcome.done:
        return
    longest = max(outcome.done, key=lambda done: float(done.summary["duration_s"]))
    duration_s = longest.summary["duration_s"]
    for stretch in pages.stretches.values():
        if stretch[0] >= duration_s:
            which = str(longest.path) if len(outcome.done) == 1 else f"the longest recording, {longest.path},"
            raise UsageError(
                f"{which} has no stretch {stretch_text(stretch)}; it is {clock(duration_s)} long"
            )


class _Mappings:
    """Prints how channels were understood; once for recordings in a row that have the same."""

    def __init__(self) -> None:
        self._last: tuple[str, ...] = ()

    def show(self, path: Path, montage: Montage) -> None:
        if montage.lines == self._last:
            say(f"{path}: channels as above")
            return
        self._last = montage.lines
        say("\n".join([f"{path}:", *(f"  {line}" for line in montage.lines)]))


def _lines(done: Done) -> Iterator[str]:
    """A recording's results, for a person."""
    summary: dict[str, Any] = done.summary
    flags = ", ".join(f"{n} {name}" for name, n in summary["flags"].items() if n)
    yield (
        f"{done.path}: {summary['duration_s']:.0f} s, {summary['judged']} of {summary['windows']} windows judged"
        + (f" ({flags})" if flags else "")
    )
    for note in summary["notes"]:
        yield f"  note: {note}"
    classes = list(summary["mean_probability"])
    yield "  hour  judged " + "".join(f"{name:>9}" for name in classes)
    for hour in summary["burden_per_hour"]:
        cells = "".join(f"{'–' if hour[name] is None else format(hour[name], '.3f'):>9}" for name in classes)
        yield f"  {hour['hour']:>4.0f}  {hour['judged_share']:>6.0%} {cells}"
    events = ", ".join(f"{n} {name}" for name, n in summary["events"].items() if n)
    yield f"  events: {events or _no_events(summary)}"


def _no_events(summary: dict[str, Any]) -> str:
    from kagglehms.recordings.events import seconds_text

    highest = summary.get("highest")
    if highest is None:
        return "not judged"
    return (
        f"none of at least {summary['event_threshold']:g}; the highest probability is {highest['probability']:.3f}, of "
        f"{highest['class']} at {seconds_text(highest['start_s'])} s"
    )


def _error(outcome: Outcome) -> DataError | RunError:
    """The error of the one recording that was asked for."""
    failed = outcome.failed[0]
    error = DataError(failed.path, failed.reason)
    return error if failed.exit_code == EXIT_USER else RunError(str(error))
