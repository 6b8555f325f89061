"""Judge many recordings one after the other: results in one folder, resumed, and no bad file ends the run."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kagglehms import __version__
from kagglehms.console import say
from kagglehms.errors import EXIT_FAILURE, EXIT_OK, EXIT_USER, DataError, HMSError, RunError, not_installed
from kagglehms.files import sweep_partials, write_bytes
from kagglehms.progress import progress
from kagglehms.recordings.channels import Montage
from kagglehms.recordings.events import check_threshold, dataset_description, sidecar, to_edf, to_tsv
from kagglehms.recordings.prediction import Judge, Options, electrodes_of, predict_recording
from kagglehms.recordings.reading import files_of
from kagglehms.recordings.results import RecordingPrediction
from kagglehms.recordings.sliding import check_every
from kagglehms.recordings.stored import Span
from kagglehms.strict_json import JSONError, parse_object

SUMMARY = "_summary.json"
ENDINGS = ("_windows.csv", "_windows.parquet", "_events.tsv", "_events.json", "_annotations.edf", SUMMARY)
"""Endings of the results of each recording; the summary is written last, so it marks a complete set."""
_BIDS = re.compile(r"(sub-[0-9A-Za-z]+)(?:_(ses-[0-9A-Za-z]+))?(?:_[a-z]+-[0-9A-Za-z]+)*_eeg\.")
"""Name of a recording in a BIDS dataset: subject, session, further entities."""
_NOT_OF_BIDS = "*_windows.*\n*_summary.json\n*_annotations.edf\n*_timeline*.html\n"
TIMELINE = "_timeline.html"
"""Ending of the page of a recording, which is written if somebody draws it."""
_STRETCH_PAGE = re.compile(r"_timeline_[\d.]+-[\d.]+\.html")
"""Ending of the page of a stretch."""
_JUDGING = 2
"""Raised whenever a recording is read or judged otherwise, so that results of before are not taken for today's."""
Told = Callable[[Path, Montage], object]


@dataclass(frozen=True)
class Pages:
    """The pages that are written of every recording.

    Attributes:
        draw: function that returns the page of a prediction, with the signal of the stretch given, or with as much
            signal as fits if that is None.
        stretches: stretches that get pages of their own, by the names of these in their files.
    """

    draw: Callable[[RecordingPrediction, Span | None], str]
    stretches: Mapping[str, Span] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """A recording that was judged.

    Attributes:
        path: file of the recording.
        written: files of its results.
        summary: content of its summary.
        reused: whether an earlier run had judged it.
    """

    path: Path
    written: tuple[Path, ...]
    summary: dict[str, Any]
    reused: bool


@dataclass(frozen=True)
class Failed:
    """A recording that could not be judged.

    Attributes:
        path: file of the recording.
        reason: explanation in one line.
        exit_code: exit code of a command that fails for this reason.
    """

    path: Path
    reason: str
    exit_code: int


@dataclass(frozen=True)
class Outcome:
    """The results of a run, and its failures."""

    done: list[Done] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 for success, 2 if files cannot be used, 1 if something else failed."""
        codes = {failure.exit_code for failure in self.failed}
        if not codes:
            return EXIT_OK
        return EXIT_USER if codes == {EXIT_USER} else EXIT_FAILURE

    def as_json(self) -> dict[str, Any]:
        """Return the outcome for programs."""
        done = [
            {"file": str(d.path), "reused": d.reused, "written": [str(p) for p in d.written], **d.summary}
            for d in self.done
        ]
        return {"done": done, "failed": [{"file": str(f.path), "reason": f.reason} for f in self.failed]}


def predict_files(
    judge: Judge,
    paths: Sequence[Path],
    out: Path,
    options: Options,
    threshold: float = 0.5,
    digest: str = "",
    told: Told | None = None,
    pages: Pages | None = None,
) -> Outcome:
    """Judge recordings one after the other.

    Every result is written completely or not at all. A recording that an earlier run judged with the same bundle and
    options is not judged again; one that cannot be used is listed with the reason, and the run continues.

    Args:
        judge: judge of windows, such as the predictor of a bundle.
        paths: files of the recordings, which are only read.
        out: folder of the results.
        options: options for every recording.
        threshold: least probability of an event.
        digest: digest of the bundle.
        told: function that is called with the mapping of each recording's channels.
        pages: pages to write of each recording; None writes none.

    Raises:
        UsageError: the step of the windows or the threshold is out of range.
        RunError: results cannot be written, as on a full disk; those finished earlier are kept.
    """
    check_every(options.every_s)
    check_threshold(threshold)
    outcome = Outcome()
    write_bytes(out / "dataset_description.json", _json(dataset_description(__version__)))
    stems = output_stems(paths)
    if any("/" in stem for stem in stems):
        write_bytes(out / ".bidsignore", _NOT_OF_BIDS.encode())
    for folder in {out, *((out / stem).parent for stem in stems)}:
        sweep_partials(folder)
    inputs = {os.path.realpath(path) for path in paths}
    for number, (path, stem) in enumerate(zip(paths, stems, strict=True), start=1):
        if len(paths) > 1:
            say(f"[{number}/{len(paths)}] {path}")
        try:
            _refuse_overwriting(path, out / stem, inputs)
            outcome.done.append(_one(judge, path, out / stem, options, threshold, digest, told, pages))
        except (BrokenPipeError, RunError):  # whoever read the output has gone, or no result can be kept
            raise
        except HMSError as error:
            outcome.failed.append(Failed(path, _reason(path, str(error)), error.exit_code))
        except ModuleNotFoundError as error:
            outcome.failed.append(Failed(path, not_installed(error) or str(error), EXIT_FAILURE))
        except Exception as error:  # files can be broken in unforeseen ways
            outcome.failed.append(Failed(path, f"{type(error).__name__}: {error}", EXIT_FAILURE))
        if len(paths) > 1 and outcome.failed and outcome.failed[-1].path == path:
            say(f"  cannot be used: {outcome.failed[-1].reason}")
    return outcome


def _reason(path: Path, message: str) -> str:
    return message.removeprefix(f"{path}: ")


def _refuse_overwriting(path: Path, stem: Path, inputs: Collection[str]) -> None:
    for target in (stem.with_name(stem.name + ending) for ending in ENDINGS):
        if os.path.realpath(target) in inputs:
            raise DataError(path, f"its results would overwrite the recording {target}", "give another --out")


def _one(
    judge: Judge,
    path: Path,
    stem: Path,
    options: Options,
    threshold: float,
    digest: str,
    told: Told | None,
    pages: Pages | None,
) -> Done:
    written = tuple(stem.with_name(stem.name + ending) for ending in ENDINGS)
    made_from = _made_from(path, options, threshold, digest)
    summary = _earlier(written, made_from)
    reused, prediction = summary is not None, None
    if summary is None:
        written[-1].unlink(missing_ok=True)
        for page in _pages_there(stem):
            page.unlink(missing_ok=True)
        prediction = predict_recording(
            judge,
            path,
            options,
            watch=lambda items, n: progress(items, n, path.name),
            told=None if told is None else lambda montage: told(path, montage),
        )
        summary = {"made_from": made_from, **prediction.summary(threshold)}
        for target, content in zip(written, _contents(prediction, threshold, summary), strict=True):
            write_bytes(target, content)
    else:
        say(f"{path}: judged by an earlier run, see {written[-1]}")
    wanted = _wanted(path, pages, stem, summary["duration_s"])
    if wanted and pages is not None:
        found = prediction or _again(judge, path, options, written, summary)
        for target, stretch in wanted.items():
            write_bytes(target, pages.draw(found, stretch).encode())
    shown = (_page_of(stem),) if pages is not None else ()
    return Done(path, tuple(dict.fromkeys((*written, *shown, *wanted))), summary, reused)


def _page_of(stem: Path, stretch: str = "") -> Path:
    return stem.with_name(stem.name + (f"_timeline_{stretch}.html" if stretch else TIMELINE))


def _pages_there(stem: Path) -> list[Path]:
    """The pages that earlier runs wrote of a recording."""
    if not stem.parent.is_dir():
        return []
    names = [path.name for path in stem.parent.iterdir() if path.name.startswith(stem.name)]
    endings = [name.removeprefix(stem.name) for name in names]
    return [stem.with_name(stem.name + e) for e in endings if e == TIMELINE or _STRETCH_PAGE.fullmatch(e)]


def _wanted(path: Path, pages: Pages | None, stem: Path, duration_s: float) -> dict[Path, Span | None]:
    """The pages to draw: those of stretches in any case, that of the whole recording unless it exists."""
    if pages is None:
        return {}
    stretches: dict[Path, Span | None] = {}
    for name, stretch in pages.stretches.items():
        if stretch[0] < duration_s:
            stretches[_page_of(stem, name)] = stretch
        else:
            say(
                f"{path}: ends after {duration_s:.0f} s, before the stretch {name} begins, which gets no page"
            )
    return stretches if _page_of(stem).is_file() else {_page_of(stem): None, **stretches}


def _again(
    judge: Judge, path: Path, options: Options, written: Sequence[Path], summary: Mapping[str, Any]
) -> RecordingPrediction:
    """The prediction of an earlier run, read from its results."""
    import polars as pl

    content = written[ENDINGS.index("_windows.parquet")].read_bytes()
    table = pl.read_parquet(io.BytesIO(content))  # given a path, polars takes [ ] * ? in it for a pattern
    return RecordingPrediction.of(str(path), table, summary, electrodes_of(judge, path, options))


def _contents(
    prediction: RecordingPrediction, threshold: float, summary: Mapping[str, Any]
) -> Iterable[bytes]:
    """The files of a recording, in the order of `ENDINGS`."""
    frame = prediction.to_polars()
    yield frame.write_csv(float_precision=6).encode()
    parquet = io.BytesIO()
    frame.write_parquet(parquet)
    yield parquet.getvalue()
    events = prediction.events(threshold)
    yield to_tsv(events)
    yield _json(sidecar(threshold))
    yield to_edf(events)
    yield _json(summary)


def _made_from(path: Path, options: Options, threshold: float, digest: str) -> dict[str, Any]:
    """Everything that a result depends on; a file's size and time stand for its content, which takes long to read."""
    known_by = "\n".join(_state(part, "" if part == path else f"{part.name} ") for part in files_of(path))
    return {
        "file": path.name.encode(errors="replace").decode(),  # a name need not be text, and JSON has to be
        "state": hashlib.sha256(known_by.encode()).hexdigest()[:16],
        "bundle": digest,
        "version": __version__,
        "judging": _JUDGING,
        "options": {**asdict(options), "rename": dict(options.rename or {})},
        "event_threshold": threshold,
    }


def _state(path: Path, name: str) -> str:
    try:
        state = path.stat()
    except (OSError, ValueError):  # a header can name what no file can be called
        return ""
    return f"{name}{state.st_size} {state.st_mtime_ns}"


def _earlier(written: Sequence[Path], made_from: Mapping[str, Any]) -> dict[str, Any] | None:
    """The summary of an earlier run of the same file, bundle and options, if all its results exist."""
    if not all(path.is_file() for path in written):
        return None
    try:
        summary = parse_object(written[-1].read_bytes())
    except (OSError, JSONError):
        return None
    return summary if summary.get("made_from") == made_from else None


def output_stems(paths: Sequence[Path]) -> list[str]:
    """Name the results of each recording after its file, with enough of its folders to make the names unique.

    Args:
        paths: different files.

    Returns:
        Names without endings, and without the suffix `_eeg` of BIDS, which `_events` replaces; files of a BIDS dataset
        keep their folders below it, such as `sub-01/eeg/sub-01_task-rest`, as its derivatives do.
    """
    stems = [_stem(path) for path in paths]
    folders = [Path(os.path.realpath(path)).parent.parts[1:] for path in paths]  # links may lead in a circle
    for depth in range(max((len(parts) for parts in folders), default=0) + 1):
        counts = Counter(stem.casefold() for stem in stems)  # on some disks X is x
        for i, path in enumerate(paths):
            if counts[stems[i].casefold()] > 1:
                stems[i] = "_".join([*folders[i][len(folders[i]) - depth :], path.name.replace(".", "_")])
    return [
        _placed(path, stem) if stem == _stem(path) else stem for path, stem in zip(paths, stems, strict=True)
    ]


def _placed(path: Path, stem: str) -> str:
    """The stem below the folders that BIDS prescribes, for a file that is in them itself."""
    named = _BIDS.match(path.name)
    folders = [part for part in (named[1], named[2], "eeg") if part] if named else []
    inside = [*Path(os.path.realpath(path)).parent.parts[-len(folders) :]] == folders
    return "/".join([*folders, stem]) if inside else stem


def _stem(path: Path) -> str:
    name = path.name.removesuffix(".gz")
    return name.rpartition(".")[0].removesuffix("_eeg") or name


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
