"""The commands that train and compare: train, ladder, blend."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from kagglehms.cli.command import Result, watched
from kagglehms.cli.data_folder import data_folder
from kagglehms.errors import UsageError, closest, counted
from kagglehms.runs.training import TrainingOptions, train_recipes


@dataclass(frozen=True, kw_only=True)
class Train(TrainingOptions):
    """Train the folds of one or more recipes and score them out of fold.

    Folds that are finished are not trained again.

    Attributes:
        names: recipes to train, such as `baseline`; `baseline-as-published` is the run of its notebook; `mine.json` and
            `mine.py` are files of recipes.
    """

    names: tuple[str, ...] = field(metadata={"positional": True, "metavar": "RECIPE"})


def train(options: Train) -> Result:
    """Train recipes, fold by fold, and score them."""
    trained = train_recipes(options.names, replace(options, data=data_folder(options.data)))
    return Result(trained.outcomes)


@dataclass(frozen=True, kw_only=True)
class Recipes:
    """Show what recipes are: input, network, and training stage by stage.

    Attributes:
        names: only these recipes, or those of a file such as `mine.py` (default: all).
    """

    names: tuple[str, ...] = field(default=(), metadata={"positional": True, "metavar": "RECIPE"})


def recipes(options: Recipes) -> Result:
    """Show what recipes are: input, network, stages."""
    from kagglehms.inputs.kinds import describe
    from kagglehms.training.recipes import RECIPES
    from kagglehms.training.variants import find_recipes

    found = [recipe for name in options.names or RECIPES for recipe in find_recipes(name)]
    content = [
        {
            "name": recipe.name,
            "input": describe(recipe.layout),
            "network": recipe.network,
            "stages": [recipe.described(stage) for stage in recipe.stages],
            "settings": json.loads(recipe.to_json()),
        }
        for recipe in found
    ]
    lines = []
    for row in content:
        lines += [row["name"], f"    {row['input']}", f"    {row['network']}"]
        lines += [f"    {stage}" for stage in row["stages"]]
    return Result(content, "\n".join(lines))


@dataclass(frozen=True, kw_only=True)
class Ladder(TrainingOptions):
    """Show every recipe and every ensemble: what the source published, and what has been trained here.

    With --run, recipes that are not trained yet are trained first, with the options of `kagglehms train`.

    Attributes:
        names: only these recipes, runs or ensembles (default: all).
        data: the competition's folder, for --run (default: KAGGLEHMS_DATA, or where `kagglehms doctor` finds it); if a
            simulated one is given, its truth is found beside it.
        format: form of the table: for a terminal, which shows the scores alone, or unrounded as `csv` or `json`.
        out: file to write the table to, instead of the terminal.
        run: train the recipes that are not trained yet; safe to interrupt.
        truth: train_truth.csv of the simulated competition that the runs are on; adds how far each has come from the
            class prior to the perfect predictor.
    """

    names: tuple[str, ...] = field(default=(), metadata={"positional": True, "metavar": "RECIPE"})
    format: Literal["table", "markdown", "csv", "json"] = "table"
    out: Path | None = None
    run: bool = False
    truth: Path | None = None


def ladder(options: Ladder) -> Result:
    """Show every recipe and ensemble, published and trained."""
    from kagglehms.console import say
    from kagglehms.files import write_bytes
    from kagglehms.runs.ladder import ladder, published_row, untrained
    from kagglehms.runs.ladder_table import render
    from kagglehms.training.recipes import get_recipe

    if options.run:
        missing = options.names or untrained(ladder(options.runs))
        if missing:
            train_recipes(missing, replace(options, data=data_folder(options.data)))
    rows = ladder(options.runs, options.truth or _truth_beside(options.data))
    for name in options.names:
        known = [row.recipe for row in rows]
        if name not in known:
            try:
                rows.append(published_row(get_recipe(name).name))
            except UsageError as error:
                raise UsageError(f"no recipe, run or blend {name!r}; {closest(name, known)}") from error
    rows = [row for row in rows if not options.names or row.recipe in options.names]
    content, text = json.loads(render(rows, "json")), render(rows, options.format)
    if options.out is None:
        return Result(content, text.rstrip("\n"))
    write_bytes(options.out, text.encode())
    say(f"{counted(len(rows), 'row')} in {options.out}")
    return Result(content)


def _truth_beside(data: Path | None) -> Path | None:
    """Return train_truth.csv of a simulated competition; None if `data` is not one."""
    from kagglehms.data.competition import truth_folder

    path = None if data is None else truth_folder(data.resolve()) / "train_truth.csv"
    return path if path is not None and path.is_file() else None


@dataclass(frozen=True, kw_only=True)
class FitBlend:
    """Fit the weights of a blend to out-of-fold predictions, and score it honestly: by patient-grouped nested
    cross-validation.

    Attributes:
        names: runs to blend, or one run to calibrate alone, or one blend of the ladder, such as `kaggle-ensemble`.
        name: name of the fitted blend, under which it is kept in RUNS/blends.
        runs: folder of all runs.
        population: records to fit to: `all`, or those with `many` (at least 10) votes, as the hidden test set seems to
            have; the blend is scored on both.
        correct_prior: move each run's predictions from the class prior of the records that it learned from to that of
            the population, before anything else.
        prior_exponent: strength of that correction: 1 is Bayes' rule, 0 none at all, `fit` fits it.
        min_votes: leave records with fewer votes out of everything.
        space: what is averaged, probabilities or their logarithms; `auto` lets inner cross-validation choose.
        biases: add a bias for each class.
        shrinkage: pull towards equal weights (default: inner cross-validation chooses).
    """

    names: tuple[str, ...] = field(metadata={"positional": True, "metavar": "RUN"})
    name: str = "blend"
    runs: Path = Path("runs")
    population: Literal["all", "many"] = "all"
    correct_prior: bool = False
    prior_exponent: float | Literal["fit"] = 1.0
    min_votes: int = 1
    space: Literal["probability", "logit", "auto"] = "probability"
    biases: bool = False
    shrinkage: float | None = None


def blend(options: FitBlend) -> Result:
    """Fit the weights of several runs, and score the blend honestly."""
    from kagglehms.files import write_bytes
    from kagglehms.runs.blend_fitting import nested_score
    from kagglehms.runs.blends import Fitting
    from kagglehms.runs.named_blends import blend_members, blend_path
    from kagglehms.runs.out_of_fold import load_oof, load_training_weights

    _refuse_contradictions(options)
    path = blend_path(options.runs, options.name)
    members = blend_members(options.runs, options.names)
    fitting = Fitting(
        space=options.space,
        biases=options.biases,
        shrinkage=options.shrinkage,
        population=options.population,
        prior_exponent=options.prior_exponent if options.correct_prior else None,
    )
    oof = load_oof(options.runs, members, options.min_votes)
    training_MN = load_training_weights(options.runs, oof) if options.correct_prior else None
    nested = nested_score(oof.rows(training_MN), fitting, name=options.name, watch=watched("cross-validate"))
    fitted = nested.blend
    write_bytes(path, fitted.to_json())
    weights = dict(zip(fitted.members, fitted.weights, strict=True))
    lines = [f"  {weight:6.3f}  {member}" for member, weight in weights.items()]
    lines += [nested.sentence, f"in {path}; `kagglehms build --blend {options.name}` bundles it"]
    return Result({"path": path, "members": weights, **fitted.scores}, "\n".join(lines))


def _refuse_contradictions(options: FitBlend) -> None:
    if options.correct_prior and options.min_votes > 1:
        raise UsageError(
            "--correct-prior needs the records that the runs learned from, and --min-votes leaves some out; give "
            "--population many to fit to those with many votes"
        )
    if options.prior_exponent != 1.0 and not options.correct_prior:
        raise UsageError("--prior-exponent belongs to --correct-prior; give both or neither")
