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
    from kagglehms.data.competition import Competition
    from kagglehms.data.records import make_records, read_train_table
    from kagglehms.data.store import Store
    from kagglehms.learning.crossval import Dataset, cross_validate
    from kagglehms.learning.recipes import get_recipe
    from kagglehms.runtime import choose_device, say

    if not options.names:
        raise UsageError("name at least one recipe, such as baseline")
    recipes = [options.changed(get_recipe(name)) for name in options.names]
    store = Store(options.store)
    records = make_records(read_train_table(Competition(options.data).train_csv))
    dataset = Dataset.of(store, records, options.folds)
    device = choose_device(options.device)
    say(device.reason)
    for recipe in recipes:
        outcome = cross_validate(recipe, dataset, options.out, device, options.weights, options.fold or None)
        say(outcome.sentence)
    return EXIT_OK


def rehearse(options: Rehearse) -> int:
    from kagglehms.deploy.rehearsal import rehearse
    from kagglehms.runtime import say

    report = rehearse(
        options.kernel, options.dist, options.data, options.out, options.layout, isolation=options.isolation
    )
    say(report.sentence)
    return report.exit_code


def demo(options: Demo) -> int:
    from kagglehms.demo import run_demo

    return run_demo(options.out, options.seed)


COMMANDS: dict[str, tuple[str, type[Any], Callable[[Any], int]]] = {
    "demo": ("the whole way once, on synthetic data", Demo, demo),
    "prepare": ("decode the competition's recordings, once", Prepare, prepare),
    "train": ("train recipes, fold by fold, and score them", Train, train),
    "rehearse": ("run a built kernel as Kaggle would", Rehearse, rehearse),
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
        config=(tyro.conf.FlagConversionOff, tyro.conf.OmitArgPrefixes, tyro.conf.HelptextFromCommentsOff),
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
