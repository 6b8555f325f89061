"""The folder in which training leaves its runs, as far as a bundle needs it: what is finished, and how it scored.

RUNS/<recipe>/recipe.json  run.json  oof.parquet  fold<k>/weights.safetensors  fold<k>/result.json
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, TypeVar

from pydantic import ConfigDict, TypeAdapter
from safetensors import SafetensorError, safe_open

from kagglehms.bundle.manifest import Prior
from kagglehms.errors import DataError, RunError, UsageError, closest
from kagglehms.runs.folder import origin_of
from kagglehms.strict_json import JSONError, parse, validate
from kagglehms.training.first_weights import Origin

_READ = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)
"""Training may write more than a bundle reads."""
FLOORS = ("prior_all", "prior_votes10", "uniform_all", "uniform_votes10")
"""Names in result.json of what knowing nothing scores."""
T = TypeVar("T")


UNIFORM = (1 / 6,) * 6
"""The prior of a bundle without runs."""


@dataclass(frozen=True)
class _RunInfo:
    """The part of run.json that a bundle needs."""

    __pydantic_config__: ClassVar[ConfigDict] = _READ

    recipe: str
    n_folds: int
    records: int
    prior: Prior
    versions: dict[str, str]


@dataclass(frozen=True)
class _FoldResult:
    """The part of result.json that a bundle needs."""

    __pydantic_config__: ClassVar[ConfigDict] = _READ

    fold: int
    score_all: float
    score_votes10: float | None
    prior_all: float | None = None  # these four are missing where an earlier version trained the fold
    prior_votes10: float | None = None
    uniform_all: float | None = None
    uniform_votes10: float | None = None


@dataclass(frozen=True)
class FoldModel:
    """A finished fold.

    Attributes:
        fold: its number.
        weights: the file.
        score_all: on the records held out (KL divergence).
        score_votes10: on those of them with at least 10 votes; None where there are none.
        floors: what the class prior and a uniform guess score on the same, as `prior_all`, `prior_votes10`,
            `uniform_all` and `uniform_votes10`.
    """

    fold: int
    weights: Path
    score_all: float
    score_votes10: float | None
    floors: dict[str, float | None] = field(default_factory=dict)

    @property
    def scores(self) -> dict[str, float | None]:
        """All of them by name, as the manifest has them."""
        return {"all": self.score_all, "votes10": self.score_votes10, **self.floors}


@dataclass(frozen=True)
class Run:
    """A run with at least one finished fold.

    Attributes:
        recipe: its name.
        recipe_file: the recipe as JSON.
        n_folds: folds that the run is meant to have; `folds` can be fewer.
        records: labelled records that it was trained on.
        prior: class means of their targets.
        versions: packages that it was trained with.
        first_weights: what all its networks started from; None if an older version did not write it down.
        folds: the finished ones, ascending.
    """

    recipe: str
    recipe_file: Path
    n_folds: int
    records: int
    prior: Prior
    versions: dict[str, str]
    first_weights: Origin | None
    folds: tuple[FoldModel, ...]


def select_runs(
    runs: Path, recipes: Sequence[str] | None = None, folds: Collection[int] | None = None
) -> list[Run]:
    """Return the runs that a bundle is to be made of.

    Args:
        runs: the folder that training wrote to.
        recipes: names, in the order in which they are to run; None takes all, by name.
        folds: which ones of each run; None takes those that are finished.

    Raises:
        UsageError: no such folder, or nothing in it, or unknown names.
        RunError: a run without a finished fold, a fold asked for that is not finished, folds that started from
            different weights, or a file that is missing, cut short or of another form, such as a recipe of another
            version.
    """
    if not runs.is_dir():
        raise UsageError(f"{runs}: no such folder; give the one that `kagglehms train --runs` wrote")
    present = sorted(path.name for path in runs.iterdir() if _looks_like_run(path))
    if not present:
        raise UsageError(f"{runs}: holds no run; train one with `kagglehms train`")
    for name in recipes or ():
        if name not in present:
            raise UsageError(f"{runs}: no run of recipe {name!r}; {closest(name, present)}")
    return [_read_run(runs / name, folds) for name in dict.fromkeys(recipes or present)]


def joint_prior(runs: Sequence[Run]) -> Prior:
    """Return the runs' prior, or its mean over their records where they were trained on different ones.

    As if there were one record more, with equal votes: a class that no record has still gets a probability, or a row
    that keeps the prior could cost more than 34 nats, where a uniform guess costs at most 1.8. Without runs it is
    uniform.
    """
    if not runs:
        return UNIFORM
    priors = {run.prior: run.records for run in runs}  # runs on the same records have the same prior
    whole = sum(priors.values()) + 1
    a, b, c, d, e, f = (
        (sum(n * prior[k] for prior, n in priors.items()) + UNIFORM[k]) / whole for k in range(6)
    )
    return a, b, c, d, e, f


def _looks_like_run(path: Path) -> bool:
    return path.is_dir() and ((path / "recipe.json").exists() or (path / "run.json").exists())


def _read_run(path: Path, folds: Collection[int] | None) -> Run:
    finished = sorted(
        int(digits)
        for result in path.glob("fold*/result.json")
        if (digits := result.parent.name[4:]).isdecimal()
    )
    if not finished:
        raise RunError(
            f"{path}: unfinished, no fold of it is trained to its end; finish it with `kagglehms train {path.name}`"
            " or choose others with --recipe"
        )
    info = _read_json(path / "run.json", _RunInfo)
    if info.recipe != path.name:
        raise RunError(
            f"{path / 'run.json'}: recipe {info.recipe!r} in a folder named {path.name!r}; rename it back"
        )
    recipe_file = path / "recipe.json"
    _check_recipe(recipe_file, info.recipe)
    missing = sorted(set(folds or ()) - set(finished))
    if missing:
        raise RunError(
            f"{path}: fold {', '.join(map(str, missing))} is not finished (finished: {', '.join(map(str, finished))}"
            f" of {info.n_folds}); finish it with `kagglehms train {path.name}` or choose others with --fold"
        )
    wanted = finished if folds is None else sorted(set(folds))
    models = tuple(_read_fold(path / f"fold{fold}", fold) for fold in wanted)
    return Run(
        info.recipe,
        recipe_file,
        info.n_folds,
        info.records,
        info.prior,
        info.versions,
        origin_of(path),
        models,
    )


def _read_fold(path: Path, fold: int) -> FoldModel:
    result = _read_json(path / "result.json", _FoldResult)
    if result.fold != fold:
        raise RunError(f"{path / 'result.json'}: is of fold {result.fold}; train this fold again")
    weights = path / "weights.safetensors"
    try:
        with safe_open(weights, framework="np") as tensors:
            if not tensors.keys():
                raise RunError(f"{weights}: holds no tensor; delete {path} and train this fold again")
    except (OSError, SafetensorError) as error:
        reason = "missing" if not weights.exists() else f"cannot be read ({error})"
        raise RunError(f"{weights}: {reason}; delete {path} and train this fold again") from error
    floors = {name: getattr(result, name) for name in FLOORS}
    known = {} if result.prior_all is None else floors
    return FoldModel(fold, weights, result.score_all, result.score_votes10, known)


def _read_json(path: Path, kind: type[T]) -> T:
    try:
        return validate(TypeAdapter(kind), path.read_bytes())
    except OSError as error:
        raise RunError(
            f"{path}: cannot be read ({error.strerror}); run the training again, it resumes"
        ) from error
    except JSONError as error:
        raise RunError(f"{path}: {error}; run the training again, it resumes") from error


def _check_recipe(path: Path, name: str) -> None:
    """Read the recipe as the bundled library will: a kernel leaves out the models of one that it cannot read."""
    from kagglehms.training.recipes import recipe_from_json

    try:
        content = path.read_bytes()
        parse(content)
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path}: missing or cut short ({error}); run the training again, it resumes"
        ) from error
    try:
        recipe = recipe_from_json(content, path)
    except DataError as error:
        raise RunError(f"{path}: {error.reason}; train it again or choose others with --recipe") from error
    if recipe.name != name:
        raise RunError(f"{path}: is of recipe {recipe.name!r} in the run of {name!r}; train it again")
