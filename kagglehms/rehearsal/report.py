"""What a rehearsal found: the figures of the run, and everything that would have gone wrong on Kaggle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kagglehms.data.competition import Competition
from kagglehms.errors import EXIT_FAILURE, EXIT_OK, HMSError, counted
from kagglehms.kaggle.image import kaggle_image
from kagglehms.kernel.marker import MARKER, Marker
from kagglehms.kernel.mounts import MountStyle
from kagglehms.kernel.prior import read_rows
from kagglehms.kernel.protocol import TIME_LIMIT_S
from kagglehms.kernel.submission import SUBMISSION, read_submission
from kagglehms.rehearsal.hidden_test_set import HIDDEN_ROWS
from kagglehms.rehearsal.machine import Isolation
from kagglehms.rehearsal.spec import Outcome
from kagglehms.strict_json import parse
from kagglehms.timing import duration

FEWEST_ROWS = 20
"""Fewest rows from which the time of a row can be told; with fewer, the start-up hides it."""


@dataclass(frozen=True)
class RehearsalReport:
    """What a rehearsal found.

    Attributes:
        kernel: name of the kernel.
        mounts: style in which the inputs were mounted.
        isolation: how the kernel was kept from the rest of the machine.
        isolation_note: why it was not isolated any better; empty if it was isolated as well as possible.
        kernel_exit_code: exit code of the kernel; negative if a signal ended it.
        seconds: seconds from its start to its end.
        peak_memory_bytes: largest resident size of all its processes together.
        peak_disk_bytes: largest size of /kaggle/working.
        projection: time for the full hidden test set, in words; empty for a kernel that is not scored.
        library: path from which the kernel imported `kagglehms`, as the kernel saw it; None if it did not.
        submission: copy of the kernel's submission; None if there is none.
        output: folder with all output of a kernel that is not scored; None for a scored kernel.
        log: file with everything that the kernel printed.
        problems: everything that would have gone wrong on Kaggle.
    """

    kernel: str
    mounts: MountStyle
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
        """Exit code of a command that ends with this report."""
        return EXIT_OK if self.ok else EXIT_FAILURE

    @property
    def lines(self) -> tuple[str, ...]:
        """The report in five lines: the outcome, its time, what it took, its isolation, its log."""
        left = f"; what it left is in {self.output}" if self.output else ""
        outcome = (
            f"made {self.submission or self.output} with the bundle's own library"
            if self.ok
            else f"FAILED: {'; '.join(self.problems)}{left}"
        )
        disk = f"{self.peak_disk_bytes / 2**20:,.0f} MiB in /kaggle/working"
        note = f" ({self.isolation_note})" if self.isolation_note else ""
        return (
            f"kernel {self.kernel} {outcome}",
            f"time: {self.seconds:.1f} s{f'; {self.projection}' if self.projection else ''}",
            f"peak memory: {self.peak_memory_bytes / 2**20:,.0f} MiB, {disk}",
            f"isolation: {self.isolation}{note}, mounts as {self.mounts!r}",
            f"log: {self.log}",
        )

    @property
    def sentence(self) -> str:
        """The report in one line."""
        return "; ".join(self.lines)


def projection(marker: Marker | None) -> str:
    """Project from a rehearsal how long the full hidden test set would take on this machine.

    Args:
        marker: marker of the rehearsed run; None if it left none.

    Returns:
        The projection in words; empty if the run completed no pass.
    """
    if marker is None or not marker.steps:
        return ""
    if marker.rows < FEWEST_ROWS:
        return f"{counted(marker.rows, 'row')} cannot tell the time of {HIDDEN_ROWS:,}: try --hidden 100"
    passes_s = sum(step["seconds"] for step in marker.steps)
    whole_s = marker.seconds - passes_s + passes_s * HIDDEN_ROWS / marker.rows
    took, limit = duration(whole_s), f"{kaggle_image().limits.kernel_seconds / 3600:g} h"
    said = f"{HIDDEN_ROWS:,} rows would take {took} of {limit} on this machine "
    said += f"({counted(len(marker.steps), 'pass', 'passes')})"
    if whole_s > TIME_LIMIT_S:
        own = duration(TIME_LIMIT_S)
        said += f", more than the {own} that the kernel gives itself: the last passes would be left out"
    return said


def ending_problems(outcome: Outcome) -> Iterator[str]:
    """Yield why a kernel did not end by itself with exit code 0."""
    if outcome.disk_full:
        yield f"killed with {outcome.peak_disk_bytes / 1e9:.2f} GB in /kaggle/working, more than its disk"
    elif outcome.timed_out:
        yield f"killed after {outcome.seconds:.0f} s, its time was up"
    elif outcome.exit_code != 0:
        yield f"exit code {outcome.exit_code}"


def library_problems(library: str | None, temporary: Path, exit_code: int) -> Iterator[str]:
    """Yield the use of another library than the bundle's, which the kernel can only have unpacked below `temporary`.

    Args:
        library: path from which the kernel imported the library; None if it did not.
        temporary: the kernel's temporary folder, which was empty before it started.
        exit_code: exit code of the kernel.
    """
    if library is not None and not Path(library).is_relative_to(temporary):
        yield f"the library at {library} ran instead of the bundle's"
    elif library is None and exit_code == 0:
        yield "the library of the bundle was never imported"


def submission_problems(submission: Path, competition: Path) -> Iterator[str]:
    """Yield what is wrong with a submission, by the competition's rules and by the marker beside it.

    A scored run ends with exit code 0 as long as there is a submission, if only the sample, and leaves no marker then.
    """
    if not submission.exists():
        yield f"there is no {SUBMISSION} in /kaggle/working"
        return
    try:
        read_submission(submission, read_rows(Competition(competition)).eeg_ids)
    except HMSError as error:
        yield str(error)
    marker = Marker.read(submission.parent)
    if marker is not None:
        yield from marker.problems
    elif _is_copy(submission, Competition(competition).sample_submission_csv):
        yield f"{SUBMISSION} is the sample, and no {MARKER} says why; read the log"


def _is_copy(path: Path, of: Path) -> bool:
    return of.is_file() and path.read_bytes() == of.read_bytes()


def read_witness(path: Path) -> str | None:
    """Return the path from which the kernel imported the library, as its witness says (see `guard.py`)."""
    try:
        library = parse(path.read_bytes())["library"]
    except (OSError, ValueError, KeyError):
        return None
    return library if isinstance(library, str) else None
