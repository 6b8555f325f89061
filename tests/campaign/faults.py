"""The classes of fault, and how each is brought about."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import children

from campaign import damage
from campaign.child import ERRNOS, Inside, run
from campaign.subjects import LIMIT_S, Subject, run_child

Rng = damage.Rng
SYSTEM_CALLS = (
    "openat", "read", "pread64", "write", "pwrite64", "fsync", "rename", "unlink", "mkdir", "ftruncate", "mmap",
    "getdents64", "newfstatat", "fstat", "lseek", "close", "flock", "fcntl", "chmod", "statx",
)  # fmt: skip
ERRORS = ("EIO", "ENOSPC", "EACCES", "EMFILE", "ENOMEM", "EROFS", "EDQUOT")


@dataclass(frozen=True)
class Fault:
    """One fault, ready to happen.

    Attributes:
        text: what happens, for a person.
        inside: what happens in the process.
        damaged: file that was damaged before the command, below its folder.
        call: system call that fails or kills, as strace's `-e inject=` has it.
        stopped: whether the process is stopped, and goes on.
        twice: whether the command runs twice at once.
        undo: what ends the fault, before the command runs again.
    """

    text: str
    inside: Inside | None = None
    damaged: str = ""
    call: str = ""
    stopped: bool = False
    twice: bool = False
    undo: Callable[[], None] = lambda: None

    @property
    def denies_memory(self) -> bool:
        """Whether the process asks for memory and gets none."""
        limited = self.inside is not None and self.inside.memory_bytes is not None
        return limited or self.call.startswith("mmap:error")


def _log_uniform(rng: Rng, low: float, high: float) -> int:
    return int(low * (max(high, low + 1) / low) ** rng.random())


def _damaged(
    rng: Rng, subject: Subject, work: Path, names: list[str], how: damage.Damage, what: str
) -> Fault:
    name = names[int(rng.integers(len(names)))]
    content = (work / name).read_bytes()
    changed = how(rng, content)
    (work / name).write_bytes(changed)
    return Fault(f"{what} of {name}", damaged=name)


def bit_flip(rng: Rng, subject: Subject, work: Path) -> Fault:
    """One bit of any file that the command reads."""
    return _damaged(rng, subject, work, subject.inputs, damage.flip, "bit flip")


def mauled(rng: Rng, subject: Subject, work: Path) -> Fault:
    """A file cut short or with a block of something else."""
    return _damaged(rng, subject, work, subject.inputs, damage.maul, "damaged block")


def _structure(suffix: str) -> Callable[[Rng, Subject, Path], Fault]:
    def mutated(rng: Rng, subject: Subject, work: Path) -> Fault:
        names = [name for name in subject.inputs if name.endswith(suffix)]
        return _damaged(rng, subject, work, names, damage.STRUCTURES[suffix], "mutation")

    return mutated


def operation_error(rng: Rng, subject: Subject, work: Path) -> Fault:
    """An operation on a file that fails."""
    number, error = int(rng.integers(subject.operations)), ERRNOS[int(rng.integers(len(ERRNOS)))]
    return Fault(f"{os.strerror(error)} at file operation {number}", Inside(operation=number, error=error))


def operation_kill(rng: Rng, subject: Subject, work: Path) -> Fault:
    """A death just before an operation on a file."""
    number = int(rng.integers(subject.operations))
    return Fault(f"killed at file operation {number}", Inside(operation=number))


def random_kill(rng: Rng, subject: Subject, work: Path) -> Fault:
    """A death at any time."""
    after = float(rng.uniform(0.001, subject.cpu_s))
    return Fault(f"killed after {after:.4f} s", Inside(cpu_s=after))


def asked_to_stop(rng: Rng, subject: Subject, work: Path) -> Fault:
    """Ctrl-C, SIGTERM or SIGHUP at any time."""
    number = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)[int(rng.integers(3))]
    after = float(rng.uniform(0.001, subject.cpu_s))
    return Fault(f"{number.name} after {after:.4f} s", Inside(cpu_s=after, number=number))


def stopped(rng: Rng, subject: Subject, work: Path) -> Fault:
    """SIGSTOP at any time, and a while later SIGCONT."""
    after = float(rng.uniform(0.001, subject.cpu_s))
    return Fault(f"stopped after {after:.4f} s", Inside(cpu_s=after, number=signal.SIGSTOP), stopped=True)


def full_disk(rng: Rng, subject: Subject, work: Path) -> Fault:
    """No file may grow beyond some size."""
    most = _log_uniform(rng, 1, 2_000_000)
    return Fault(f"no file beyond {most} bytes", Inside(file_bytes=most))


def no_permission(rng: Rng, subject: Subject, work: Path) -> Fault:
    """A folder that cannot be written, or a file or folder that cannot be read, not even by root."""
    paths = [work, *sorted(work.rglob("*"))]
    path = paths[int(rng.integers(len(paths)))] if rng.random() < 0.6 else work
    mode = 0o555 if path.is_dir() and (path == work or rng.random() < 0.5) else 0
    before = path.stat().st_mode
    path.chmod(mode)
    what = "read-only" if mode else "unreadable"
    return Fault(f"{what}: {path.relative_to(work)}", Inside(powerless=True), undo=lambda: path.chmod(before))


def memory_limit(rng: Rng, subject: Subject, work: Path) -> Fault:
    """Not more than some memory."""
    more = _log_uniform(rng, 1 << 20, 1 << 32)
    return Fault(f"{more / 1e6:.1f} MB of memory", Inside(memory_bytes=more))


def system_call_error(rng: Rng, subject: Subject, work: Path) -> Fault:
    """A system call that fails."""
    call, error = (names[int(rng.integers(len(names)))] for names in (SYSTEM_CALLS, ERRORS))
    when = _log_uniform(rng, 1, 300)
    return Fault(f"{error} at {call} {when}", Inside(waits=True), call=f"{call}:error={error}:when={when}")


def system_call_kill(rng: Rng, subject: Subject, work: Path) -> Fault:
    """A death within a system call."""
    call, when = SYSTEM_CALLS[int(rng.integers(len(SYSTEM_CALLS)))], _log_uniform(rng, 1, 300)
    return Fault(f"killed at {call} {when}", Inside(waits=True), call=f"{call}:signal=KILL:when={when}")


def at_once(rng: Rng, subject: Subject, work: Path) -> Fault:
    """The same command twice at a time."""
    return Fault("two at once", twice=True)


@dataclass(frozen=True)
class Kind:
    """A class of faults.

    Attributes:
        make: function that makes one ready to happen.
        share: how often it is chosen.
        suffix: ending of the files that it needs.
    """

    make: Callable[[Rng, Subject, Path], Fault]
    share: float
    suffix: str = ""

    def fits(self, subject: Subject) -> bool:
        return any(name.endswith(self.suffix) for name in subject.inputs) or (
            not self.suffix and not self.damages
        )

    @property
    def damages(self) -> bool:
        return self.make in (bit_flip, mauled) or bool(self.suffix)


KINDS = {
    "bit flip": Kind(bit_flip, 3),
    "damaged block": Kind(mauled, 2),
    "JSON mutated": Kind(_structure(".json"), 3, ".json"),
    "CSV mutated": Kind(_structure(".csv"), 2, ".csv"),
    "Parquet mutated": Kind(_structure(".parquet"), 2, ".parquet"),
    "EDF mutated": Kind(_structure(".edf"), 1, ".edf"),
    "safetensors mutated": Kind(_structure(".safetensors"), 1.5, ".safetensors"),
    "file operation fails": Kind(operation_error, 3),
    "killed at a file operation": Kind(operation_kill, 2),
    "system call fails": Kind(system_call_error, 2),
    "killed in a system call": Kind(system_call_kill, 1),
    "killed at any time": Kind(random_kill, 2),
    "asked to stop at any time": Kind(asked_to_stop, 1.5),
    "stopped and continued": Kind(stopped, 0.5),
    "full disk": Kind(full_disk, 1),
    "no permission": Kind(no_permission, 1),
    "memory limit": Kind(memory_limit, 1),
    "two at once": Kind(at_once, 0.5),
}


def available(name: str) -> bool:
    """Whether this machine can bring a class about."""
    return "system call" not in name or shutil.which("strace") is not None


def bring_about(fault: Fault, subject: Subject, work: Path, log: Path) -> list[int | None]:
    """Run the command with the fault, and return the exit code of each process; None for one that hangs."""
    if not (fault.call or fault.stopped or fault.twice):
        return [run_child(subject, work, log, fault.inside)]
    logs = [log, log.with_suffix(".second.log")] if fault.twice else [log]
    processes = [children.start(run, list(subject.words), work, path, fault.inside) for path in logs]
    tracer = None
    if fault.call:
        tracer = _trace(processes[0].pid, fault.call, log.with_suffix(".trace"))
    deadline = time.monotonic() + LIMIT_S
    while any(process.exitcode is None for process in processes) and time.monotonic() < deadline:
        if fault.call and impossible(log):
            break
        for process in processes if fault.stopped else ():
            if _state(process.pid) == "T":
                time.sleep(0.02)
                os.kill(process.pid, signal.SIGCONT)
        processes[0].join(0.02)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
        process.join()
        process.close()
    if tracer is not None:
        tracer.wait()
    if fault.twice:
        log.write_text(log.read_text() + logs[1].read_text())
    return codes


def impossible(log: Path) -> bool:
    """Whether a call was made to fail that has to do with no disk: the one by which a process wakes its own thread."""
    try:
        lines = log.with_suffix(".trace").read_text(errors="replace").splitlines()
    except OSError:
        return False
    return any("(INJECTED)" in line and "anon_inode:[event" in line for line in lines)


def later(fault: Fault) -> Fault:
    """Return the same fault at the next call of its kind."""
    call, _, when = fault.call.rpartition("=")
    after = int(when) + 1
    return replace(fault, text=f"{fault.text.rpartition(' ')[0]} {after}", call=f"{call}={after}")


def _trace(pid: int | None, call: str, found: Path) -> subprocess.Popen[bytes]:
    """Attach strace to a process that has stopped itself, and let it go on."""
    assert pid is not None
    while _state(pid) not in "TZX":
        time.sleep(0.002)
    name = call.partition(":")[0]
    command = [
        "strace",
        "-f",
        "-qq",
        "-y",
        "-s",
        "0",
        "-o",
        str(found),
        "-e",
        f"trace={name}",
        "-e",
        f"inject={call}",
        "-p",
        str(pid),
    ]
    tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while "TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text() and tracer.poll() is None:
        time.sleep(0.002)
    os.kill(pid, signal.SIGCONT)
    return tracer


def _state(pid: int | None) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return "X"
