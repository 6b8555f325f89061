"""Where Kaggle mounts a kernel's inputs.

Kaggle has several styles of mounting, and a kernel tries each of them by name. It never walks `/kaggle/input`: the
competition alone has tens of thousands of files, and listing them takes minutes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from kagglehms.data.competition import SLUG
from kagglehms.errors import DataError

ROOT_VARIABLE = "KAGGLEHMS_KAGGLE_ROOT"
"""Environment variable that names a folder to use as `/kaggle`, for a rehearsal that cannot mount anything."""

MountStyle = Literal["slug", "owner"]
"""`slug`: all inputs side by side under their slugs. `owner`: inputs sorted by kind, and datasets by owner."""
MOUNT_STYLES: tuple[MountStyle, ...] = get_args(MountStyle)


def dataset_mount(owner: str, slug: str, style: MountStyle) -> str:
    """Return the folder of a dataset, relative to `/kaggle/input`."""
    return {"slug": slug, "owner": f"datasets/{owner}/{slug}"}[style]


def competition_mount(slug: str, style: MountStyle) -> str:
    """Return the folder of a competition, relative to `/kaggle/input`."""
    return {"slug": slug, "owner": f"competitions/{slug}"}[style]


def notebook_mount(owner: str, slug: str, style: MountStyle) -> str:
    """Return the folder of another kernel's output, relative to `/kaggle/input`."""
    return {"slug": slug, "owner": f"notebooks/{owner}/{slug}"}[style]


def find_output(root: Path, owner: str, slug: str) -> Path | None:
    """Return the folder in which another kernel's output is mounted; None if it is not mounted."""
    places = [root / "input" / notebook_mount(owner, slug, style) for style in MOUNT_STYLES]
    return next((place for place in places if place.is_dir()), None)


def find_competition(root: Path) -> Path:
    """Return the folder in which the competition is mounted.

    Args:
        root: `/kaggle`, or a folder used in its place.

    Raises:
        DataError: it is not mounted in any of the styles.
    """
    places = [root / "input" / competition_mount(SLUG, style) for style in MOUNT_STYLES]
    for place in places:
        if any((place / name).is_file() for name in ("test.csv", "sample_submission.csv")):
            return place
    raise DataError(
        places[0],
        f"the competition is not mounted (looked in {', '.join(map(str, places))} for test.csv)",
        "add it to the kernel's competition_sources, and accept its rules on its page",
    )
