"""Starts the launcher, passes on what the kernel prints, and reads the launcher's report."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import kagglehms
from kagglehms.errors import RunError
from kagglehms.rehearsal.spec import Outcome, Spec, read_report

LAUNCHER = """
import sys
sys.path.append(sys.argv[1])
from kagglehms.rehearsal.launcher import main
from kagglehms.rehearsal.spec import Spec
sys.exit(main(Spec.from_json(sys.argv[2]), int(sys.argv[3])))
"""
_GRACE_S = 10.0
_INHERITED = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
_PR_GET_DUMPABLE, _PR_SET_DUMPABLE = 3, 4


def inherited() -> dict[str, str]:
    """Return what kernel and launcher inherit of this process's environment: no other variable, above all no secret."""
    return {name: os.environ[name] for name in _INHERITED if name in os.environ}


def launch(spec: Spec, watch: Callable[[bytes], object] = lambda chunk: None) -> Outcome:
    """Run a kernel.

    Args:
        spec: what to run, and how.
        watch: called with what the kernel prints as soon as it is printed.

    Raises:
        IsolationUnavailableError: the spec asks for isolation that this machine does not allow.
        RunError: the launcher ended without a report.
    """
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as report, _unreadable():
        try:
            child = subprocess.Popen(
                launch_command(spec, writing),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[writing],
                env=inherited(),  # /proc shows it to the kernel
            )
        finally:
            os.close(writing)
        try:
            assert child.stdout is not None
            with child.stdout as pipe:
                while chunk := os.read(pipe.fileno(), 1 << 16):
                    watch(chunk)
            child.wait()
        finally:
            _end(child)
        try:
            return read_report(report.read())
        except ValueError as error:
            raise RunError(f"the rehearsal ended without a report (exit code {child.returncode})") from error


def launch_command(spec: Spec, report: int) -> list[str]:
    """Return the command that runs the launcher in a Python which imports only the standard library and this one.

    Args:
        spec: what to run, and how.
        report: file descriptor that the launcher writes its report to.
    """
    library = Path(kagglehms.__file__).resolve().parents[1]
    return [sys.executable, "-I", "-S", "-c", LAUNCHER, str(library), spec.to_json(), str(report)]


@contextlib.contextmanager
def _unreadable() -> Iterator[None]:
    """Keep the environment of this process from others of the same user, who could read it in /proc (Linux)."""
    if sys.platform != "linux":
        yield
        return
    libc = ctypes.CDLL(None)
    before = libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(_PR_SET_DUMPABLE, 1 if before == 1 else 0, 0, 0, 0)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Make sure that the launcher, and with it the kernel, has ended."""
    if child.poll() is None:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE_S)
    if child.poll() is None:
        child.kill()
        child.wait()
