"""The network of a recipe, with its first weights."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kagglehms.data.competition import CLASSES
from kagglehms.errors import first_line
from kagglehms.inputs.kinds import Signals, View, Views
from kagglehms.training.classifiers import classifier_layers
from kagglehms.training.eeg_networks import create_eeg_network, eeg_classifier
from kagglehms.training.first_weights import NONE, FirstWeights, find_all
from kagglehms.training.image_networks import cannot_take, create_network, set_pooling
from kagglehms.training.recipe import Recipe
from kagglehms.training.weight_fitting import fill

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn


def make_model(recipe: Recipe, weights: str | FirstWeights = NONE) -> tuple[nn.Module, str]:
    """Build the network of a recipe, which takes an image, signals or two views, and returns six logits.

    Args:
        recipe: recipe of the run; its backbones may be any timm models, or one of braindecode's.
        weights: first weights of the network, as found by `first_weights.find_all`, or the name of those to find.

    Returns:
        The network, in float32 on the CPU, and a line that says where its weights come from.

    Raises:
        UsageError: timm or braindecode has no such model, it cannot take the input, it is only an encoder, or the hub
            does not provide its weights; or braindecode is not installed.
        DataError: the file of the weights is missing, or contains those of another model.
    """
    first = find_all(recipe.backbones, weights) if isinstance(weights, str) else weights
    line = f"weights: {first.origin}"
    if isinstance(recipe.layout, Views):
        return _two_views(recipe, recipe.layout.parts, first), line
    return _one_view(recipe, recipe.layout, first), line


def check_model(recipe: Recipe, first: FirstWeights) -> None:
    """Build the network of a recipe and run it on one input, so that a run that cannot work does not start.

    Args:
        recipe: recipe of the run.
        first: first weights of the network.

    Raises:
        UsageError: as in `make_model`, or the network cannot take inputs of this size.
        DataError: as in `make_model`.
    """
    import torch

    model, _ = make_model(recipe, first)
    inputs = torch.zeros(1, *recipe.layout.array_shape)
    shapes = recipe.image_shapes
    shape = recipe.layout.shape if len(shapes) < 2 else " and ".join(map(str, shapes))
    try:
        with torch.inference_mode():
            logits_BK = model.eval()(inputs)
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        raise cannot_take(recipe.network, shape, first_line(error)) from error
    if logits_BK.shape != (1, len(CLASSES)):
        raise cannot_take(recipe.network, shape, f"it makes {tuple(logits_BK.shape)} of one")


def _image_network(recipe: Recipe, view: int, n_planes: int, first: FirstWeights) -> nn.Module:
    """Build the timm network of one of a recipe's images, with its first weights and its pooling."""
    backbone = recipe.backbones[view]
    model = create_network(recipe, backbone, recipe.image_shapes[view], n_planes)
    fill(model, first.of(view), backbone, classifier_layers(model, backbone))
    if recipe.pooling is not None:
        set_pooling(model, recipe.pooling, backbone)
    return model


def _one_view(recipe: Recipe, view: View, first: FirstWeights) -> nn.Module:
    """Build the network of a recipe with one input."""
    from kagglehms.training.front_ends.network import SignalNetwork, encoder_with_head, make_front_end

    front_end, encoder = recipe.image_front_end, recipe.encoder_of(view)
    if encoder is not None:
        return encoder_with_head(encoder, view.shape[0], recipe.dropout)
    if front_end is not None:
        return SignalNetwork(make_front_end(front_end), _image_network(recipe, 0, 1, first))
    if isinstance(view, Signals):
        return create_eeg_network(recipe.eeg_model, view, recipe.dropout)
    return _image_network(recipe, 0, view.array_shape[0], first)


def _two_views(recipe: Recipe, parts: tuple[View, View], first: FirstWeights) -> nn.Module:
    """Build two networks without classifiers, and the layer that computes the logits."""
    from kagglehms.training.views import TwoViews

    images = iter(range(len(recipe.backbones)))
    one, other = (_embedding(recipe, part, images, first) for part in parts)
    shapes = [part.array_shape for part in parts]
    return TwoViews(one[0], other[0], (one[1], other[1]), shapes, recipe.dropout, bool(recipe.view_loss))


def _embedding(
    recipe: Recipe, part: View, images: Iterator[int], first: FirstWeights
) -> tuple[nn.Module, int]:
    """Build the network that embeds a view, and return it with the number of features.

    Args:
        recipe: recipe of the run.
        part: the view.
        images: numbers of the images that no network has been built for.
        first: first weights of the image networks.
    """
    from kagglehms.training.front_ends.network import SignalNetwork, make_encoder, make_front_end

    options = recipe.encoder_of(part)
    if options is not None:
        encoder = make_encoder(options, part.shape[0])
        return encoder, encoder.width
    front_end = recipe.image_front_end if isinstance(part, Signals) else None
    without = replace(recipe, dropout=0.0)  # it is applied once, after both
    n_planes = part.array_shape[0] if front_end is None else 1
    network = _image_network(without, next(images), n_planes, first)
    width = _without_classifier(network, recipe)
    return network if front_end is None else SignalNetwork(make_front_end(front_end), network), width


def _without_classifier(model: Any, recipe: Recipe) -> int:
    """Remove the classifier of a timm network, so that it returns features, and return their number."""
    model.reset_classifier(0)
    if recipe.pooling is not None:  # timm has reset it
        set_pooling(model, recipe.pooling, recipe.network)
    return int(getattr(model, "head_hidden_size", model.num_features))


def head_layers(model: nn.Module, recipe: Recipe) -> list[nn.Linear | nn.Conv1d | nn.Conv2d]:
    """Return the layers of a recipe's network that compute the logits of its predictions."""
    from torch import nn

    from kagglehms.training.front_ends.network import SignalNetwork
    from kagglehms.training.views import TwoViews

    if isinstance(model, TwoViews):
        return [model.head]
    if recipe.eeg_model:
        return eeg_classifier(model, recipe.eeg_model)
    if not recipe.image_shapes:
        return [layer for layer in model.backbone.modules() if isinstance(layer, nn.Linear)]  # type: ignore[union-attr]
    return [
        *classifier_layers(model.backbone if isinstance(model, SignalNetwork) else model, recipe.backbone)
    ]


def head_parameters(model: nn.Module, recipe: Recipe) -> set[nn.Parameter]:
    """Return the parameters that compute logits in training: of the predictions, and of each view by itself."""
    from kagglehms.training.views import TwoViews

    own = [model.own_heads] if isinstance(model, TwoViews) else []
    return {parameter for layer in [*head_layers(model, recipe), *own] for parameter in layer.parameters()}
