"""Save weights to safetensors files and load them; nothing is ever unpickled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kagglehms.errors import DataError, counted
from kagglehms.files import write_bytes
from kagglehms.inputs.layouts import PANEL_SHAPES, Normaliser
from kagglehms.strict_json import parse_object

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS = "weights.safetensors"
"""Name of the file of a fold's weights."""
NORMALISER_KEY = "kagglehms-normaliser"

_LARGEST = 1e30
"""Bound of statistics, far beyond any of a recording."""
_WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that DistributedDataParallel and torch.compile add to the names of a model's tensors."""


def save_weights(model: nn.Module, path: Path, normaliser: Normaliser | None = None) -> None:
    """Write all parameters and buffers atomically, under their plain names.

    Args:
        model: the model.
        path: path of the .safetensors file.
        normaliser: statistics of the training records, see `save_tensors`.
    """
    save_tensors(plain_state(model), path, normaliser)


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """Copy all parameters and buffers to main memory, under their plain names."""
    # safetensors refuses tensors that share memory, such as tied weights: clone them.
    return {_plain(name): t.detach().cpu().contiguous().clone() for name, t in model.state_dict().items()}


def save_tensors(state: dict[str, Tensor], path: Path, normaliser: Normaliser | None = None) -> None:
    """Write the tensors of `plain_state` atomically.

    Args:
        state: tensors by name.
        path: path of the .safetensors file.
        normaliser: statistics of the training records by which images are normalised; they belong to the weights like
            a parameter, and are stored in the same file.
    """
    from safetensors.torch import save

    statistics = {
        source: list(values) for source, values in sorted((normaliser or Normaliser()).statistics.items())
    }
    write_bytes(path, save(state, {NORMALISER_KEY: json.dumps(statistics)}))


def load_weights(model: nn.Module, path: Path) -> Normaliser:
    """Load weights into a model, which must have exactly the tensors in the file.

    Args:
        model: model whose tensors are replaced.
        path: path of the .safetensors file.

    Returns:
        The statistics that were saved with the weights.

    Raises:
        DataError: the file is missing, truncated, or has the weights of another model; the message names the first
            differences.
    """
    with _opened(path, "pt") as file:
        state = {_plain(name): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        normaliser = _normaliser(file)
    problems = _differences(model.state_dict(), state)
    if problems:
        raise DataError(
            path, "holds weights of another model: " + "; ".join(problems), "check recipe and backbone"
        )
    target = {_plain(name): name for name in model.state_dict()}
    model.load_state_dict({target[name]: tensor for name, tensor in state.items()})
    return normaliser


def load_normaliser(path: Path) -> Normaliser:
    """Return the statistics that were saved with the weights at `path`, without loading these.

    Raises:
        DataError: the file is missing or truncated.
    """
    with _opened(path, "np") as file:
        return _normaliser(file)


@contextmanager
def _opened(path: Path, framework: str) -> Iterator[Any]:
    """Open a .safetensors file; what goes wrong while it is read is a DataError."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise DataError(path, "no such file", "train the recipe, or copy its run folder whole")
    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(
            path, f"cannot be read ({error})", "copy it again, it is truncated or no weights"
        ) from error


def _normaliser(file: Any) -> Normaliser:
    """Parse the statistics of each source; raise ValueError if they are not a mean and a standard deviation."""
    content = (file.metadata() or {}).get(NORMALISER_KEY, "{}")
    statistics: dict[Any, Any] = parse_object(content)
    for source, values in statistics.items():
        pair = isinstance(values, list) and len(values) == 2
        if source not in PANEL_SHAPES or not pair or not all(map(_is_number, values)):
            raise ValueError(f"its statistics are unusable: {content[:80]}")
    return Normaliser({source: (float(mean), float(std)) for source, (mean, std) in statistics.items()})


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < _LARGEST  # type: ignore[arg-type]


def _plain(name: str) -> str:
    for prefix in _WRAPPERS:
        name = name.removeprefix(prefix)
    return name


def _differences(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> list[str]:
    shapes = {_plain(name): tuple(tensor.shape) for name, tensor in wanted.items()}
    missing = [name for name in shapes if name not in found]
    extra = [name for name in found if name not in shapes]
    other = [
        f"{name} is {tuple(found[name].shape)} instead of {shape}"
        for name, shape in shapes.items()
        if name in found and tuple(found[name].shape) != shape
    ]
    problems = []
    if missing:
        problems.append(f"{counted(len(missing), 'tensor')} missing, such as {missing[0]}")
    if extra:
        problems.append(f"{len(extra)} unknown, such as {extra[0]}")
    return problems + other[:2]
