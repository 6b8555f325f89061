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
from kagglehms.features.images import CROP_SHAPES, Crop, Normaliser, Source
from kagglehms.features.inputs import stack
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
        return self.predict_images(stack(crops, self.recipe.layout, self.normaliser))

    def predict_images(self, images_BCHW: NDArray[np.float32]) -> NDArray[np.float64]:
        """(B, 6) float64 probabilities of images that are drawn already; halves them if they need too much memory."""
        import torch

        from kagglehms.learning.evaluation import probabilities

        try:
            return probabilities(self.network, torch.from_numpy(images_BCHW), self.device)
        except torch.OutOfMemoryError:
            if len(images_BCHW) < 2:
                raise
        torch.cuda.empty_cache()
        half = len(images_BCHW) // 2
        return np.concatenate(
            [self.predict_images(part) for part in (images_BCHW[:half], images_BCHW[half:])]
        )


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
            yield self.load(entry)

    def recipe(self, entry: Model) -> Recipe:
        """Read the recipe of a model.

        Raises:
            DataError: it is no recipe of this version.
        """
        path = self.bundle / entry.recipe_file
        return recipe_from_json(path.read_bytes(), path)

    def load(self, entry: Model) -> LoadedModel:
        """Load one model onto the device."""
        recipe = self.recipe(entry)
        network, _ = make_model(recipe)
        normaliser = load_weights(network, self.bundle / entry.weights)
        return LoadedModel(entry, recipe, network.eval().to(self.device.name), self.device, normaliser)

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
        self._counts: dict[str, NDArray[np.int64]] = {}

    def add(self, recipe: str, probabilities_BK: NDArray[np.float64]) -> None:
        """Add one model's probabilities; a row with a value that is not finite is one that it did not predict."""
        known_B = np.logical_and.reduce(np.isfinite(probabilities_BK), axis=1)
        sums_BK = np.where(known_B[:, None], probabilities_BK, 0.0)
        if recipe not in self._sums:
            self._sums[recipe], self._counts[recipe] = (
                np.zeros_like(sums_BK),
                np.zeros(len(known_B), np.int64),
            )
        self._sums[recipe] += sums_BK
        self._counts[recipe] += known_B

    @property
    def known_RB(self) -> NDArray[np.bool_]:
        """Which recipe, in the order in which they came, has predicted which row."""
        return np.stack([counts > 0 for counts in self._counts.values()])

    def blended(self, otherwise_K: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """(B, 6) probabilities by what has been added so far; every row sums to 1.

        A row that some recipes did not predict is blended of the others.

        Args:
            otherwise_K: for rows that nobody predicted; NaN when None.
        """
        recipes, known_RB = list(self._counts), self.known_RB
        blended_BK = np.full((known_RB.shape[1], len(self._sums[recipes[0]][0])), np.nan)
        if otherwise_K is not None:
            blended_BK[:] = otherwise_K
        for pattern_R in np.unique(known_RB, axis=1).T:
            names = [name for name, known in zip(recipes, pattern_R, strict=True) if known]
            rows_B = (known_RB == pattern_R[:, None]).all(axis=0)
            if names:
                blended_BK[rows_B] = self._mix(names, rows_B)
        return blended_BK

    def _mix(self, names: list[str], rows_B: NDArray[np.bool_]) -> NDArray[np.float64]:
        means = {name: self._sums[name][rows_B] / self._counts[name][rows_B][:, None] for name in names}
        blend = self.blend
        mean_BK = np.mean(list(means.values()), axis=0) if blend is None else blend.only(names).apply(means)
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
