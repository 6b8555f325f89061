"""The process between a rehearsal and its kernel: isolates itself, runs the kernel, measures it and ends it.

It is a process of its own because namespaces are entered by one thread, and for good. It runs in a Python without
site-packages, so it imports only the standard library and modules of this room that do the same.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kagglehms.rehearsal.namespaces import call_libc, enter_machine, enter_namespaces, give_up_privileges
from kagglehms.rehearsal.spec import IsolationUnavailableError, Outcome, Spec, dump_report

try:
    import resource
except ImportError:  # not on Windows, see `lacking`
    resource = None  # type: ignore[assignment]

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_CHILDREN = Path("/proc/thread-self/children")
_LOOK_EVERY_S = 0.25
"""Seconds between two measurements of memory and disk."""
EXIT_UNWRITTEN = 74
"""The launcher's exit code when it could not write its report."""


def lacking() -> str:
    """Return what this Python lacks of the things that every rehearsal needs; empty if it lacks nothing."""
    needed = {"resource": resource is not None} | {
        f"os.{name}": hasattr(os, name) for name in ("killpg", "geteuid")
    }
    return ", ".join(name for name, there in needed.items() if not there)


def main(spec: Spec, report: int) -> int:
    """Run a kernel and report what happened to it, or why it could not be isolated.

    Args:
        spec: what to run, and how.
        report: file descriptor to write the report to.

    Returns:
        An exit code: 0, or `EXIT_UNWRITTEN`.
    """
    _die_with_parent()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if spec.new_root is None:
        return _send(report, run(spec))
    root = Path(spec.new_root)
    try:
        refused = enter_namespaces()
    except IsolationUnavailableError as error:
        return _send(report, error)
    return _in_child(lambda: _run_in_machine(spec, root, refused, report))


def _run_in_machine(spec: Spec, root: Path, refused: str, report: int) -> int:
    """Run and report on a kernel as a child of a process that has entered namespaces, all but for `refused`."""
    try:
        refused = enter_machine(spec, root) or refused
    except IsolationUnavailableError as error:
        return _send(report, error)
    return _send(report, replace(run(spec), lacking=refused))


def _send(report: int, result: Outcome | IsolationUnavailableError) -> int:
    """Write a report, and return this process's exit code."""
    try:
        os.write(report, dump_report(result))
    except OSError as error:
        print(f"the report of the rehearsal cannot be written ({error.strerror})", file=sys.stderr)
        return EXIT_UNWRITTEN
    return 0


def _in_child(work: Callable[[], int]) -> int:
    """Return the exit code of `work`, run in a child, which is the first process of a PID namespace where there is one.

    All other processes of the namespace, daemons of the kernel included, end with that child.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _die_with_parent()
            code = work()
        finally:
            os._exit(code)
    try:
        status = os.waitpid(child, 0)[1]
    except SystemExit:
        os.kill(child, signal.SIGTERM)  # it ends the kernel
        os.waitpid(child, 0)
        raise
    return os.waitstatus_to_exitcode(status)


def run(spec: Spec) -> Outcome:
    """Run the kernel until it ends, its time is up or its disk is full, and kill whatever it leaves running."""
    start = time.monotonic()
    child = subprocess.Popen(
        spec.argv,
        env=spec.environment,
        cwd=spec.folder,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=give_up_privileges if sys.platform == "linux" else None,
    )
    session = _number_in_proc(child.pid)
    timed_out = disk_full = False
    disk = memory = 0
    try:
        while not (timed_out or disk_full):
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, min(_LOOK_EVERY_S, spec.timeout_s - (time.monotonic() - start))))
                break
            timed_out = time.monotonic() - start >= spec.timeout_s
            memory = max(memory, session_memory(session))
            disk = max(disk, folder_bytes(spec.folder))
            disk_full = _too_much(disk, spec)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        exit_code = child.wait()
        _kill_orphans()
    disk = max(disk, folder_bytes(spec.folder))
    unit = 1 if sys.platform == "darwin" else 1024
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    return Outcome(
        exit_code,
        seconds=time.monotonic() - start,
        peak_memory_bytes=max(memory, largest),
        peak_disk_bytes=disk,
        timed_out=timed_out,
        disk_full=_too_much(disk, spec),
    )


def _too_much(disk: int, spec: Spec) -> bool:
    return spec.disk_bytes is not None and disk > spec.disk_bytes


def folder_bytes(folder: str) -> int:
    """Return the disk space of the files below a folder, without those that vanish meanwhile."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(where, name)).st_blocks * 512  # noqa: PTH118  many files, often
    return total


def session_memory(session: int) -> int:
    """Return the resident bytes of all processes of a session, shared pages counted in each; 0 except on Linux."""
    total = 0
    for entry in Path("/proc").glob("[0-9]*/stat") if sys.platform == "linux" else ():
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The name, in brackets, may hold anything: the fields from the third on follow its end.
            found = entry.read_text(errors="replace").rpartition(")")[2].split()
            if int(found[3]) == session:
                total += int(found[21]) * resource.getpagesize()
    return total


def _number_in_proc(child: int) -> int:
    """Return the number by which /proc, which can be that of an outer PID namespace, knows the only child."""
    try:
        return int(_CHILDREN.read_text().split()[0])
    except (OSError, IndexError):  # a system without that file, or a child that has ended
        return child


def _die_with_parent() -> None:
    """Ask for SIGTERM when the rehearsal is killed, so that no kernel outlives it, and for the kernel's orphans."""
    if sys.platform == "linux":
        call_libc("prctl", _PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        call_libc("prctl", _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _kill_orphans() -> None:
    """Kill what left the kernel's process group and outlived it (Linux)."""
    # The first process of a PID namespace takes all others with it, and may see a /proc with other numbers.
    while sys.platform == "linux" and os.getpid() != 1:
        try:
            orphans = [int(number) for number in _CHILDREN.read_text().split()]
        except OSError:  # a system without that file
            return
        if not orphans:
            return
        for orphan in orphans:  # whose own children are children of this process from then on
            with contextlib.suppress(OSError):
                os.kill(orphan, signal.SIGKILL)
                os.waitpid(orphan, 0)
