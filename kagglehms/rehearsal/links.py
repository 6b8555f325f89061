"""Inputs that hold symbolic links: made to lead to the same files wherever the inputs are mounted.

git-annex, DVC, a hub's cache and a second disk hold files behind links. Most of these are relative and lead nowhere
once their folder is mounted somewhere else.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

OWN_FOLDERS = (Path("/tmp"), Path("/dev/shm"))
"""Folders of this machine that the kernel does not see, because it gets its own in their place."""
_MOST_FOLDERS = 32
"""Most mounts for the targets of links; if they are in more folders, the folders around those are mounted."""


def resolve_links(inputs: Mapping[str, Path], place: Path) -> tuple[dict[str, Path], list[Path]]:
    """Lay out anew each input that holds links, with links to the files themselves.

    Inputs without links are left as they are. Links without a target are left out: the file is missing.

    Args:
        inputs: folder of each mount.
        place: new folder for what is laid out.

    Returns:
        The folder of each mount, and everything that the links in these folders lead to.
    """
    resolved, targets = {}, list[Path]()
    for number, (mount, path) in enumerate(inputs.items()):
        path = path.resolve()
        if _has_links(path):
            path = _laid_out(path, place / str(number), targets)
        resolved[mount] = path
    return resolved, targets


def folders_to_keep(targets: Iterable[Path]) -> Iterator[str]:
    """Yield a few folders that hold all targets which the kernel would not see, because of its own folders.

    Args:
        targets: files and folders that links lead to.
    """
    targets = list(targets)
    for own in OWN_FOLDERS:
        yield from _few_folders((target for target in targets if target.is_relative_to(own)), own)


def _few_folders(targets: Iterable[Path], own: Path) -> list[str]:
    """Return at most `_MOST_FOLDERS` folders below `own` that hold the targets, or more if there are no wider ones."""
    folders = {target if target.is_dir() else target.parent for target in targets}
    while True:
        outermost = {folder for folder in folders if folders.isdisjoint(folder.parents)}
        wider = {folder if folder.parent == own else folder.parent for folder in outermost}
        if len(outermost) <= _MOST_FOLDERS or wider == outermost:
            return sorted(map(str, outermost))
        folders = wider


def _has_links(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(
            entry.is_symlink() or (entry.is_dir() and _has_links(Path(entry.path))) for entry in entries
        )


def _laid_out(folder: Path, copy: Path, targets: list[Path], around: frozenset[Path] = frozenset()) -> Path:
    """Fill `copy` with links to what `folder` holds, and add to `targets` where they lead.

    Args:
        folder: folder whose links are followed.
        copy: new folder.
        targets: list of everything that the links in `copy` lead to.
        around: folders that hold `folder`, at any depth.

    Returns:
        `copy`.
    """
    around |= {folder}
    copy.mkdir(parents=True)
    for entry in sorted(folder.iterdir()):
        target = entry.resolve()
        if target in around or not target.exists():  # a link to a folder around it, or to nothing
            continue
        if target.is_dir() and _has_links(target):
            _laid_out(target, copy / entry.name, targets, around)
        elif target.parent in OWN_FOLDERS and target.is_file():  # /tmp as a whole cannot be mounted at /tmp
            shutil.copyfile(target, copy / entry.name)
        else:
            (copy / entry.name).symlink_to(target, target_is_directory=target.is_dir())
            targets.append(target)
    return copy
