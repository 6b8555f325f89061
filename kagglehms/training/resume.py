"""The state of an unfinished fold, from which training continues as if it had not been interrupted.

It is one safetensors file. Its tensors are those of the network, its moving average, the optimizer, and the kept
evaluations; everything else is JSON in the file's header, with the sha256 of the whole file, in which zeros stand in
its own place. Nothing is unpickled, and the file is replaced atomically. No random state is saved, since random numbers
are functions of (seed, epoch, record) and (seed, step).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kagglehms import __version__
from kagglehms.errors import RunError
from kagglehms.files import write_bytes
from kagglehms.strict_json import parse_object

if TYPE_CHECKING:
    from torch import Tensor

STATE = "state.safetensors"
"""Name of the file, in the folder of an unfinished fold."""
KEY = "kagglehms-state"
FORMAT = "2"
_UNSEALED = "0" * 64
_DECIDING = (
    "data/competition.py",
    "data/readers.py",
    "data/records.py",
    "data/store.py",
    "data/tables.py",
    "data/whole.py",
    "features",
    "inputs",
    "training",
)
"""The files and folders of the package whose code decides what a training step does."""
_NOT_DECIDING = (
    "training/logs.py",
    "training/published.py",
    "training/recipes.py",
    "training/resume.py",
    "training/session.py",
    "training/trackers.py",
    "training/variants.py",
)
"""Those among them that only write logs, save, keep time, or list or read recipes, whose digests are compared by
themselves.
"""


@dataclass(frozen=True)
class State:
    """The state of an unfinished fold.

    Attributes:
        tensors: tensors by name; the part of the name before the first `/` says what they belong to.
        numbers: everything else, as JSON can hold it.
        identity: digests of what the run depends on; a state with another identity is refused.
    """

    tensors: Mapping[str, Tensor]
    numbers: Mapping[str, Any]
    identity: Mapping[str, str]

    def part(self, name: str) -> dict[str, Tensor]:
        """Return the tensors whose names begin with `name`/, without this prefix."""
        start = f"{name}/"
        return {
            key.removeprefix(start): value for key, value in self.tensors.items() if key.startswith(start)
        }


def write_state(path: Path, state: State) -> None:
    """Write a state atomically.

    Raises:
        RunError: the disk is full; the previous state is still there.
    """
    from safetensors.torch import save

    # safetensors refuses tensors that share memory, such as tied weights: clone them.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.tensors.items()}
    header = {
        "sha256": _UNSEALED,
        "format": FORMAT,
        "identity": dict(state.identity),
        "numbers": dict(state.numbers),
    }
    content = save(tensors, {KEY: json.dumps(header)})
    seal = hashlib.sha256(content).hexdigest()
    write_bytes(path, content.replace(_UNSEALED.encode(), seal.encode(), 1))


def read_state(path: Path, identity: Mapping[str, str]) -> State | None:
    """Read a state.

    Args:
        path: file of the state.
        identity: digests of what the run depends on now.

    Returns:
        The state, or None if there is no file.

    Raises:
        RunError: the file cannot be read, or something that the run depends on has changed; the message says what.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = parse_object((file.metadata() or {})[KEY])
            saved_as, found, numbers = (header[name] for name in ("format", "identity", "numbers"))
            if saved_as == FORMAT:
                _refuse_changed(path, header.get("sha256"))
            elif not isinstance(found, dict):
                raise ValueError("its identity is no object")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise RunError(
            f"{path}: cannot be read ({reason}); delete it to train this fold from its start"
        ) from error
    if saved_as != FORMAT:
        found = {**found, "format of the state": str(saved_as)}
        identity = {**identity, "format of the state": FORMAT}
    different = [
        f"{name} ({str(found.get(name, 'nothing'))[:12]} there, {now[:12]} now)"
        for name, now in identity.items()
        if found.get(name) != now
    ]
    if different:
        raise RunError(
            f"{path}: was saved with other {', '.join(different)}; go back to that, or delete the file to train "
            "this fold from its start"
        )
    return State(tensors, numbers, found)


def _refuse_changed(path: Path, stated: object) -> None:
    """Raise ValueError unless a file has the sha256 that it states, in whose place it had zeros."""
    content = path.read_bytes()
    if not isinstance(stated, str) or len(stated) != len(_UNSEALED) or content.count(stated.encode()) != 1:
        raise ValueError("it does not state its sha256")
    if hashlib.sha256(content.replace(stated.encode(), _UNSEALED.encode())).hexdigest() != stated:
        raise ValueError("it has changed since it was saved")


@cache
def code_version() -> str:
    """Return a digest of the code that decides what a training step does, and the library's version."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for name in _deciding_files(package):
        digest.update(name.encode() + b"\0" + (package / name).read_bytes() + b"\0")
    return f"{digest.hexdigest()[:12]} ({__version__})"


def _deciding_files(package: Path) -> list[str]:
    """Return the paths of these files relative to `package`, in a fixed order."""
    paths: list[Path] = []
    for entry in _DECIDING:
        path = package / entry
        paths += path.rglob("*.py") if path.is_dir() else [path]
    names = {path.relative_to(package).as_posix() for path in paths}
    return sorted(names.difference(_NOT_DECIDING))
