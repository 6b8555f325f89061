"""Writes a bundle: library, weights, recipes, blend, model card and manifest in one flat folder.

The same content always gives the same bytes.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
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
    Onnx,
    Prior,
    dump_manifest,
    hash_file,
    read_manifest,
    verify,
    with_digest,
)
from kagglehms.console import say
from kagglehms.device import choose_device
from kagglehms.errors import RunError
from kagglehms.kaggle.image import kaggle_image
from kagglehms.kaggle.scripts import read_wheel
from kagglehms.kaggle.stamping import stamp_card
from kagglehms.packing.half_precision import HeldOut, half_changes, halve, open_held_out
from kagglehms.packing.model_card import MODEL_CARD, model_card
from kagglehms.packing.sources import Sources
from kagglehms.packing.staging import copy_file, write_file
from kagglehms.packing.vendor import lacking, vendor
from kagglehms.runs.blends import Blend
from kagglehms.runs.contents import FoldResult
from kagglehms.runs.folder import RECIPE, FinishedRun
from kagglehms.runs.prior_correction import joint_prior
from kagglehms.training.checkpoint import WEIGHTS
from kagglehms.training.recipe import Recipe


@dataclass(frozen=True)
class Content:
    """What a bundle is made from.

    Attributes:
        runs: runs with the folds to bundle.
        blend: how recipes are combined; None for their plain mean.
        half: whether to store weights in half precision.
        held_out: records on which to measure how that changes the scores; None measures nothing.
        wheels: packages to bundle, in addition to those that the kernels import and the image lacks; None for neither.
        onnx: whether to write networks as ONNX files too.
    """

    runs: tuple[FinishedRun, ...]
    blend: Blend | None = None
    half: bool = False
    held_out: HeldOut | None = None
    wheels: tuple[str, ...] | None = None
    onnx: bool = False

    @property
    def prior(self) -> Prior:
        """The prediction for rows that no model can predict: the class prior of the records that the bundle is for."""
        if self.blend is not None and self.blend.prior is not None:
            return self.blend.prior.target
        return joint_prior((run.info.prior, run.info.records) for run in self.runs)

    def measure(self) -> Callable[[FinishedRun, FoldResult, Path], dict[str, float | None] | None]:
        """Return a function that measures how half precision changes a fold's scores; opens the records once."""
        if not self.half or self.held_out is None:
            return lambda run, fold, weights: None
        datasets, device = open_held_out(self.held_out, self.runs), choose_device()
        say(device.reason)

        def measured(run: FinishedRun, fold: FoldResult, weights: Path) -> dict[str, float | None]:
            say(f"{run.recipe.name} fold {fold.fold}: predicting its records in both precisions")
            full, dataset = run.folder.fold(fold.fold) / WEIGHTS, datasets[run.recipe.name]
            return half_changes(run.recipe, full, weights, fold.fold, dataset, device)

        return measured


def write_bundle(folder: Path, sources: Sources, content: Content, owner: str) -> tuple[str, Manifest]:
    """Write a bundle and its card.

    Args:
        folder: new folder.
        sources: templates of the card and the kernels, and the library.
        content: what the bundle is made from.
        owner: Kaggle user name.

    Returns:
        Slug and manifest of the bundle.

    Raises:
        RunError: a run is damaged, or two recipes would share a file name.
        OSError: a file cannot be written.
    """
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
    prior, versions = content.prior, _versions(content.runs)
    card_bytes = model_card(content.runs, models, versions, prior, content.blend)
    files[MODEL_CARD] = write_file(folder / MODEL_CARD, card_bytes)
    files = dict(sorted(files.items()))
    library = Library(kagglehms.__version__, wheel, sources.commit())
    wheels = tuple(path.name for path in vendored)
    manifest = with_digest(Manifest(FORMAT, library, versions, tuple(models), prior, files, wheels=wheels))
    write_file(folder / MANIFEST, dump_manifest(manifest))
    write_file(folder / CARD, card)
    verify(
        folder, read_manifest(folder), manifest.digest
    )  # as the kernel will, while an error is still cheap
    return slug, manifest


def _write_models(folder: Path, content: Content, files: dict[str, File]) -> list[Model]:
    """Write recipes, weights and ONNX files, add them to `files`, and return the models' entries of the manifest."""
    measure = content.measure()
    export = _exporter(folder) if content.onnx else None
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
            described = partial(
                Model, recipe, fold.fold, name, recipe_file, fold.scores, records=run.info.records
            )
            if content.half:
                files[name] = write_file(folder / name, halve(weights))
                changes = measure(run, fold, folder / name)
                model = described(precision="float16", changes=changes)
            else:
                files[name] = copy_file(weights, folder / name)
                model = described()
            if export is not None and (written := export(run.recipe, model)) is not None:
                files[written.file] = hash_file(folder / written.file)
                model = replace(model, onnx=written)
            models.append(model)
    return models


def _exporter(folder: Path) -> Callable[[Recipe, Model], Onnx | None]:
    """Return a function that writes a model of the bundle as an ONNX file.

    The first model of a recipe that cannot be written is named, and the recipe's others are not tried.
    """
    from kagglehms.packing.onnx_export import NotExportable, export_network

    refused: set[str] = set()

    def export(recipe: Recipe, model: Model) -> Onnx | None:
        if recipe.name in refused:
            return None
        try:
            return export_network(
                recipe, folder / model.weights, (folder / model.weights).with_suffix(".onnx")
            )
        except NotExportable as error:
            refused.add(recipe.name)
            say(f"{recipe.name} fold {model.fold}: not written as ONNX: {error}")
            return None

    return export


def _vendor(folder: Path, kernels: Path, wheel: str, content: Content) -> list[Path]:
    """Fetch the wheels that the bundle is to hold besides the library's."""
    needed = {package: run for run in content.runs for package in kaggle_image().lacks(run.recipe.packages)}
    if content.wheels is None:
        for package, run in needed.items():
            say(
                f"{run.recipe.name} needs {package}, which Kaggle's image lacks; build with --wheels to bring it along"
            )
        return []
    scripts = sorted(kernels.glob("*/*.py"))
    wanted = [
        *content.wheels,
        *(_as_trained(package, run) for package, run in needed.items()),
        *lacking(scripts, read_wheel(folder / wheel)),
    ]  # pinned versions first
    with tempfile.TemporaryDirectory(prefix="wheels-", dir=folder.parent) as scratch:
        return [path.rename(folder / path.name) for path in vendor(wanted, Path(scratch))]


def _as_trained(package: str, run: FinishedRun) -> str:
    """Return a requirement for the version of a package that a run was trained with, if it is recorded."""
    version = run.info.versions.get(package, "absent")
    return package if version == "absent" else f"{package}=={version}"


def _file_stem(recipe: str) -> str:
    """Return a recipe's name without characters that a file name on Kaggle should not have (`panels+global`)."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", recipe).strip(".-") or "recipe"


def _versions(runs: Sequence[FinishedRun]) -> dict[str, str]:
    """Merge the package versions of all runs; where they differ, all of them are listed."""
    merged: dict[str, set[str]] = {}
    for run in runs:
        for package, version in run.info.versions.items():
            merged.setdefault(package, set()).add(version)
    return {package: ", ".join(sorted(versions)) for package, versions in sorted(merged.items())}
