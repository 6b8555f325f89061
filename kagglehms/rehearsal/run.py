"""Runs a built kernel as Kaggle would, before it costs a push: without network, with everything in Kaggle's places.

The isolation is as good as the machine allows, and the report says which one it was:

- `namespaces` (Linux): `/kaggle` is really `/kaggle`, everything but `/kaggle/working`, `/tmp` and `/dev/shm` is
  read-only, there is no network at all, and neither the library installed here nor other processes can be seen. See
  `namespaces.py`.
- `guard` (anywhere else): an environment variable names a folder to use as `/kaggle`, and Python sockets to other
  machines are refused. Inputs are links, and nothing stops native code. See `guard.py`.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from kagglehms.console import quiet, show
from kagglehms.data.competition import Competition
from kagglehms.errors import RunError
from kagglehms.files import write_bytes
from kagglehms.kaggle.outputs import keep
from kagglehms.kernel.marker import MARKER, Marker
from kagglehms.kernel.mounts import MountStyle
from kagglehms.kernel.prior import read_rows
from kagglehms.kernel.submission import SUBMISSION
from kagglehms.kernel.training_session import session_problems
from kagglehms.rehearsal.hidden_test_set import make_hidden
from kagglehms.rehearsal.launcher import lacking
from kagglehms.rehearsal.launching import launch
from kagglehms.rehearsal.machine import WITNESS, Budget, Isolation, lay_out
from kagglehms.rehearsal.report import (
    RehearsalReport,
    ending_problems,
    library_problems,
    projection,
    read_witness,
    submission_problems,
)
from kagglehms.rehearsal.scratch import scratch_folder
from kagglehms.rehearsal.spec import IsolationUnavailableError, Outcome, Spec
from kagglehms.rehearsal.staged_kernel import StagedKernel, read_kernel
from kagglehms.stop_signals import unwinding

LOG = "rehearsal.log"
_OUTPUTS = (SUBMISSION, MARKER)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def rehearse(
    kernel: str,
    dist: Path,
    competition: Path,
    out: Path,
    mounts: MountStyle = "owner",
    budget: Budget | None = None,
    isolation: Isolation | None = None,
    hidden_rows: int | None = None,
    hidden_from: Path | None = None,
) -> RehearsalReport:
    """Run a built kernel in a child process and pass on its output while it runs.

    Args:
        kernel: name of a folder in `dist/kernels`, such as `infer`, `train` or `prepare`.
        dist: folder of a build.
        competition: folder of the competition.
        out: folder for `submission.csv`, `scored-run.json` and `rehearsal.log`, and for all output of a kernel that is
            not scored, in a subfolder of the kernel's name. The output of earlier rehearsals there is mounted for
            kernels that ask for it, as the next session on Kaggle would find it. A failed session leaves its output in
            `<kernel>.failed`.
        mounts: style in which the inputs are mounted.
        budget: time and disk that the session may use; None for Kaggle's limits.
        isolation: how to keep the kernel from the rest of the machine; None for the best way that works.
        hidden_rows: number of rows of a test set to swap in, see `hidden_test_set.make_hidden`; None swaps none.
        hidden_from: competition folder whose test recordings these rows use; None simulates some.

    Raises:
        UsageError: there is no such kernel, or no build.
        DataError: there is no competition, or no output of a kernel that this one reads.
        RunError: the bundle does not fit the kernel, the isolation asked for is not available, files cannot be read or
            written, or this is a system, such as Windows, on which kernels cannot be rehearsed.
    """
    if missing := lacking():
        raise RunError(
            f"a rehearsal starts, measures and ends a kernel by {missing}, which Python lacks on {platform.system()}; "
            "rehearse on Linux or macOS, or in the Windows Subsystem for Linux"
        )
    budget = budget or Budget()
    if hidden_from is not None and hidden_rows is None:
        hidden_rows = len(read_rows(Competition(hidden_from)))
    read_kernel(kernel, dist, competition, mounts, out)  # refuses what cannot work before anything is made
    out.mkdir(parents=True, exist_ok=True)
    for name in _OUTPUTS:
        (out / name).unlink(missing_ok=True)
    with _stage(out) as place:
        hidden = None
        if hidden_rows is not None:
            hidden = make_hidden(place / "hidden", hidden_rows, hidden_from).root
            if (competition / "train.csv").is_file():
                shutil.copyfile(competition / "train.csv", hidden / "train.csv")
        staged = read_kernel(kernel, dist, competition, mounts, out, hidden)
        return _rehearse(staged, place, out, mounts, budget, isolation)


@contextlib.contextmanager
def _stage(out: Path) -> Iterator[Path]:
    """Yield a temporary folder for the machine of a rehearsal, and say what to do about errors of the disk.

    Raises:
        RunError: there is no such folder, or a file there, in `out` or among the inputs cannot be read or written.
        Terminated: SIGTERM or SIGHUP came; the folder is deleted, and nothing runs any more.
    """
    folder: Path | str = "the folder for temporary files"
    try:
        with unwinding(), scratch_folder() as folder:
            yield folder
    except BrokenPipeError:  # the reader of the output has gone, which is no fault of the disk
        raise
    except OSError as error:
        where, reason = error.filename or f"{folder} or {out}", error.strerror or error
        folders = "--out, and TMPDIR for temporary files"
        if error.errno in _FORBIDDEN:
            text = f"{where}: cannot be read or written ({reason}); change its permissions, or name other folders: "
        elif error.errno in _FULL:
            text = f"{where}: cannot be written ({reason}); free space, or name folders on another disk: "
        else:
            text = f"{where}: cannot be written ({reason}); name other folders: "
        raise RunError(text + folders) from error


def _rehearse(
    kernel: StagedKernel,
    place: Path,
    out: Path,
    mounts: MountStyle,
    budget: Budget,
    isolation: Isolation | None,
) -> RehearsalReport:
    """Run a kernel with the isolation asked for, or with the best one that works."""
    note = ""
    for kind in get_args(Isolation) if isolation is None else (isolation,):
        stage = place / kind
        try:
            outcome = _launch(lay_out(stage, kernel, kind, budget), out / LOG)
        except IsolationUnavailableError as error:
            note = f"namespaces are not available: {error}"
            continue
        return _report(kernel, mounts, kind, note, outcome, stage, out)
    raise RunError(f"{note}; rehearse without asking for them")


def _launch(spec: Spec, log: Path) -> Outcome:
    """Run a kernel, and pass its output on to `log` and, unless quiet, without its JSON, to the terminal."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    begun = ""
    with log.open("wb") as file:

        def pass_on(chunk: bytes, final: bool = False) -> None:
            nonlocal begun
            file.write(chunk)
            file.flush()
            *lines, begun = (begun + decoder.decode(chunk, final)).splitlines(keepends=True) or [""]
            if final or begun.endswith("\n"):
                lines, begun = [*lines, begun], ""
            if not quiet():
                show("".join(line for line in lines if not line.startswith('{"')))

        try:
            return launch(spec, pass_on)
        except RunError as error:
            raise RunError(f"{error}; see {log}") from error
        finally:
            pass_on(b"", final=True)


def _report(
    kernel: StagedKernel,
    mounts: MountStyle,
    isolation: Isolation,
    note: str,
    outcome: Outcome,
    stage: Path,
    out: Path,
) -> RehearsalReport:
    """Copy out what the kernel left, and collect its problems."""
    temporary = Path("/tmp") if isolation == "namespaces" else stage / "tmp"
    library = read_witness(stage / "tmp" / WITNESS)
    problems = [*ending_problems(outcome), *library_problems(library, temporary, outcome.exit_code)]
    working, submission = stage / "kaggle/working", out / SUBMISSION
    output, projected = None, ""
    if kernel.scored:
        for name in _OUTPUTS:
            if (working / name).is_file():
                write_bytes(out / name, (working / name).read_bytes())
        problems += submission_problems(submission, kernel.competition)
        projected = projection(Marker.read(out))
    else:
        if not any(working.iterdir()):
            problems.append("there is nothing in /kaggle/working")
        output = keep(working, out / kernel.name, not problems)
        problems += session_problems(output)
    return RehearsalReport(
        kernel=kernel.name,
        mounts=mounts,
        isolation=isolation,
        isolation_note=note or outcome.lacking,
        kernel_exit_code=outcome.exit_code,
        seconds=outcome.seconds,
        peak_memory_bytes=outcome.peak_memory_bytes,
        peak_disk_bytes=outcome.peak_disk_bytes,
        projection=projected,
        library=library,
        submission=submission if kernel.scored and submission.exists() else None,
        output=output,
        log=out / LOG,
        problems=tuple(problems),
    )
