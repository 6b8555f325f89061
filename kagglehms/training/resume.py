"""The state of an unfinished fold: one safetensors file, from which training goes on as if nothing had happened.

Tensors are those of the network, of its moving average, of the optimizer, and of the best evaluation so far; all
else is JSON in the file's header. Nothing is unpickled, and the file is replaced in one piece. Random numbers need
no room: they are functions of (seed, epoch, record) and (seed, step).
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
"""Name of the file in the folder of an unfinished fold."""
KEY = "kagglehms-state"
FORMAT = "1"
_DECIDING = (
    "data/competition.py",
    "data/readers.py",
    "data/records.py",
    "data/store.py",
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
)
"""Those among them that only write logs, save, keep time, or list recipes: a recipe's digest is compared by itself."""


@dataclass(frozen=True)
class State:
    """Where an unfinished fold stands.

    Attributes:
        tensors: by name; the part before the first `/` says what they belong to.
        numbers: whatever JSON can hold.
        identity: what the run depends on; a state of another identity is refused.
    """

    tensors: Mapping[str, Tensor]
    numbers: Mapping[str, Any]
    identity: Mapping[str, str]

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors below `name`, without that prefix."""
        start = f"{name}/"
        return {
            key.removeprefix(start): value for key, value in self.tensors.items() if key.startswith(start)
        }


def write_state(path: Path, state: State) -> None:
    """Write a state whole or not at all.

    Raises:
        RunError: the disk is full; the state that stood there still does.
    """
    from safetensors.torch import save

    # Cloned where it lies, so that tensors that share memory (tied weights) are apart, as safetensors wants them.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.tensors.items()}
    header = {"format": FORMAT, "identity": dict(state.identity), "numbers": dict(state.numbers)}
    write_bytes(path, save(tensors, {KEY: json.dumps(header)}))


def read_state(path: Path, identity: Mapping[str, str]) -> State | None:
    """Read the state at `path`; None if there is none.

    Raises:
        RunError: it cannot be read, or something that the run depends on has changed; the message says what.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = parse_object((file.metadata() or {})[KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        found, numbers = header["identity"], header["numbers"]
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise RunError(
            f"{path}: cannot be read ({error}); delete it to train this fold from its start"
        ) from error
    if header["format"] != FORMAT:
        found = {**found, "format of the state": header["format"]}
        identity = {**identity, "format of the state": FORMAT}
    different = [
        f"{name} ({found.get(name, 'nothing')[:12]} there, {now[:12]} now)"
        for name, now in identity.items()
        if found.get(name) != now
    ]
    if different:
        raise RunError(
            f"{path}: was saved with other {', '.join(different)}; go back to that, or delete the file to train "
            "this fold from its start"
        )
    return State(tensors, numbers, found)


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
