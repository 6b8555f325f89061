"""What a run is: recipe, data, folds and first weights. A run of one is never continued as a run of another.

A fold's result states the fingerprint of its run, so that a fold that was copied from elsewhere is noticed even where
run.json was written anew. A run of which no fold has been trained at all is replaced instead.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from kagglehms.console import say
from kagglehms.errors import DataError, RunError, UsageError
from kagglehms.files import sweep_partials, write_bytes
from kagglehms.locks import exclusive
from kagglehms.runs.contents import RunInfo, StoredFolds
from kagglehms.runs.dataset import Dataset
from kagglehms.runs.folder import BLENDS, FOLDS, RECIPE, RESULT, RUN, RunFolder, named_origin, versions
from kagglehms.training.first_weights import AUTO, FirstWeights, Origin, find_all
from kagglehms.training.recipes import Recipe
from kagglehms.training.resume import STATE


def fingerprint(recipe: Recipe, dataset: Dataset, origin: Origin) -> str:
    """Return the sha256 of recipe, data, folds, teachers and first weights; folds with equal ones belong together."""
    parts = [recipe.digest, dataset.identity.parts, origin.key]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def begin(folder: RunFolder, recipe: Recipe, dataset: Dataset, origin: Origin) -> None:
    """Write down what a run is, or make sure that the folder says the same.

    Raises:
        RunError: the folder holds another run, or cannot be read or written.
        UsageError: the recipe has a name that no run can have.
    """
    if folder.name == BLENDS:
        raise UsageError(
            f"a run cannot be called {folder.name!r}: {folder.path} holds blends; rename the recipe"
        )
    sweep_partials(folder.path, older_than_s=3600)  # other folds may be trained by other processes
    if folder.begun:
        try:
            refuse_other_run(folder, recipe, with_stored_folds(folder, dataset), origin)
        except (RunError, DataError):
            if has_progress(folder):
                raise
            _give_up(folder)
    stored = with_stored_folds(folder, dataset)
    if stored is not dataset:
        say(f"{recipe.name}: uses the folds in {folder.path / FOLDS}; they would be cut otherwise now")
    folds = StoredFolds(stored.records.digest, stored.n_folds, stored.folds.tolist())
    if folder.begun:
        if not (folder.path / FOLDS).is_file():  # a run of an older version
            folder.write_folds(folds)
        return
    folder.write_recipe(recipe)
    folder.write_folds(folds)
    folder.write_info(
        RunInfo(
            recipe=recipe.name,
            n_folds=stored.n_folds,
            fingerprint=fingerprint(recipe, stored, origin),
            identity=stored.identity,
            first_weights=origin,
            records=len(stored.records),
            prior=tuple(stored.records.targets_NK.mean(axis=0).tolist()),
            versions=versions(recipe.packages),
        )
    )


def _give_up(folder: RunFolder) -> None:
    """Remove what a run says about itself, unless another process is training its first steps."""
    with ExitStack() as held:
        for fold in sorted(path for path in folder.path.glob("fold*") if path.is_dir()):
            held.enter_context(exclusive(fold, f"training of {folder.name}, {fold.name},"))
        for name in (RUN, RECIPE, FOLDS):
            (folder.path / name).unlink(missing_ok=True)


def with_stored_folds(folder: RunFolder, dataset: Dataset) -> Dataset:
    """Return the dataset with the folds that a run stores, if they are as many folds of the same records.

    Which fold a record is in depends on the release of scikit-learn; a run is finished with the folds it began with.

    Raises:
        RunError: folds.json is broken.
    """
    stored = folder.stored_folds()
    if stored is None or (stored.records, stored.n_folds) != (dataset.records.digest, dataset.n_folds):
        return dataset
    if len(stored.folds) != len(dataset.folds):
        raise RunError(
            f"{folder.path / FOLDS}: lists folds of {len(stored.folds)} records instead of {len(dataset.folds)}; copy "
            "the run's folder again"
        )
    folds = np.array(stored.folds, dtype=np.int8)
    return dataset if np.array_equal(folds, dataset.folds) else dataclasses.replace(dataset, folds=folds)


def refuse_other_run(
    folder: RunFolder,
    recipe: Recipe,
    dataset: Dataset,
    origin: Origin | None,
    hint: str = "give another --runs or delete it",
) -> None:
    """Make sure that a run is the one to continue.

    Args:
        folder: folder of the run.
        recipe: recipe that the run must be of.
        dataset: data and folds that the run must be of.
        origin: origin that the first weights must have; None if they do not matter yet.
        hint: what to do if the run is another.

    Raises:
        RunError: the run is another; the message names everything that differs.
    """
    run, trained = folder.info(), folder.recipe()
    different = [
        f"{field.name} {getattr(trained, field.name)!r} there, {getattr(recipe, field.name)!r} now"
        for field in dataclasses.fields(Recipe)
        if getattr(trained, field.name) != getattr(recipe, field.name)
    ]
    there, now = run.identity.parts, dataset.identity.parts
    different += [f"other {name}" for name in now if there.get(name) != now[name]]
    stored = run.first_weights
    if origin is not None and (stored is None or stored.key != origin.key):
        different.append(f"first weights {named_origin(stored)} there, {named_origin(origin)} now")
    if different:
        raise RunError(f"{folder.path}: holds another run ({'; '.join(different)}); {hint}")


def weights_for(folder: RunFolder, recipe: Recipe, asked: str, fresh: bool) -> FirstWeights:
    """Find the first weights of a run, only where they are needed.

    Args:
        folder: folder of the run, begun or not.
        recipe: recipe of the run.
        asked: kind or file of first weights, see `first_weights.find_weights`.
        fresh: whether a fold has to start from them; else all folds continue from what is there, and a run that began
            with weights of the hub needs no hub.

    Raises:
        UsageError, DataError: the weights cannot be found, see `first_weights.find_weights`.
        RunError: run.json cannot be read.
    """
    known = folder.info().first_weights if folder.begun and has_progress(folder) else None
    if asked == AUTO and known is not None and known.source == "hub" and not fresh:
        return FirstWeights(known)
    return find_all(recipe.backbones, asked)


def has_progress(folder: RunFolder) -> bool:
    """Return whether any fold of a run has a state or a result."""
    return bool(folder.folds(RESULT, STATE))


def is_finished(folder: RunFolder, fold: int, run: str) -> bool:
    """Return whether a fold has its result.

    Args:
        folder: folder of the run.
        fold: number of the fold.
        run: fingerprint of the run that the result must be of.

    Raises:
        RunError: the result is of another run, or does not say of which.
    """
    path = folder.fold(fold) / RESULT
    if not path.is_file():
        return False
    found = folder.result(fold).fingerprint
    if found is None:
        raise RunError(
            f"{path}: does not say which run it is of, as an older version wrote it; if it is of this one, add the "
            f'line "fingerprint": "{run}", else delete {path.parent}'
        )
    if found != run:
        raise RunError(
            f"{path}: is of another run ({found[:12]} there, {run[:12]} now: another recipe, data, folds or first "
            f"weights); delete {path.parent} to train the fold again"
        )
    return True


def continue_from(earlier: Path, runs: Path, recipe: Recipe, dataset: Dataset, weights: str = "none") -> int:
    """Take over what an earlier session has trained of a recipe: finished folds, and states of unfinished ones.

    Folds that are finished in `runs`, or that have a state in both folders, are left alone. `earlier` is only read: on
    Kaggle it is the output of the kernel's previous version. The files that say what the run is are copied before any
    fold.

    Args:
        earlier: the earlier session's folder of all runs.
        runs: this session's folder of all runs.
        recipe: recipe of the run to take over.
        dataset: data that this session trains on.
        weights: kind or file of first weights, see `first_weights.find_weights`.

    Returns:
        Number of folds taken over.

    Raises:
        RunError: the run there is of another recipe, data, folds or first weights, or does not say of which; one of its
            files is broken; or the folder cannot be written.
        UsageError: `earlier` is no folder.
    """
    if not earlier.is_dir():
        raise UsageError(
            f"{earlier}: no such folder; --resume-from takes an earlier session's folder of runs"
        )
    source, target = RunFolder(earlier / recipe.name), RunFolder(runs / recipe.name)
    folds = source.folds(RESULT, STATE)
    if not folds:
        return 0
    dataset = with_stored_folds(source, dataset)
    origin = weights_for(source, recipe, weights, fresh=False).origin
    hint = "continue with its recipe, data and weights, or leave --resume-from away"
    refuse_other_run(source, recipe, dataset, origin, hint)
    for fold in folds:
        is_finished(source, fold, fingerprint(recipe, dataset, origin))
    if target.begun and has_progress(target):
        refuse_other_run(target, recipe, dataset, origin)
    else:
        for name in (RECIPE, FOLDS, RUN):
            if name != FOLDS or (source.path / FOLDS).is_file():
                write_bytes(target.path / name, (source.path / name).read_bytes())
    return sum(_take_over(source, target, fold) for fold in folds)


def _take_over(source: RunFolder, target: RunFolder, fold: int) -> bool:
    """Copy a fold's files unless the target has come as far; return whether it was copied."""
    done = fold in source.finished
    if fold in target.folds(RESULT) if done else fold in target.folds(RESULT, STATE):
        return False
    last = RESULT if done else STATE
    if done:
        source.check_fold(fold)
    with exclusive(target.fold(fold), f"training of {target.name}, fold {fold},"):
        files = (path for path in source.fold(fold).iterdir() if path.is_file() and path.name[0] != ".")
        for path in sorted(files, key=lambda path: (path.name == last, path.name)):
            write_bytes(target.fold(fold) / path.name, path.read_bytes())
        if done:  # only now: until the result is there, the target's own state can be gone on with
            (target.fold(fold) / STATE).unlink(missing_ok=True)
    return True
