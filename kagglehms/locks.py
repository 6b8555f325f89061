"""Folders that are locked by one process at a time, and the name of that process."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from kagglehms.errors import RunError, UsageError

LOCK, HOLDER = ".lock", ".lock-holder"
"""In a folder that a process can hold for itself, and who holds it; see `exclusive`. Either may be left behind."""


@contextlib.contextmanager
def exclusive(folder: Path, what: str) -> Iterator[None]:
    """Lock `folder` for this process; the system releases the lock when the process ends, however it ends.

    Raises:
        UsageError: it is no folder, or may not be written.
        RunError: another process holds it; the message says which. Or the disk is full, or knows no locks.
    """
    from filelock import FileLock, Timeout

    lock, holder = FileLock(folder / LOCK), folder / HOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunError(
            f"{folder}: {what} is under way by {_named(holder)}; wait for it or give another folder"
        ) from error
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UsageError(f"{folder}: cannot be written ({error.strerror}); give another folder") from error
    except (OSError, NotImplementedError) as error:  # the second is what older releases say of file systems
        reason = getattr(error, "strerror", None) or error
        raise RunError(
            f"{folder}: cannot be locked ({reason}); give a folder with space left, on a disk of this machine"
        ) from error
    try:
        with contextlib.suppress(OSError):  # who holds it is good to know, and no more than that
            holder.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):
            holder.unlink(missing_ok=True)
        lock.release()


def _named(holder: Path) -> str:
    """Return the process that is named in the file `holder`."""
    with contextlib.suppress(OSError):
        return holder.read_text(encoding="utf-8", errors="replace").strip() or "another process"
    return "another process"
