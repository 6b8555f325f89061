"""The network of a recipe, with its first weights."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kagglehms.data.competition import CLASSES
from kagglehms.errors import first_line
from kagglehms.inputs.kinds import Image, Views
from kagglehms.training.classifiers import classifier_layers
from kagglehms.training.first_weights import NONE, FirstWeights, find_all
from kagglehms.training.front_ends.options import FrontEnd
from kagglehms.training.image_networks import cannot_take, create_network, set_pooling
from kagglehms.training.recipe import Recipe
from kagglehms.training.weight_fitting import fill

if TYPE_CHECKING:
    from torch import nn


def make_model(recipe: Recipe, weights: str | FirstWeights = NONE) -> tuple[nn.Module, str]:
    """Build the network of a recipe, which takes an image, signals or two images, and returns six logits.

    Args:
        recipe: recipe of the run; its backbones may be any timm models.
        weights: first weights of the network, as found by `first_weights.find_all`, or the name of those to find.

    Returns:
        The network, in float32 on the CPU, and a line that says where its weights come from.

    Raises:
        UsageError: timm has no such model, it cannot take the images, it is only an encoder, or the hub does not
            provide its weights.
        DataError: the file of the weights is missing, or contains those of another model.
    """
    first = find_all(recipe.backbones, weights) if isinstance(weights, str) else weights
    line = f"weights: {first.origin}"
    if isinstance(recipe.layout, Views):
        return _two_views(recipe, recipe.layout.parts, first), line
    model = _image_network(recipe, 0, recipe.layout.array_shape[0] if recipe.front_end is None else 1, first)
    return model if recipe.front_end is None else _behind_front_end(model, recipe.front_end), line


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
    shape = recipe.layout.shape if len(shapes) == 1 else " and ".join(map(str, shapes))
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


def _two_views(recipe: Recipe, parts: tuple[Image, Image], first: FirstWeights) -> nn.Module:
    """Build two image networks without classifiers, and the layer that computes the logits."""
    from kagglehms.training.views import TwoViews

    without = replace(recipe, dropout=0.0)  # it is applied once, after both
    networks = [_image_network(without, view, part.array_shape[0], first) for view, part in enumerate(parts)]
    widths = [_without_classifier(network, recipe) for network in networks]
    one, other = networks
    shapes = [part.array_shape for part in parts]
    return TwoViews(one, other, (widths[0], widths[1]), shapes, recipe.dropout)


def _without_classifier(model: Any, recipe: Recipe) -> int:
    """Remove the classifier of a timm network, so that it returns features, and return their number."""
    model.reset_classifier(0)
    if recipe.pooling is not None:  # timm has reset it
        set_pooling(model, recipe.pooling, recipe.network)
    return int(getattr(model, "head_hidden_size", model.num_features))


def _behind_front_end(model: nn.Module, options: FrontEnd) -> nn.Module:
    from kagglehms.training.front_ends.network import SignalNetwork, make_front_end

    return SignalNetwork(make_front_end(options), model)


def head_layers(model: nn.Module, recipe: Recipe) -> list[nn.Linear | nn.Conv2d]:
    """Return the layers of a recipe's network that compute the logits."""
    from kagglehms.training.front_ends.network import SignalNetwork
    from kagglehms.training.views import TwoViews

    if isinstance(model, TwoViews):
        return [model.head]
    return classifier_layers(model.backbone if isinstance(model, SignalNetwork) else model, recipe.backbone)
