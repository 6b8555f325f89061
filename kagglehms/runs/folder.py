"""What a run folder says about itself, so that nothing is ever mixed: recipe, data, folds, first weights, and whose a
fold is.

The files stand in the list at the top of `crossval`. A fold's result states the fingerprint of its run, so that a
fold that came from elsewhere is noticed even where run.json was written anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import platform
from contextlib import ExitStack
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kagglehms import __version__
from kagglehms.console import say
from kagglehms.errors import DataError, RunError, UsageError, first_line
from kagglehms.files import write_bytes
from kagglehms.locks import exclusive
from kagglehms.runs.dataset import Dataset
from kagglehms.strict_json import JSONError, parse_object
from kagglehms.training.first_weights import AUTO, FirstWeights, Origin, find_all
from kagglehms.training.recipes import Recipe, recipe_from_json
from kagglehms.training.resume import STATE

if TYPE_CHECKING:
    import polars as pl


RECIPE, RUN, FOLDS, RESULT = "recipe.json", "run.json", "folds.json", "result.json"
FIRST_WEIGHTS = "first_weights"
"""Where run.json and result.json say where a network's first weights came from."""
BLENDS = "blends"
"""A folder beside those of runs."""
_VERSIONED = ("torch", "timm", "numba", "numpy", "polars", "scikit-learn", "safetensors")


def fingerprint(recipe: Recipe, dataset: Dataset, origin: Origin) -> str:
    """sha256 of recipe, store, records, folds and first weights: folds of runs with equal ones belong together."""
    return hashlib.sha256(
        json.dumps([recipe.digest, asdict(dataset.identity), origin.key]).encode()
    ).hexdigest()


def begin(folder: Path, recipe: Recipe, dataset: Dataset, origin: Origin) -> None:
    """Write down what this run is, or refuse if the folder holds another.

    What a run says of which nothing was trained binds nobody: it is replaced.

    Raises:
        RunError: it holds another, or cannot be read or written.
        UsageError: the recipe has a name that no run can have.
    """
    if folder.name == BLENDS:
        raise UsageError(f"a run cannot be called {folder.name!r}: {folder} holds blends; rename the recipe")
    if (folder / RUN).is_file():
        try:
            stored = with_stored_folds(folder, dataset)
            refuse_other_run(folder, recipe, stored, origin)
        except (RunError, DataError):
            if has_progress(folder):
                raise
            _give_up(folder, recipe)
    stored = with_stored_folds(folder, dataset)
    if stored is not dataset:
        say(f"{recipe.name}: goes on with the folds in {folder / FOLDS}; they would be cut otherwise now")
    if (folder / RUN).is_file():
        if not (folder / FOLDS).is_file():  # a run of an older version
            _write_folds(folder, stored)
        return
    run = {
        "recipe": recipe.name,
        "n_folds": stored.n_folds,
        "fingerprint": fingerprint(recipe, stored, origin),
        "identity": asdict(stored.identity),
        FIRST_WEIGHTS: origin.to_json(),
        "records": len(stored.records),
        "prior": stored.records.targets_NK.mean(axis=0).tolist(),
        "versions": versions(),
        "scores": None,
    }
    write_bytes(folder / RECIPE, recipe.to_json())
    _write_folds(folder, stored)
    write_bytes(folder / RUN, json_bytes(run))


def _give_up(folder: Path, recipe: Recipe) -> None:
    """Remove what a run says about itself, unless somebody trains its first steps right now."""
    with ExitStack() as held:
        for fold in sorted(path for path in folder.glob("fold*") if path.is_dir()):
            held.enter_context(exclusive(fold, f"training of {recipe.name}, {fold.name},"))
        for name in (RUN, RECIPE, FOLDS):
            (folder / name).unlink(missing_ok=True)


def with_stored_folds(folder: Path, dataset: Dataset) -> Dataset:
    """The dataset with the folds that are stored in a run's folder, if they are as many folds of the same records.

    Which fold a record is in depends on the release of scikit-learn; what has been begun must be finished as it was.

    Raises:
        RunError: the file is broken.
    """
    path = folder / FOLDS
    if not path.is_file():
        return dataset
    content = read_json(path)
    if (content.get("records"), content.get("n_folds")) != (dataset.records.digest, dataset.n_folds):
        return dataset
    try:
        folds = np.array(content["folds"], dtype=np.int8)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise RunError(
            f"{path}: lists no folds ({first_line(error)}); copy the run's folder again"
        ) from error
    if folds.shape != dataset.folds.shape:
        raise RunError(
            f"{path}: lists folds of {folds.size} records instead of {dataset.folds.size}; copy the run's folder again"
        )
    return dataset if np.array_equal(folds, dataset.folds) else dataclasses.replace(dataset, folds=folds)


def _write_folds(folder: Path, dataset: Dataset) -> None:
    content = {
        "records": dataset.records.digest,
        "n_folds": dataset.n_folds,
        "folds": dataset.folds.tolist(),
    }
    write_bytes(folder / FOLDS, json.dumps(content).encode() + b"\n")


def refuse_other_run(
    folder: Path,
    recipe: Recipe,
    dataset: Dataset,
    origin: Origin | None,
    cure: str = "give another --runs or delete it",
) -> None:
    """Make sure that a run is what is to be gone on with.

    Args:
        folder: of the run.
        recipe: that it must be of.
        dataset: the same.
        origin: of its first weights; None if they do not matter yet.
        cure: what to do if it is another.

    Raises:
        RunError: it is another; the message names all that differs.
    """
    run, now = read_json(folder / RUN), asdict(dataset.identity)
    try:
        content = (folder / RECIPE).read_bytes()
        identity = {name: str(run["identity"][name]) for name in now}
    except (OSError, KeyError, TypeError) as error:
        raise RunError(f"{folder}: does not say of what it is ({first_line(error)}); {cure}") from error
    trained = recipe_from_json(content, folder / RECIPE)
    different = [
        f"{field.name} {getattr(trained, field.name)!r} there, {getattr(recipe, field.name)!r} now"
        for field in dataclasses.fields(Recipe)
        if getattr(trained, field.name) != getattr(recipe, field.name)
    ]
    different += [f"other {name}" for name, digest in now.items() if identity[name] != digest]
    stored = read_origin(folder / RUN)
    if origin is not None and (stored is None or stored.key != origin.key):
        different.append(f"first weights {named_origin(stored)} there, {named_origin(origin)} now")
    if different:
        raise RunError(f"{folder}: holds another run ({'; '.join(different)}); {cure}")


def read_origin(path: Path) -> Origin | None:
    """Where a run.json or result.json says that the first weights came from; None if an older version wrote it.

    Raises:
        RunError: the file cannot be read, or says something else than an origin.
    """
    content = read_json(path)
    if FIRST_WEIGHTS not in content:
        return None
    try:
        return Origin.from_json(content[FIRST_WEIGHTS])
    except ValueError as error:
        raise RunError(f"{path}: {error}; delete the run's folder and train again") from error


def origin_of(folder: Path) -> Origin | None:
    """Where the first weights of a run and of all its finished folds came from; None if none of them says so.

    Raises:
        RunError: its folds did not start alike, so that their scores together are those of no run.
    """
    origins = all_origins(folder)
    run = origins[folder / RUN]
    for path, origin in origins.items():
        if (origin and origin.key) != (run and run.key):
            raise RunError(
                f"{path}: started from other first weights than its run ({named_origin(origin)} there, "
                f"{named_origin(run)} in {folder / RUN}); delete {path.parent} and train that fold again"
            )
    return run


def all_origins(folder: Path) -> dict[Path, Origin | None]:
    """Where the run.json and each result.json of a run say that the first weights came from."""
    paths = [folder / RUN, *sorted(folder.glob(f"fold*/{RESULT}"))]
    return {path: read_origin(path) for path in paths}


def named_origin(origin: Origin | None) -> str:
    """An origin in words, also one that an older version did not write down."""
    return "not recorded" if origin is None else str(origin)


def weights_for(folder: Path, recipe: Recipe, asked: str, fresh: bool) -> FirstWeights:
    """The first weights of a run, looked for only where they are needed.

    Args:
        folder: of the run, begun or not.
        recipe: of the run.
        asked: see `first_weights.find_weights`.
        fresh: whether a fold has to start from them; else all go on from what is there, and a run that began
            with weights of the hub needs no hub.

    Raises:
        UsageError, DataError: see `first_weights.find_weights`.
        RunError: the run's own account cannot be read.
    """
    known = read_origin(folder / RUN) if (folder / RUN).is_file() and has_progress(folder) else None
    if asked == AUTO and known is not None and known.source == "hub" and not fresh:
        return FirstWeights(known)
    return find_all(recipe.backbones, asked)


def has_progress(folder: Path) -> bool:
    """Whether any fold of a run has come as far as a state or a result."""
    return any(_progress_file(fold) for fold in folder.glob("fold*"))


def is_fresh(fold: Path) -> bool:
    """Whether a fold has neither result nor state, and so will start from first weights."""
    return _progress_file(fold) is None


def is_finished(fold: Path, run: str) -> bool:
    """Whether a fold's folder holds its result.

    Args:
        fold: the folder.
        run: fingerprint of the run that it must belong to.

    Raises:
        RunError: it belongs to another run, or does not say to which.
    """
    path = fold / RESULT
    if not path.is_file():
        return False
    found = read_json(path).get("fingerprint")
    if found is None:
        raise RunError(
            f"{path}: does not say which run it is of, as an older version wrote it; if it is of this one, add the "
            f'line "fingerprint": "{run}", else delete {fold}'
        )
    if found != run:
        raise RunError(
            f"{path}: is of another run ({str(found)[:12]} there, {run[:12]} now: another recipe, data, folds or first "
            f"weights); "
            f"delete {fold} to train the fold again"
        )
    return True


def finished_folds(folder: Path, n_folds: int, run: str) -> tuple[int, ...]:
    """The folds of a run that are finished; for `run` and what is raised see `is_finished`."""
    return tuple(k for k in range(n_folds) if is_finished(folder / f"fold{k}", run))


def continue_from(
    earlier: Path, runs: Path, recipe: Recipe, dataset: Dataset, pretrained: str = "none"
) -> int:
    """Take over what an earlier session has trained of a recipe, finished folds and states of unfinished ones.

    What `runs` itself has come further with is left alone. `earlier` is only read: on Kaggle it is the output of the
    kernel's previous version. What the run is, is compared and copied before any fold.

    Args:
        earlier: its folder of all runs.
        runs: this session's.
        recipe: whose run to take over.
        dataset: what this session trains on.
        pretrained: from which first weights, see `first_weights.find_weights`.

    Returns:
        How many folds were taken over.

    Raises:
        RunError: the run there is of another recipe, data, folds or first weights, or does not say of which; or the
            folder cannot be written.
        UsageError: `earlier` is no folder.
    """
    if not earlier.is_dir():
        raise UsageError(
            f"{earlier}: no such folder; --resume-from takes an earlier session's folder of runs"
        )
    source, target = earlier / recipe.name, runs / recipe.name
    folds = [fold for fold in sorted(source.glob("fold*")) if _progress_file(fold)]
    if not folds:  # what was never trained binds nobody
        return 0
    dataset = with_stored_folds(source, dataset)
    origin = weights_for(source, recipe, pretrained, fresh=False).origin
    refuse_other_run(
        source,
        recipe,
        dataset,
        origin,
        "go on with its recipe, data and weights, or leave --resume-from away",
    )
    for fold in folds:
        is_finished(fold, fingerprint(recipe, dataset, origin))
    if (target / RUN).is_file() and has_progress(target):
        refuse_other_run(target, recipe, dataset, origin)
    else:
        names = (RECIPE, FOLDS, RUN) if (source / FOLDS).is_file() else (RECIPE, RUN)
        for name in names:
            write_bytes(target / name, (source / name).read_bytes())
    return sum(_take_over(fold, target / fold.name, recipe.name) for fold in folds)


def _progress_file(fold: Path) -> str | None:
    """What makes a fold count: its result, or else its state; None if it has neither."""
    return next((name for name in (RESULT, STATE) if (fold / name).is_file()), None)


def _take_over(fold: Path, target: Path, recipe: str) -> bool:
    """Copy a fold's files unless the target has come further; returns whether it did."""
    last = _progress_file(fold)
    if last is None or _progress_file(target):
        return False
    with exclusive(target, f"training of {recipe}, {fold.name},"):
        names = [p.name for p in fold.iterdir() if p.is_file() and p.name[0] != "." and p.name != last]
        for name in (*sorted(names), last):
            write_bytes(target / name, (fold / name).read_bytes())
    return True


def read_oof(folder: Path) -> pl.DataFrame | None:
    """The out-of-fold predictions of a run's finished folds together; None if there are none.

    Raises:
        RunError: a table cannot be read.
    """
    import polars as pl

    paths = [path.with_name("oof.parquet") for path in sorted(folder.glob(f"fold*/{RESULT}"))]
    tables = []
    for path in paths:
        try:
            tables.append(pl.read_parquet(path))
        except (pl.exceptions.PolarsError, OSError) as error:
            raise RunError(f"{path}: cannot be read ({first_line(error)}); train that fold again") from error
    try:
        return pl.concat(tables) if tables else None
    except pl.exceptions.PolarsError as error:
        raise RunError(
            f"{folder}: the folds' oof.parquet do not fit each other ({first_line(error)}); train it again"
        ) from error


def write_table(path: Path, table: pl.DataFrame) -> None:
    """Write a parquet file atomically."""
    content = io.BytesIO()  # written by polars itself, a full disk would be an error of its own kind
    table.write_parquet(content)
    write_bytes(path, content.getvalue())


def versions() -> dict[str, str]:
    """Versions of all that can change a result."""
    found = {"kagglehms": __version__, "python": platform.python_version()}
    for name in _VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that this project wrote.

    Raises:
        RunError: missing or broken.
    """
    try:
        return parse_object(path.read_bytes())
    except (OSError, JSONError) as error:
        raise RunError(
            f"{path}: cannot be read ({error}); delete the run's folder and train again"
        ) from error


def json_bytes(content: dict[str, Any]) -> bytes:
    """JSON as a person can read it."""
    return json.dumps(content, indent=1).encode() + b"\n"
