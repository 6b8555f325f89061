"""The layers that compute logits: of timm's networks, and of embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kagglehms.data.competition import CLASSES
from kagglehms.errors import UsageError

if TYPE_CHECKING:
    from torch import nn


def reset_classifier(model: nn.Module, backbone: str) -> None:
    """Initialise the layers that compute the logits like `nn.Linear`, uniformly in ±1 / √n_inputs.

    Many timm networks initialise them in ±1 / √n_classes, which is meant for 1000 classes. With six, the first
    logits are so far apart that the first epochs are spent on unlearning them.

    Args:
        model: timm model with six classes.
        backbone: name of the backbone, for error messages.

    Raises:
        UsageError: the model has no such layer.
    """
    for layer in classifier_layers(model, backbone):
        layer.reset_parameters()


def embedding_head(n_inputs: int) -> nn.Linear:
    """Return a layer that computes six logits of an embedding, which its small weights make nearly equal at first.

    Embeddings of maxima, or of several networks, are further from 0 than what timm's networks end in, so that the
    weights of a fresh `nn.Linear` would have to be unlearned.

    Args:
        n_inputs: number of features of the embedding.
    """
    from torch import nn

    head = nn.Linear(n_inputs, len(CLASSES))
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    return head


def classifier_layers(model: nn.Module, backbone: str) -> list[nn.Linear | nn.Conv2d]:
    """Return the layers of a timm model that compute its logits; there are several if it has several heads.

    Args:
        model: timm model with six classes.
        backbone: name of the backbone, for error messages.

    Raises:
        UsageError: the model has no such layer, as it is only an encoder.
    """
    from torch import nn

    # timm names them in two places, and neither is always complete: auxiliary heads are only in the first, blocks
    # around the layer only in the second.
    named: Any = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    heads = [model.get_submodule(name) for name in ([named] if isinstance(named, str) else named)]
    own: Any = getattr(model, "get_classifier", lambda: None)()
    heads += [head for head in (own if isinstance(own, tuple | list) else [own]) if head is not None]
    layers = {layer: None for head in heads for layer in head.modules()}
    found: list[nn.Linear | nn.Conv2d] = []
    for layer in layers:
        if isinstance(layer, nn.Linear | nn.Conv2d) and layer.weight.shape[0] == len(CLASSES):
            found.append(layer)
    if not found:
        raise UsageError(f"backbone {backbone!r} has no classifier, it only encodes images; choose another")
    return found
