"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from kagglehms.errors import RunError

PARTIAL_SUFFIX = ".partial"
"""Suffix of files that are being written; one found after a crash can be deleted."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """Write `path` whole or not at all: beside it, flushed to the disk, then renamed over it.

    Raises:
        RunError: the disk is full or the folder cannot be written; what stood at `path` is still there.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{PARTIAL_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise RunError(
            f"{path}: cannot be written ({error.strerror or error}); free space or give another folder"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # the folder itself may be what could not be made
            partial.unlink(missing_ok=True)


def require_regular(path: Path, most_bytes: int) -> None:
    """Make sure that reading a file ends: that it is no device, no pipe, and not far larger than such a file can be.

    Raises:
        ValueError: it is something else, or larger than `most_bytes`; the message is the reason alone.
        OSError: it cannot be looked at.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("is no file but a folder, a device or a pipe")
    if status.st_size > most_bytes:
        raise ValueError(
            f"has {status.st_size / 1e6:,.0f} MB, where such a file has at most {most_bytes / 1e6:,.0f}"
        )


def sync_folder(folder: Path) -> None:
    """Flush a folder to the disk, so that a power failure takes back no renaming in it; nothing where it cannot be."""
    with contextlib.suppress(OSError):  # Windows opens no folder, and some network disks do not flush one
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically (see `writing`)."""
    with writing(path) as file:
        file.write(content)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def listed(folder: Path) -> list[Path]:
    """Return the sorted contents of a folder; none if there is no such folder.

    `Path.glob` leaves out without a word what it may not read.

    Raises:
        RunError: the folder cannot be read.
    """
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise RunError(
            f"{folder}: cannot be read ({error.strerror}); make it readable, or move it away"
        ) from error


def sweep_partials(folder: Path, older_than_s: float = 0) -> None:
    """Delete partial files that an interrupted `writing` left in `folder`.

    Args:
        folder: a folder, which need not exist.
        older_than_s: age of the files to delete; an hour where another process may be writing.
    """
    for path in folder.glob(f".*{PARTIAL_SUFFIX}"):
        with contextlib.suppress(OSError):  # gone meanwhile
            if time.time() - path.stat().st_mtime >= older_than_s:
                path.unlink()


def home() -> Path | None:
    """Return the user's home folder; None where there is none, as in some containers."""
    try:
        return Path.home()
    except RuntimeError:
        return None
