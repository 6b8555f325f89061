"""Fit first weights to a network, completely or not at all.

The tensors of a file are changed in this order; after that, every tensor of the network must be there, with its shape,
and no other:

1. Floating-point numbers become float32.
2. Prefixes that all names have and the network has not (`module.`, `_orig_mod.`, `model.`, `backbone.`,
   `base_model.`, `network.`, `net.`) are removed.
3. The classifier, which has other classes, is dropped.
4. timm's `checkpoint_filter_fn` for the kind of network translates old names, and resizes the position embeddings of
   networks with a fixed image size.
5. A stem with three input channels is reduced to one, if the network has one, by timm's `adapt_input_conv`: the sum.

Besides the classifier, only counters of batches may be missing, which do not affect anything.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kagglehms.errors import DataError, first_line
from kagglehms.training.backbones import given_name
from kagglehms.training.first_weights import FirstWeights

if TYPE_CHECKING:
    from torch import Tensor, nn

State = dict[str, "Tensor"]

_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "base_model.", "network.", "net.")
_COUNTER = "num_batches_tracked"
_NAMED = 3
"""Number of tensors that a message names."""


def fill(network: nn.Module, first: FirstWeights, backbone: str, classifier: Iterable[nn.Module]) -> None:
    """Load first weights into a timm network, except its classifier.

    Args:
        network: network whose tensors are replaced.
        first: first weights of the network.
        backbone: name of the recipe's backbone.
        classifier: layers of the network that are not changed.

    Raises:
        DataError: the file cannot be read, contains values that are not finite, or is of another network; the message
            names tensors that are missing, unknown or of another shape.
    """
    if first.path is None:
        return
    modules = {module: name for name, module in network.named_modules()}
    own = {f"{modules[layer]}.{part}" for layer in classifier for part in ("weight", "bias")}
    state = _without_prefixes(_read(first.path), network.state_dict())
    state = {name: tensor for name, tensor in state.items() if name not in own}
    state = _translated(state, network, first.path, backbone)
    state = {name: tensor for name, tensor in state.items() if name not in own}
    state = _with_one_channel(state, network)
    wanted = {name: tensor for name, tensor in network.state_dict().items() if name not in own}
    problems = _differences(wanted, state)
    if problems:
        reason = f"does not hold weights of {given_name(backbone)}: {'; '.join(problems)}"
        raise DataError(first.path, reason, "give timm's file for this very backbone")
    network.load_state_dict(state, strict=False)


def _read(path: Path) -> State:
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise DataError(
            path, f"cannot be read ({first_line(error)})", "copy it again, it is truncated or no weights"
        ) from error
    state = {name: t.float() if t.is_floating_point() else t for name, t in state.items()}
    bad = [name for name, t in state.items() if t.is_floating_point() and not torch.isfinite(t).all()]
    if bad:
        raise DataError(
            path, f"holds values that are not finite, in {_some(bad)}", "copy or convert it again"
        )
    return state


def _without_prefixes(state: State, network: Mapping[str, Tensor]) -> State:
    """Remove prefixes that all names have in common, if they are those that training code adds."""
    while True:
        found = [p for p in _PREFIXES if state and all(name.startswith(p) for name in state)]
        found = [p for p in found if not any(name.startswith(p) for name in network)]
        if not found:
            return state
        state = {name.removeprefix(found[0]): tensor for name, tensor in state.items()}


def _translated(state: State, network: nn.Module, path: Path, backbone: str) -> State:
    """Let timm translate the names of older files and resize position embeddings, if it has a function for that."""
    # By timm's convention, the function is in the module of the network's class.
    translate: Callable[[State, nn.Module], State] | None = getattr(
        sys.modules[type(network).__module__], "checkpoint_filter_fn", None
    )
    if translate is None:
        return state
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch warns about timm's code
            return dict(translate(dict(state), network))
    except Exception as error:  # timm's functions do not check names and shapes, and can raise anything
        reason = f"does not hold weights of {given_name(backbone)}: timm cannot translate them"
        raise DataError(
            path, f"{reason} ({first_line(error)})", "give timm's file for this very backbone"
        ) from error


def _with_one_channel(state: State, network: nn.Module) -> State:
    """Sum the colours of the stems that timm names, unless they already have the network's shape."""
    from timm.models import adapt_input_conv

    wanted = network.state_dict()
    named: Any = getattr(network, "pretrained_cfg", {}).get("first_conv") or ()
    for stem in (named,) if isinstance(named, str) else named:
        name = f"{stem}.weight"
        if name not in state or name not in wanted or state[name].shape == wanted[name].shape:
            continue
        if state[name].ndim == 4 and state[name].shape[1] % 3 == 0:
            state = state | {name: adapt_input_conv(1, state[name])}
    return state


def _differences(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    missing = [name for name in wanted if name not in found and not name.endswith(_COUNTER)]
    unknown = [name for name in found if name not in wanted]
    reshaped = [
        f"{name} is {tuple(found[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in found and found[name].shape != tensor.shape
    ]
    problems = []
    if missing:
        problems.append(f"{len(missing)} of {len(wanted)} tensors are missing ({_some(missing)})")
    if unknown:
        problems.append(f"{len(unknown)} of {len(found)} are unknown ({_some(unknown)})")
    return problems + reshaped[:_NAMED]


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (" …" if len(names) > _NAMED else "")
