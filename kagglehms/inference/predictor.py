"""A bundle's models, loaded and averaged.

Shape legend: B recordings, C channel (one), H image rows, W image columns, K the six classes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kagglehms.data.recordings import encode_eeg, encode_spectrogram
from kagglehms.errors import UsageError
from kagglehms.features.images import CROP_SHAPES, Crop, Normaliser, Source, stack
from kagglehms.inference.manifest import BLEND, MANIFEST, Manifest, Model, read_manifest, verify
from kagglehms.learning.checkpoint import load_weights
from kagglehms.learning.ensemble import Blend, blend_from_json
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

        from kagglehms.learning.evaluation import probabilities

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
        blend: how recipes are combined; None for their plain mean.
    """

    def __init__(self, bundle: Path, manifest: Manifest, device: Device) -> None:
        if not manifest.models:
            raise UsageError(f"{bundle / MANIFEST}: the bundle holds no models; build it from a trained run")
        self.bundle = bundle
        self.manifest = manifest
        self.device = device
        self.prior = np.array(manifest.prior, dtype=np.float64)
        self.blend = _read_blend(bundle, manifest)
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
            eeg_uv: (10,000, 20) or (B, 10,000, 20) µV, 50 s with the labelled seconds in their middle, channels as
                in `competition.CHANNELS`; needed if a recipe of the bundle looks at the EEG.
            spectrogram: (300, 400) or (B, 300, 400) power, ten minutes around the same middle, columns as in
                `competition.SPECTROGRAM_COLUMNS`; needed if a recipe looks at spectrograms.

        Returns:
            (6,) or (B, 6) float64 probabilities in the order of `competition.CLASSES`: folds are averaged within a
            recipe, then recipes by the bundle's blend, or alike where it has none.

        Raises:
            UsageError: what the bundle's models look at was not given, or has another shape.
        """
        if self._models is None:
            self._models = list(self.models())
        sources = frozenset().union(*(model.recipe.layout.sources for model in self._models))
        crops, single = _crops(sources, eeg_uv, spectrogram)
        means = FoldMeans(self.blend)
        for model in self._models:
            means.add(model.recipe.name, model.predict(crops))
        return means.blended()[0] if single else means.blended()


def _read_blend(bundle: Path, manifest: Manifest) -> Blend | None:
    if BLEND not in manifest.files:
        return None
    return blend_from_json((bundle / BLEND).read_bytes(), bundle / BLEND)


class FoldMeans:
    """A running average: folds within a recipe first, then recipes, so that more folds give no more weight.

    Args:
        blend: how recipes are combined; None for their plain mean.
    """

    def __init__(self, blend: Blend | None = None) -> None:
        self.blend = blend
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._counts: dict[str, int] = {}

    def add(self, recipe: str, probabilities_BK: NDArray[np.float64]) -> None:
        self._sums[recipe] = self._sums.get(recipe, np.zeros_like(probabilities_BK)) + probabilities_BK
        self._counts[recipe] = self._counts.get(recipe, 0) + 1

    def blended(self) -> NDArray[np.float64]:
        """(B, 6) probabilities by what has been added so far; every row sums to 1."""
        means = {recipe: total / self._counts[recipe] for recipe, total in self._sums.items()}
        if self.blend is None:
            mean_BK = np.mean(list(means.values()), axis=0)
        else:
            mean_BK = self.blend.only(list(means)).apply(means)
        return mean_BK / mean_BK.sum(axis=1, keepdims=True)


def _crops(
    sources: Collection[Source], eeg_uv: ArrayLike | None, spectrogram: ArrayLike | None
) -> tuple[list[Crop], bool]:
    """What the models look at, one crop a recording, and whether it was a single recording."""
    parts: dict[Source, tuple[str, ArrayLike | None]] = {
        "eeg": ("eeg_uv", eeg_uv),
        "kaggle": ("spectrogram", spectrogram),
    }
    given: dict[Source, NDArray[np.float32]] = {}
    for source in sorted(sources):
        name, values = parts[source]
        if values is None:
            raise UsageError(f"the models of this bundle look at {name}: give predict({name}=…)")
        array, shape = np.asarray(values, dtype=np.float32), CROP_SHAPES[source]
        if array.ndim not in {2, 3} or array.shape[-2:] != shape:
            batch = f"(B, {shape[0]}, {shape[1]})"
            raise UsageError(f"{name} must be {shape} or {batch}, but got {array.shape}")
        given[source] = array
    if len({array.shape[:-2] for array in given.values()}) > 1:
        raise UsageError("eeg_uv and spectrogram must be of equally many recordings")
    single = next(iter(given.values())).ndim == 2
    stacks = {source: array[None] if single else array for source, array in given.items()}
    n = len(next(iter(stacks.values())))
    return [
        Crop(
            encode_spectrogram(stacks["kaggle"][i]) if "kaggle" in stacks else None,
            encode_eeg(stacks["eeg"][i]) if "eeg" in stacks else None,
        )
        for i in range(n)
    ], single


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
