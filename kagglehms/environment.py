"""The environment of child processes, in which nothing of the working folder is imported.

Whoever works beside a `token.py` of their own would otherwise have it executed in place of Python's.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

CHILDREN_PRINT = {"PYTHONIOENCODING": "utf-8:replace"}
"""For the environment of a Python whose output this project reads or passes on."""


def safe_environment() -> dict[str, str]:
    """Return this process's environment with Python's safe path, for a child and for what it starts in turn.

    An empty entry of PYTHONPATH, which `export PYTHONPATH=$PYTHONPATH:/x` leaves, means the working folder too.
    """
    environment = os.environ | {"PYTHONSAFEPATH": "1"}
    path = os.pathsep.join(filter(None, environment.pop("PYTHONPATH", "").split(os.pathsep)))
    return environment | ({"PYTHONPATH": path} if path else {})


@contextlib.contextmanager
def safe_children() -> Iterator[None]:
    """Use that environment as this process's own while a library starts processes."""
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "PYTHONSAFEPATH")}
    safe = safe_environment()
    try:
        _set_variables({name: safe.get(name) for name in before})
        yield
    finally:
        _set_variables(before)


def _set_variables(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def child_environment() -> dict[str, str]:
    """Return an environment in which a child process imports this copy of the library."""
    import kagglehms

    environment = safe_environment()
    library = str(Path(kagglehms.__file__).resolve().parents[1])
    path = [library, *filter(None, [environment.get("PYTHONPATH")])]
    return environment | CHILDREN_PRINT | {"PYTHONPATH": os.pathsep.join(path)}


def available_cpus() -> int:
    """Return how many CPU cores this process may use; in a container they can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def leads() -> bool:
    """Return whether this process prints and writes for all that `torchrun` started; true for one that runs alone."""
    return os.environ.get("RANK", "0") == "0"
