"""Predictions are the average of the folds, made from the same image as in training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import kagglehms
from kagglehms.data.competition import Competition
from kagglehms.data.records import Records, make_records, read_train_table
from kagglehms.data.store import Store
from kagglehms.errors import BundleError, UsageError
from kagglehms.inference.predictor import FoldMeans, load_bundle
from kagglehms.learning.crossval import PROBABILITY_COLUMNS


def power_of(folder: Path, records: Records, position: int) -> np.ndarray:
    """The raw power of a record's ten minutes, as a notebook would cut it out."""
    table = pl.read_parquet(Competition(folder).spectrogram(int(records.spectrogram_ids[position]))).drop(
        "time"
    )
    first = int(records.spectrogram_rows[position])
    return table.to_numpy()[first : first + 300]


def test_there_is_no_skew_between_training_and_serving(dist: Path, competition_folder: Path) -> None:
    """The served model of fold 0 must give, from the parquet file, what it gave out of fold from the store."""
    records = make_records(read_train_table(competition_folder / "train.csv"))
    oof = pl.read_parquet(dist.parent / "runs" / "baseline" / "fold0" / "oof.parquet")
    model = next(load_bundle(dist / "dataset", "cpu").models())
    from kagglehms.data.recordings import encode_spectrogram
    from kagglehms.features.images import Crop

    positions = oof["record"].to_list()
    crops = [Crop(encode_spectrogram(power_of(competition_folder, records, i))) for i in positions]
    stored = Store(dist.parent / "store")
    for i, crop in zip(positions, crops, strict=True):
        row = records.spectrogram_rows[i]
        np.testing.assert_array_equal(
            crop.log_power, stored.spectrogram(int(records.spectrogram_ids[i]))[row : row + 300]
        )
    np.testing.assert_allclose(model.predict(crops), oof.select(PROBABILITY_COLUMNS).to_numpy(), atol=1e-6)


def test_three_lines_of_a_notebook(dist: Path, competition_folder: Path) -> None:
    records = make_records(read_train_table(competition_folder / "train.csv"))
    powers = np.stack([power_of(competition_folder, records, i) for i in range(3)])
    predictor = kagglehms.load_bundle(str(dist / "dataset"))
    together = predictor.predict(spectrogram=powers)
    assert together.shape == (3, 6)
    np.testing.assert_allclose(together.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(predictor.predict(spectrogram=powers[1]), together[1], atol=1e-6)


def test_missing_values_are_taken(dist: Path) -> None:
    power = np.full((300, 400), np.nan, dtype=np.float32)
    power[:, :7] = 3.0
    assert np.isfinite(load_bundle(dist / "dataset").predict(spectrogram=power)).all()


@pytest.mark.parametrize("shape", [(300, 399), (299, 400), (300,), (1, 1, 300, 400)])
def test_wrong_shapes_are_refused(dist: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"spectrogram must be \(300, 400\) or \(B, 300, 400\), but got"):
        load_bundle(dist / "dataset").predict(spectrogram=np.zeros(shape))


def test_what_the_models_need_is_asked_for(dist: Path) -> None:
    with pytest.raises(UsageError, match="look at spectrogram: give predict"):
        load_bundle(dist / "dataset").predict(np.zeros((10_000, 20)))


def test_a_flipped_bit_is_refused(dist: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(dist / "dataset", tmp_path / "dataset"))
    weights = next(bundle.glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(BundleError, match=f"{weights.name} \\(same size, other content\\)"):
        load_bundle(bundle)


def test_a_bundle_without_models_is_refused(dist: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(dist / "dataset", tmp_path / "dataset"))
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps(manifest | {"models": []}))
    with pytest.raises(UsageError, match="holds no models"):
        load_bundle(bundle)


def test_more_folds_give_a_recipe_no_more_weight() -> None:
    means = FoldMeans()
    sure, unsure = np.array([[0.9, 0.1, 0, 0, 0, 0]]), np.array([[0.1, 0.9, 0, 0, 0, 0]])
    for _ in range(3):
        means.add("a", sure)
    means.add("b", unsure)
    np.testing.assert_allclose(means.blended(), [[0.5, 0.5, 0, 0, 0, 0]])


def test_the_prior_is_that_of_training(dist: Path, competition_folder: Path) -> None:
    records = make_records(read_train_table(competition_folder / "train.csv"))
    np.testing.assert_allclose(load_bundle(dist / "dataset").prior, records.targets_NK.mean(axis=0))
