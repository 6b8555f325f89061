"""The folder of a run: the only reader and writer of its files.

    RUNS/<recipe>/recipe.json                  what was trained
                  run.json                     on which data, folds and first weights; scores once all folds are done
                  folds.json                   fold of each record: another scikit-learn would cut others
                  oof.parquet                  out-of-fold predictions, once all folds are done
                  fold<k>/weights.safetensors  weights of the evaluation that is kept
                  fold<k>/oof.parquet          its predictions of the held-out records
                  fold<k>/history.csv          all evaluations
                  fold<k>/log.jsonl            all events: evaluations, savings, interruptions
                  fold<k>/state.safetensors    only while the fold is unfinished: training resumes from it
                  fold<k>/result.json          written last: a fold that has it is finished
                  fold<k>/embeddings.safetensors  of its training records, once similar cases were looked for
    RUNS/blends/<name>.json                    fitted blends, see `blend_files`

Reads are strict: whatever is missing or broken raises a `RunError` of one line. `run_view` reads a whole run leniently.
Whatever has changed since it was written counts as broken: run.json and result.json hold the sha256 of the files beside
them, and each JSON file one of its own values. Files of older versions, which had none, are read as they are.
"""

from __future__ import annotations

import hashlib
import io
import platform
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter

from kagglehms import __version__
from kagglehms.data.competition import PROBABILITY_COLUMNS, VOTE_COLUMNS
from kagglehms.data.records import MOST_VOTES, RANGES
from kagglehms.errors import DataError, RunError, UsageError, closest, first_line
from kagglehms.files import listed, sha256_of, write_bytes
from kagglehms.runs.contents import FoldResult, RunInfo, StoredFolds
from kagglehms.strict_json import JSONError, sealed, unchanged, validate
from kagglehms.training.checkpoint import WEIGHTS
from kagglehms.training.first_weights import Origin
from kagglehms.training.logs import HISTORY
from kagglehms.training.metric import check_probabilities
from kagglehms.training.recipes import Recipe, recipe_from_json

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

RECIPE, RUN, FOLDS, OOF, RESULT = "recipe.json", "run.json", "folds.json", "oof.parquet", "result.json"
EMBEDDINGS = "embeddings.safetensors"
BLENDS = "blends"
"""Name of the folder of fitted blends, which no run can have."""
_WHOLE_COLUMNS = ("record", "eeg_id", "spectrogram_id", "patient_id", *VOTE_COLUMNS)
_NUMBER_COLUMNS = (*RANGES, *PROBABILITY_COLUMNS)
"""Columns of a table of predictions that must be there and hold a number in every row."""
_VERSIONED = ("torch", "timm", "numba", "numpy", "polars", "scikit-learn", "safetensors")
_RUN_HINT = "copy the run's folder again, or delete it and train again"
_CHANGED = "has changed since it was written"
_FOLD_HINT = "delete the fold's folder and train this fold again"
T = TypeVar("T")


@dataclass(frozen=True)
class RunFolder:
    """The files of one run. Every read opens the file anew, and raises `RunError` if it is missing or broken.

    Attributes:
        path: RUNS/<recipe>.
    """

    path: Path

    @property
    def name(self) -> str:
        """Name of the run, which is that of its recipe."""
        return self.path.name

    @property
    def begun(self) -> bool:
        """Whether the folder says what the run is."""
        return (self.path / RUN).is_file()

    def fold(self, number: int) -> Path:
        """Return the folder of a fold."""
        return self.path / f"fold{number}"

    def folds(self, *names: str) -> list[int]:
        """Return, in ascending order, the numbers of the folds that have any of the files of these names."""
        folds = [path for path in listed(self.path) if path.name[:4] == "fold" and path.name[4:].isdecimal()]
        return sorted(int(path.name[4:]) for path in folds if _holds(path, names))

    @property
    def finished(self) -> list[int]:
        """Numbers of the finished folds, in ascending order."""
        return self.folds(RESULT)

    def info(self) -> RunInfo:
        """Read run.json."""
        return _read_json(self.path / RUN, RunInfo, _RUN_HINT)

    def recipe(self) -> Recipe:
        """Read recipe.json."""
        path = self.path / RECIPE
        try:
            content = path.read_bytes()
            recipe = recipe_from_json(content, path)
        except OSError as error:
            raise RunError(f"{path}: cannot be read ({error.strerror}); {_RUN_HINT}") from error
        except DataError as error:
            raise RunError(f"{path}: {error.reason}; {_RUN_HINT}") from error
        self._refuse_changed(path, content, _RUN_HINT)
        return recipe

    def stored_folds(self) -> StoredFolds | None:
        """Read folds.json; None if an older version did not write one."""
        path = self.path / FOLDS
        return _read_json(path, StoredFolds, _RUN_HINT) if path.is_file() else None

    def result(self, fold: int) -> FoldResult:
        """Read result.json of a finished fold."""
        path = self.fold(fold) / RESULT
        result = _read_json(path, FoldResult, _FOLD_HINT)
        if result.fold != fold:
            raise RunError(f"{path}: is of fold {result.fold}; {_FOLD_HINT}")
        return result

    def origin(self) -> Origin | None:
        """Read the origin of the first weights of the run and of all its finished folds; None if not recorded.

        Raises:
            RunError: the folds started from different weights, so that their joint scores are those of no run.
        """
        run = self.info().first_weights
        for fold in self.finished:
            other = self.result(fold).first_weights
            if (other and other.key) != (run and run.key):
                raise RunError(
                    f"{self.fold(fold) / RESULT}: started from other first weights than its run "
                    f"({named_origin(other)} there, {named_origin(run)} in {self.path / RUN}); {_FOLD_HINT}"
                )
        return run

    @property
    def finishing(self) -> str:
        """The command that trains the folds that are left, from first weights like those of its other folds."""
        command = f"kagglehms train {self.name}"
        try:
            origin = self.info().first_weights
        except RunError:
            return command  # which says what is wrong with the run
        if origin is None or origin.source == "hub":
            return command
        return f"{command} --weights {'none' if origin.source == 'none' else origin.name}"

    def check_weights(self, fold: int) -> Path:
        """Return the weights file of a finished fold.

        Raises:
            RunError: the file is missing or truncated, holds no tensor, or has changed since training wrote it.
        """
        from safetensors import SafetensorError, safe_open

        path = self.fold(fold) / WEIGHTS
        try:
            with safe_open(path, framework="np") as tensors:
                problem = "" if tensors.keys() else "holds no tensor"
        except (OSError, SafetensorError) as error:
            problem = f"cannot be read ({error})" if path.exists() else "missing"
        if problem:
            raise RunError(f"{path}: {problem}; {_FOLD_HINT}")
        stated = self.result(fold).files.get(WEIGHTS)
        if stated is not None and sha256_of(path) != stated:
            raise RunError(f"{path}: {_CHANGED}; {_FOLD_HINT}")
        return path

    def check_fold(self, fold: int) -> None:
        """Read all files of a finished fold.

        Raises:
            RunError: one of them is missing or broken, or has changed since training wrote it.
        """
        self.result(fold)
        self.check_weights(fold)
        self.fold_predictions(fold)
        if (self.fold(fold) / HISTORY).is_file():
            self.history(fold)

    def fold_predictions(self, fold: int) -> pl.DataFrame:
        """Read a fold's predictions of its held-out records: votes, patient and probabilities of each, all checked."""
        return self._read_predictions(self.fold(fold) / OOF, _FOLD_HINT)

    def finished_predictions(self) -> pl.DataFrame | None:
        """Read the predictions of all finished folds as one table; None if no fold is finished."""
        return joined([self.fold_predictions(fold) for fold in self.finished])

    def predictions(self) -> pl.DataFrame:
        """Read the run's own table of out-of-fold predictions, which it has once all folds are finished."""
        return self._read_predictions(self.path / OOF, f"train {self.name} again")

    def history(self, fold: int) -> pl.DataFrame:
        """Read the evaluations of a fold, with the fold's number in a column `fold`."""
        import polars as pl
        from polars import selectors

        numbers = ("epoch", "train_loss", "train_kl", "score_all")
        types = {"stage": pl.Int64, **dict.fromkeys(numbers, pl.Float64)}
        table = self._read_table(
            self.fold(fold) / HISTORY,
            _FOLD_HINT,
            lambda content: (
                _with_divergence(pl.read_csv(content))
                .with_columns(
                    *(pl.col(name).cast(dtype) for name, dtype in types.items()),
                    pl.col("warm_up").cast(pl.String).str.to_lowercase() == "true",
                )
                .with_columns(
                    selectors.string().cast(pl.Float64)
                )  # a column without any value counts as text
            ),
        )
        return table.with_columns(pl.lit(fold).alias("fold"))

    def embeddings(self, fold: int, key: str) -> NDArray[np.float32] | None:
        """Read the embeddings of a fold's training records; None if there are none, or others than those of `key`."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.fold(fold) / EMBEDDINGS, framework="np") as tensors:
                known = (tensors.metadata() or {}).get("key") == key
                return tensors.get_tensor("embeddings") if known else None
        except (OSError, SafetensorError):
            return None  # they are computed anew

    def write_embeddings(self, fold: int, key: str, embeddings_ND: NDArray[np.float32]) -> None:
        """Write the embeddings of a fold's training records.

        Args:
            fold: number of the fold.
            key: digests of what they were computed from.
            embeddings_ND: embedding of each training record.
        """
        from safetensors.numpy import save

        write_bytes(self.fold(fold) / EMBEDDINGS, save({"embeddings": embeddings_ND}, {"key": key}))

    def write_recipe(self, recipe: Recipe) -> None:
        """Write recipe.json."""
        write_bytes(self.path / RECIPE, recipe.to_json())

    def write_folds(self, folds: StoredFolds) -> None:
        """Write folds.json."""
        _write_json(self.path / FOLDS, folds, indent=None)

    def write_info(self, info: RunInfo) -> None:
        """Write run.json, with the sha256 of the files beside it."""
        _write_json(self.path / RUN, replace(info, files=_digests(self.path, (RECIPE, FOLDS, OOF))))

    def write_result(self, result: FoldResult) -> None:
        """Write a fold's result.json, with the sha256 of the files beside it; then the fold counts as finished."""
        folder = self.fold(result.fold)
        _write_json(folder / RESULT, replace(result, files=_digests(folder, (WEIGHTS, OOF, HISTORY))))

    def write_predictions(self, table: pl.DataFrame, fold: int | None = None) -> None:
        """Write out-of-fold predictions, those of one fold or, without `fold`, of the run."""
        content = io.BytesIO()  # written by polars itself, a full disk would be an error of its own kind
        table.write_parquet(content)
        write_bytes((self.path if fold is None else self.fold(fold)) / OOF, content.getvalue())

    def _stated(self, path: Path) -> str | None:
        """Return the sha256 that run.json or result.json beside a file states; None where it cannot be read."""
        try:
            if path.parent == self.path:
                return self.info().files.get(path.name)
            return _read_json(path.with_name(RESULT), FoldResult, _FOLD_HINT).files.get(path.name)
        except RunError:
            return None  # which is an error of its own for whoever reads that file

    def _refuse_changed(self, path: Path, content: bytes, hint: str) -> None:
        stated = self._stated(path)
        if stated is not None and hashlib.sha256(content).hexdigest() != stated:
            raise RunError(f"{path}: {_CHANGED}; {hint}")

    def _read_table(self, path: Path, hint: str, read: Callable[[IO[bytes]], pl.DataFrame]) -> pl.DataFrame:
        import polars as pl

        try:
            content = path.read_bytes()
            # First, as polars prints what it meets in damaged bytes.
            self._refuse_changed(path, content, hint)
            return read(io.BytesIO(content))
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            raise RunError(f"{path}: cannot be read ({first_line(error)}); {hint}") from error

    def _read_predictions(self, path: Path, hint: str) -> pl.DataFrame:
        return self._read_table(path, hint, lambda content: _checked_predictions(path, content, hint))


def find_runs(runs: Path) -> list[RunFolder]:
    """Return every run below `runs`, by name."""
    return [RunFolder(path) for path in listed(runs) if _holds(path, (RECIPE, RUN))]


def _holds(folder: Path, names: Iterable[str]) -> bool:
    return not {path.name for path in listed(folder)}.isdisjoint(names)


def require_runs(runs: Path) -> list[RunFolder]:
    """Return every run below `runs`, by name.

    Raises:
        UsageError: there is no such folder, or no run in it.
    """
    if not runs.is_dir():
        raise UsageError(f"{runs}: no such folder; give the folder that `kagglehms train` wrote")
    found = find_runs(runs)
    if not found:
        raise UsageError(f"{runs}: holds no run; train one with `kagglehms train`")
    return found


@dataclass(frozen=True)
class FinishedRun:
    """A run with at least one finished fold, whose files have been read and checked.

    Attributes:
        folder: folder of the run.
        info: content of run.json.
        recipe: the recipe that was trained.
        first_weights: origin of the weights that all its networks started from; None if not recorded.
        results: results of the chosen folds, in ascending order.
    """

    folder: RunFolder
    info: RunInfo
    recipe: Recipe
    first_weights: Origin | None
    results: tuple[FoldResult, ...]


def select_runs(
    runs: Path, recipes: Sequence[str] | None = None, folds: Collection[int] | None = None
) -> list[FinishedRun]:
    """Read the runs that a bundle is made of.

    Args:
        runs: folder of all runs.
        recipes: names of the runs; None takes all runs, by name.
        folds: numbers of the folds to take from each run; None takes the finished ones.

    Raises:
        UsageError: there is no such folder, no run in it, or no run of a given name.
        RunError: a run has no finished fold or lacks a given one, its folds started from different weights, or one of
            its files is missing, truncated or of another version.
    """
    present = {folder.name: folder for folder in require_runs(runs)}
    for name in recipes or ():
        if name not in present:
            raise UsageError(f"{runs}: no run of recipe {name!r}; {closest(name, present)}")
    return [_read_finished(present[name], folds) for name in dict.fromkeys(recipes or present)]


def _read_finished(folder: RunFolder, folds: Collection[int] | None) -> FinishedRun:
    finished, name = folder.finished, folder.name
    if not finished:
        raise RunError(
            f"{folder.path}: unfinished, none of its folds has been trained; finish it with `{folder.finishing}`"
            " or choose others with --recipe"
        )
    info, recipe = folder.info(), folder.recipe()
    for file, found in ((RUN, info.recipe), (RECIPE, recipe.name)):
        if found != name:
            raise RunError(
                f"{folder.path / file}: is of recipe {found!r} in the run of {name!r}; if its folder was renamed, "
                "rename it back"
            )
    missing = sorted(set(folds or ()) - set(finished))
    if missing:
        raise RunError(
            f"{folder.path}: fold {', '.join(map(str, missing))} is not finished (finished: "
            f"{', '.join(map(str, finished))} of {info.n_folds}); finish it with `{folder.finishing}` or choose "
            "others with --fold"
        )
    wanted = finished if folds is None else sorted(set(folds))
    for fold in wanted:
        folder.check_weights(fold)
    results = tuple(folder.result(fold) for fold in wanted)
    return FinishedRun(folder, info, recipe, folder.origin(), results)


def joined(tables: Sequence[pl.DataFrame]) -> pl.DataFrame | None:
    """Join the tables of folds; a column that one of them lacks has no values there. None without any rows.

    Raises:
        RunError: a column has other types of values in one table than in another, which nothing can hold together.
    """
    import polars as pl

    filled = [table for table in tables if len(table)]
    try:
        return pl.concat(filled, how="diagonal_relaxed") if filled else None
    except pl.exceptions.PolarsError as error:
        reason = f"the tables of the folds do not fit together ({first_line(error)})"
        raise RunError(f"{reason}; {_FOLD_HINT}") from error


def named_origin(origin: Origin | None) -> str:
    """Describe an origin of first weights, also one that an older version did not record."""
    return "not recorded" if origin is None else str(origin)


def versions(packages: Iterable[str] = ()) -> dict[str, str]:
    """Return the versions of all packages that can change a result.

    Args:
        packages: names of optional packages that the network is made from.
    """
    found = {"kagglehms": __version__, "python": platform.python_version()}
    for name in (*_VERSIONED, *packages):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def _digests(folder: Path, names: Sequence[str]) -> dict[str, str]:
    return {name: sha256_of(folder / name) for name in names if (folder / name).is_file()}


def _checked_predictions(path: Path, content: IO[bytes], hint: str) -> pl.DataFrame:
    import polars as pl

    needed = (pl.col(_WHOLE_COLUMNS).cast(pl.Int64), pl.col(_NUMBER_COLUMNS).cast(pl.Float64))
    table = pl.read_parquet(content).with_columns(needed)
    if table["record"].n_unique() < len(table) or any(table.select(needed).null_count().row(0)):
        raise RunError(f"{path}: has a record twice or missing values; {hint}")
    votes_NK = table.select(pl.col(VOTE_COLUMNS).cast(pl.Float64)).to_numpy()
    if not ((votes_NK >= 0) & (votes_NK <= MOST_VOTES)).all() or not votes_NK.any(axis=1).all():
        raise RunError(f"{path}: has votes that no record can have; {hint}")
    try:
        check_probabilities(table.select(PROBABILITY_COLUMNS).to_numpy())
    except UsageError as error:
        raise RunError(f"{path}: {error}; {hint}") from error
    return table


def _with_divergence(history: pl.DataFrame) -> pl.DataFrame:
    """Return a table of evaluations with the column `train_kl`, which earlier versions did not write."""
    import polars as pl

    return history if "train_kl" in history.columns else history.with_columns(pl.lit(None).alias("train_kl"))


def _read_json(path: Path, kind: type[T], hint: str) -> T:
    try:
        return validate(_adapter(kind), unchanged(path.read_bytes()))
    except (OSError, JSONError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunError(f"{path}: cannot be read ({reason}); {hint}") from error


_ADAPTERS: dict[type, TypeAdapter[Any]] = {}


def _adapter(kind: type[T]) -> TypeAdapter[T]:
    """Return the schema of a type, which takes longer to make than most files to read."""
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def _write_json(path: Path, content: object, indent: int | None = 1) -> None:
    plain = _adapter(type(content)).dump_python(content, mode="json")
    write_bytes(path, sealed(plain, indent=indent) + b"\n")
