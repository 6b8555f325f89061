"""The process that a scored kernel is: a submission first, then workers, and an end in time whatever they do.

Everything that can crash, hang or be killed (compiled code, a GPU, files that nobody foresaw) happens in a worker, a
process of its own. One that ends in a crash, or hangs, is followed by another, which goes on behind the passes that are
finished: on the CPU if the first one used a GPU, else without the model that was being computed.

Only the standard library is needed here, and nothing of it is believed to work.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from kagglehms.data.competition import Competition
from kagglehms.environment import child_environment
from kagglehms.errors import EXIT_FAILURE, EXIT_OK, HMSError
from kagglehms.files import sweep_partials
from kagglehms.kernel.marker import Marker
from kagglehms.kernel.prior import SUBMISSION, read_prior, read_rows, submission_ids, write_prior
from kagglehms.kernel.task import EXIT_DEVICE_LOST, UNDER_WAY, Task

WORKER = (sys.executable, "-P", "-m", "kagglehms.kernel.scored_run")
_MOST_WORKERS = 8
_GRACE = 0.02
"""Of the limit: how much later a worker that has not ended by itself is killed."""
_LEAST_GRACE_S = 10.0
STALL_S = 20 * 60.0
"""A worker that gives no sign of life for so long hangs. It gives one with each file that it verifies, each layout
that it compiles and each batch, of which the slowest takes seconds."""
_POLL_S = 1.0
_REAP_S = 30.0
"""To wait for a process that was killed: one that is stuck in a driver cannot even be killed."""


def supervise(task: Task) -> int:
    """Do a scored run and print its end marker.

    Args:
        task: what to do; `scratch` is needed.

    Returns:
        An exit code: 0 when nothing failed and enough rows were predicted (see `Marker.judge`), 1 otherwise. There is
        a valid submission either way, and in a rerun the kernel makes 0 of it.

    Raises:
        DataError: there is no such competition folder.
        RunError: the output folder cannot be written at all.
    """
    start = time.monotonic()
    out = Path(task.out)
    rows = read_rows(Competition(Path(task.competition)))
    prior, where_from = read_prior(Path(task.bundle))
    write_prior(out / SUBMISSION, rows, prior)
    print(
        f"{len(rows)} rows from {rows.source.name}; a submission of the class prior stands after"
        f" {time.monotonic() - start:.1f} s ({where_from})",
        flush=True,
    )
    Marker.remove(out)
    crashes = _work(task, start + task.limit_s)
    marker = Marker.read(out) or Marker(
        rows=len(rows),
        rows_with_prior=dict.fromkeys(rows.eeg_ids, "no model took part"),
        notes=list(rows.notes),
    )
    marker.problems = [*crashes, *marker.problems]
    if submission_ids(out / SUBMISSION) != list(rows.eeg_ids):
        why = "the submission was damaged; the prior stands again"
        marker.problems.append(why)
        marker.left_out |= dict.fromkeys(marker.models, why)
        marker.models, marker.rows_with_fewer_models = [], {}
        marker.rows_with_prior = dict.fromkeys(rows.eeg_ids, why)
        write_prior(out / SUBMISSION, rows, prior)
    marker.judge()
    sweep_partials(out)
    try:
        marker.write(out, time.monotonic() - start)
    except HMSError as error:
        print(f"the marker cannot be written: {error}", flush=True)
    print(marker.line(), flush=True)
    return EXIT_FAILURE if marker.problems else EXIT_OK


def _work(task: Task, deadline: float) -> list[str]:
    """Run workers until one has finished or time is up; return what ended the others."""
    crashes: list[str] = []
    lost = 0
    for _ in range(_MOST_WORKERS):
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            break
        ending = _run_worker(
            replace(task, limit_s=left_s), left_s + max(_GRACE * task.limit_s, _LEAST_GRACE_S)
        )
        if ending is None:
            break
        step, device = _under_way(Path(task.scratch or ""))
        crashes.append(f"{step or 'a worker'}{f' on {device}' * bool(device)}: {ending}")
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


def _run_worker(task: Task, timeout_s: float) -> str | None:
    """Run one worker; return what ended it, or None if it has finished."""
    pulse = Path(task.scratch or "") / UNDER_WAY
    with contextlib.suppress(OSError):
        pulse.unlink(missing_ok=True)
        pulse.write_text("{}")
    try:
        child = subprocess.Popen([*WORKER, task.to_json()], env=child_environment(), stdin=subprocess.DEVNULL)
    except OSError as error:
        return f"no process could be started ({error})"
    try:
        code = _wait(child, timeout_s, pulse)
    except _HangsError as hangs:
        return f"killed, {hangs}"
    finally:
        child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_REAP_S)
    if code == EXIT_DEVICE_LOST:
        return "the GPU was lost"
    return (
        None
        if code == EXIT_OK
        else f"its process ended by {f'signal {-code}' if code < 0 else f'code {code}'}"
    )


class _HangsError(Exception):
    """Why a worker is not waited for any longer."""


def _wait(child: subprocess.Popen[bytes], timeout_s: float, pulse: Path) -> int:
    """Wait for the exit code of a worker that lives.

    Only a file that is there and stays as it is says that it does not: where it cannot be looked at, nothing is known.
    """
    start = changed = time.monotonic()
    seen = None
    while (passed_s := time.monotonic() - start) < timeout_s:
        try:
            return child.wait(max(min(_POLL_S, timeout_s - passed_s), 0.01))
        except subprocess.TimeoutExpired:
            now = _touched_ns(pulse)
        if now is None or now != seen:
            seen, changed = now, time.monotonic()
        elif time.monotonic() - changed >= STALL_S:
            raise _HangsError(f"it gave no sign of life for {STALL_S:.0f} s")
    raise _HangsError(f"it had not ended {timeout_s:.0f} s after its start")


def _touched_ns(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _under_way(scratch: Path) -> tuple[str, str]:
    """Return step and device of the computation that never ended; empty if there was none."""
    try:
        content = json.loads((scratch / UNDER_WAY).read_text())
        return str(content.get("step", "")), str(content.get("device", ""))
    except (OSError, ValueError, AttributeError):
        return "", ""
