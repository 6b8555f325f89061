"""The command line: `kagglehms COMMAND …`.

The options of a command are a frozen dataclass, from which tyro makes its command line. `kagglehms --help` answers
at once, because everything heavy is imported by the command that needs it.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from kagglehms import __version__
from kagglehms.errors import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_OK, EXIT_USER, HMSError, UsageError, closest

if TYPE_CHECKING:
    from kagglehms.learning.crossval import Dataset
    from kagglehms.learning.recipes import Recipe


@dataclass(frozen=True)
class Prepare:
    """Decode every recording that train.csv names, once, into a store that training memory-maps.

    Safe to interrupt: the next call goes on where it stopped. A finished store is left as it is.

    Attributes:
        data: the competition's folder.
        store: where the store is made.
        jobs: files decoded at a time (default: all CPU cores).
    """

    data: Path
    store: Path = Path("store")
    jobs: int | None = None


@dataclass(frozen=True)
class Train:
    """Train the folds of one or more recipes and score them out of fold.

    Folds that are finished are not trained again.

    Attributes:
        names: recipes, such as `baseline`.
        data: the competition's folder.
        store: what `kagglehms prepare` made of it.
        out: the folder of all runs.
        folds: how many folds the records are cut into.
        fold: train only these folds (numbers from 0).
        limit: use only about so many records, of whole patients: for a quick pass.
        epochs: per stage, instead of the recipe's.
        batch_size: instead of the recipe's.
        backbone: any timm model, instead of the recipe's.
        weights: ImageNet weights: `auto` (timm's hub if it can be reached), `none`, a .safetensors file or a
            folder with `<backbone>.safetensors`.
        device: `cpu` or `cuda` (default: a GPU if one works).
    """

    names: tyro.conf.Positional[tuple[str, ...]]
    data: Path
    store: Path = Path("store")
    out: Path = Path("runs")
    folds: int = 5
    fold: tuple[int, ...] = ()
    limit: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    backbone: str | None = None
    weights: str = "auto"
    device: Literal["cpu", "cuda"] | None = None

    def changed(self, recipe: Recipe) -> Recipe:
        """The recipe as these options want it."""
        recipe = recipe if self.epochs is None else recipe.with_epochs(self.epochs)
        changes = {"batch_size": self.batch_size, "backbone": self.backbone}
        return replace(recipe, **{field: value for field, value in changes.items() if value is not None})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Ladder:
    """Show every recipe: what the source published, and what has been trained here.

    Attributes:
        names: only these recipes.
        runs: the folder of all runs.
        format: of the table; `csv` is unrounded.
        out: a file to write it to, instead of the terminal.
        run: train the recipes that are not trained yet; safe to interrupt.
        data: the competition's folder, for --run.
        store: what `kagglehms prepare` made of it, for --run.
        folds: how many folds the records are cut into.
        limit: use only about so many records, for a quick pass.
        epochs: per stage, instead of the recipes'.
        backbone: any timm model, instead of the recipes'.
        weights: as for `kagglehms train`.
        device: `cpu` or `cuda` (default: a GPU if one works).
    """

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    runs: Path = Path("runs")
    format: Literal["table", "markdown", "csv"] = "table"
    out: Path | None = None
    run: bool = False
    data: Path | None = None
    store: Path = Path("store")
    folds: int = 5
    limit: int | None = None
    epochs: int | None = None
    backbone: str | None = None
    weights: str = "auto"
    device: Literal["cpu", "cuda"] | None = None

    def training(self, names: tuple[str, ...]) -> Train:
        """The options of `kagglehms train` that these amount to."""
        assert self.data is not None
        return Train(
            names,
            data=self.data,
            store=self.store,
            out=self.runs,
            folds=self.folds,
            limit=self.limit,
            epochs=self.epochs,
            backbone=self.backbone,
            weights=self.weights,
            device=self.device,
        )


@dataclass(frozen=True)
class FitBlend:
    """Fit the weights of a blend to out-of-fold predictions, and score it honestly: by patient-grouped nested
    cross-validation.

    Attributes:
        names: runs to blend, or one blend of the ladder, such as `kaggle-ensemble`.
        name: of the fitted blend; it is kept in RUNS/blends.
        runs: the folder of all runs.
        min_votes: fit and score on records with at least so many votes.
        space: what is averaged, probabilities or their logarithms; `auto` lets inner cross-validation choose.
        biases: whether each class gets a bias.
        shrinkage: the pull towards equal weights (default: inner cross-validation chooses).
    """

    names: tyro.conf.Positional[tuple[str, ...]]
    name: str = "blend"
    runs: Path = Path("runs")
    min_votes: int = 1
    space: Literal["probability", "logit", "auto"] = "probability"
    biases: bool = False
    shrinkage: float | None = None


@dataclass(frozen=True)
class Rehearse:
    """Run a built kernel as Kaggle would: offline, in a fake /kaggle, in a process of its own.

    Attributes:
        kernel: which of dist/kernels, such as `infer`.
        data: the competition's folder; its test set is predicted.
        dist: what build.py made.
        out: where submission.csv and the log are put.
        layout: of the mounts below /kaggle/input: by `owner` and kind, or every one by its `slug`.
        isolation: `namespaces` (a real /kaggle, read-only input, no network) or the weaker `guard` (default: the
            best that this machine allows).
    """

    kernel: tyro.conf.Positional[str]
    data: Path
    dist: Path = Path("dist")
    out: Path = Path("rehearsal")
    layout: Literal["owner", "slug"] = "owner"
    isolation: Literal["namespaces", "guard"] | None = None


@dataclass(frozen=True)
class Preflight:
    """Check what build.py made against every rule of Kaggle and its client that is known, before a push.

    All findings are listed at once, each with its cure; the exit code is 1 if there are any.

    Attributes:
        dist: what build.py made.
        json: print the findings as JSON.
    """

    dist: Path = Path("dist")
    json: bool = False


@dataclass(frozen=True)
class Demo:
    """Go the whole way once, on a synthetic competition: data, training, bundle, offline kernel, score.

    Attributes:
        out: where everything is put.
        seed: of the synthetic competition.
    """

    out: Path = Path("demo")
    seed: int = 0


def prepare(options: Prepare) -> int:
    from kagglehms.data.competition import Competition
    from kagglehms.data.records import make_records, read_train_table
    from kagglehms.data.store import plan, prepare
    from kagglehms.runtime import progress, say

    competition = Competition(options.data)
    records = make_records(read_train_table(competition.train_csv))
    tasks = plan(competition, records)
    say(f"{len(records)} records need {len(tasks)} recordings")
    done = prepare(tasks, options.store, lambda items, n: progress(items, n, "decode"), options.jobs)
    if done.decoded:
        before = f" ({done.found} were done before)" if done.found else ""
        say(f"decoded {done.decoded} recordings{before} into {options.store}")
    else:
        say(f"nothing to do: all {done.found} recordings are in {options.store}")
    return EXIT_OK


def train(options: Train) -> int:
    from kagglehms.learning.crossval import cross_validate
    from kagglehms.learning.recipes import get_recipe
    from kagglehms.runtime import choose_device, say

    if not options.names:
        raise UsageError("name at least one recipe, such as baseline")
    recipes = [options.changed(get_recipe(name)) for name in options.names]
    dataset = _dataset(options.data, options.store, options.folds, options.limit)
    device = choose_device(options.device)
    say(device.reason)
    for recipe in recipes:
        outcome = cross_validate(recipe, dataset, options.out, device, options.weights, options.fold or None)
        say(outcome.sentence)
    return EXIT_OK


def _dataset(data: Path, store: Path, n_folds: int, limit: int | None) -> Dataset:
    from kagglehms.data.competition import Competition
    from kagglehms.data.records import limit_records, make_records, read_train_table
    from kagglehms.data.store import Store
    from kagglehms.learning.crossval import Dataset

    opened = Store(store)
    records = make_records(read_train_table(Competition(data).train_csv))
    return Dataset.of(opened, records if limit is None else limit_records(records, limit), n_folds)


def ladder(options: Ladder) -> int:
    from kagglehms.learning.ladder import ladder, render, untrained
    from kagglehms.runtime import say, write_bytes

    if options.run:
        if options.data is None:
            raise UsageError("--run trains, and needs --data, the competition's folder")
        chosen = options.names or tuple(untrained(ladder(options.runs)))
        train(options.training(chosen))
    rows = ladder(options.runs)
    rows = [row for row in rows if not options.names or row.recipe in options.names]
    text = render(rows, options.format)
    if options.out is None:
        say(text.rstrip("\n"))
    else:
        write_bytes(options.out, text.encode())
        say(f"{len(rows)} rows in {options.out}")
    return EXIT_OK


def blend(options: FitBlend) -> int:
    from kagglehms.learning.blending import nested_score
    from kagglehms.learning.ensemble import Fitting, get_blend_spec
    from kagglehms.learning.ladder import blend_path
    from kagglehms.learning.oof import load_oof
    from kagglehms.runtime import say, write_bytes

    if not options.names:
        raise UsageError("name the runs to blend, or one blend of the ladder, such as kaggle-ensemble")
    members = get_blend_spec(options.names[0]).members if len(options.names) == 1 else options.names
    fitting = Fitting(space=options.space, biases=options.biases, shrinkage=options.shrinkage)
    oof = load_oof(options.runs, members, options.min_votes)
    nested = nested_score(
        oof.predictions_MNK, oof.targets_NK, members, oof.patients_N, fitting, name=options.name
    )
    fitted = nested.blend
    path = blend_path(options.runs, options.name)
    write_bytes(path, fitted.to_json())
    for member, weight in zip(fitted.members, fitted.weights, strict=True):
        say(f"  {weight:6.3f}  {member}")
    say(f"{nested.sentence}\nin {path}; `python build.py --blend {options.name}` bundles it")
    return EXIT_OK


def rehearse(options: Rehearse) -> int:
    from kagglehms.deploy.rehearsal import rehearse
    from kagglehms.runtime import say

    report = rehearse(
        options.kernel, options.dist, options.data, options.out, options.layout, isolation=options.isolation
    )
    say(report.sentence)
    return report.exit_code


def preflight(options: Preflight) -> int:
    from kagglehms.deploy.preflight import preflight
    from kagglehms.runtime import say

    report = preflight(options.dist)
    say(report.to_json() if options.json else report.text)
    return report.exit_code


def demo(options: Demo) -> int:
    from kagglehms.demo import run_demo

    return run_demo(options.out, options.seed)


COMMANDS: dict[str, tuple[str, type[Any], Callable[[Any], int]]] = {
    "demo": ("the whole way once, on synthetic data", Demo, demo),
    "prepare": ("decode the competition's recordings, once", Prepare, prepare),
    "train": ("train recipes, fold by fold, and score them", Train, train),
    "ladder": ("every recipe, published and trained", Ladder, ladder),
    "blend": ("weights for several recipes, honestly scored", FitBlend, blend),
    "rehearse": ("run a built kernel as Kaggle would", Rehearse, rehearse),
    "preflight": ("check what is to be pushed, all rules at once", Preflight, preflight),
}


def usage() -> str:
    """The text of `kagglehms --help`."""
    commands = "\n".join(f"  {name:<10} {summary}" for name, (summary, _, _) in COMMANDS.items())
    return f"""\
kagglehms {__version__}: from EEG recordings to six vote probabilities

usage: kagglehms COMMAND [options]        kagglehms COMMAND --help says more

{commands}

`python build.py` makes the Kaggle dataset and kernels from what was trained.
`--debug` after any command shows the traceback of an error.
exit codes: {EXIT_OK} done, {EXIT_FAILURE} the run failed, {EXIT_USER} unusable options or input files, \
{EXIT_INTERRUPTED} interrupted"""


def parse(command: str, arguments: Sequence[str]) -> Any:
    """Make a command's options out of its arguments; tyro ends the process with code 2 if they are wrong."""
    _, options, _ = COMMANDS[command]
    return tyro.cli(
        options,
        args=list(arguments),
        prog=f"kagglehms {command}",
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.HelptextFromCommentsOff),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    if not given or given[0] in {"-h", "--help", "help"}:
        print(usage())
        return EXIT_OK if given else EXIT_USER
    if given[0] in {"-V", "--version"}:
        print(f"kagglehms {__version__}")
        return EXIT_OK
    return _run(given[0], given[1:], debug)


def _run(command: str, arguments: Sequence[str], debug: bool) -> int:
    try:
        if command not in COMMANDS:
            raise UsageError(f"unknown command {command!r}; {closest(command, COMMANDS)}")
        return COMMANDS[command][2](parse(command, arguments))
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        message, code = _explain(error)
    print(f"kagglehms: error: {message}", file=sys.stderr)
    return code


def _explain(error: BaseException) -> tuple[str, int]:
    """One line for a person, and the exit code."""
    if isinstance(error, HMSError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; what was finished is kept, the same command goes on from there", EXIT_INTERRUPTED
    return f"{type(error).__name__}: {error} (--debug shows where)", EXIT_FAILURE


if __name__ == "__main__":
    sys.exit(main())
