"""Keeps what a session has left, here or on Kaggle, in place of what the session before it left."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from kagglehms.errors import RunError


def keep(made: Path, place: Path, good: bool) -> Path:
    """Move the output of a session to `place`, or next to it if the session failed.

    A failed session does not cost the output of the one before it, from which the next one continues or which is worth
    submitting. The old output is deleted only once the new one is complete, because a move from another disk is a copy
    and can fail half-way.

    Args:
        made: folder of the new output.
        place: folder for the output of a good session.
        good: whether the session was good; otherwise the output goes to `<place>.failed`.

    Returns:
        The folder that the output is in.

    Raises:
        RunError: the disk is full or fails; what was at the place is still there.
    """
    place = place if good else place.with_name(f"{place.name}.failed")
    arriving, retired = (place.with_name(f".{place.name}.{what}") for what in ("new", "old"))
    try:
        _put_back(retired, place)  # in case an earlier call was killed between its two renames
        for stale in (arriving, retired):
            shutil.rmtree(stale, ignore_errors=True)
        shutil.move(made, arriving)
        if place.exists():
            place.rename(retired)
        arriving.rename(place)
    except OSError as error:
        with contextlib.suppress(OSError):
            _put_back(retired, place)
        shutil.rmtree(arriving, ignore_errors=True)
        raise RunError(f"{place}: cannot be written ({error}); free space or give another --out") from error
    shutil.rmtree(retired, ignore_errors=True)
    return place


def _put_back(retired: Path, place: Path) -> None:
    """Undo the first of the two renames if the second one did not happen."""
    if retired.exists() and not place.exists():
        retired.rename(place)
