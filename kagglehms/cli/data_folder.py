"""Find the competition's folder, for commands that are not given `--data` and for the doctor."""

from __future__ import annotations

import os
from pathlib import Path

from kagglehms.console import say
from kagglehms.data.competition import SLUG
from kagglehms.errors import UsageError
from kagglehms.kernel.mounts import MOUNT_STYLES, competition_mount

VARIABLE = "KAGGLEHMS_DATA"
"""Environment variable that names the competition's folder."""
TABLES = ("train.csv", "test.csv")
PLACES = ("hms", SLUG, "data", "data/hms", f"data/{SLUG}", ".", "demo/competition")
"""Folders in which a download is looked for, relative to the working folder."""
DOWNLOAD = f"kaggle competitions download -c {SLUG} && unzip -q {SLUG}.zip -d hms"


def named_data(given: Path | None) -> Path | None:
    """Return the folder that `--data` or else KAGGLEHMS_DATA names; None if neither does."""
    variable = os.environ.get(VARIABLE)
    return given if given is not None or not variable else Path(variable)


def find_data(given: Path | None = None, here: Path = Path()) -> Path | None:
    """Return the competition's folder, if it holds at least one of the competition's tables.

    Args:
        given: value of `--data`.
        here: folder that `PLACES` are relative to.

    Returns:
        The named folder, or the first of `PLACES` and Kaggle's mounts that holds a table; None if there is none.
    """
    named = named_data(given)
    mounts = [Path("/kaggle/input") / competition_mount(SLUG, style) for style in MOUNT_STYLES]
    places = [*(here / place for place in PLACES), *mounts] if named is None else [named]
    return next((place for place in places if any((place / name).is_file() for name in TABLES)), None)


def data_folder(given: Path | None) -> Path:
    """Return the folder that a command works on: the named one, else the one that is found, which is printed.

    Args:
        given: value of `--data`.

    Raises:
        UsageError: none was named, and none is found.
    """
    named = named_data(given)
    if named is not None:
        return named
    found = find_data()
    if found is None:
        raise UsageError(
            f"no competition data in {', '.join(PLACES)} or /kaggle/input; give --data FOLDER, set {VARIABLE}, or get "
            f"them: {DOWNLOAD}"
        )
    say(f"data: {found}, found by itself; --data or {VARIABLE} names another folder")
    return found
