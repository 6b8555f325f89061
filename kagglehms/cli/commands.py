"""The command line: `kagglehms COMMAND …`.

The options of a command are a frozen dataclass of `cli_options`. `kagglehms --help` answers at once,
because everything heavy is imported by the command that needs it.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kagglehms import __version__
from kagglehms.console import be_quiet, coloured, discard_output, open_streams
from kagglehms.errors import (
    EXIT_FAILURE,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_OUTPUT_CLOSED,
    EXIT_TERMINATED,
    EXIT_UNFINISHED,
    EXIT_USER,
    HMSError,
    Stopped,
    UsageError,
    closest,
    not_installed,
)

try:
    from kagglehms.cli.options import (
        Demo,
        Fetch,
        FitBlend,
        Ladder,
        Preflight,
        Prepare,
        Rehearse,
        Simulate,
        Status,
        Train,
    )
    from kagglehms.cli.pages import COMMANDS as REPORT_COMMANDS
    from kagglehms.cli.pages import print_json
    from kagglehms.cli.parsing import parse as parse_options
except ModuleNotFoundError as missing:  # tyro, which nothing else needs
    open_streams()
    sys.exit(f"kagglehms: error: {not_installed(missing)}")

if TYPE_CHECKING:
    from kagglehms.runs.dataset import Dataset
    from kagglehms.training.recipes import Recipe
    from kagglehms.training.session import Session


def prepare(options: Prepare) -> int:
    from kagglehms.data.workers import Workers
    from kagglehms.kernel.entry import decode

    decode(options.data, options.store, Workers(options.backend, options.scheduler, options.jobs))
    return EXIT_OK


def train(options: Train) -> int:
    from kagglehms.runs.dataset import open_dataset
    from kagglehms.stop_signals import stop_signals
    from kagglehms.timing import Clock, seconds_of
    from kagglehms.training.recipes import get_recipe

    if not options.names:
        raise UsageError("name at least one recipe, such as baseline")
    recipes = [options.changed(get_recipe(name)) for name in options.names]
    clock = Clock(None if options.time_limit is None else seconds_of(options.time_limit))
    save_every_s = seconds_of(options.save_every)
    dataset = open_dataset(options.data, options.store, options.folds, options.limit)
    with stop_signals() as stop:
        from kagglehms.training.distributed import assemble
        from kagglehms.training.session import Session

        with assemble(options.device) as team:
            session = Session(clock, stop, team, save_every_s, options.compile, options.tensorboard)
            return _train(options, recipes, dataset, session)


def _train(options: Train, recipes: Sequence[Recipe], dataset: Dataset, session: Session) -> int:
    from kagglehms.console import say, tell
    from kagglehms.device import choose_device
    from kagglehms.runs.cross_validation import cross_validate
    from kagglehms.runs.folder import continue_from

    device = choose_device(options.device)
    say(device.reason + (f"; {session.team.size} processes" if session.team.size > 1 else ""))
    for recipe in recipes:
        if options.resume_from is not None and session.team.leads:
            taken = continue_from(options.resume_from, options.out, recipe, dataset, options.weights)
            say(f"{recipe.name}: {taken} fold(s) taken over from {options.resume_from}")
        session.team.wait()
        folds = options.fold or None
        outcome = cross_validate(recipe, dataset, options.out, device, options.weights, folds, session)
        tell(outcome.sentence)
    return EXIT_OK


def _truth_beside(data: Path | None) -> Path | None:
    """train_truth.csv of a simulated competition; None if `data` is not one."""
    from kagglehms.data.competition import truth_folder

    path = None if data is None else truth_folder(data.resolve()) / "train_truth.csv"
    return path if path is not None and path.is_file() else None


def ladder(options: Ladder) -> int:
    from kagglehms.console import say
    from kagglehms.files import write_bytes
    from kagglehms.runs.ladder import ladder, published_row, untrained
    from kagglehms.runs.ladder_table import render
    from kagglehms.training.recipes import get_recipe

    if options.run:
        if options.data is None:
            raise UsageError("--run trains, and needs --data, the competition's folder")
        chosen = options.names or tuple(untrained(ladder(options.runs)))
        train(options.training(chosen))
    rows = ladder(options.runs, options.truth or _truth_beside(options.data))
    for name in options.names:
        known = [row.recipe for row in rows]
        if name not in known:
            try:
                rows.append(published_row(get_recipe(name).name))
            except UsageError as error:
                raise UsageError(f"no recipe, run or blend {name!r}; {closest(name, known)}") from error
    rows = [row for row in rows if not options.names or row.recipe in options.names]
    text = render(rows, options.format)
    if options.out is None:
        print(text, end="", flush=True)
    else:
        write_bytes(options.out, text.encode())
        say(f"{len(rows)} rows in {options.out}")
    return EXIT_OK


def blend(options: FitBlend) -> int:
    from kagglehms.console import tell
    from kagglehms.data.records import MANY_VOTES
    from kagglehms.files import write_bytes
    from kagglehms.progress import progress
    from kagglehms.runs.blend_fitting import nested_score
    from kagglehms.runs.blends import Fitting
    from kagglehms.runs.ladder import blend_members, blend_path
    from kagglehms.runs.out_of_fold import load_oof, load_training_weights

    if options.correct_prior and options.min_votes > 1:
        raise UsageError(
            "--correct-prior needs the records that the runs learned from, and --min-votes leaves some out; give "
            "--population many to fit to those with many votes"
        )
    if options.prior_exponent != 1.0 and not options.correct_prior:
        raise UsageError("--prior-exponent belongs to --correct-prior; give both or neither")
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
    nested = nested_score(
        oof.predictions_MNK,
        oof.targets_NK,
        members,
        oof.patients_N,
        fitting,
        name=options.name,
        watch=lambda items, n: progress(items, n, "cross-validate"),
        many_votes_N=oof.n_votes_N >= MANY_VOTES,
        training_MN=load_training_weights(options.runs, oof) if options.correct_prior else None,
    )
    fitted = nested.blend
    write_bytes(path, fitted.to_json())
    if options.json:
        weights = dict(zip(fitted.members, fitted.weights, strict=True))
        return print_json({"path": path, "members": weights, **fitted.scores})
    for member, weight in zip(fitted.members, fitted.weights, strict=True):
        tell(f"  {weight:6.3f}  {member}")
    tell(f"{nested.sentence}\nin {path}; `python build.py --blend {options.name}` bundles it")
    return EXIT_OK


def rehearse(options: Rehearse) -> int:
    from kagglehms.console import tell
    from kagglehms.kernel.mounts import LAYOUTS
    from kagglehms.rehearsal.machine import Budget
    from kagglehms.rehearsal.run import rehearse
    from kagglehms.timing import seconds_of

    time_s = None if options.time is None else seconds_of(options.time)
    budget = Budget(time_s, int(options.disk_gb * 1e9))
    codes = []
    for layout in LAYOUTS if options.layout == "all" else (options.layout,):
        report = rehearse(
            options.kernel,
            options.dist,
            options.data,
            options.out,
            layout,
            budget,
            options.isolation,
            options.hidden,
            options.hidden_from,
        )
        tell(report.sentence)
        codes.append(report.exit_code)
    return max(codes)


def preflight(options: Preflight) -> int:
    from kagglehms.console import tell
    from kagglehms.kaggle.preflight import preflight

    report = preflight(options.dist)
    tell(report.to_json() if options.json else report.text)
    return report.exit_code


def status(options: Status) -> int:
    from kagglehms.console import tell
    from kagglehms.kaggle.service import kaggle
    from kagglehms.kaggle.status import status

    standings = status(options.dist, replace(kaggle(), say=tell))
    return EXIT_OK if all(standing.ok for standing in standings) else EXIT_FAILURE


def fetch(options: Fetch) -> int:
    from kagglehms.kaggle.fetch import fetch_all
    from kagglehms.kaggle.service import kaggle

    fetch_all(options.dist, options.names, options.out, kaggle(), options.wait)
    return EXIT_OK


def simulate(options: Simulate) -> int:
    from kagglehms.console import say, tell
    from kagglehms.data.competition import Competition, truth_folder
    from kagglehms.progress import progress
    from kagglehms.runs.baselines import measure_floor
    from kagglehms.simulator.competition import make_competition

    make_competition(options.out, options.eegs, options.test, options.seed, options.threads, options.easy)
    truth = truth_folder(options.out.resolve())
    say(
        f"{options.eegs} EEGs to learn from and {options.test} to predict in {options.out}; the truth in {truth}"
    )
    if options.truth:
        floor = measure_floor(
            Competition(options.out), truth / "train_truth.csv", lambda items, n: progress(items, n, "read")
        )
        tell(floor.sentence)
    return EXIT_OK


def demo(options: Demo) -> int:
    from kagglehms.cli.demo import run_demo

    return run_demo(options.out, options.seed)


COMMANDS: dict[str, tuple[str, type[Any], Callable[[Any], int]]] = {
    "demo": ("the whole way once, on simulated data", Demo, demo),
    "simulate": ("a simulated competition whose truth is known", Simulate, simulate),
    "prepare": ("decode the competition's recordings, once", Prepare, prepare),
    "train": ("train recipes, fold by fold, and score them", Train, train),
    "ladder": ("every recipe and ensemble, published and trained", Ladder, ladder),
    "blend": ("weights for several recipes, honestly scored", FitBlend, blend),
    "rehearse": ("run a built kernel as Kaggle would", Rehearse, rehearse),
    "preflight": ("check what is to be pushed, all rules at once", Preflight, preflight),
    "status": ("how dataset and kernels stand on Kaggle", Status, status),
    "fetch": ("fetch what kernels on Kaggle left", Fetch, fetch),
    **REPORT_COMMANDS,
}


def usage() -> str:
    """The text of `kagglehms --help`."""
    commands = "\n".join(f"  {name:<10} {summary}" for name, (summary, _, _) in COMMANDS.items())
    return f"""\
kagglehms {__version__}: from EEG recordings to six vote probabilities

usage: kagglehms COMMAND [options]        kagglehms COMMAND --help says more

{commands}

`python build.py` makes the Kaggle dataset and kernels from what was trained.
`--debug` after any command shows the traceback of an error, `--quiet` prints no progress.
exit codes: {EXIT_OK} done, {EXIT_FAILURE} the run failed, {EXIT_USER} unusable options or input files, \
{EXIT_UNFINISHED} the time limit came first,
            {EXIT_INTERRUPTED} interrupted, {EXIT_OUTPUT_CLOSED} the reader of the output has gone, \
{EXIT_TERMINATED} terminated or hung up;
            what was finished is kept"""


def parse(command: str, arguments: Sequence[str]) -> Any:
    """Make a command's options out of its arguments; see `kagglehms.cli.parsing.parse`."""
    return parse_options(command, COMMANDS[command][1], arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    open_streams()
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug, quiet = "--debug" in given, "--quiet" in given
    given = [argument for argument in given if argument not in {"--debug", "--quiet"}]
    if not given or given[0] in {"-h", "--help", "help"}:
        print(usage())
        return EXIT_OK if given else EXIT_USER
    if given[0] in {"-V", "--version"}:
        print(f"kagglehms {__version__}")
        return EXIT_OK
    be_quiet(quiet)
    try:
        return _run(given[0], given[1:], debug)
    finally:  # whoever calls this from Python goes on hearing things
        be_quiet(False)


def _run(command: str, arguments: Sequence[str], debug: bool) -> int:
    try:
        if command not in COMMANDS:
            raise UsageError(f"unknown command {command!r}; {closest(command, COMMANDS)}")
        code = COMMANDS[command][2](parse(command, arguments))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the command may have been in the middle of something, so this is no success
        discard_output()
        return EXIT_OUTPUT_CLOSED
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        message, code = _explain(error)
        stopped = isinstance(error, Stopped)
    start = "kagglehms:" if stopped else coloured("kagglehms: error:", "red", sys.stderr)
    with contextlib.suppress(OSError, ValueError):  # the code says it too
        print(start, message, file=sys.stderr)
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        discard_output()
    return code


def _explain(error: BaseException) -> tuple[str, int]:
    """One line for a person, and the exit code."""
    if isinstance(error, HMSError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; what was finished is kept, the same command goes on from there", EXIT_INTERRUPTED
    if isinstance(error, ModuleNotFoundError) and (said := not_installed(error)):
        return said, EXIT_FAILURE
    return f"{type(error).__name__}: {error} (--debug shows where)", EXIT_FAILURE


if __name__ == "__main__":
    sys.exit(main())
