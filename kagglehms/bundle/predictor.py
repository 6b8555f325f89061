"""A bundle's models, loaded and averaged.

Shape legend: B recordings, C channel (one), H image rows, W image columns, K the six classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kagglehms.bundle.averaging import FoldMeans
from kagglehms.bundle.given import Recordings, as_crops
from kagglehms.bundle.manifest import BLEND, MANIFEST, Manifest, Model, read_manifest, verify
from kagglehms.data.competition import CLASSES
from kagglehms.data.readers import eeg_is_blank, spectrogram_is_blank
from kagglehms.device import Device, choose_device
from kagglehms.errors import UsageError
from kagglehms.inputs.kinds import stack
from kagglehms.inputs.layouts import Crop, Normaliser, Source
from kagglehms.runs.blends import Blend, blend_from_json
from kagglehms.training.checkpoint import load_weights
from kagglehms.training.models import make_model
from kagglehms.training.recipes import Recipe, recipe_from_json

if TYPE_CHECKING:
    from numpy.typing import NDArray
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


@dataclass(frozen=True)
class Prediction:
    """What a bundle says of one or several recordings, and what it could look at.

    Attributes:
        probabilities: (6,) or (B, 6) float64 in the order of `competition.CLASSES`; every row sums to 1.
        from_prior: () or (B,) whether the row is the class prior, as no model had anything to look at.
        from_fewer_models: () or (B,) whether some recipes of the bundle could not look at it, and others could.
    """

    probabilities: NDArray[np.float64]
    from_prior: NDArray[np.bool_]
    from_fewer_models: NDArray[np.bool_]

    def __getitem__(self, row: int) -> Prediction:
        """What is said of one recording of a batch."""
        parts = (self.probabilities, self.from_prior, self.from_fewer_models)
        return Prediction(*(np.asarray(part[row]) for part in parts))


class Predictor:
    """All models of a bundle.

    Args:
        bundle: the folder.
        manifest: what `read_manifest` read there.
        device: where to compute.

    Attributes:
        prior: (6,) class means of the training targets (see `Manifest.prior`), the answer where there is no recording.
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
        self, eeg_uv: Recordings | None = None, *, spectrogram: Recordings | None = None
    ) -> NDArray[np.float64]:
        """Predict the vote fractions of one or several recordings.

        Args:
            eeg_uv: (10,000, 20) or (B, 10,000, 20) µV, 50 s with the labelled seconds in their middle, channels as
                in `competition.CHANNELS`; or a pandas or polars frame, or a list of B frames, whose columns go by
                their names and may stand in any order. Needed if a recipe of the bundle looks at the EEG.
            spectrogram: (300, 400) or (B, 300, 400) power, ten minutes around the same middle, columns as in
                `competition.SPECTROGRAM_COLUMNS`; or frames. Needed if a recipe looks at spectrograms.

        Returns:
            (6,) or (B, 6) float64 probabilities in the order of `competition.CLASSES`: folds are averaged within a
            recipe, then recipes by the bundle's blend, or alike where it has none. Where nothing was recorded that a
            model looks at, the class prior, with a warning; `predict_with_flags` says where that is.

        Raises:
            UsageError: what the bundle's models look at was not given; or what was given, needed or not, has another
                shape, is no array of numbers, or is a frame that lacks a column or has one twice.
        """
        found = self.predict_with_flags(eeg_uv, spectrogram=spectrogram)
        n_prior = int(found.from_prior.sum())
        if n_prior:
            warnings.warn(
                f"{n_prior} of {found.from_prior.size} recordings hold nothing to look at: their answer is the class "
                "prior; predict_with_flags says which",
                stacklevel=2,
            )
        return found.probabilities

    def predict_with_flags(
        self, eeg_uv: Recordings | None = None, *, spectrogram: Recordings | None = None
    ) -> Prediction:
        """Do what `predict` does, and say of each recording whether its answer is the class prior.

        A recording of which nothing is there to look at is not shown to a model, as in a scored run: recipes that look
        at it do without this row, and if none is left, it has the prior.
        """
        if self._models is None:
            self._models = list(self.models())
        sources = frozenset[Source]().union(*(model.recipe.layout.sources for model in self._models))
        crops, single = as_crops(sources, eeg_uv, spectrogram)
        means = FoldMeans(self.blend)
        for model in self._models:
            means.add(model.recipe.name, _predict_visible(model, crops))
        known_RB = means.known_RB
        some_B = known_RB.any(axis=0)
        found = Prediction(
            means.blended(self.prior / self.prior.sum()),
            np.asarray(~some_B),
            np.asarray(some_B & ~known_RB.all(axis=0)),
        )
        return found[0] if single else found


def _predict_visible(model: LoadedModel, crops: Sequence[Crop]) -> NDArray[np.float64]:
    """(B, 6) probabilities; NaN where nothing is there of a recording that the model looks at."""
    probabilities_BK = np.full((len(crops), len(CLASSES)), np.nan)
    visible = [i for i, crop in enumerate(crops) if not _is_blank(crop, model.recipe.layout.sources)]
    if visible:
        probabilities_BK[visible] = model.predict([crops[i] for i in visible])
    return probabilities_BK


def _is_blank(crop: Crop, sources: Collection[Source]) -> bool:
    blank: dict[Source, Callable[[NDArray[np.float16]], bool]] = {
        "eeg": eeg_is_blank,
        "kaggle": spectrogram_is_blank,
    }
    return any(blank[source](crop.of(source)) for source in sources)


def _read_blend(bundle: Path, manifest: Manifest) -> Blend | None:
    if BLEND not in manifest.files:
        return None
    return blend_from_json((bundle / BLEND).read_bytes(), bundle / BLEND)


def load_bundle(path: Path | str, device: str | None = None, expected_digest: str | None = None) -> Predictor:
    """Open a bundle that `kagglehms build` made, after checking every byte of it.

    Args:
        path: its folder, such as `dist/dataset`.
        device: `cpu`, `cuda`, `mps`, or None for the best that works.
        expected_digest: refuse any other version of the bundle.

    Raises:
        BundleError: the folder is not what its manifest says.
    """
    bundle = Path(path)
    manifest = read_manifest(bundle)
    verify(bundle, manifest, expected_digest)
    return Predictor(bundle, manifest, choose_device(device))
