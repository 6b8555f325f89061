"""The training cases that a network finds most similar to a window."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from runs_folder import forget_digests

from kagglehms.data.records import Records
from kagglehms.data.store import Store
from kagglehms.device import choose_device
from kagglehms.inputs.crops import crop_of
from kagglehms.inputs.drawing import stack
from kagglehms.runs import nearest
from kagglehms.runs.dataset import Dataset
from kagglehms.runs.folder import EMBEDDINGS, RunFolder
from kagglehms.runs.nearest import TrainingCases
from kagglehms.training.trained_network import TrainedNetwork


@pytest.fixture
def run(dist: Path, tmp_path: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(dist.parent / "runs" / "baseline", tmp_path / "baseline")))


def test_the_nearest_are_those_with_the_largest_cosine(
    run: RunFolder, dist: Path, records: Records, store: Store
) -> None:
    dataset = Dataset.of(store, records, 2)
    cases = TrainingCases(run, 0, dataset, choose_device("cpu"))
    network = cases.network
    crops = [crop_of(store, records, i, {"kaggle"}) for i in range(len(records))]
    images = torch.from_numpy(stack(crops, network.recipe.layout, network.normaliser))
    images = torch.nn.functional.avg_pool2d(images, 2)  # `half:`
    with torch.inference_mode():  # what timm's own network hands to its classifier
        features_ND = network.network.forward_head(
            network.network.forward_features(images), pre_logits=True
        ).double()
    window = int(np.flatnonzero(dataset.folds == 0)[0])
    trained = np.flatnonzero(dataset.folds != 0)
    wanted = torch.nn.functional.cosine_similarity(features_ND[window], features_ND[trained]).numpy()
    found = cases.nearest(crops[window], n=3)
    eeg_ids, patient_ids = records.frame["eeg_id"].to_numpy(), records.frame["patient_id"].to_numpy()
    order, seen = [], set()
    for i in np.argsort(-wanted):
        if eeg_ids[trained[i]] not in seen:
            seen.add(eeg_ids[trained[i]])
            order.append(i)
    assert [case.eeg_id for case in found] == eeg_ids[trained[order[:3]]].tolist()
    assert [case.patient_id for case in found] == patient_ids[trained[order[:3]]].tolist()
    np.testing.assert_allclose([case.similarity for case in found], wanted[order[:3]], atol=1e-5)
    votes = records.frame.row(int(trained[order[0]]), named=True)
    assert found[0].votes["grda"] == votes["grda_vote"]


def test_a_case_is_most_similar_to_itself_unless_it_is_left_out(
    run: RunFolder, records: Records, store: Store
) -> None:
    dataset = Dataset.of(store, records, 2)
    cases = TrainingCases(run, 0, dataset, choose_device("cpu"))
    position = int(np.flatnonzero(dataset.folds != 0)[0])
    crop, eeg_id = crop_of(store, records, position, {"kaggle"}), int(records.frame["eeg_id"][position])
    first = cases.nearest(crop)[0]
    assert first.eeg_id == eeg_id
    assert first.similarity == pytest.approx(1, abs=1e-5)
    assert eeg_id not in {case.eeg_id for case in cases.nearest(crop, without_eeg=eeg_id)}


def test_embeddings_are_computed_once_and_anew_where_the_weights_are_others(
    run: RunFolder, records: Records, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, device = Dataset.of(store, records, 2), choose_device("cpu")
    first = TrainingCases(run, 0, dataset, device)
    position = int(np.flatnonzero(dataset.folds == 0)[0])
    crop = crop_of(store, records, position, {"kaggle"})
    wanted = first.nearest(crop)
    with monkeypatch.context() as patch:
        patch.setattr(nearest.TrainingCases, "_embedded", lambda *_: pytest.fail("computed again"))
        assert TrainingCases(run, 0, dataset, device).nearest(crop) == wanted
    stored = (run.fold(0) / EMBEDDINGS).read_bytes()
    (run.fold(0) / EMBEDDINGS).write_bytes(stored[:100])
    assert TrainingCases(run, 0, dataset, device).nearest(crop) == wanted
    forget_digests(run.path)
    shutil.copy(run.fold(1) / "weights.safetensors", run.fold(0) / "weights.safetensors")
    other = TrainingCases(run, 0, dataset, device)
    assert (run.fold(0) / EMBEDDINGS).read_bytes() != stored
    assert other.nearest(crop) != wanted


def test_embeddings_of_inputs_that_had_to_be_halved_are_the_same(
    run: RunFolder, records: Records, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = TrainedNetwork.load(run.recipe(), run.check_weights(0), choose_device("cpu"))
    crops = [crop_of(store, records, i, {"kaggle"}) for i in range(4)]
    images = stack(crops, network.recipe.layout, network.normaliser)
    wanted = network.embed(images)
    forward = network.network.forward_features

    def limited(batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > 1:
            raise torch.OutOfMemoryError("no memory, for a test")
        return forward(batch)

    monkeypatch.setattr(network.network, "forward_features", limited)
    np.testing.assert_allclose(network.embed(images), wanted, atol=1e-5)
