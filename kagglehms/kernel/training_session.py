"""The training kernel's work: a list of recipes, until they are done or the session's time is up.

`train_in_session` starts `python -m kagglehms.kernel.training_session JSON`, by torchrun if there are several GPUs,
one process each. It is not `kagglehms train`, since the image lacks what makes that command's options.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kagglehms.console import open_streams, say
from kagglehms.environment import child_environment
from kagglehms.errors import EXIT_FAILURE, EXIT_OK, HMSError, RunError, Stopped, UsageError, closest
from kagglehms.files import write_bytes
from kagglehms.stop_signals import stop_signals
from kagglehms.timing import Clock

if TYPE_CHECKING:
    from kagglehms.training.recipes import Recipe
    from kagglehms.training.session import Session

TIME_LIMIT_S = 11.5 * 3600
"""Half an hour less than a session on Kaggle may take."""
ENDING = "session.json"
"""In the folder of runs: whether something is left to train, and what failed."""
_GIVEN = frozenset({"recipes", "data", "store", "runs", "earlier"})
"""Fields of a task that are no options."""
_GRACE_S = 300.0
"""After the limit, before the training is asked to stop; and as long again before it is killed."""


@dataclass(frozen=True)
class TrainingTask:
    """What a session is to train.

    Attributes:
        recipes: by name, in this order.
        data: folder of the competition.
        store: its decoded recordings.
        runs: where the run folders go.
        earlier: folder of runs of the session before, which is only read; None for none.
        limit_s: seconds from the start of the process, at which it stops with its state saved; None for no limit.
        folds: how many folds the records are cut into.
        only_folds: train just these; all when empty.
        records: use only about so many records, for a quick pass; None takes all.
        epochs: per stage, instead of the recipes'.
        backbone: instead of the recipes'.
        batch_size: instead of the recipes'.
        weights: the first weights, see `first_weights.find_weights`.
        save_every_s: how often the state is saved, apart from evaluations.
        device: `cpu`, `cuda`, `mps`, or None for the best that works.
    """

    recipes: tuple[str, ...]
    data: str = ""
    store: str = ""
    runs: str = ""
    earlier: str | None = None
    limit_s: float | None = None
    folds: int = 5
    only_folds: tuple[int, ...] = ()
    records: int | None = None
    epochs: int | None = None
    backbone: str | None = None
    batch_size: int | None = None
    weights: str = "auto"
    save_every_s: float = 600.0
    device: str | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> TrainingTask:
        content: dict[str, Any] = json.loads(text)
        return cls(**(content | {name: tuple(content[name]) for name in ("recipes", "only_folds")}))

    def recipe(self, name: str) -> Recipe:
        """One of the recipes, as these options want it."""
        from kagglehms.training.recipes import get_recipe

        return get_recipe(name).changed(self.epochs, self.batch_size, self.backbone)


def make_task(recipes: Sequence[str], options: Mapping[str, Any]) -> TrainingTask:
    """Check all that the owner of the training kernel wrote into it, before anything takes time.

    Args:
        recipes: its RECIPES, by name.
        options: its OPTIONS, by name.

    Raises:
        UsageError: an unknown recipe or option, or a value of another type or out of range.
    """
    from pydantic import TypeAdapter, ValidationError

    from kagglehms.strict_json import first_problem

    if isinstance(recipes, str) or not recipes:
        raise UsageError(f"RECIPES must be a list of names, such as ['baseline'], but got {recipes!r}")
    known = [field.name for field in fields(TrainingTask) if field.name not in _GIVEN]
    for name in options:
        if name not in known:
            raise UsageError(f"OPTIONS: no option {name!r}; {closest(str(name), known)}")
    try:
        task = TypeAdapter(TrainingTask).validate_python({"recipes": tuple(recipes), **options})
    except ValidationError as error:
        problem = first_problem(error)
        named = "RECIPES" + problem.removeprefix("recipes")
        raise UsageError(named if problem.startswith("recipes") else f"OPTIONS: {problem}") from error
    for name in task.recipes:
        task.recipe(name)
    for fold in task.only_folds:
        if not 0 <= fold < task.folds:
            raise UsageError(f"OPTIONS: only_folds: there is no fold {fold}, they are 0 to {task.folds - 1}")
    return task


def train_in_session(task: TrainingTask, n_gpus: int) -> int:
    """Train in processes of their own, and end before the session is ended.

    Args:
        task: what to train; `limit_s` counts from this call.
        n_gpus: with more than one, a process each.

    Returns:
        0 when nothing failed, which includes that something is left for the next session; else 1.
    """
    start = time.monotonic()
    module = ["-m", "kagglehms.kernel.training_session", task.to_json()]
    team = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n_gpus)] if n_gpus > 1 else []
    )
    command = [sys.executable, "-P", *team, *module]
    child = subprocess.Popen(command, env=child_environment())
    limit_s = None if task.limit_s is None else task.limit_s + _GRACE_S
    try:
        code = _wait(child, limit_s)
    finally:
        child.kill()
        child.wait()
    ending = _ending(Path(task.runs))
    print(
        json.dumps(
            {"event": "training", "seconds": round(time.monotonic() - start, 1), "code": code} | ending
        )
    )
    if ending.get("left"):
        print(
            "something is left: the next session goes on, with this one's output among its inputs", flush=True
        )
    return EXIT_OK if code == EXIT_OK and not ending.get("problems") else EXIT_FAILURE


def _wait(child: subprocess.Popen[bytes], limit_s: float | None) -> int:
    """Wait for the end, ask for it when the time is up, and leave the rest to the caller."""
    try:
        return child.wait(limit_s)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGTERM)  # torchrun passes it on; the state is saved
    try:
        return child.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        return -signal.SIGKILL


def _ending(runs: Path) -> dict[str, object]:
    try:
        content: dict[str, object] = json.loads((runs / ENDING).read_bytes())
    except (OSError, ValueError):
        return {"left": [], "problems": ["the training ended without saying how"]}
    return content


def main(arguments: Sequence[str]) -> int:
    """Be one process of a training session."""
    from kagglehms.training.distributed import assemble
    from kagglehms.training.session import Session

    task = TrainingTask.from_json(arguments[0])
    (Path(task.runs) / ENDING).unlink(missing_ok=True)
    with stop_signals() as stop, assemble(task.device) as team:
        session = Session(Clock(task.limit_s), stop, team, task.save_every_s)
        left, problems = _train(task, session)
        if team.leads:
            content = json.dumps({"left": left, "problems": problems}, indent=1)
            write_bytes(Path(task.runs) / ENDING, content.encode() + b"\n")
    return EXIT_OK


def _train(task: TrainingTask, session: Session) -> tuple[list[str], list[str]]:
    """Train one recipe after the other; return those that are left, and what failed of the others."""
    from kagglehms.device import choose_device
    from kagglehms.runs.cross_validation import cross_validate
    from kagglehms.runs.dataset import open_dataset
    from kagglehms.runs.folder import continue_from

    device = choose_device(task.device)
    say(device.reason + (f"; {session.team.size} processes" if session.team.size > 1 else ""))
    dataset = open_dataset(Path(task.data), Path(task.store), task.folds, task.records)
    runs = Path(task.runs)
    problems: list[str] = []
    for number, name in enumerate(task.recipes):
        try:
            recipe, folds = task.recipe(name), task.only_folds or None
            if task.earlier is not None and session.team.leads:
                taken = continue_from(Path(task.earlier), runs, recipe, dataset, task.weights)
                say(f"{name}: {taken} fold(s) taken over from {task.earlier}")
            session.team.wait()
            say(cross_validate(recipe, dataset, runs, device, task.weights, folds, session).sentence)
        except Stopped as stopped:
            say(str(stopped))
            return list(task.recipes[number:]), problems
        except HMSError as error:
            if session.team.size > 1:  # the others may wait for this one: only a new start can help
                raise RunError(f"{name}: {error}") from error
            problems.append(f"{name}: {error}")
            say(f"error: {problems[-1]}")
    return [], problems


if __name__ == "__main__":
    open_streams(unfailing=True)
    try:
        sys.exit(main(sys.argv[1:]))
    except HMSError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
