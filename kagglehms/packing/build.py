"""Finished runs → `dist/dataset`, one flat folder to upload, and `dist/kernels`, the kernels stamped with its digest.

Two builds of the same inputs have the same bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from kagglehms.bundle.manifest import Manifest
from kagglehms.errors import RunError
from kagglehms.kaggle.dist import UNSCORED, kernels_in
from kagglehms.kaggle.stamping import find_owner, stamp_kernel
from kagglehms.locks import exclusive
from kagglehms.packing.bundling import Content, write_bundle
from kagglehms.packing.half_precision import HeldOut
from kagglehms.packing.onnx_export import require_packages
from kagglehms.packing.sources import find_sources
from kagglehms.packing.staging import refuse_to_replace_others, staged, swap_in, write_file
from kagglehms.runs.folder import select_runs
from kagglehms.runs.named_blends import find_blend


@dataclass(frozen=True)
class Built:
    """A finished build.

    Attributes:
        dataset: folder to upload as a Kaggle dataset.
        kernels: folders to push, one per kernel.
        manifest: manifest of the bundle.
        owner: Kaggle user name that was stamped, or `PLACEHOLDER_OWNER`.
        owner_source: where the name was found, in words.
        slug: slug of the bundle.
    """

    dataset: Path
    kernels: tuple[Path, ...]
    manifest: Manifest
    owner: str
    owner_source: str
    slug: str


def build(
    runs: Path,
    dist: Path,
    recipes: Sequence[str] | None = None,
    folds: Collection[int] | None = None,
    owner: str | None = None,
    root: Path | None = None,
    blend: str | None = None,
    half: bool = False,
    held_out: HeldOut | None = None,
    wheels: Sequence[str] | None = None,
    library_only: bool = False,
    onnx: bool = False,
) -> Built:
    """Build the bundle and the kernels.

    Args:
        runs: folder of runs.
        dist: folder for `dataset/` and `kernels/`; an earlier build there is replaced.
        recipes: names of the runs to bundle; None for all.
        folds: folds of each run to bundle; None for those that are finished.
        owner: Kaggle user name; None looks for it, see `stamping.find_owner`.
        root: folder of a checkout; None for what the running library came with, see `find_sources`.
        blend: name of the blend that combines the recipes; its members are bundled unless `recipes` names others. None
            for a plain mean.
        half: whether to store weights in half precision.
        held_out: records on which to measure how half precision changes the scores; None measures nothing.
        wheels: packages to bundle, in addition to those that the kernels import and the image lacks; None for neither.
        library_only: whether to leave out the weights, for the kernels that prepare and train; `runs` need not exist.
        onnx: whether to write networks as ONNX files too, see `onnx_export`.

    Raises:
        UsageError: a name is unknown, `dist/dataset` is not a bundle and would be lost, or a package that ONNX needs is
            not installed.
        RunError: a run is unfinished or damaged, the checkout is broken, another build into `dist` is running, or the
            disk is full.
    """
    if onnx:
        require_packages()
    sources = find_sources(root)
    owner, owner_source = find_owner(owner)
    chosen = find_blend(runs, blend) if blend else None
    if chosen is not None:
        chosen = chosen if recipes is None else chosen.only(recipes)
        recipes = chosen.active
    selected = [] if library_only else select_runs(runs, recipes, folds)
    content = Content(
        tuple(selected), chosen, half, held_out, None if wheels is None else tuple(wheels), onnx
    )
    dataset = dist / "dataset"
    refuse_to_replace_others(dataset)
    try:
        with exclusive(dist, "a build"), staged(dist) as stage:
            slug, manifest = write_bundle(stage / "dataset", sources, content, owner)
            names = kernel_names(sources.kernels, scored=bool(selected))
            _write_kernels(stage / "kernels", sources.kernels, names, owner, slug, manifest.digest)
            swap_in(stage, dist, kernel_names(sources.kernels))
    except BrokenPipeError:  # the reader of the output has gone, which is no fault of the disk
        raise
    except OSError as error:
        raise RunError(f"{dist}: cannot be written ({error}); free space or give another folder") from error
    kernels = tuple(dist / "kernels" / name for name in names)
    return Built(dataset, kernels, manifest, owner, owner_source, slug)


def kernel_names(kernels: Path, scored: bool = True) -> list[str]:
    """Return the names of the project's kernels, in alphabetical order.

    Args:
        kernels: folder of their templates.
        scored: whether to include those that need weights.

    Raises:
        RunError: there is no kernel.
    """
    names = [folder.name for folder in kernels_in(kernels) if scored or folder.name in UNSCORED]
    if not names:
        raise RunError(f"{kernels}: holds no kernel; take it from the project's checkout")
    return names


def _write_kernels(
    folder: Path, kernels: Path, names: Sequence[str], owner: str, slug: str, digest: str
) -> None:
    for name in names:
        (folder / name).mkdir(parents=True)
        for file, content in stamp_kernel(kernels / name, owner, slug, digest).items():
            write_file(folder / name / file, content)
