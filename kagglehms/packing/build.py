"""Finished runs → `dist/dataset`, one flat folder to upload, and `dist/kernels`, the kernels stamped with its digest.

Two builds of the same inputs have the same bytes.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import kagglehms
from kagglehms.bundle.manifest import (
    BLEND,
    CARD,
    FORMAT,
    MANIFEST,
    File,
    Library,
    Manifest,
    Model,
    Prior,
    dump_manifest,
    hash_file,
    read_manifest,
    tree_digest,
    verify,
)
from kagglehms.console import say
from kagglehms.device import choose_device
from kagglehms.errors import RunError
from kagglehms.kaggle.dist import UNSCORED
from kagglehms.kaggle.scripts import read_wheel
from kagglehms.kaggle.stamping import KERNEL_METADATA, find_owner, stamp_card, stamp_kernel
from kagglehms.locks import exclusive
from kagglehms.packing.half_precision import HeldOut, half_changes, halve, open_held_out
from kagglehms.packing.model_card import MODEL_CARD, model_card
from kagglehms.packing.sources import Sources, find_sources
from kagglehms.packing.staging import copy_file, refuse_to_replace_others, staged, swap_in, write_file
from kagglehms.packing.vendor import lacking, vendor
from kagglehms.runs.blends import Blend
from kagglehms.runs.contents import FoldResult
from kagglehms.runs.folder import RECIPE, FinishedRun, select_runs
from kagglehms.runs.named_blends import find_blend
from kagglehms.runs.prior_correction import joint_prior
from kagglehms.training.checkpoint import WEIGHTS


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


@dataclass(frozen=True)
class Content:
    """What a bundle is made of; the fields are explained at `build`."""

    runs: tuple[FinishedRun, ...]
    blend: Blend | None = None
    half: bool = False
    held_out: HeldOut | None = None
    wheels: tuple[str, ...] | None = None

    @property
    def prior(self) -> Prior:
        """The answer where no model has one: the class prior of the records that the bundle is for."""
        correction = None if self.blend is None else self.blend.prior
        return (
            correction.target
            if correction
            else joint_prior((run.info.prior, run.info.records) for run in self.runs)
        )

    def measure(self) -> Callable[[FinishedRun, FoldResult, Path], dict[str, float | None] | None]:
        """Return what measures a fold's half precision; the records are opened once."""
        if not self.half or self.held_out is None:
            return lambda run, fold, weights: None
        datasets, device = open_held_out(self.held_out, self.runs), choose_device()
        say(device.reason)

        def measured(run: FinishedRun, fold: FoldResult, weights: Path) -> dict[str, float | None]:
            say(f"{run.recipe.name} fold {fold.fold}: predicting its records in both precisions")
            full, dataset = run.folder.fold(fold.fold) / WEIGHTS, datasets[run.recipe.name]
            return half_changes(run.recipe, full, weights, fold.fold, dataset, device)

        return measured


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
) -> Built:
    """Build the bundle and the kernels.

    Args:
        runs: folder of runs.
        dist: folder for `dataset/` and `kernels/`; an earlier build there is replaced.
        recipes: names of the runs to bundle, in the order in which they should run; None for all.
        folds: folds of each run to bundle; None for those that are finished.
        owner: Kaggle user name; None looks for it, see `stamping.find_owner`.
        root: folder of a checkout; None for what the running library came with, see `find_sources`.
        blend: name of the blend that combines the recipes; its members are bundled unless `recipes` names others. None
            for a plain mean.
        half: whether to store weights in half precision.
        held_out: records on which to measure how half precision changes the scores; None measures nothing.
        wheels: packages to bundle, in addition to those that the kernels import and the image lacks; None for neither.
        library_only: whether to leave out the weights, for the kernels that prepare and train; `runs` need not exist.

    Raises:
        UsageError: a name is unknown, or `dist/dataset` is not a bundle and would be lost.
        RunError: a run is unfinished or damaged, the checkout is broken, another build into `dist` is running, or the
            disk is full.
    """
    sources = find_sources(root)
    owner, owner_source = find_owner(owner)
    chosen = find_blend(runs, blend) if blend else None
    if chosen is not None:
        chosen = chosen if recipes is None else chosen.only(recipes)
        recipes = _heaviest_first(chosen)
    selected = [] if library_only else select_runs(runs, recipes, folds)
    content = Content(tuple(selected), chosen, half, held_out, None if wheels is None else tuple(wheels))
    dataset = dist / "dataset"
    refuse_to_replace_others(dataset)
    try:
        with exclusive(dist, "a build"), staged(dist) as stage:
            slug, manifest = _write_dataset(stage / "dataset", sources, content, owner)
            names = kernel_names(sources.kernels, scored=bool(selected))
            _write_kernels(stage / "kernels", sources.kernels, names, owner, slug, manifest.digest)
            swap_in(stage, dist, kernel_names(sources.kernels))
    except BrokenPipeError:  # the reader of the output has gone, which is no fault of the disk
        raise
    except OSError as error:
        raise RunError(f"{dist}: cannot be written ({error}); free space or give another folder") from error
    kernels = tuple(dist / "kernels" / name for name in names)
    return Built(dataset, kernels, manifest, owner, owner_source, slug)


def _heaviest_first(blend: Blend) -> list[str]:
    """Return the members of a blend by weight, so that a run that is cut short has used the heaviest."""
    weights = dict(zip(blend.members, blend.weights, strict=True))
    return sorted(blend.active, key=lambda name: -weights[name])


def _write_dataset(folder: Path, sources: Sources, content: Content, owner: str) -> tuple[str, Manifest]:
    folder.mkdir()
    slug, card = stamp_card(sources.card, owner)
    wheel, wheel_bytes = sources.wheel()
    files = {
        wheel: write_file(folder / wheel, wheel_bytes),
        "LICENSE": copy_file(sources.license, folder / "LICENSE"),
    }
    vendored = _vendor(folder, sources.kernels, wheel, content)
    files |= {path.name: hash_file(path) for path in vendored}
    if content.blend is not None:
        files[BLEND] = write_file(folder / BLEND, content.blend.to_json())
    models = _write_models(folder, content, files)
    prior = content.prior
    told = model_card(content.runs, models, _versions(content.runs), prior, content.blend)
    files[MODEL_CARD] = write_file(folder / MODEL_CARD, told)
    files = dict(sorted(files.items()))
    manifest = Manifest(
        FORMAT,
        Library(kagglehms.__version__, wheel, sources.commit()),
        _versions(content.runs),
        tuple(models),
        prior,
        files,
        digest=tree_digest(files),
        wheels=tuple(path.name for path in vendored),
    )
    write_file(folder / MANIFEST, dump_manifest(manifest))
    write_file(folder / CARD, card)
    verify(
        folder, read_manifest(folder), manifest.digest
    )  # as the kernel will do, while an error is still cheap
    return slug, manifest


def _write_models(folder: Path, content: Content, files: dict[str, File]) -> list[Model]:
    """Write recipes and weights, add them to `files`, and return the models' entries of the manifest."""
    measure = content.measure()
    models = []
    for run in content.runs:
        recipe = run.recipe.name
        stem = _file_stem(recipe)
        recipe_file = f"{stem}.recipe.json"
        if recipe_file in files:
            raise RunError(
                f"two recipes would both be named {recipe_file}; rename {recipe!r} or choose one of them"
            )
        files[recipe_file] = copy_file(run.folder.path / RECIPE, folder / recipe_file)
        for fold in run.results:
            weights = run.folder.fold(fold.fold) / WEIGHTS
            name = f"{stem}.fold{fold.fold}.safetensors"
            scores = fold.scores
            if content.half:
                files[name] = write_file(folder / name, halve(weights))
                changes = measure(run, fold, folder / name)
                models.append(Model(recipe, fold.fold, name, recipe_file, scores, "float16", changes))
            else:
                files[name] = copy_file(weights, folder / name)
                models.append(Model(recipe, fold.fold, name, recipe_file, scores))
    return models


def _vendor(folder: Path, kernels: Path, wheel: str, content: Content) -> list[Path]:
    if content.wheels is None:
        return []
    scripts = sorted(kernels.glob("*/*.py"))
    wanted = [*lacking(scripts, read_wheel(folder / wheel)), *content.wheels]
    with tempfile.TemporaryDirectory(prefix="wheels-", dir=folder.parent) as scratch:
        return [path.rename(folder / path.name) for path in vendor(wanted, Path(scratch))]


def kernel_names(kernels: Path, scored: bool = True) -> list[str]:
    """Names of the project's kernels, in alphabetical order.

    Args:
        kernels: folder of their templates.
        scored: with those that need weights.

    Raises:
        RunError: there is none.
    """
    names = sorted(path.parent.name for path in kernels.glob(f"*/{KERNEL_METADATA}"))
    names = [name for name in names if scored or name in UNSCORED]
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


def _file_stem(recipe: str) -> str:
    """Return a recipe's name without characters that a file name on Kaggle should not have (`panels+global`)."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", recipe).strip(".-") or "recipe"


def _versions(runs: Sequence[FinishedRun]) -> dict[str, str]:
    """Merge the versions of all runs; where they differ, all of them are named."""
    merged: dict[str, set[str]] = {}
    for run in runs:
        for package, version in run.info.versions.items():
            merged.setdefault(package, set()).add(version)
    return {package: ", ".join(sorted(versions)) for package, versions in sorted(merged.items())}
