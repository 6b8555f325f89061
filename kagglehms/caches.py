"""Caches of compiled code, which is executed when it is read: none is used that somebody else could have written."""

from __future__ import annotations

import atexit
import os
import shutil
import stat
import tempfile
from pathlib import Path

from kagglehms.errors import UsageError
from kagglehms.files import home

_INDUCTOR = "TORCHINDUCTOR_CACHE_DIR"
_NOBODY = 65534
"""User whom a user namespace shows in place of all that it does not know, root of the machine included."""


def others_can_write(folder: Path, trusted: Path | None = None) -> str:
    """Look who, besides this user and root, could put files into a folder or replace it.

    Args:
        folder: existing folder, absolute.
        trusted: folder around it whose owner is trusted with everything in it, and which is not looked at; None looks
            at every folder up to the root.

    Returns:
        The reason why somebody else could; empty if nobody can, or on Windows, which has no modes.
    """
    if not hasattr(os, "getuid"):
        return ""
    owners = {os.getuid(), 0, _NOBODY} | ({trusted.stat().st_uid} if trusted else set())
    for place in (folder, *folder.parents):
        if place == trusted:
            break
        status = place.stat()
        if status.st_uid not in owners:
            return f"{place} belongs to another user"
        shared = status.st_mode & (stat.S_IWOTH | (0 if _is_private(status) else stat.S_IWGRP))
        # In a folder like /tmp everybody can write, but nobody can replace what is another's.
        if shared and (place == folder or not status.st_mode & stat.S_ISVTX):
            return f"other users can write to {place}"
    return ""


def _is_private(status: os.stat_result) -> bool:
    """Return whether a group has one member by convention: that of the same name as the owner, or root's."""
    import grp
    import pwd

    try:
        return (
            status.st_gid == 0 or grp.getgrgid(status.st_gid).gr_name == pwd.getpwuid(status.st_uid).pw_name
        )
    except KeyError:  # neither needs a name, as in some containers
        return status.st_gid == status.st_uid


def use_own_compile_cache() -> Path:
    """Let `torch.compile` cache what it compiles in a folder of this user's, instead of one in the common /tmp.

    Returns:
        The folder: that of TORCHINDUCTOR_CACHE_DIR if it is set, else one in the user's cache, or a temporary one for a
        user whose home cannot be written.

    Raises:
        UsageError: somebody else can write to the folder.
    """
    given = os.environ.get(_INDUCTOR)
    folder = Path(given) if given else _cache_at_home()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        if given:
            raise UsageError(f"{_INDUCTOR}={given}: cannot be written ({error.strerror})") from error
        folder = Path(tempfile.mkdtemp(prefix="kagglehms-compiled-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if reason := others_can_write(folder.resolve()):
        raise UsageError(
            f"{reason}, and what is in {folder} is executed; chmod 700 it, or set {_INDUCTOR} to a folder of your own"
        )
    os.environ[_INDUCTOR] = str(folder)
    return folder


def _cache_at_home() -> Path:
    general = os.environ.get("XDG_CACHE_HOME")
    return (
        (Path(general) if general else (home() or Path(os.devnull)) / ".cache")
        / "kagglehms"
        / "torchinductor"
    )
