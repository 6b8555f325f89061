"""braindecode's networks for signals. The package is optional, and Kaggle's image lacks it.

A network is made for the signals of its input, from the number of signals and samples and the sampling frequency; its
other settings and its first weights are braindecode's own.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from kagglehms.data.competition import CLASSES
from kagglehms.errors import UsageError, first_line, nearest
from kagglehms.inputs.kinds import Signals
from kagglehms.training.backbones import EEG

if TYPE_CHECKING:
    from torch import nn


def create_eeg_network(name: str, layout: Signals, dropout: float) -> nn.Module:
    """Create a network of braindecode that returns six logits.

    Args:
        name: name of the class in `braindecode.models`.
        layout: signals that the network sees.
        dropout: dropout rate, which braindecode calls `drop_prob`, of networks that have a single one.

    Raises:
        UsageError: braindecode is not installed or has no such network, the network cannot take the signals, or it has
            no layer that computes logits.
    """
    made = _model_class(name)
    n_signals, n_times = layout.shape
    options: dict[str, Any] = {"drop_prob": dropout} if _takes(made, "drop_prob") else {}
    try:
        model: nn.Module = made(
            n_chans=n_signals, n_times=n_times, n_outputs=len(CLASSES), sfreq=layout.sfreq_hz, **options
        )
    except Exception as error:  # there are dozens of constructors, which can raise anything
        raise UsageError(
            f"backbone {EEG + name!r} cannot take {layout.shape} signals: {first_line(error)}"
        ) from error
    eeg_classifier(model, name)
    return model


def eeg_classifier(model: nn.Module, name: str) -> list[nn.Linear | nn.Conv1d | nn.Conv2d]:
    """Return the layers that compute the logits, which braindecode keeps in a network's `final_layer`.

    There are several where the logits of several windows are averaged, as in ATCNet.

    Args:
        model: network of braindecode with six outputs.
        name: name of its class, for error messages.

    Raises:
        UsageError: the network has no such layer.
    """
    from torch import nn

    final = getattr(model, "final_layer", None)
    for part in (final, model):
        layers = part.modules() if isinstance(part, nn.Module) else ()
        found = [layer for layer in layers if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d)]
        heads = [layer for layer in found if layer.weight.shape[0] == len(CLASSES)]
        if heads:
            return heads if part is final else heads[-1:]
    raise UsageError(f"backbone {EEG + name!r} has no layer that computes logits; choose another")


def _model_class(name: str) -> Any:
    from torch import nn

    try:
        from braindecode import models
    except ModuleNotFoundError as error:
        raise UsageError(
            f"backbone {EEG + name!r} needs {error.name}, which is not installed; pip install 'kagglehms[braindecode]'"
        ) from error
    classes = {key: value for key, value in vars(models).items() if inspect.isclass(value)}
    networks = {key: value for key, value in classes.items() if issubclass(value, nn.Module)}
    if name not in networks:
        near = nearest(name, networks)
        hint = f"did you mean {near!r}?" if near else "braindecode.models has its networks"
        raise UsageError(f"backbone {EEG + name!r} is none of braindecode's; {hint}")
    return networks[name]


def _takes(made: Any, option: str) -> bool:
    return option in inspect.signature(made).parameters
