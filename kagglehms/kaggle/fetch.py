"""Fetches what kernels have left on Kaggle, and refuses a submission that is not worth submitting."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from kagglehms.errors import HMSError, RunError, UsageError, counted
from kagglehms.kaggle.client import KernelState
from kagglehms.kaggle.dist import UNSCORED, choose_kernels, kernel_ref
from kagglehms.kaggle.outputs import keep
from kagglehms.kaggle.service import Kaggle
from kagglehms.kaggle.sessions import SessionError, follow_kernel
from kagglehms.kernel.marker import MARKER, Marker
from kagglehms.kernel.prior import SUBMISSION, SUBMISSION_COLUMNS
from kagglehms.kernel.training_session import session_problems


def make_output_folder(out: Path) -> None:
    """Make sure that outputs can be written into `out`, before hours have passed.

    Raises:
        UsageError: they cannot.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise UsageError(f"{out}: cannot be written ({error.strerror}); give another folder") from error


def fetch(folder: Path, out: Path, kaggle: Kaggle, ended_well: bool = True) -> list[Path]:
    """Fetch a kernel's output and log into `out/<kernel>`, in place of what was there.

    The output of a session that failed, or whose submission is refused, goes to `out/<kernel>.failed`.

    Args:
        folder: folder of the built kernel.
        out: folder for the outputs of all kernels.
        kaggle: service to ask.
        ended_well: whether the session ended well, so that a scored kernel must have left a submission.

    Returns:
        Paths of the fetched files.

    Raises:
        ClientError: nothing arrived.
        RunError: a scored kernel left no submission, left something else under that name, or its marker says that the
            run failed; or recipes of a training session failed. The fetched files are kept in all these cases. Or the
            disk is full, and what was there is still there.
    """
    ref = kernel_ref(folder)
    out.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", suffix=".partial", dir=out))
    try:
        files = kaggle.ask(lambda: kaggle.client.kernel_output(ref, stage))
        names = sorted(path.relative_to(stage).as_posix() for path in files)
        scored = ended_well and folder.name not in UNSCORED
        refusal = _refusal(stage, names) if scored else None
        place = keep(stage, out / folder.name, good=ended_well and refusal is None)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    if refusal is not None:
        raise RunError(f"{place}: {refusal}")
    kaggle.say(f"kernel {ref}: {counted(len(names), 'file')} in {place}: {', '.join(names[:8])}")
    if failed := session_problems(place):
        raise RunError(f"{place}: {'; '.join(failed[:3])}")
    return [place / name for name in names]


def fetch_all(
    dist: Path, names: Sequence[str], out: Path, kaggle: Kaggle, wait: bool = False
) -> dict[str, list[Path]]:
    """Fetch the outputs of kernels whose sessions have ended well.

    Args:
        dist: folder of a build.
        names: names of kernels in that build.
        out: folder for the outputs of all kernels.
        kaggle: service to ask.
        wait: whether to wait for kernels that are still running.

    Returns:
        Paths of the fetched files of each kernel by its name.

    Raises:
        RunError: a kernel is still running or failed, or its output is refused (see `fetch`).
    """
    fetched = {}
    for folder in choose_kernels(dist, names):
        ref = kernel_ref(folder)
        state = kaggle.ask(lambda ref=ref: kaggle.client.kernel(ref))  # type: ignore[misc]
        if not (state.ended or wait):
            raise RunError(f"kernel {ref} is {state.status}; give --wait to wait for its end")
        see_through(folder, out, kaggle)
        fetched[folder.name] = fetch(folder, out, kaggle)
    return fetched


def see_through(folder: Path, out: Path, kaggle: Kaggle, stale: KernelState | None = None) -> None:
    """Wait for the end of a kernel's session; if it failed, fetch what it left, whose log explains the failure.

    Args:
        folder: folder of the built kernel.
        out: folder for the outputs of all kernels.
        kaggle: service to ask.
        stale: state of the kernel before it was pushed, see `follow_kernel`.

    Raises:
        RunError: see `follow_kernel`.
    """
    try:
        follow_kernel(kernel_ref(folder), kaggle, stale)
    except SessionError:
        with contextlib.suppress(HMSError):
            fetch(folder, out, kaggle, ended_well=False)
        raise


def _refusal(folder: Path, names: Sequence[str]) -> str | None:
    """Return why what a scored kernel left is not to be submitted; None if nothing is known against it.

    A session that ended well may have predicted nothing, and the client saves whatever a download returns, even an
    error page.

    Args:
        folder: folder of the fetched files.
        names: their names.
    """
    path = folder / SUBMISSION
    if not path.is_file():
        return f"the kernel left no submission, only {', '.join(names)}; read its log"
    with path.open("rb") as file:
        header = file.readline().decode("utf-8", "replace").strip()
    if header != ",".join(SUBMISSION_COLUMNS):
        return f"{SUBMISSION} is not a submission, it begins with {json.dumps(header[:60])}; fetch it again"
    marker = Marker.read(folder)
    if marker is not None and (marker.problems or marker.status == "prior"):
        why = "; ".join(marker.problems[:3]) or "no model took part"
        return f"{MARKER} says that the run failed, do not submit it: {why}"
    return None
