"""The scratch folder of a rehearsal, which the next one deletes if this one is killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "kagglehms-rehearsal-"
_ABANDONED_S = 3600.0
"""Age in seconds at which a folder without anything in it was left by a rehearsal, and not just made by one."""


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a new folder, and delete it and those that killed rehearsals have left.

    Raises:
        OSError: there is no folder for temporary files, or it cannot be written.
    """
    _sweep(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX)).resolve()
    try:
        with _held(folder):
            yield folder
    finally:
        _delete(folder)


def _sweep(temporary: Path) -> None:
    """Delete the folders of this user that no process holds."""
    for folder in temporary.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # held, or gone meanwhile
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                continue
            with _held(folder):
                # One that has just been made is empty until it is held.
                if any(folder.iterdir()) or time.time() - status.st_mtime > _ABANDONED_S:
                    _delete(folder)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a folder until the end of the block, or of this process, however it ends.

    Raises:
        OSError: another process holds it.
    """
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _delete(folder: Path) -> None:
    """Delete a folder with all that it holds, folders included that a kernel has made unreadable."""
    for where, names, _ in os.walk(folder):
        for name in names:
            inner = Path(where, name)
            with contextlib.suppress(OSError):
                if not inner.is_symlink():
                    inner.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)
