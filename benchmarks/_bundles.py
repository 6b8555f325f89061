"""Bundles of untrained networks: as fast as trained ones."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

import torch

from kagglehms import __version__
from kagglehms.bundle.manifest import (
    FORMAT,
    Library,
    Manifest,
    Model,
    dump_manifest,
    hash_file,
    read_manifest,
    with_digest,
)
from kagglehms.inputs.layouts import Normaliser
from kagglehms.training.checkpoint import save_weights
from kagglehms.training.models import make_model
from kagglehms.training.recipes import Recipe

PRIOR = (0.2, 0.2, 0.2, 0.2, 0.1, 0.1)
NORMALISER = Normaliser({"kaggle": (-0.08340271, 1.9072835), "eeg": (0.0, 1.0)})


def untrained_bundle(folder: Path, recipes: Sequence[Recipe], n_folds: int) -> Path:
    """A bundle with `n_folds` networks of each recipe: one that is freshly made, and copies of it."""
    folder.mkdir(parents=True)
    (folder / "library.whl").touch()
    models = []
    for number, recipe in enumerate(recipes):
        (folder / f"r{number}.json").write_bytes(recipe.to_json())
        torch.manual_seed(0)
        first = folder / _weights(number, 0)
        save_weights(make_model(recipe)[0], first, NORMALISER)
        for fold in range(n_folds):
            if fold:
                shutil.copyfile(first, folder / _weights(number, fold))
            models.append(Model(recipe.name, fold, _weights(number, fold), f"r{number}.json", {"all": 1.0}))
    _write_manifest(folder, models)
    return folder


def reduced_bundle(bundle: Path, folder: Path, recipes: Collection[str], n_folds: int) -> Path:
    """The bundle with fewer recipes and folds; its files are shared."""
    folder.mkdir(parents=True)
    models = [m for m in read_manifest(bundle).models if m.recipe in recipes and m.fold < n_folds]
    for name in {"library.whl", *(m.recipe_file for m in models), *(m.weights for m in models)}:
        os.link(bundle / name, folder / name)
    _write_manifest(folder, models)
    return folder


def _weights(number: int, fold: int) -> str:
    return f"r{number}f{fold}.safetensors"


def _write_manifest(folder: Path, models: Sequence[Model]) -> None:
    files = {path.name: hash_file(path) for path in sorted(folder.iterdir())}
    library = Library(__version__, "library.whl", None)
    manifest = Manifest(FORMAT, library, {}, tuple(models), PRIOR, files)
    (folder / "manifest.json").write_bytes(dump_manifest(with_digest(manifest)))
