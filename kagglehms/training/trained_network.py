"""A trained network with everything that it needs to predict: its recipe, its statistics and its device.

Shape legend: B recordings, C channel, H image rows, W image columns, D features of an embedding, K the six classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kagglehms.data.competition import CLASSES
from kagglehms.device import Device
from kagglehms.inputs.drawing import stack
from kagglehms.inputs.layouts import Crop, Normaliser
from kagglehms.training.checkpoint import load_weights
from kagglehms.training.models import head_layers, make_model
from kagglehms.training.recipes import Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn


@dataclass(frozen=True)
class TrainedNetwork:
    """One fold's network, ready to predict.

    Attributes:
        recipe: recipe that it was trained by.
        network: the network, in evaluation mode, on the device.
        device: device to compute on.
        normaliser: statistics of the fold's training records.
    """

    recipe: Recipe
    network: nn.Module
    device: Device
    normaliser: Normaliser

    @classmethod
    def load(cls, recipe: Recipe, weights: Path, device: Device) -> TrainedNetwork:
        """Build the network of a recipe and load its weights.

        Raises:
            DataError: the file is damaged, or its weights are those of another network.
        """
        from kagglehms.training.precision import placed

        network, _ = make_model(recipe)
        normaliser = load_weights(network, weights)
        return cls(recipe, placed(network.eval(), device.name), device, normaliser)

    def predict(self, crops: Sequence[Crop]) -> NDArray[np.float64]:
        """Return (B, 6) float64 probabilities of recordings, whose inputs are drawn as in training."""
        return self.predict_images(stack(crops, self.recipe.layout, self.normaliser))

    def predict_images(self, images_BCHW: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return (B, 6) float64 probabilities of inputs that are drawn already; halve them if memory is too small."""
        if not len(images_BCHW):
            return np.empty((0, len(CLASSES)))
        import torch

        from kagglehms.training.memory import out_of_memory
        from kagglehms.training.prediction import probabilities

        try:
            return probabilities(self.network, torch.from_numpy(images_BCHW), self.device)
        except RuntimeError as error:
            if len(images_BCHW) < 2 or not out_of_memory(error):
                raise
        torch.cuda.empty_cache()
        half = len(images_BCHW) // 2
        return np.concatenate(
            [self.predict_images(part) for part in (images_BCHW[:half], images_BCHW[half:])]
        )

    def embed(self, images_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (B, D) embeddings of inputs: what the layers that compute the logits are given.

        Where several layers compute logits, their inputs are concatenated.
        """
        seen: list[Tensor] = []
        hooks = [
            layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
            for layer in head_layers(self.network, self.recipe)
        ]
        try:
            self.predict_images(images_BCHW)
        finally:
            for hook in hooks:
                hook.remove()
        # Inputs that had to be halved arrive in several calls, each with one tensor for each layer.
        calls = [seen[i : i + len(hooks)] for i in range(0, len(seen), len(hooks))]
        parts = [np.concatenate([t.flatten(1).float().cpu().numpy() for t in call], axis=1) for call in calls]
        return np.concatenate(parts)
