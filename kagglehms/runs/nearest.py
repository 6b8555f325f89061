"""The training cases that a network finds most similar to a window, by the cosine between embeddings.

A network was trained on all folds but one, and these records are the cases. Their embeddings are computed once and kept
in the fold's folder.

Source of the idea: Barnett et al. (2022), "Interpretable Machine Learning System to EEG Patterns on the
Ictal-Interictal-Injury Continuum" (ProtoPMed-EEG), where similar cases explain a prediction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kagglehms.data.competition import CLASSES, VOTE_COLUMNS
from kagglehms.device import Device
from kagglehms.files import sha256_of
from kagglehms.inputs.drawing import stack
from kagglehms.inputs.layouts import Crop
from kagglehms.progress import Watch
from kagglehms.runs.dataset import Dataset
from kagglehms.runs.folder import RunFolder
from kagglehms.training.feed import Feed
from kagglehms.training.trained_network import TrainedNetwork

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BATCH = 32


@dataclass(frozen=True)
class Case:
    """A training record that resembles a window.

    Attributes:
        eeg_id: id of its EEG.
        patient_id: id of its patient.
        similarity: cosine between its embedding and that of the window.
        votes: number of votes for each class.
    """

    eeg_id: int
    patient_id: int
    similarity: float
    votes: dict[str, int]


class TrainingCases:
    """The records that one fold's network was trained on, and their embeddings.

    Args:
        run: the run.
        fold: number of the fold.
        dataset: records, folds and recordings that the run was trained on.
        device: device to compute on.
        watch: shows the progress over batches of records, when embeddings have to be computed.

    Raises:
        RunError: the fold is not finished, or its files are damaged.
        DataError: likewise, of its weights.
    """

    def __init__(
        self,
        run: RunFolder,
        fold: int,
        dataset: Dataset,
        device: Device,
        watch: Watch = lambda items, _: items,
    ) -> None:
        weights = run.check_weights(fold)
        self.network = TrainedNetwork.load(run.recipe(), weights, device)
        self._dataset = dataset
        self._positions = np.flatnonzero(dataset.folds != fold)
        self._fold, self._run = fold, run
        self._key = f"{sha256_of(weights)} {dataset.records.digest}"
        stored = run.embeddings(fold, self._key)
        if stored is None:
            stored = self._embedded(watch)
            run.write_embeddings(fold, self._key, stored)
        self._embeddings_ND = _unit(stored)

    def nearest(self, crop: Crop, n: int = 5, without_eeg: int | None = None) -> list[Case]:
        """Return the cases that resemble a window most, the most similar first.

        Args:
            crop: recordings in the window.
            n: number of cases; each is of another EEG.
            without_eeg: id of an EEG that is left out, such as that of the window itself.
        """
        (own_D,) = _unit(
            self.network.embed(stack([crop], self.network.recipe.layout, self.network.normaliser))
        )
        similarity_N = self._embeddings_ND @ own_D
        frame, cases = self._dataset.records.frame, {}
        for i in np.argsort(-similarity_N, kind="stable"):
            row = frame.row(int(self._positions[i]), named=True)
            if row["eeg_id"] != without_eeg and row["eeg_id"] not in cases:
                votes = {name: int(row[column]) for name, column in zip(CLASSES, VOTE_COLUMNS, strict=True)}
                cases[row["eeg_id"]] = Case(row["eeg_id"], row["patient_id"], float(similarity_N[i]), votes)
            if len(cases) == n:
                break
        return list(cases.values())

    def _embedded(self, watch: Watch) -> NDArray[np.float32]:
        network, dataset = self.network, self._dataset
        feed = Feed(
            dataset.store,
            dataset.records,
            network.recipe.layout,
            network.normaliser,
            windows=network.recipe.windows,
        )
        batches = [self._positions[i : i + _BATCH] for i in range(0, len(self._positions), _BATCH)]
        found = [
            network.embed(batch.images_BCHW.numpy())
            for positions in watch(batches, len(batches))
            for batch in feed.batches(positions, _BATCH)
        ]
        return np.concatenate(found)


def _unit(embeddings_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    norms_N = np.linalg.norm(embeddings_ND, axis=1, keepdims=True)
    return embeddings_ND / np.maximum(norms_N, np.finfo(np.float32).tiny)
