"""Puts a build in place as a whole: built beside the old one, flushed to the disk, then swapped in.

An interrupted build leaves the old bundle or none, and never a kernel next to a bundle that it would refuse.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from kagglehms.bundle.manifest import MANIFEST, File
from kagglehms.errors import UsageError
from kagglehms.files import PARTIAL_SUFFIX, sync_folder
from kagglehms.locks import HOLDER, LOCK

_STAGE = ".build-"
_BLOCK = 1 << 20


def refuse_to_replace_others(dataset: Path) -> None:
    """Make sure that a build replaces nothing but a bundle.

    Args:
        dataset: folder in which the bundle is going to be.

    Raises:
        UsageError: it holds something else.
    """
    if not dataset.exists() or (dataset / MANIFEST).is_file():
        return
    if not dataset.is_dir() or any(dataset.iterdir()):
        raise UsageError(f"{dataset}: exists and is not a bundle, so it is not replaced; give another --dist")


@contextlib.contextmanager
def staged(dist: Path) -> Iterator[Path]:
    """Yield a folder in `dist` to build in, and delete those that killed builds have left."""
    for stale in dist.glob(f"{_STAGE}*{PARTIAL_SUFFIX}"):
        shutil.rmtree(stale, ignore_errors=True)
    stage = Path(tempfile.mkdtemp(prefix=_STAGE, suffix=PARTIAL_SUFFIX, dir=dist))
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        if {LOCK, HOLDER}.issuperset(os.listdir(dist)):
            shutil.rmtree(dist, ignore_errors=True)


def swap_in(stage: Path, dist: Path, kernels: Sequence[str]) -> None:
    """Replace what is in `dist` by what was built.

    The old kernels go first and the new ones come last, so that no kernel is ever next to a bundle that it would
    refuse. A kernel that was not built this time is removed.

    Args:
        stage: folder of the new build.
        dist: folder of the old one.
        kernels: names of all kernels that a build can make.
    """
    retired = stage / "retired"
    retired.mkdir()
    (dist / "kernels").mkdir(exist_ok=True)
    for name in kernels:
        _move(dist / "kernels" / name, retired / name)
    _move(dist / "dataset", retired / ".dataset")
    _move(stage / "dataset", dist / "dataset")
    for name in kernels:
        _move(stage / "kernels" / name, dist / "kernels" / name)
    for folder in (dist / "kernels", dist):
        sync_folder(folder)


def _move(source: Path, target: Path) -> None:
    if source.exists():
        source.rename(target)


def write_file(path: Path, content: bytes) -> File:
    """Write a file to the disk, and return its hash and size."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return File(hashlib.sha256(content).hexdigest(), len(content))


def copy_file(source: Path, target: Path) -> File:
    """Copy a file to the disk in one pass, and return the hash and size of what was copied."""
    digest = hashlib.sha256()
    with source.open("rb") as reader, target.open("wb") as writer:
        while block := reader.read(_BLOCK):
            digest.update(block)
            writer.write(block)
        writer.flush()
        os.fsync(writer.fileno())
        return File(digest.hexdigest(), writer.tell())
