"""A bundle's models, loaded and averaged.

Shape legend: B recordings, K the six classes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kagglehms.bundle.averaging import FoldMeans
from kagglehms.bundle.explanation import Explanation, explain
from kagglehms.bundle.given import Recordings, as_crops
from kagglehms.bundle.hub import fetch_bundle, is_on_hub
from kagglehms.bundle.manifest import BLEND, FEW_RECORDS, MANIFEST, Manifest, Model, read_manifest, verify
from kagglehms.data.competition import CLASSES
from kagglehms.data.readers import eeg_is_blank, spectrogram_is_blank
from kagglehms.device import Device, choose_device
from kagglehms.errors import UsageError, counted
from kagglehms.inputs.drawing import stack
from kagglehms.inputs.kinds import differences_of
from kagglehms.inputs.layouts import Crop, Source
from kagglehms.recordings.prediction import Options, predict_recording
from kagglehms.recordings.results import Prediction, RecordingPrediction
from kagglehms.runs.blends import Blend, blend_from_json
from kagglehms.training.checkpoint import load_normaliser
from kagglehms.training.recipes import Recipe, recipe_from_json
from kagglehms.training.trained_network import TrainedNetwork

if TYPE_CHECKING:
    from numpy.typing import NDArray

_AT_ONCE_ON_CPU, _AT_ONCE_ON_GPU = 4, 32


@dataclass(frozen=True)
class LoadedModel(TrainedNetwork):
    """One model of a bundle, ready to predict.

    Attributes:
        entry: what the manifest says about it.
    """

    entry: Model


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
        trained = TrainedNetwork.load(self.recipe(entry), self.bundle / entry.weights, self.device)
        return LoadedModel(**vars(trained), entry=entry)

    @cached_property
    def sources(self) -> frozenset[Source]:
        """Which recordings the bundle's recipes look at."""
        return frozenset[Source]().union(*(recipe.layout.sources for recipe in self._recipes))

    @cached_property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The differences of electrodes that the bundle's recipes look at, each once."""
        return tuple(dict.fromkeys(p for recipe in self._recipes for p in differences_of(recipe.layout)))

    @cached_property
    def caveat(self) -> str:
        """Why the bundle's models are not fit to judge patients at all; empty if nothing shows it."""
        reasons = []
        scores = [(m.scores.get("all"), m.scores.get("prior_all")) for m in self.manifest.models]
        n_useless = sum(score is not None and prior is not None and score >= prior for score, prior in scores)
        if n_useless:
            reasons.append(
                f"{n_useless} of {counted(len(scores), 'model')} scored no better than the class prior on "
                "held-out records"
            )
        records = min((m.records for m in self.manifest.models if m.records is not None), default=None)
        if records is not None and records < FEW_RECORDS:
            reasons.append(
                f"trained on {counted(records, 'record')} only, where the competition has thousands"
            )
        return f"not fit to judge patients: {'; '.join(reasons)}" if reasons else ""

    @property
    def at_once(self) -> int:
        """How many windows `judge` is best given: few on a CPU, which more make no faster, to spare memory."""
        return _AT_ONCE_ON_CPU if self.device.name == "cpu" else _AT_ONCE_ON_GPU

    @cached_property
    def _recipes(self) -> tuple[Recipe, ...]:
        by_file = {entry.recipe_file: entry for entry in self.manifest.models}
        return tuple(self.recipe(entry) for entry in by_file.values())

    def predict(
        self, eeg_uv: Recordings | None = None, *, spectrogram: Recordings | None = None
    ) -> Prediction:
        """Predict the vote fractions of one or several windows.

        Args:
            eeg_uv: (10,000, 20) or (B, 10,000, 20) µV, 50 s with the labelled seconds in their middle, channels as
                in `competition.CHANNELS`; or a pandas or polars frame, or a list of B frames, whose columns go by
                their names and may stand in any order. Needed if a recipe of the bundle looks at the EEG.
            spectrogram: (300, 400) or (B, 300, 400) power, ten minutes around the same middle, columns as in
                `competition.SPECTROGRAM_COLUMNS`; or frames. Needed if a recipe looks at spectrograms.

        Returns:
            Probabilities in the order of `competition.CLASSES`, (6,) or (B, 6), which NumPy takes for an array: folds
            are averaged within a recipe, then recipes by the bundle's blend, or alike where it has none.

        Raises:
            UsageError: what the bundle's models look at was not given, or nothing is there to look at; or what was
                given, needed or not, has another shape, is no array of numbers, is a frame that lacks a column or has
                one twice, or cannot be in µV.
        """
        found = self.predict_with_flags(eeg_uv, spectrogram=spectrogram)
        blind = np.flatnonzero(np.atleast_1d(found.from_prior))
        if len(blind):
            which = (
                f" in {len(blind)} of {len(found)} windows, the first at {blind[0]}" if len(found) > 1 else ""
            )
            raise UsageError(
                f"nothing was recorded that a model looks at{which}: leave these out, or have the class prior for them "
                "with predict_with_flags"
            )
        return found

    def predict_with_flags(
        self, eeg_uv: Recordings | None = None, *, spectrogram: Recordings | None = None
    ) -> Prediction:
        """Do what `predict` does, with the class prior where there is nothing to look at.

        A window of which nothing is there to look at is not shown to a model, as in a scored run: recipes that look
        at it do without this row, and if none is left, it has the prior, and `from_prior` says so.
        """
        crops, single = as_crops(self.sources, eeg_uv, spectrogram)
        found = self.judge(crops)
        return found[0] if single else found

    def inputs(
        self, entry: Model, eeg_uv: Recordings | None = None, *, spectrogram: Recordings | None = None
    ) -> NDArray[np.float32]:
        """Draw what one model's network is given, to run its ONNX file elsewhere.

        Args:
            entry: entry of the manifest.
            eeg_uv: see `predict`.
            spectrogram: see `predict`.

        Returns:
            One input a window, (B, …) float32: the `inputs` of the ONNX file.

        Raises:
            UsageError: see `predict`.
        """
        layout = self.recipe(entry).layout
        crops, _ = as_crops(layout.sources, eeg_uv, spectrogram)
        return stack(crops, layout, load_normaliser(self.bundle / entry.weights))

    def predict_recording(
        self,
        recording: Any,
        every_s: float = 10.0,
        *,
        sfreq_hz: float | None = None,
        channels: Sequence[str] | None = None,
        rename: Mapping[str, str] | None = None,
        allow_missing: bool = False,
        keep_flagged: bool = False,
    ) -> RecordingPrediction:
        """Predict the vote fractions of every window of a recording.

        Windows of 50 s are laid over it, whose middle ten seconds are judged. Spectrograms that recipes look at are
        computed from the signal. Channels go by their names, and any sampling rate is resampled to 200 Hz.

        Args:
            recording: the path of an EDF, EDF+, BDF or parquet file, or of any format that MNE reads if MNE is
                installed; a `Raw` object of MNE's; a pandas or polars frame or a NumPy array with named fields, one
                column a channel in µV; or (n_times, n_channels) µV with `channels`.
            every_s: seconds from one window to the next.
            sfreq_hz: samples per second of a frame or an array; files and `Raw` objects know theirs.
            channels: the names of an array's columns.
            rename: the recording's labels → names to read them by, such as `{"E22": "Fp1"}`.
            allow_missing: whether to go on where electrodes are missing; their differences are then missing, not zero.
            keep_flagged: whether windows at edges and gaps, flat ones and those of artefacts are judged as well.

        Returns:
            One row a window: start, probabilities, spread over folds, flags; with tables, events and a summary.

        Raises:
            DataError: a file that cannot be understood.
            UsageError: an object or an option that cannot be understood.
        """
        options = Options(every_s, allow_missing, keep_flagged, rename)
        return predict_recording(self, recording, options, sfreq_hz=sfreq_hz, channels=channels)

    def explain(
        self, eeg_uv: Recordings | None = None, *, spectrogram: Recordings | None = None
    ) -> Explanation:
        """Measure which chains of electrodes and which seconds of one window mattered, by hiding them one at a time.

        Args:
            eeg_uv: recording of one window, see `predict`.
            spectrogram: spectrogram of the same window, see `predict`.

        Raises:
            UsageError: as in `predict`, or several windows were given.
        """
        crops, single = as_crops(self.sources, eeg_uv, spectrogram)
        if not single:
            raise UsageError(f"explain takes one window, but got {len(crops)}; call it for each of them")
        return explain(crops[0], lambda some: self.judge(some).probabilities, self.at_once)

    def judge(self, crops: Sequence[Crop]) -> Prediction:
        """Say of each crop what the models see in it, the class prior where there is nothing to see."""
        if self._models is None:
            self._models = list(self.models())
        means = FoldMeans(self.blend)
        folds: dict[str, list[NDArray[np.float64]]] = {}
        for model in self._models:
            found_BK = _predict_visible(model, crops)
            means.add(model.recipe.name, found_BK)
            folds.setdefault(model.recipe.name, []).append(found_BK)
        known_RB = means.known_RB
        some_B = known_RB.any(axis=0)
        return Prediction(
            means.blended(self.prior / self.prior.sum()),
            np.asarray(~some_B),
            np.asarray(some_B & ~known_RB.all(axis=0)),
            _spread(list(folds.values())),
        )


def _spread(folds_R: Sequence[Sequence[NDArray[np.float64]]]) -> NDArray[np.float64]:
    """(B, 6) standard deviation over folds, root mean square over the recipes that have two and more."""
    variances = [np.var(np.stack(folds), axis=0, ddof=1) for folds in folds_R if len(folds) > 1]
    if not variances:
        return np.full(folds_R[0][0].shape, np.nan)
    known = np.isfinite(variances)
    total = np.where(known, variances, 0.0).sum(axis=0)
    return np.sqrt(np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan))


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
        path: its folder, such as `dist/dataset`; or `hf:owner/name`, where `kagglehms publish hub` brought it, with
            `@` and a commit behind it for another version than the newest.
        device: `cpu`, `cuda`, `mps`, or None for the best that works.
        expected_digest: refuse any other version of the bundle.

    Raises:
        BundleError: the folder is not what its manifest says, or the hub has no such bundle.
    """
    bundle = fetch_bundle(str(path)) if is_on_hub(path) else Path(path)
    manifest = read_manifest(bundle)
    verify(bundle, manifest, expected_digest)
    return Predictor(bundle, manifest, choose_device(device))
