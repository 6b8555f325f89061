"""The main process of a scored kernel: a submission first, then workers, and an end in time whatever they do.

Everything that can crash, hang or be killed (compiled code, a GPU, unforeseen files) happens in a worker, a process of
its own. A worker that crashes or hangs is followed by another, which continues after the finished passes: on the CPU if
the first one used a GPU, otherwise without the model that was being loaded or computed, or the layout being compiled.

Needs only the standard library, and copes with the failure of everything it does.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from kagglehms.environment import child_environment
from kagglehms.errors import EXIT_FAILURE, EXIT_OK, HMSError
from kagglehms.files import sweep_partials
from kagglehms.kernel.marker import Marker
from kagglehms.kernel.prior import SUBMISSION, PriorSubmission, submission_ids, submit_prior
from kagglehms.kernel.protocol import EXIT_DEVICE_LOST, Pulse, Task

WORKER = (sys.executable, "-P", "-m", "kagglehms.kernel.scored_run")
_MOST_WORKERS = 8
_GRACE = 0.02
"""Fraction of the time limit after which a worker that has not ended by itself is killed."""
_LEAST_GRACE_S = 10.0
STALL_S = 20 * 60.0
"""Seconds without a sign of life after which a worker counts as hung. It gives one for each file that it verifies, each
layout that it compiles, each model that it loads and each batch; the slowest of these takes seconds."""
_POLL_S = 1.0
_REAP_S = 30.0
"""Seconds to wait for a killed process: one that is stuck in a driver cannot even be killed."""


def supervise(task: Task) -> int:
    """Do a scored run and print its end marker.

    Args:
        task: what to do; needs a `scratch` folder.

    Returns:
        An exit code: 0 when nothing failed and enough rows were predicted (see `Marker.judge`), otherwise 1. There is a
        valid submission either way, so the kernel turns 1 into 0 in a rerun.

    Raises:
        DataError: there is no competition in the folder.
        RunError: the output folder cannot be written at all.
    """
    start = time.monotonic()
    out = Path(task.out)
    prior = submit_prior(Path(task.competition), Path(task.bundle), out)
    print(f"{prior.sentence}, {time.monotonic() - start:.1f} s after the start", flush=True)
    Marker.remove(out)
    crashes = _run_workers(task, start + task.time_limit_s)
    rows = prior.rows
    marker = Marker.read(out) or Marker(
        rows=len(rows),
        rows_with_prior=dict.fromkeys(rows.eeg_ids, "no model took part"),
        notes=list(rows.notes),
    )
    marker.problems = [*crashes, *marker.problems]
    if submission_ids(out / SUBMISSION) != list(rows.eeg_ids):
        _restore_prior(prior, marker, out)
    marker.judge()
    sweep_partials(out)
    try:
        marker.write(out, time.monotonic() - start)
    except HMSError as error:
        print(f"the marker cannot be written: {error}", flush=True)
    print(marker.line(), flush=True)
    return EXIT_FAILURE if marker.problems else EXIT_OK


def _restore_prior(prior: PriorSubmission, marker: Marker, out: Path) -> None:
    """Submit the prior again in place of a damaged submission, and say so in the marker."""
    why = "the submission was damaged; the prior was submitted again"
    marker.problems.append(why)
    marker.left_out |= dict.fromkeys(marker.models, why)
    marker.models, marker.rows_with_fewer_models = [], {}
    marker.rows_with_prior = dict.fromkeys(prior.rows.eeg_ids, why)
    prior.write(out)


def _run_workers(task: Task, deadline: float) -> list[str]:
    """Run workers until one has finished or time is up; return what ended the others."""
    pulse = Pulse(Path(task.scratch or ""))
    crashes: list[str] = []
    lost = 0
    for _ in range(_MOST_WORKERS):
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            break
        timeout_s = left_s + max(_GRACE * task.time_limit_s, _LEAST_GRACE_S)
        ending = _run_worker(replace(task, time_limit_s=left_s), timeout_s, pulse)
        if ending is None:
            break
        step, device = pulse.interrupted()
        where = f" on {device}" if device else ""
        crashes.append(f"{step or 'a worker'}{where}: {ending}")
        print(f"{crashes[-1]}; what was finished is kept", flush=True)
        if device != "cpu" and task.device != "cpu":
            task = replace(task, device="cpu")
        elif step:
            task = replace(task, skip=(*task.skip, step))
        else:
            lost += 1
        if lost > 1:
            break
    return crashes


def _run_worker(task: Task, timeout_s: float, pulse: Pulse) -> str | None:
    """Run one worker; return what ended it, or None if it finished."""
    pulse.reset()
    try:
        child = subprocess.Popen([*WORKER, task.to_json()], env=child_environment(), stdin=subprocess.DEVNULL)
    except OSError as error:
        return f"no process could be started ({error})"
    try:
        code = _wait(child, timeout_s, pulse)
    except _HangError as hang:
        return f"killed, {hang}"
    finally:
        child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_REAP_S)
    if code == EXIT_OK:
        return None
    if code == EXIT_DEVICE_LOST:
        return "the GPU was lost"
    return f"its process ended by {f'signal {-code}' if code < 0 else f'code {code}'}"


class _HangError(Exception):
    """Why a worker is not waited for any longer."""


def _wait(child: subprocess.Popen[bytes], timeout_s: float, pulse: Pulse) -> int:
    """Wait for the exit code of a worker.

    Only a pulse that can be read and does not change counts as missing: if it cannot be read, nothing is known.

    Raises:
        _HangError: the worker gave no sign of life for too long, or its time was up.
    """
    start = changed = time.monotonic()
    last_ns = None
    while (passed_s := time.monotonic() - start) < timeout_s:
        try:
            return child.wait(max(min(_POLL_S, timeout_s - passed_s), 0.01))
        except subprocess.TimeoutExpired:
            now_ns = pulse.last_beat_ns()
        if now_ns is None or now_ns != last_ns:
            last_ns, changed = now_ns, time.monotonic()
        elif time.monotonic() - changed >= STALL_S:
            raise _HangError(f"it gave no sign of life for {STALL_S:.0f} s")
    raise _HangError(f"it had not ended {timeout_s:.0f} s after its start")
