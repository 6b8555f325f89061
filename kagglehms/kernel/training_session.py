"""The training kernel's work: a list of recipes, until they are trained or the session's time is up.

`train_in_session` starts `python -m kagglehms.kernel.training_session JSON`, by torchrun if there are several GPUs,
one process each. Like `kagglehms train`, each process calls `kagglehms.runs.training.train_recipes`; it differs in that
a recipe that fails does not keep the others from being trained, and in that the session leaves its output in time.
A recipe that fails where several processes train, or that crashes the only one, ends them: `train_in_session` then
starts new ones with the recipes after it.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from kagglehms.console import open_streams, visible
from kagglehms.environment import child_environment, leads
from kagglehms.errors import EXIT_FAILURE, EXIT_OK, HMSError, UsageError, closest
from kagglehms.files import write_bytes
from kagglehms.runs.training import Trained, TrainingOptions, train_recipes
from kagglehms.timing import Clock
from kagglehms.training.variants import FILES

TIME_LIMIT_S = 11.5 * 3600
"""Half an hour less than a session on Kaggle may take."""
RUNS = "runs"
"""Folder of all runs in the output of the training kernel."""
ENDING = "session.json"
"""File in the folder of runs that says whether something is left to train, and what failed; see `Ending`."""
_THE_KERNELS_OWN = frozenset({"data", "store", "runs", "resume_from"})
"""Options of `kagglehms train` that the kernel sets by itself."""
_GRACE_S = 300.0
"""Time after the limit until the training is asked to stop, and as long again until it is killed."""


@dataclass
class Ending:
    """How far a session has come.

    Attributes:
        left: recipes that are not finished, but for those that failed.
        problems: why recipes failed, one line each.
        under_way: whether the first of `left` is being trained; not in the file of a session that has ended.
    """

    left: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    under_way: bool = False

    def write(self, runs: Path) -> None:
        """Write the file into the folder of runs, atomically.

        Raises:
            RunError: the disk is full or the folder cannot be written.
        """
        content = asdict(self)
        if not self.under_way:
            del content["under_way"]
        write_bytes(runs / ENDING, json.dumps(content, indent=1).encode() + b"\n")

    @classmethod
    def read(cls, runs: Path) -> Ending | None:
        """Read the file in the folder of runs; None if there is none."""
        try:
            return cls(**json.loads((runs / ENDING).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def account(self, code: int, gives_up: bool) -> None:
        """Say of the recipe under way that its processes have ended with an exit code.

        Args:
            code: exit code of the processes.
            gives_up: whether the recipe counts as failed even if it has given no reason; else it stays what is left.
        """
        name, self.under_way = self.left[0], False
        told = any(problem.startswith(f"{name}: ") for problem in self.problems)
        if not told:
            new = "the log says more" if gives_up else "no new ones were started"
            self.problems.append(f"{name}: its processes ended with code {code}; {new}")
        if told or gives_up:
            del self.left[0]


def session_problems(output: Path) -> list[str]:
    """Return why recipes of a training session failed, one line each.

    Args:
        output: folder of what the session left.
    """
    ending = Ending.read(output / RUNS)
    return [] if ending is None else ending.problems


def training_options(recipes: Sequence[str], options: Mapping[str, Any]) -> TrainingOptions:
    """Check all that the owner of the training kernel wrote into it, before anything takes time.

    Args:
        recipes: RECIPES of the kernel's script, by name.
        options: OPTIONS of the kernel's script: options of `kagglehms train`, such as `{"batch_size": 32}`.

    Raises:
        UsageError: a recipe or an option is unknown, or a value has another type or is out of range; or a file is
            named, which is another machine's, in place of a recipe.
    """
    if not isinstance(recipes, list | tuple) or not recipes:
        raise UsageError(f"RECIPES must be a list of names, such as ['baseline'], but got {recipes!r}")
    if not isinstance(options, Mapping):
        raise UsageError(f"OPTIONS must be a dictionary, such as {{'epochs': 1}}, but got {options!r}")
    known = [field.name for field in fields(TrainingOptions) if field.name not in _THE_KERNELS_OWN]
    for name in options:
        if name not in known:
            raise UsageError(f"OPTIONS: no option {name!r}; {closest(str(name), known)}")
    try:
        checked = _validated(options)
    except UsageError as error:
        raise UsageError(f"OPTIONS: {error}") from error
    for recipe in recipes:
        if not isinstance(recipe, str):
            raise UsageError(f"RECIPES must be names, but got {recipe!r}")
        if recipe.endswith(FILES):
            raise UsageError(
                f"RECIPES must be names, but {recipe!r} is a file; name a recipe, and change it by OPTIONS, such as "
                "{'set': ['dropout=0.2']}"
            )
    checked.recipes(recipes)
    return checked


def _validated(options: Mapping[str, Any]) -> TrainingOptions:
    from pydantic import TypeAdapter, ValidationError

    from kagglehms.strict_json import first_problem

    try:
        return TypeAdapter(TrainingOptions).validate_python(dict(options))
    except ValidationError as error:
        raise UsageError(first_problem(error)) from error


def train_in_session(
    recipes: Sequence[str], options: TrainingOptions, time_limit_s: float, n_gpus: int
) -> int:
    """Train in processes of their own, and end before the session is ended.

    Where a recipe ends its processes, new ones train the recipes after it, as long as there is time.

    Args:
        recipes: names of the recipes, in this order.
        options: how they are trained; their `time_limit` is replaced by the following.
        time_limit_s: seconds from this call.
        n_gpus: number of GPUs; with more than one, each gets a process.

    Returns:
        0 if what the session leaves is worth continuing from, although recipes may have failed, since Kaggle and
        rehearsals part with the output of a session that ends otherwise; 1 if all have failed, or nobody knows why the
        training ended.
    """
    clock = Clock(time_limit_s, time.monotonic())
    code, ending = _start(recipes, None, options, clock.left_s, n_gpus)
    known, problems = code == EXIT_OK, list[str]()
    while ending.under_way:
        # A torchrun that was killed has left its processes behind, and they have the GPUs.
        killed = n_gpus > 1 and code < 0
        again = clock.left_s > 0 and not killed
        ending.account(code, gives_up=again)
        known, problems, ending.problems = True, [*problems, *ending.problems], []
        if not (again and ending.left):
            break
        print(f"{problems[-1]}; new processes train {', '.join(ending.left)}", flush=True)
        code, ending = _start(recipes, ending.left, options, clock.left_s, n_gpus)
        known = code == EXIT_OK
    ending.problems = [*problems, *ending.problems]
    event = {"event": "training", "seconds": round(clock.passed_s, 1), "code": code}
    print(json.dumps(event | {"left": ending.left, "problems": ending.problems}))
    if ending.left:
        print(
            "something is left: the next session continues, with this one's output among its inputs",
            flush=True,
        )
    ending.write(options.runs)
    return EXIT_OK if known and len(ending.problems) < len(recipes) else EXIT_FAILURE


def _start(
    recipes: Sequence[str], only: list[str] | None, options: TrainingOptions, time_limit_s: float, n_gpus: int
) -> tuple[int, Ending]:
    """Train in new processes, of which `only` names the recipes; return their exit code, and how far they came."""
    (options.runs / ENDING).unlink(missing_ok=True)
    content = {
        "recipes": list(recipes),
        "only": only,
        "options": asdict(options),
        "time_limit_s": time_limit_s,
    }
    module = ["-m", "kagglehms.kernel.training_session", json.dumps(content, default=str)]
    team = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n_gpus)] if n_gpus > 1 else []
    )
    child = subprocess.Popen([sys.executable, "-P", *team, *module], env=child_environment())
    try:
        code = _wait(child, time_limit_s + _GRACE_S)
    finally:
        child.kill()
        child.wait()
    ending = Ending.read(options.runs)
    if ending is None:
        return code or EXIT_FAILURE, Ending(only or [], ["the training ended without saying how"])
    return code, ending


def _wait(child: subprocess.Popen[bytes], time_limit_s: float) -> int:
    """Wait for a process to end, and ask it to end when the time is up; return its exit code."""
    try:
        return child.wait(time_limit_s)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGTERM)  # torchrun passes it on; the state is saved
    try:
        return child.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        return -signal.SIGKILL


def main(arguments: Sequence[str]) -> int:
    """Train as one process of a session."""
    content = json.loads(arguments[0])
    options = _validated(content["options"])
    clock, only = Clock(content["time_limit_s"]), content["only"]

    def note(trained: Trained, under_way: bool = True) -> None:
        Ending(trained.left, trained.problems, under_way).write(options.runs)

    try:
        trained = train_recipes(content["recipes"], options, clock, keep_going=True, only=only, note=note)
    except HMSError as error:
        if Ending.read(options.runs) is None:  # nothing was begun
            Ending(only or [], [str(error)]).write(options.runs)
        raise
    if leads():
        note(trained, under_way=False)
    return EXIT_OK


if __name__ == "__main__":
    open_streams(unfailing=True)
    try:
        sys.exit(main(sys.argv[1:]))
    except HMSError as error:
        print(f"error: {visible(str(error))}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
