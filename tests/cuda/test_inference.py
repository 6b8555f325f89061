"""The scored run's networks on a GPU whose memory is too small for a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from devices import ROOM, device_at

from kagglehms.bundle.manifest import Model
from kagglehms.bundle.predictor import LoadedModel
from kagglehms.inputs.layouts import Normaliser
from kagglehms.training.models import make_model
from kagglehms.training.recipes import get_recipe


def test_a_batch_that_does_not_fit_is_halved(
    place: str, limited: Callable[[Callable[[int], object]], None]
) -> None:
    device = device_at(place)
    backbone = "efficientnet_b0" if place == "cuda" else "half:test_efficientnet"
    recipe = replace(get_recipe("baseline"), backbone=backbone)
    images_BCHW = np.random.default_rng(0).normal(size=(4 * ROOM, 1, 400, 300)).astype(np.float32)

    def model() -> LoadedModel:
        torch.manual_seed(0)
        network = make_model(recipe)[0].eval().to(device.name)
        entry = Model(recipe.name, 0, "w.safetensors", "r.json", {"all": 1.0})
        return LoadedModel(recipe, network, device, Normaliser(), entry)

    free = model()
    expected_BK = np.concatenate(
        [free.predict_images(images_BCHW[i : i + ROOM]) for i in range(0, 4 * ROOM, ROOM)]
    )
    limited(lambda n: free.predict_images(images_BCHW[:n]))
    np.testing.assert_allclose(model().predict_images(images_BCHW), expected_BK, atol=1e-4)
