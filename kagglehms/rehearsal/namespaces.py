"""Puts a process into namespaces of its own: users, mounts and network (Linux, without root where that is allowed).

The root of the process becomes a new, read-only view of this machine with a `/kaggle` in it. Only `/kaggle/working`,
`/tmp` and `/dev/shm` can be written, and there is no network but a loopback. Only the standard library, like everything
the launcher imports.
"""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import struct
from pathlib import Path

from kagglehms.rehearsal.spec import IsolationUnavailableError, Spec

_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_AT_FDCWD, _AT_RECURSIVE, _MOUNT_ATTR_RDONLY = -100, 0x8000, 1
_SYS_MOUNT_SETATTR = 442
"""Number of the system call, the same on every architecture; Linux 5.12 and later."""
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
_SHARED_MEMORY = "size=2g"
"""Size that Kaggle gives its own image."""


def isolate(spec: Spec, root: Path) -> None:
    """Move this process into namespaces of its own and into a new root.

    Args:
        spec: the folders that the kernel is to see.
        root: empty folder that becomes the root.

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


def _unshare() -> None:
    """Enter new namespaces: as an unprivileged user, or as root where only root may."""
    user, group = os.geteuid(), os.getegid()
    try:
        call_libc("unshare", _CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWNET)
    except OSError:
        if user != 0:
            raise
        call_libc("unshare", _CLONE_NEWNS | _CLONE_NEWNET)
    else:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _mount(None, Path("/"), None, _MS_REC | _MS_PRIVATE)


def _mount_machine(spec: Spec, root: Path) -> None:
    """Build the kernel's view of this machine in `root`."""
    _mount_top_folders(root)
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


def _mount_top_folders(root: Path) -> None:
    """Mount what `/` holds, except for `/kaggle` and `/tmp`, which the kernel gets for itself."""
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
