"""The training kernel's work: a list of recipes, until they are trained or the session's time is up.

`train_in_session` starts `python -m kagglehms.kernel.training_session JSON`, by torchrun if there are several GPUs,
one process each. Like `kagglehms train`, each process calls `kagglehms.runs.training.train_recipes`; it differs in that
a recipe that fails does not keep the others from being trained, and in that the session leaves its output in time.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from kagglehms.console import open_streams, visible
from kagglehms.environment import child_environment, leads
from kagglehms.errors import EXIT_FAILURE, EXIT_OK, HMSError, UsageError, closest
from kagglehms.files import write_bytes
from kagglehms.runs.training import TrainingOptions, train_recipes
from kagglehms.timing import Clock
from kagglehms.training.variants import FILES

TIME_LIMIT_S = 11.5 * 3600
"""Half an hour less than a session on Kaggle may take."""
ENDING = "session.json"
"""File in the folder of runs that says whether something is left to train, and what failed."""
_THE_KERNELS_OWN = frozenset({"data", "store", "runs", "resume_from"})
"""Options of `kagglehms train` that the kernel sets by itself."""
_GRACE_S = 300.0
"""Time after the limit until the training is asked to stop, and as long again until it is killed."""


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

    Args:
        recipes: names of the recipes, in this order.
        options: how they are trained; their `time_limit` is replaced by the following.
        time_limit_s: seconds from this call.
        n_gpus: number of GPUs; with more than one, each gets a process.

    Returns:
        0 when nothing failed, which includes that something is left for the next session; else 1.
    """
    start = time.monotonic()
    (options.runs / ENDING).unlink(missing_ok=True)
    content = {"recipes": list(recipes), "options": asdict(options), "time_limit_s": time_limit_s}
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
    ending = _ending(options.runs)
    event = {"event": "training", "seconds": round(time.monotonic() - start, 1), "code": code}
    print(json.dumps(event | ending))
    if ending.get("left"):
        print(
            "something is left: the next session continues, with this one's output among its inputs",
            flush=True,
        )
    return EXIT_OK if code == EXIT_OK and not ending.get("problems") else EXIT_FAILURE


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


def _ending(runs: Path) -> dict[str, object]:
    try:
        content: dict[str, object] = json.loads((runs / ENDING).read_bytes())
    except (OSError, ValueError):
        return {"left": [], "problems": ["the training ended without saying how"]}
    return content


def main(arguments: Sequence[str]) -> int:
    """Train as one process of a session."""
    content = json.loads(arguments[0])
    options = _validated(content["options"])
    trained = train_recipes(content["recipes"], options, Clock(content["time_limit_s"]), keep_going=True)
    if leads():
        ending = json.dumps({"left": trained.left, "problems": trained.problems}, indent=1)
        write_bytes(options.runs / ENDING, ending.encode() + b"\n")
    return EXIT_OK


if __name__ == "__main__":
    open_streams(unfailing=True)
    try:
        sys.exit(main(sys.argv[1:]))
    except HMSError as error:
        print(f"error: {visible(str(error))}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
