"""The folder that a build leaves: the bundle in `dataset/`, and the kernels in `kernels/`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kagglehms.errors import UsageError, closest
from kagglehms.kaggle.stamping import KERNEL_METADATA, read_template

UNSCORED = ("prepare", "train")
"""Kernels whose output is all of /kaggle/working; every other kernel is scored and has to leave a submission."""
_ORDER = ("prepare", "train", "infer")
"""Kernels in the order in which data pass through them; any other kernel comes after these."""


def require_bundle(dist: Path) -> None:
    """Make sure that `dist` holds a bundle.

    Raises:
        UsageError: it does not.
    """
    if not (dist / "dataset").is_dir():
        raise UsageError(f"{dist}: holds no bundle; build it with `kagglehms build --dist {dist}`")


def kernel_folders(dist: Path) -> list[Path]:
    """Return the folders of `dist/kernels` that hold a kernel, in the order in which data pass through them."""
    return sorted(kernels_in(dist / "kernels"), key=lambda folder: (_place(folder.name), folder.name))


def kernels_in(folder: Path) -> list[Path]:
    """Return the subfolders of `folder` that hold a kernel, by name."""
    return sorted(path.parent for path in folder.glob(f"*/{KERNEL_METADATA}"))


def choose_kernels(dist: Path, names: Sequence[str]) -> list[Path]:
    """Return the folders of the kernels in `names`, in the order in which data pass through them.

    Raises:
        UsageError: there is no bundle, or no kernel of that name.
    """
    require_bundle(dist)
    folders = kernel_folders(dist)
    known = [folder.name for folder in folders]
    for name in names:
        if not known:
            raise UsageError(f"{dist / 'kernels'}: holds no kernel; build it with `kagglehms build`")
        if name not in known:
            raise UsageError(f"{dist / 'kernels'}: no kernel {name!r}; {closest(name, known)}")
    return [folder for folder in folders if folder.name in names]


def kernel_ref(folder: Path) -> str:
    """Return owner/slug of the kernel in `folder`."""
    return str(read_template(folder / KERNEL_METADATA)["id"])


def _place(name: str) -> int:
    return _ORDER.index(name) if name in _ORDER else len(_ORDER)
