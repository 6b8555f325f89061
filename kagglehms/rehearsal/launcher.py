"""Start a kernel in a machine of its own: the process between a rehearsal and the kernel that it rehearses.

Run as a script, `python -I -S launcher.py SPEC`, in a process of its own: namespaces are entered by one thread, and
for good. It imports nothing but the standard library.

With isolation, the kernel gets namespaces of its own for users, mounts and network (Linux, no privilege needed where
the system allows user namespaces). Its root is a new, read-only view of this machine with a `/kaggle` in it; only
`/kaggle/working`, `/tmp` and `/dev/shm` can be written, and there is no network but a loopback.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import signal
import socket
import struct
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

try:
    import resource
except ImportError:  # as on Windows, see `lacking`
    resource = None  # type: ignore[assignment]

_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_AT_FDCWD, _AT_RECURSIVE, _MOUNT_ATTR_RDONLY = -100, 0x8000, 1
_SYS_MOUNT_SETATTR = 442
"""The same on every architecture; Linux 5.12 and later."""
_PR_SET_PDEATHSIG = 1
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
_LOOK_EVERY_S = 0.25
"""How often memory and disk are looked at."""
EXIT_UNWRITTEN = 74
"""The launcher could not write its report, as on a full disk."""
_SHARED_MEMORY = "size=2g"
"""What Kaggle gives its own image."""


@dataclass(frozen=True)
class Bind:
    """A folder and where the kernel is to see it, read-only unless `writable`."""

    source: str
    target: str
    writable: bool = False


@dataclass(frozen=True)
class Spec:
    """What to run, and how.

    Attributes:
        argv: the command; its paths are those that the kernel sees.
        environment: all of it, nothing is inherited.
        folder: to start in.
        timeout_s: after which it is killed.
        disk_bytes: what `folder` may grow to, before the kernel is killed; None for no limit.
        report: file to write what happened to, as JSON.
        new_root: empty folder to build the kernel's view of the machine in; None for no isolation.
        binds: folders of `/kaggle` and `/tmp`, in the order in which they are mounted.
        kept: folders below `/tmp` which the kernel needs all the same (the interpreter, if it is there).
        hidden: folders which the kernel must find empty.
    """

    argv: list[str]
    environment: dict[str, str]
    folder: str
    timeout_s: float
    report: str
    new_root: str | None = None
    binds: tuple[Bind, ...] = ()
    kept: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    disk_bytes: int | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Spec:
        content: dict[str, Any] = json.loads(text)
        content["binds"] = tuple(Bind(**bind) for bind in content["binds"])
        return cls(**content)


class IsolationUnavailableError(Exception):
    """This machine does not let us make the namespaces or mounts; says which step it refused."""


def lacking() -> str:
    """What this Python has not of all that a rehearsal needs, however isolated; empty if it has everything."""
    needed = {"resource": resource is not None} | {
        f"os.{name}": hasattr(os, name) for name in ("killpg", "geteuid")
    }
    return ", ".join(name for name, there in needed.items() if not there)


def main(spec: Spec) -> int:
    """Run `spec` and write its report: exit code, seconds, peak memory, or why it could not be isolated."""
    _die_with_parent()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with contextlib.ExitStack() as stack:
        try:
            report = open(spec.report, "w", encoding="utf-8")  # noqa: PTH123, SIM115  before the root changes
        except OSError as error:
            return _unwritten(error)
        stack.callback(_close, report)
        outcome = _run_isolated(spec)
        try:
            json.dump(outcome, report)
            report.flush()
        except OSError as error:
            return _unwritten(error)
    return 0


def _unwritten(error: OSError) -> int:
    print(f"the report of the rehearsal cannot be written ({error.strerror})", file=sys.stderr)
    return EXIT_UNWRITTEN


def _close(file: IO[str]) -> None:
    with contextlib.suppress(OSError):  # which flushing has met before
        file.close()


def _run_isolated(spec: Spec) -> dict[str, Any]:
    """What happened to the kernel, or why it could not be isolated."""
    try:
        if spec.new_root is not None:
            isolate(spec, Path(spec.new_root))
    except IsolationUnavailableError as error:
        return {"unavailable": str(error)}
    return run(spec)


def run(spec: Spec) -> dict[str, Any]:
    """Run the kernel to its end, its timeout or the end of its disk; whatever it leaves running is killed."""
    start = time.monotonic()
    child = subprocess.Popen(
        spec.argv, env=spec.environment, cwd=spec.folder, stdin=subprocess.DEVNULL, start_new_session=True
    )
    timed_out = disk_full = False
    disk = memory = 0
    try:
        while not (timed_out or disk_full):
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, min(_LOOK_EVERY_S, spec.timeout_s - (time.monotonic() - start))))
                break
            timed_out = time.monotonic() - start >= spec.timeout_s
            memory = max(memory, session_memory(child.pid))
            disk = max(disk, folder_bytes(spec.folder))
            disk_full = spec.disk_bytes is not None and disk > spec.disk_bytes
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    exit_code = child.wait()
    disk = max(disk, folder_bytes(spec.folder))
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    return {
        "exit_code": exit_code,
        "seconds": time.monotonic() - start,
        "peak_memory_bytes": max(memory, largest),
        "peak_disk_bytes": disk,
        "timed_out": timed_out,
        "disk_full": disk_full or (spec.disk_bytes is not None and disk > spec.disk_bytes),
    }


def folder_bytes(folder: str) -> int:
    """What the files below a folder take on the disk; those that vanish meanwhile take nothing."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(where, name)).st_blocks * 512  # noqa: PTH118  many, often
    return total


def session_memory(session: int) -> int:
    """Resident bytes of all processes of a session together; pages that they share count for each. 0 off Linux."""
    total = 0
    for entry in Path("/proc").glob("[0-9]*/stat") if sys.platform == "linux" else ():
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The name, in brackets, may hold anything: what follows its end are the fields from the third on.
            found = entry.read_text(errors="replace").rpartition(")")[2].split()
            total += int(found[21]) * resource.getpagesize() if int(found[3]) == session else 0
    return total


def isolate(spec: Spec, root: Path) -> None:
    """Move this process into namespaces of its own and into a new root.

    Raises:
        IsolationUnavailableError: the system does not allow it.
    """
    if platform.system() != "Linux":
        raise IsolationUnavailableError(f"{platform.system()} has no namespaces")
    try:
        _unshare()
        _bring_loopback_up()
        _mount_machine(spec, root)
        os.chroot(root)
        os.chdir("/")
    except OSError as error:
        raise IsolationUnavailableError(str(error)) from error


def _unshare() -> None:
    """Enter new namespaces: as a user in charge of nothing but them, or as root where only root may."""
    user, group = os.geteuid(), os.getegid()
    try:
        _call("unshare", _CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWNET)
    except OSError:
        if user != 0:
            raise
        _call("unshare", _CLONE_NEWNS | _CLONE_NEWNET)
    else:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _mount(None, Path("/"), None, _MS_REC | _MS_PRIVATE)


def _mount_machine(spec: Spec, root: Path) -> None:
    if Path("/tmp").is_symlink():
        raise IsolationUnavailableError("/tmp is a symbolic link here")
    _mount("tmpfs", root, "tmpfs", 0)
    for entry in sorted(Path("/").iterdir()):
        place = root / entry.name
        if entry.name == "kaggle":
            continue
        if entry.is_symlink():
            place.symlink_to(entry.readlink())
        elif entry.is_dir():
            place.mkdir()
            if entry != Path("/tmp"):
                _bind(entry, place)
    for bind in spec.binds:
        (root / bind.target.lstrip("/")).mkdir(parents=True, exist_ok=True)
    (root / "tmp").mkdir(exist_ok=True)
    _make_read_only(root)
    for bind in spec.binds:
        _bind(Path(bind.source), root / bind.target.lstrip("/"), writable=bind.writable)
    for folder in spec.kept:
        place = root / folder.lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        _bind(Path(folder), place, writable=False)
    for folder in spec.hidden:
        place = root / folder.lstrip("/")
        if place.is_dir():
            _mount("tmpfs", place, "tmpfs", 0)
            _make_read_only(place)
    if (root / "dev/shm").is_dir():
        _mount("tmpfs", root / "dev/shm", "tmpfs", 0, _SHARED_MEMORY)


def _bind(source: Path, target: Path, writable: bool = True) -> None:
    _mount(str(source), target, None, _MS_BIND | _MS_REC)
    if not writable:
        _make_read_only(target)


def _make_read_only(path: Path) -> None:
    """Make `path` and every mount below it read-only, with all their other flags as they are."""
    attributes = struct.pack("=QQQQ", _MOUNT_ATTR_RDONLY, 0, 0, 0)
    arguments = (_AT_FDCWD, os.fsencode(path), _AT_RECURSIVE, attributes, ctypes.c_size_t(len(attributes)))
    _call("syscall", ctypes.c_long(_SYS_MOUNT_SETATTR), *arguments, what=f"mount_setattr of {path}")


def _mount(source: str | None, target: Path, kind: str | None, flags: int, data: str | None = None) -> None:
    source_bytes, kind_bytes, data_bytes = (text and os.fsencode(text) for text in (source, kind, data))
    arguments = (source_bytes, os.fsencode(target), kind_bytes, ctypes.c_ulong(flags), data_bytes)
    _call("mount", *arguments, what=f"mount on {target}")


def _call(function: str, *arguments: object, what: str = "") -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what or function}: {os.strerror(code)}")


def _bring_loopback_up() -> None:
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))


def _die_with_parent() -> None:
    """Ask for SIGTERM when the rehearsal is killed, so that no kernel outlives it."""
    if sys.platform == "linux":
        _call("prctl", _PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(Spec.from_json(Path(sys.argv[1]).read_text(encoding="utf-8"))))
