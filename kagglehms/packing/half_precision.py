"""Weights in half precision: half the bytes to upload and to mount, and a measurement of how that changes the scores.

Matrices and convolutions become float16. Vectors (biases, norms and running statistics) stay as they are: they are
small, and a running variance can be below the range of half precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kagglehms.errors import RunError

if TYPE_CHECKING:
    from kagglehms.device import Device
    from kagglehms.runs.dataset import Dataset
    from kagglehms.runs.folder import FinishedRun
    from kagglehms.training.recipes import Recipe


@dataclass(frozen=True)
class HeldOut:
    """The records that the folds were scored on.

    Attributes:
        data: folder of the competition.
        store: folder of its decoded recordings.
    """

    data: Path
    store: Path


def halve(weights: Path) -> bytes:
    """Convert the matrices of a .safetensors file to float16.

    Args:
        weights: the file.

    Returns:
        Content of a .safetensors file with the same metadata.

    Raises:
        RunError: a weight is too large for half precision, or the file cannot be read.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.numpy import save

    tensors = {}
    try:
        with safe_open(weights, framework="np") as file:
            metadata = file.metadata()
            for name in sorted(file.keys()):
                tensor = file.get_tensor(name)
                if tensor.ndim >= 2 and tensor.dtype == np.float32:
                    with np.errstate(over="ignore"):
                        smaller = tensor.astype(np.float16)
                    if not np.isfinite(smaller[np.isfinite(tensor)]).all():
                        raise RunError(
                            f"{weights}: {name} holds {np.abs(tensor).max():.3g}, too large for half precision; "
                            "build without --half"
                        )
                    tensor = smaller
                tensors[name] = tensor
    except (OSError, SafetensorError) as error:
        raise RunError(f"{weights}: cannot be read ({error}); train this fold again") from error
    return save(tensors, metadata)


def open_held_out(held_out: HeldOut, runs: Sequence[FinishedRun]) -> dict[str, Dataset]:
    """Open the records for each run, cut into its folds.

    Raises:
        RunError: a run was trained on others; its folds would not be held out.
        DataError: the data or the store cannot be used.
    """
    from kagglehms.data.competition import Competition
    from kagglehms.data.records import read_records
    from kagglehms.data.store import Store
    from kagglehms.runs.dataset import Dataset
    from kagglehms.runs.identity import with_stored_folds

    store = Store(held_out.store)
    records = read_records(Competition(held_out.data).train_csv)
    datasets = {}
    for run in runs:
        dataset = with_stored_folds(run.folder, Dataset.of(store, records, run.info.n_folds))
        if run.info.identity.of_data != dataset.identity.of_data:
            raise RunError(
                f"{run.folder.path}: was trained on other records, folds or another store than {held_out.store}"
                f" and {held_out.data}; give the ones of its training, or leave --store away and nothing is measured"
            )
        datasets[run.recipe.name] = dataset
    return datasets


def half_changes(
    recipe: Recipe, full: Path, half: Path, fold: int, dataset: Dataset, device: Device
) -> dict[str, float | None]:
    """Predict a held-out fold with both precisions and return the change of its scores, half minus full.

    Args:
        recipe: the recipe that was trained.
        full: weights as they were trained.
        half: the same in half precision.
        fold: the one held out.
        dataset: its records.
        device: where to compute; the same for both, so that nothing but the precision differs.

    Returns:
        `all` and `votes10` (KL divergence; below 0 is better), the latter None where no record has so many votes.
    """
    before = _scores(recipe, full, fold, dataset, device)
    after = _scores(recipe, half, fold, dataset, device)
    return {
        name: None if a is None or b is None else a - b
        for name, a, b in zip(("all", "votes10"), after, before, strict=True)
    }


def _scores(
    recipe: Recipe, weights: Path, fold: int, dataset: Dataset, device: Device
) -> tuple[float, float | None]:
    from kagglehms.training.feed import Feed
    from kagglehms.training.metric import mean_scores
    from kagglehms.training.prediction import predict
    from kagglehms.training.trained_network import TrainedNetwork

    trained = TrainedNetwork.load(recipe, weights, device)
    pin = device.name == "cuda"
    feed = Feed(
        dataset.store, dataset.records, recipe.layout, trained.normaliser, pin=pin, windows=recipe.windows
    )
    valid = np.flatnonzero(dataset.folds == fold)
    predictions_NK = predict(trained.network, feed, valid, recipe.batch_size, device)
    return mean_scores(dataset.records.targets_NK[valid], predictions_NK, dataset.records.many[valid])
