"""Run a built kernel as Kaggle would, before it costs a push: without network, with everything in Kaggle's places.

Isolation is as real as the machine allows, and the report says which it was:

- `namespaces` (Linux): `/kaggle` is really `/kaggle`, everything but `/kaggle/working`, `/tmp` and `/dev/shm` is
  read-only, there is no network at all, and the library installed here cannot be seen. See `launcher.py`.
- `guard` (anywhere else): the kernel finds a folder instead of `/kaggle` through an environment variable, and
  Python sockets to other machines are refused. Inputs are links, and nothing stops native code. See `guard.py`.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from kagglehms.console import quiet, show
from kagglehms.data.competition import Competition
from kagglehms.errors import EXIT_FAILURE, EXIT_OK, HMSError, RunError
from kagglehms.files import write_bytes
from kagglehms.kernel.marker import MARKER, Marker
from kagglehms.kernel.mounts import Layout
from kagglehms.kernel.prior import read_rows
from kagglehms.kernel.protocol import TIME_LIMIT_S
from kagglehms.kernel.submission import SUBMISSION, read_submission
from kagglehms.rehearsal import launcher
from kagglehms.rehearsal.hidden_test_set import HIDDEN_ROWS, make_hidden
from kagglehms.rehearsal.launcher import Spec
from kagglehms.rehearsal.machine import WITNESS, Budget, Isolation, StagedKernel, lay_out, read_kernel
from kagglehms.strict_json import parse

LOG = "rehearsal.log"
SESSION_S = 9 * 3600.0
"""The competition's limit for a run."""
FEWEST_ROWS = 20
"""With fewer rows, start-up hides what a row takes."""

_OUTPUTS = (SUBMISSION, MARKER)
_GRACE_S = 10.0


@dataclass(frozen=True)
class RehearsalReport:
    """What a rehearsal found.

    Attributes:
        kernel: its name.
        layout: in which the inputs were mounted.
        isolation: how the kernel was kept from the rest of the machine.
        isolation_note: why it was not better isolated; empty if it was.
        kernel_exit_code: of the kernel; negative if a signal ended it.
        seconds: from its start to its end.
        peak_memory_bytes: largest resident size of its processes together.
        library: from where the kernel imported `kagglehms`, as it saw it; None if it did not.
        peak_disk_bytes: that /kaggle/working took.
        projection: of the time on the full hidden test set, in words; empty for a kernel that is no scored run.
        submission: the file it made, copied out; None if there is none.
        output: folder of everything that a kernel put out which is no scored run; None for a scored run.
        log: everything it printed.
        problems: what would have gone wrong on Kaggle; empty if nothing.
    """

    kernel: str
    layout: Layout
    isolation: Isolation
    isolation_note: str
    kernel_exit_code: int
    seconds: float
    peak_memory_bytes: int
    peak_disk_bytes: int
    projection: str
    library: str | None
    submission: Path | None
    output: Path | None
    log: Path
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def exit_code(self) -> int:
        """For a command that ends in this report."""
        return EXIT_OK if self.ok else EXIT_FAILURE

    @property
    def sentence(self) -> str:
        """The report in one line."""
        note = f" ({self.isolation_note})" if self.isolation_note else ""
        how = (
            f"{self.seconds:.1f} s, peak memory {self.peak_memory_bytes / 2**20:,.0f} MiB, "
            f"{self.peak_disk_bytes / 2**20:,.0f} MiB in /kaggle/working, mounts as {self.layout!r}, "
            f"isolated by {self.isolation}{note}; its output is in {self.log}"
        )
        if self.projection:
            how += f"; {self.projection}"
        if self.ok:
            made = self.submission or self.output
            return f"kernel {self.kernel} made {made} with the bundle's own library: {how}"
        left = f"; what it left is in {self.output}" if self.output else ""
        return f"kernel {self.kernel} FAILED: {'; '.join(self.problems)}: {how}{left}"


def rehearse(
    kernel: str,
    dist: Path,
    competition: Path,
    out: Path,
    layout: Layout = "owner",
    budget: Budget | None = None,
    isolation: Isolation | None = None,
    hidden_rows: int | None = None,
    hidden_from: Path | None = None,
) -> RehearsalReport:
    """Run the built kernel in a child process, its output passed on while it runs.

    Args:
        kernel: name of a folder of `dist/kernels`: `infer`, `train`, `prepare`.
        dist: what build.py made.
        competition: the competition's folder.
        out: where `submission.csv`, `scored-run.json` and `rehearsal.log` go, and, in a folder of the kernel's name,
            all output of a kernel that is no scored run. The output that lies there from before is mounted where a
            kernel asks for it, as the next session on Kaggle would find it. A session that fails leaves its output
            in `<kernel>.failed` beside it.
        layout: of the mounts.
        budget: of time and disk; None for those of a session.
        isolation: None takes the best that the machine allows.
        hidden_rows: swap the test set for one of so many rows, see `hidden.make_hidden`.
        hidden_from: a competition folder whose test recordings they are; None simulates some.

    Raises:
        UsageError: no such kernel.
        DataError: no competition there, or no output of a kernel that this one reads.
        RunError: a bundle that does not fit the kernel, isolation asked for that cannot be had, a disk that is full, or
            a system on which kernels cannot be rehearsed, such as Windows.
    """
    if missing := launcher.lacking():
        raise RunError(
            f"a rehearsal starts, measures and ends a kernel by {missing}, which Python lacks on {platform.system()}; "
            "rehearse on Linux or macOS, or in the Windows Subsystem for Linux"
        )
    budget = budget or Budget()
    if hidden_from is not None and hidden_rows is None:
        hidden_rows = len(read_rows(Competition(hidden_from)))
    read_kernel(kernel, dist, competition, layout, out)  # what cannot be is refused before anything is made
    out.mkdir(parents=True, exist_ok=True)
    for name in _OUTPUTS:
        (out / name).unlink(missing_ok=True)
    with _stage(out) as place:
        hidden = None
        if hidden_rows is not None:
            hidden = make_hidden(place / "hidden", hidden_rows, hidden_from).root
            if (competition / "train.csv").is_file():
                shutil.copyfile(competition / "train.csv", hidden / "train.csv")
        built = read_kernel(kernel, dist, competition, layout, out, hidden)
        return _rehearse(built, place, out, layout, budget, isolation)


@contextlib.contextmanager
def _stage(out: Path) -> Iterator[Path]:
    """A temporary folder for the machine of a rehearsal.

    Raises:
        RunError: there can be none, or it or `out` cannot be written, as on a full disk.
    """
    folder = "the folder for temporary files"
    try:
        with tempfile.TemporaryDirectory(prefix="kagglehms-rehearsal-", ignore_cleanup_errors=True) as folder:
            yield Path(folder).resolve()
    except BrokenPipeError:  # whoever reads the output has gone
        raise
    except OSError as error:
        where = error.filename or f"{folder} or {out}"
        raise RunError(
            f"{where}: cannot be written ({error.strerror or error}); free space, or name folders on another disk: "
            "--out, and TMPDIR for temporary files"
        ) from error


def _rehearse(
    kernel: StagedKernel,
    place: Path,
    out: Path,
    layout: Layout,
    budget: Budget,
    isolation: Isolation | None,
) -> RehearsalReport:
    note = ""
    for kind in get_args(Isolation) if isolation is None else (isolation,):
        stage = place / kind
        timeout_s = SESSION_S if budget.time_s is None else budget.time_s
        outcome = _launch(lay_out(stage, kernel, kind, budget, timeout_s), stage, out / LOG)
        if "unavailable" in outcome:
            note = f"namespaces are not available: {outcome['unavailable']}"
            continue
        return _report(kernel, layout, kind, note, outcome, stage, out)
    raise RunError(f"{note}; rehearse without asking for them")


def _launch(spec: Spec, stage: Path, log: Path) -> dict[str, Any]:
    """Run `spec`, pass its output on to `log` and, unless quiet, to the terminal, and return the launcher's report."""
    path = stage / "spec.json"
    path.write_text(spec.to_json(), encoding="utf-8")
    command = [sys.executable, "-I", "-S", launcher.__file__, str(path)]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    try:
        assert child.stdout is not None
        with child.stdout as pipe, log.open("wb") as file:
            while chunk := os.read(pipe.fileno(), 1 << 16):
                file.write(chunk)
                file.flush()
                if not quiet():
                    show(decoder.decode(chunk))
        child.wait()
    finally:
        _end(child)
    if child.returncode == launcher.EXIT_UNWRITTEN:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(stage))
    try:
        report: dict[str, Any] = json.loads(Path(spec.report).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(
            f"the rehearsal ended without a report (exit code {child.returncode}); see {log}"
        ) from error
    return report


def _end(child: subprocess.Popen[bytes]) -> None:
    """Make sure that the launcher, and with it the kernel, has ended."""
    if child.poll() is None:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE_S)
    if child.poll() is None:
        child.kill()
        child.wait()


def _report(
    kernel: StagedKernel,
    layout: Layout,
    isolation: Isolation,
    note: str,
    outcome: dict[str, Any],
    stage: Path,
    out: Path,
) -> RehearsalReport:
    temporary = Path("/tmp") if isolation == "namespaces" else stage / "tmp"
    library = _witnessed(stage / "tmp" / WITNESS)
    problems = [*_ending_problems(outcome), *_library_problems(library, temporary, outcome["exit_code"])]
    submission, output, projected = out / SUBMISSION, None, ""
    if kernel.scored:
        for name in _OUTPUTS:
            if (stage / "kaggle/working" / name).is_file():
                write_bytes(out / name, (stage / "kaggle/working" / name).read_bytes())
        problems += _submission_problems(submission, kernel.competition)
        projected = projection(Marker.read(out))
    else:
        if not any((stage / "kaggle/working").iterdir()):
            problems.append("there is nothing in /kaggle/working")
        output = _keep(stage / "kaggle/working", out / kernel.name, not problems)
    return RehearsalReport(
        kernel=kernel.name,
        layout=layout,
        isolation=isolation,
        isolation_note=note,
        kernel_exit_code=outcome["exit_code"],
        seconds=outcome["seconds"],
        peak_memory_bytes=outcome["peak_memory_bytes"],
        peak_disk_bytes=outcome["peak_disk_bytes"],
        projection=projected,
        library=library,
        submission=submission if kernel.scored and submission.exists() else None,
        output=output,
        log=out / LOG,
        problems=tuple(problems),
    )


def _keep(made: Path, place: Path, good: bool) -> Path:
    """Move what a session has put out to `place`, or beside it if it failed; return where it is.

    A session that failed does not cost the one before, from whose output the next one goes on. What stood at the place
    is deleted only once the new is there whole: a move from another disk is a copy, and may end half-way.

    Raises:
        RunError: the disk is full; what stood at the place is still there.
    """
    place = place if good else place.with_name(f"{place.name}.failed")
    arriving, retired = (place.with_name(f".{place.name}.{what}") for what in ("new", "old"))
    try:
        _put_back(retired, place)  # where an earlier call was killed between its two renames
        for stale in (arriving, retired):
            shutil.rmtree(stale, ignore_errors=True)
        shutil.move(made, arriving)
        if place.exists():
            place.rename(retired)
        arriving.rename(place)
    except OSError as error:
        with contextlib.suppress(OSError):
            _put_back(retired, place)
        shutil.rmtree(arriving, ignore_errors=True)
        raise RunError(f"{place}: cannot be written ({error}); free space or give another --out") from error
    shutil.rmtree(retired, ignore_errors=True)
    return place


def _put_back(retired: Path, place: Path) -> None:
    """Undo a move aside that no move in has followed."""
    if retired.exists() and not place.exists():
        retired.rename(place)


def projection(marker: Marker | None) -> str:
    """Say what a scored run on the full hidden test set would take on this machine, by one on fewer rows."""
    if marker is None or not marker.steps:
        return ""
    if marker.rows < FEWEST_ROWS:
        return f"{marker.rows} row(s) say nothing about the time of {HIDDEN_ROWS:,}: try --hidden 100"
    passes_s = sum(step["seconds"] for step in marker.steps)
    whole_s = marker.seconds - passes_s + passes_s * HIDDEN_ROWS / marker.rows
    said = f"{HIDDEN_ROWS:,} rows would take {whole_s / 60:,.0f} min on this machine ({len(marker.steps)} passes)"
    if whole_s > TIME_LIMIT_S:
        said += f", more than the {TIME_LIMIT_S / 60:,.0f} min that the kernel gives itself: the last passes fall away"
    return said


def _ending_problems(outcome: dict[str, Any]) -> Iterator[str]:
    if outcome["disk_full"]:
        yield f"killed with {outcome['peak_disk_bytes'] / 1e9:.2f} GB in /kaggle/working, more than its disk"
    elif outcome["timed_out"]:
        yield f"killed after {outcome['seconds']:.0f} s, its time was up"
    elif outcome["exit_code"] != 0:
        yield f"exit code {outcome['exit_code']}"


def _library_problems(library: str | None, temporary: Path, exit_code: int) -> Iterator[str]:
    """The bundle's library can only have run from where the kernel unpacked it, and that was empty before."""
    if library is not None and not Path(library).is_relative_to(temporary):
        yield f"the library at {library} ran instead of the bundle's"
    elif library is None and exit_code == 0:
        yield "the library of the bundle was never imported"


def _submission_problems(submission: Path, competition: Path) -> Iterator[str]:
    if not submission.exists():
        yield f"there is no {SUBMISSION} in /kaggle/working"
        return
    try:
        read_submission(submission, read_rows(Competition(competition)).eeg_ids)
    except HMSError as error:
        yield str(error)
    marker = Marker.read(submission.parent)
    yield from marker.problems if marker else ()


def _witnessed(path: Path) -> str | None:
    try:
        library = parse(path.read_bytes())["library"]
    except (OSError, ValueError, KeyError):
        return None
    return library if isinstance(library, str) else None
