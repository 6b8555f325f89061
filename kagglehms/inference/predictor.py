"""A bundle's models, loaded and averaged.

Shape legend: B recordings, C channel (one), H image rows, W image columns, K the six classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kagglehms.data.competition import N_BINS, PANELS, SPECTROGRAM_ROWS
from kagglehms.data.recordings import encode_spectrogram
from kagglehms.errors import UsageError
from kagglehms.features.images import Crop, Normaliser, stack
from kagglehms.inference.manifest import MANIFEST, Manifest, Model, read_manifest, verify
from kagglehms.learning.checkpoint import load_weights
from kagglehms.learning.models import make_model
from kagglehms.learning.recipes import Recipe, recipe_from_json
from kagglehms.runtime import Device, choose_device

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from torch import nn


@dataclass(frozen=True)
class LoadedModel:
    """One fold's network, ready to predict."""

    entry: Model
    recipe: Recipe
    network: nn.Module
    device: Device
    normaliser: Normaliser

    def predict(self, crops: Sequence[Crop]) -> NDArray[np.float64]:
        """(B, 6) float64 probabilities, images drawn as in training."""
        import torch

        from kagglehms.learning.trainer import probabilities

        images_BCHW = torch.from_numpy(stack(crops, self.recipe.layout, self.normaliser))
        return probabilities(self.network, images_BCHW, self.device)


class Predictor:
    """All models of a bundle.

    Args:
        bundle: the folder.
        manifest: what `read_manifest` read there.
        device: where to compute.

    Attributes:
        prior: (6,) class means of the training targets, the answer where there is no recording.
    """

    def __init__(self, bundle: Path, manifest: Manifest, device: Device) -> None:
        if not manifest.models:
            raise UsageError(f"{bundle / MANIFEST}: the bundle holds no models; build it from a trained run")
        self.bundle = bundle
        self.manifest = manifest
        self.device = device
        self.prior = np.array(manifest.prior, dtype=np.float64)
        self._models: list[LoadedModel] | None = None

    def models(self) -> Iterator[LoadedModel]:
        """Yield the models one after another, each loaded only when it is its turn."""
        for entry in self.manifest.models:
            path = self.bundle / entry.recipe_file
            recipe = recipe_from_json(path.read_bytes(), path)
            network, _ = make_model(recipe)
            normaliser = load_weights(network, self.bundle / entry.weights)
            yield LoadedModel(entry, recipe, network.eval().to(self.device.name), self.device, normaliser)

    def predict(
        self, eeg_uv: ArrayLike | None = None, *, spectrogram: ArrayLike | None = None
    ) -> NDArray[np.float64]:
        """Predict the vote fractions of one or several recordings.

        Args:
            eeg_uv: (n_times, 20) or (B, n_times, 20) µV, channels as in `competition.CHANNELS`.
            spectrogram: (300, 400) or (B, 300, 400) power, ten minutes with the labelled seconds in their middle,
                columns as in `competition.SPECTROGRAM_COLUMNS`.

        Returns:
            (6,) or (B, 6) float64 probabilities in the order of `competition.CLASSES`: folds are averaged within
            a recipe, then the recipes.

        Raises:
            UsageError: what the bundle's models look at was not given, or has another shape.
        """
        if self._models is None:
            self._models = list(self.models())
        needed = sorted(set().union(*(model.recipe.layout.sources for model in self._models)))
        if "kaggle" in needed and spectrogram is None:
            raise UsageError("the models of this bundle look at spectrograms: predict(spectrogram=power)")
        power = np.asarray(spectrogram, dtype=np.float32)
        single = power.ndim == 2
        if power.ndim not in {2, 3} or power.shape[-2:] != (SPECTROGRAM_ROWS, len(PANELS) * N_BINS):
            raise UsageError(
                f"spectrogram must be (300, 400) or (B, 300, 400), but got {power.shape}: "
                "one row every two seconds, one column per panel and frequency"
            )
        power = power[None] if single else power
        crops = [Crop(encode_spectrogram(one)) for one in power]
        blend = Blend()
        for model in self._models:
            blend.add(model.recipe.name, model.predict(crops))
        return blend.mean()[0] if single else blend.mean()


class Blend:
    """A running average: folds within a recipe first, then recipes, so that more folds give no more weight."""

    def __init__(self) -> None:
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._counts: dict[str, int] = {}

    def add(self, recipe: str, probabilities_BK: NDArray[np.float64]) -> None:
        self._sums[recipe] = self._sums.get(recipe, np.zeros_like(probabilities_BK)) + probabilities_BK
        self._counts[recipe] = self._counts.get(recipe, 0) + 1

    def mean(self) -> NDArray[np.float64]:
        """(B, 6) probabilities; every row sums to 1 (to the last digits of float64)."""
        means = [total / self._counts[recipe] for recipe, total in self._sums.items()]
        mean_BK = np.mean(means, axis=0)
        return mean_BK / mean_BK.sum(axis=1, keepdims=True)


def load_bundle(path: Path | str, device: str | None = None, expected_digest: str | None = None) -> Predictor:
    """Open a bundle that `build.py` made, after checking every byte of it.

    Args:
        path: its folder, such as `dist/dataset`.
        device: `cpu`, `cuda`, or None for the best that works.
        expected_digest: refuse any other version of the bundle.

    Raises:
        BundleError: the folder is not what its manifest says.
    """
    bundle = Path(path)
    manifest = read_manifest(bundle)
    verify(bundle, manifest, expected_digest)
    return Predictor(bundle, manifest, choose_device(device))
