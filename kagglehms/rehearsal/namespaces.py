"""Puts a process into namespaces of its own: users, mounts, network, processes (Linux, without root where allowed).

The root of the process becomes a new, read-only view of this machine with a `/kaggle` in it. Only `/kaggle/working`,
`/tmp` and `/dev/shm` can be written, there is no network but a loopback, and no process but the kernel's can be seen.
Only the standard library, like everything the launcher imports.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
from pathlib import Path

from kagglehms.rehearsal.spec import IsolationUnavailableError, Spec

_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
_CLONE_NEWPID, _CLONE_NEWIPC = 0x20000000, 0x08000000
_MS_NOSUID_NODEV_NOEXEC = 0xE
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_AT_FDCWD, _AT_RECURSIVE, _MOUNT_ATTR_RDONLY = -100, 0x8000, 1
_SYS_MOUNT_SETATTR = 442
"""Number of the system call, the same on every architecture; Linux 5.12 and later."""
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
_SHARED_MEMORY = "size=2g"
"""Size that Kaggle gives its own image."""
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
_CAPABILITY_VERSION = 0x20080522
_PROCESSES_SEEN = "the names of this machine's processes can be seen from inside"


def enter_namespaces() -> str:
    """Move this process into namespaces of its own; its next child is the first process of a new PID namespace.

    Returns:
        What the system did not allow; empty if it allowed everything.

    Raises:
        IsolationUnavailableError: the system allows none of it.
    """
    if platform.system() != "Linux":
        raise IsolationUnavailableError(f"{platform.system()} has no namespaces")
    try:
        refused = _unshare()
        _bring_loopback_up()
    except OSError as error:
        raise IsolationUnavailableError(str(error)) from error
    return refused


def enter_machine(spec: Spec, root: Path) -> str:
    """Give this process, a child of one that has entered namespaces, the kernel's view of this machine.

    Args:
        spec: the folders that the kernel is to see.
        root: empty folder that becomes the root.

    Returns:
        What the system did not allow; empty if it allowed everything.

    Raises:
        IsolationUnavailableError: the system does not allow the mounts.
    """
    try:
        refused = _mount_machine(spec, root)
        os.chroot(root)
        os.chdir("/")
    except OSError as error:
        raise IsolationUnavailableError(str(error)) from error
    return refused


def give_up_privileges() -> None:
    """Drop every capability of this process for good, so that it can undo no mount and read no other's environment."""
    call_libc("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for capability in range(64):
        try:
            call_libc("prctl", _PR_CAPBSET_DROP, capability, 0, 0, 0)
        except OSError as error:
            # The last one is passed, or there is none to drop.
            if error.errno not in (errno.EINVAL, errno.EPERM):
                raise
            break
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    call_libc("capset", header, bytes(24))  # effective, permitted and inheritable, two words each: none


def call_libc(function: str, *arguments: object, what: str = "") -> None:
    """Call a function of the C library.

    Args:
        function: name of the function, which returns 0 on success.
        arguments: its arguments as ctypes passes them.
        what: what the call does, for the error; by default the function's name.

    Raises:
        OSError: the call failed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what or function}: {os.strerror(code)}")


def _unshare() -> str:
    """Enter new namespaces, as an unprivileged user, or as root where only root may; return what was refused."""
    user, group = os.geteuid(), os.getegid()
    needed = _CLONE_NEWNS | _CLONE_NEWNET | _CLONE_NEWIPC
    try:
        call_libc("unshare", _CLONE_NEWUSER | needed)
    except OSError:
        if user != 0:
            raise
        call_libc("unshare", needed)
    else:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _mount(None, Path("/"), None, _MS_REC | _MS_PRIVATE)
    try:
        call_libc("unshare", _CLONE_NEWPID, what="a PID namespace")
    except OSError as error:
        return f"{_PROCESSES_SEEN} ({error.strerror})"
    return ""


def _mount_machine(spec: Spec, root: Path) -> str:
    """Build the kernel's view of this machine in `root`, and return what was refused."""
    refused = _mount_top_folders(root)
    for bind in spec.binds:
        _inside(root, bind.target).mkdir(parents=True, exist_ok=True)
    (root / "tmp").mkdir(exist_ok=True)
    _make_read_only(root)
    for bind in spec.binds:
        _bind(Path(bind.source), _inside(root, bind.target), writable=bind.writable)
    if (root / "dev/shm").is_dir():
        _mount("tmpfs", root / "dev/shm", "tmpfs", 0, _SHARED_MEMORY)
    for folder in spec.kept:
        place = _inside(root, folder)
        place.mkdir(parents=True, exist_ok=True)
        _bind(Path(folder), place, writable=False)
    for folder in spec.hidden:
        place = _inside(root, folder)
        if place.is_dir():
            _mount("tmpfs", place, "tmpfs", 0)
            _make_read_only(place)
        elif place.exists():
            _bind(Path("/dev/null"), place, writable=False)
    return refused


def _mount_top_folders(root: Path) -> str:
    """Mount what `/` holds, except for `/kaggle`, `/tmp` and `/proc`, which the kernel gets for itself.

    Returns:
        What the system did not allow; empty if it allowed everything.
    """
    if Path("/tmp").is_symlink():
        raise IsolationUnavailableError("/tmp is a symbolic link here")
    refused = ""
    _mount("tmpfs", root, "tmpfs", 0)
    for entry in sorted(Path("/").iterdir()):
        place = root / entry.name
        if entry.name == "kaggle":
            continue
        if entry.is_symlink():
            place.symlink_to(entry.readlink())
        elif entry.is_dir():
            place.mkdir()
            if entry == Path("/proc"):
                try:
                    _mount("proc", place, "proc", _MS_NOSUID_NODEV_NOEXEC)
                except OSError as error:  # in a container that hides parts of it, or without a PID namespace
                    refused = f"{_PROCESSES_SEEN} ({error.strerror})"
                    _bind(entry, place)
            elif entry != Path("/tmp"):
                _bind(entry, place)
    return refused


def _inside(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _bind(source: Path, target: Path, writable: bool = True) -> None:
    _mount(str(source), target, None, _MS_BIND | _MS_REC)
    if not writable:
        _make_read_only(target)


def _make_read_only(path: Path) -> None:
    """Make `path` and every mount below it read-only, and leave their other flags as they are."""
    attributes = struct.pack("=QQQQ", _MOUNT_ATTR_RDONLY, 0, 0, 0)
    arguments = (_AT_FDCWD, os.fsencode(path), _AT_RECURSIVE, attributes, ctypes.c_size_t(len(attributes)))
    call_libc("syscall", ctypes.c_long(_SYS_MOUNT_SETATTR), *arguments, what=f"mount_setattr of {path}")


def _mount(source: str | None, target: Path, kind: str | None, flags: int, data: str | None = None) -> None:
    source_bytes, kind_bytes, data_bytes = (text and os.fsencode(text) for text in (source, kind, data))
    arguments = (source_bytes, os.fsencode(target), kind_bytes, ctypes.c_ulong(flags), data_bytes)
    call_libc("mount", *arguments, what=f"mount on {target}")


def _bring_loopback_up() -> None:
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))
