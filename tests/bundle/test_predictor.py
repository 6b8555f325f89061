"""Predictions are the average of the folds, made from the same image as in training."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from folders import eeg_frame, power_of_record, spectrogram_frame
from trained import make_dist

import kagglehms
from kagglehms.bundle.averaging import FoldMeans
from kagglehms.bundle.manifest import dump_manifest, read_manifest, with_digest
from kagglehms.bundle.predictor import Predictor, load_bundle
from kagglehms.data.competition import CHANNELS, CLASSES, PROBABILITY_COLUMNS
from kagglehms.data.readers import encode_spectrogram
from kagglehms.data.records import read_records
from kagglehms.data.store import Store
from kagglehms.errors import BundleError, UsageError
from kagglehms.inputs.layouts import Crop


def test_there_is_no_skew_between_training_and_serving(dist: Path, competition_folder: Path) -> None:
    """The served model of fold 0 must give, from the parquet file, what it gave out of fold from the store."""
    records = read_records(competition_folder / "train.csv")
    oof = pl.read_parquet(dist.parent / "runs" / "baseline" / "fold0" / "oof.parquet")
    model = next(load_bundle(dist / "dataset", "cpu").models())
    positions = oof["record"].to_list()
    crops = [Crop(encode_spectrogram(power_of_record(competition_folder, records, i))) for i in positions]
    stored = Store(dist.parent / "store")
    for i, crop in zip(positions, crops, strict=True):
        row = records.places()[0][i]
        np.testing.assert_array_equal(
            crop.log_power, stored.spectrogram(int(records.spectrogram_ids[i]))[row : row + 300]
        )
    np.testing.assert_allclose(model.predict(crops), oof.select(PROBABILITY_COLUMNS).to_numpy(), atol=1e-6)


def test_three_lines_of_a_notebook(dist: Path, competition_folder: Path) -> None:
    records = read_records(competition_folder / "train.csv")
    powers = np.stack([power_of_record(competition_folder, records, i) for i in range(3)])
    predictor = kagglehms.load_bundle(str(dist / "dataset"))
    together = predictor.predict(spectrogram=powers)
    assert len(together) == 3
    assert np.asarray(together).shape == (3, 6)
    np.testing.assert_allclose(together.probabilities.sum(axis=1), 1, rtol=1e-12)
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


@pytest.fixture(scope="module")
def both(competition_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """A bundle of two recipes, of which one looks at both recordings."""
    where = tmp_path_factory.mktemp("both")
    make_dist(competition_folder, where, "baseline")
    return load_bundle(make_dist(competition_folder, where, "kaggle+eeg") / "dataset", "cpu")


EEG, POWER = eeg_frame(), spectrogram_frame()
EEG_UV, POWER_VALUES = EEG.to_numpy(), POWER.drop("time").to_numpy()
FRAMES: dict[str, Callable[[pl.DataFrame], pl.DataFrame]] = {
    "as in the files": lambda frame: frame,
    "reversed": lambda frame: frame.select(reversed(frame.columns)),
    "sorted": lambda frame: frame.select(sorted(frame.columns)),
    "with an index": lambda frame: frame.with_row_index("__index_level_0__"),
    "with text": lambda frame: frame.with_columns(pl.lit("x").alias("who")),
    "of 64 bits": lambda frame: frame.cast(pl.Float64),
    "without time": lambda frame: frame.drop("time", strict=False),
}


def as_polars(frame: pl.DataFrame) -> Any:
    return frame


def as_pandas(frame: pl.DataFrame) -> Any:
    return pd.DataFrame({name: frame[name].to_numpy() for name in frame.columns})


@pytest.mark.parametrize("change", FRAMES)
@pytest.mark.parametrize("make", [as_polars, as_pandas])
def test_frames_are_taken_by_the_names_of_their_columns(
    both: Predictor, make: Callable[[pl.DataFrame], Any], change: str
) -> None:
    expected = both.predict(EEG_UV, spectrogram=POWER_VALUES)
    eeg, power = make(FRAMES[change](EEG)), make(FRAMES[change](POWER))
    np.testing.assert_array_equal(both.predict(eeg, spectrogram=power), expected)
    np.testing.assert_array_equal(both.predict(EEG_UV, spectrogram=power), expected)
    several = both.predict([eeg, EEG_UV], spectrogram=[power, power])
    np.testing.assert_allclose(several, [expected] * 2, atol=1e-6)


@pytest.mark.parametrize("make", [as_polars, as_pandas])
def test_frames_that_cannot_be_understood_are_refused_by_name(
    both: Predictor, make: Callable[[pl.DataFrame], Any]
) -> None:
    for frame, says in (
        (EEG.drop("F3"), "eeg_uv: the frame lacks F3"),
        (EEG.rename({"F3": "Fpz"}), "lacks F3 and has unknown Fpz"),
        (EEG.with_columns(pl.lit("x").alias("O2")), "column O2 cannot be taken"),
        (EEG.with_columns(pl.lit(True).alias("O2")), "column O2 cannot be taken"),
        (EEG.head(9_999), r"must be \(10000, 20\)"),
    ):
        with pytest.raises(UsageError, match=says):
            both.predict(make(frame), spectrogram=POWER_VALUES)
        with pytest.raises(UsageError, match=says):
            both.predict([EEG, make(frame)], spectrogram=[POWER, POWER])
    for frame, says in (
        (POWER.drop("LL_0.59"), "spectrogram: the frame lacks LL_0.59"),
        (POWER.reverse(), "rows are missing or out of order"),
        (POWER.with_columns(pl.col("time").shuffle(0)), "rows are missing or out of order"),
    ):
        with pytest.raises(UsageError, match=says):
            both.predict(EEG_UV, spectrogram=make(frame))


def test_a_pandas_frame_with_a_column_twice_is_refused(both: Predictor) -> None:
    frame = as_pandas(EEG)
    frame["index"] = range(len(frame))
    frame.columns = [{"index": "F3"}.get(name, name) for name in frame.columns]
    with pytest.raises(UsageError, match="the frame has more than one F3"):
        both.predict(frame, spectrogram=POWER_VALUES)


@pytest.mark.parametrize("make", [as_polars, as_pandas])
def test_what_a_frame_lacks_is_nan(both: Predictor, make: Callable[[pl.DataFrame], Any]) -> None:
    """Nulls of any type, a whole column of them, whole numbers, and pandas' nullable types."""
    values = EEG_UV.copy()
    values[:, 3], values[:50, 4] = np.nan, np.nan
    values[:, 5] = np.round(values[:, 5])
    columns = EEG.columns
    frame = pl.DataFrame(values, schema=columns, nan_to_null=True).with_columns(
        pl.Series(columns[3], [None] * len(values), pl.Null), pl.col(columns[5]).cast(pl.Int32)
    )
    expected = both.predict(values, spectrogram=POWER_VALUES)
    given = make(frame)
    np.testing.assert_array_equal(both.predict(given, spectrogram=POWER_VALUES), expected)
    if make is as_pandas:
        nullable = given.astype({columns[4]: "Float64", columns[5]: "Int64"})
        np.testing.assert_array_equal(both.predict(nullable, spectrogram=POWER_VALUES), expected)


@pytest.mark.parametrize(
    ("eeg", "says"),
    [
        (np.zeros((18_000, 20)), "eeg_uv must be"),
        (np.zeros((10_000, 19)), "eeg_uv must be"),
        (np.zeros((2, 10_000, 20)), "equally many"),
        (np.zeros((10_000, 20), bool), "its values are bool"),
        (np.zeros((10_000, 20), complex), "its values are complex"),
        (np.full((10_000, 20), "1.5"), "cannot be taken for an array of numbers"),
        (np.full((10_000, 20), "1.5", dtype=object), "it holds text"),
        (np.zeros(10_000, [(name, "f4") for name in CHANNELS]), "cannot be taken for an array of numbers"),
        ([[1.0, 2.0], [3.0]], "cannot be taken for an array of numbers"),
        (object(), "cannot be taken for an array of numbers"),
        (EEG.lazy(), "eeg_uv is a LazyFrame"),
        (EEG.drop("O2"), "lacks O2"),
    ],
)  # fmt: skip
def test_what_no_model_looks_at_is_checked_all_the_same(dist: Path, eeg: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        load_bundle(dist / "dataset").predict(eeg, spectrogram=POWER_VALUES)


def test_what_is_masked_is_missing(dist: Path) -> None:
    predictor, missing = load_bundle(dist / "dataset"), POWER_VALUES.copy()
    missing[:, 5:30] = np.nan
    masked = np.ma.MaskedArray(POWER_VALUES, np.isnan(missing))
    expected = predictor.predict(spectrogram=missing)
    assert np.abs(expected.probabilities - predictor.predict(spectrogram=POWER_VALUES)).max() > 1e-6
    np.testing.assert_array_equal(predictor.predict(spectrogram=masked), expected)


@pytest.mark.parametrize("empty", [np.empty((0, 300, 400)), [], ()])
def test_an_empty_batch_gives_no_rows(dist: Path, empty: Any) -> None:
    predictor = load_bundle(dist / "dataset")
    assert predictor.predict(spectrogram=empty).probabilities.shape == (0, 6)
    found = predictor.predict_with_flags(np.empty((0, 10_000, 20)), spectrogram=empty)
    assert [part.shape for part in (found.probabilities, found.from_prior)] == [(0, 6), (0,)]
    model = next(predictor.models())
    assert model.predict([]).shape == (0, 6)


def test_where_nothing_was_recorded_the_answer_is_the_prior_and_says_so(dist: Path) -> None:
    predictor, nothing = load_bundle(dist / "dataset"), np.full((300, 400), np.nan)
    found = predictor.predict_with_flags(spectrogram=np.stack([POWER_VALUES, nothing, POWER_VALUES]))
    assert found.from_prior.tolist() == [False, True, False]
    assert not found.from_fewer_models.any()
    np.testing.assert_allclose(found.probabilities[1], predictor.prior, rtol=1e-12)
    np.testing.assert_allclose(found.probabilities[0], predictor.predict(spectrogram=POWER_VALUES), atol=1e-6)
    assert np.abs(found.probabilities[0] - predictor.prior).max() > 1e-3
    for missing in (nothing, np.full((300, 400), np.inf)):
        with pytest.raises(UsageError, match="nothing was recorded that a model looks at: leave these out"):
            predictor.predict(spectrogram=missing)
        with pytest.raises(UsageError, match="looks at in 2 of 3 windows, the first at 1"):
            predictor.predict(spectrogram=np.stack([POWER_VALUES, missing, nothing]))
    single = predictor.predict_with_flags(spectrogram=nothing)
    assert (single.probabilities.shape, bool(single.from_prior)) == ((6,), True)


def test_a_recording_that_is_missing_costs_the_recipes_that_look_at_it(both: Predictor) -> None:
    """As in a scored run: the others answer, and an electrocardiogram alone is no EEG."""
    only_heart = np.full_like(EEG_UV, np.nan)
    only_heart[:, CHANNELS.index("EKG")] = EEG_UV[:, CHANNELS.index("EKG")]
    found = both.predict_with_flags(
        np.stack([EEG_UV, only_heart, only_heart]),
        spectrogram=np.stack([POWER_VALUES, POWER_VALUES, np.full((300, 400), np.nan)]),
    )
    assert found.from_prior.tolist() == [False, False, True]
    assert found.from_fewer_models.tolist() == [False, True, False]
    crop = Crop(encode_spectrogram(POWER_VALUES))
    alone = [model.predict([crop])[0] for model in both.models() if model.entry.recipe == "baseline"]
    np.testing.assert_allclose(found.probabilities[1], np.mean(alone, axis=0), atol=1e-6)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, rtol=1e-12)


def test_values_in_volts_are_refused(both: Predictor) -> None:
    for factor in (1e-6, 1e-3):
        with pytest.raises(UsageError, match="eeg_uv: values deviate by .* they may be V or mV; give µV"):
            both.predict(EEG_UV * factor, spectrogram=POWER_VALUES)
    with pytest.raises(UsageError, match=r"eeg_uv\[1\]: values deviate by"):
        both.predict(np.stack([EEG_UV, EEG_UV * 1e-6]), spectrogram=np.stack([POWER_VALUES] * 2))
    with pytest.raises(UsageError, match="spectrogram: half of its values are below .* they may be V²/Hz"):
        both.predict(EEG_UV, spectrogram=POWER_VALUES * 1e-12)


@pytest.mark.parametrize(
    ("n_times", "hint"),
    [
        (12_800, r"which would be 50 s at 256 Hz; predict_recording takes any rate \(sfreq_hz=256\)"),
        (25_000, "which would be 50 s at 500 Hz"),
        (12_345, "predict_recording takes recordings of any length and rate"),
    ],
)
def test_other_rates_and_lengths_are_refused_with_what_they_may_be(
    both: Predictor, n_times: int, hint: str
) -> None:
    with pytest.raises(UsageError, match=hint):
        both.predict(np.zeros((n_times, 20)), spectrogram=POWER_VALUES)
    with pytest.raises(UsageError, match="give its transpose"):
        both.predict(EEG_UV.T, spectrogram=POWER_VALUES)


def test_the_result_has_the_names_of_its_classes(both: Predictor) -> None:
    one = both.predict(EEG_UV, spectrogram=POWER_VALUES)
    two = both.predict(np.stack([EEG_UV] * 2), spectrogram=np.stack([POWER_VALUES] * 2))
    assert one.classes == CLASSES
    for result, rows in ((one, 1), (two, 2)):
        frame = result.to_polars()
        assert frame.columns[:6] == list(CLASSES)
        np.testing.assert_array_equal(frame.select(CLASSES).to_numpy(), np.asarray(result).reshape(rows, 6))
        assert len(result) == rows
        assert isinstance(result.to_pandas(), pd.DataFrame)
        assert result.to_pandas().columns.to_list() == frame.columns
    text = repr(one)
    for name, p in zip(CLASSES, one.probabilities, strict=True):
        assert f"{name} {p:.3f}" in text
    assert "not a medical device" in text


def test_the_spread_is_that_of_the_folds(dist: Path) -> None:
    predictor = load_bundle(dist / "dataset", "cpu")
    crop = Crop(encode_spectrogram(POWER_VALUES))
    folds = [model.predict([crop])[0] for model in predictor.models()]
    assert len(folds) == 2
    expected = np.std(folds, axis=0, ddof=1)
    np.testing.assert_allclose(predictor.predict(spectrogram=POWER_VALUES).spread, expected, atol=1e-7)


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
    without = with_digest(replace(read_manifest(bundle), models=()))
    (bundle / "manifest.json").write_bytes(dump_manifest(without))
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
    records = read_records(competition_folder / "train.csv")
    expected = (records.targets_NK.sum(axis=0) + 1 / 6) / (len(records) + 1)
    np.testing.assert_allclose(load_bundle(dist / "dataset").prior, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("score", "records", "says"),
    [
        (1.4, 20_000, "1 of 1 model scored no better than the class prior on held-out records"),
        (0.6, 240, "trained on 240 records only"),
        (0.6, 20_000, ""),
        (None, None, ""),
    ],
)
def test_bundles_that_cannot_judge_patients_say_so(
    dist: Path, score: float | None, records: int | None, says: str
) -> None:
    predictor = load_bundle(dist / "dataset")
    first = replace(predictor.manifest.models[0], scores={"all": score, "prior_all": 1.4}, records=records)
    manifest = replace(predictor.manifest, models=(first,))
    caveat = Predictor(predictor.bundle, manifest, predictor.device).caveat
    assert caveat == (f"not fit to judge patients: {caveat.partition(': ')[2]}" if says else "")
    assert says in caveat


def test_the_manifest_knows_how_many_records_were_learned_from(dist: Path) -> None:
    predictor = load_bundle(dist / "dataset")
    assert {model.records for model in predictor.manifest.models} == {
        int(n)
        for n in re.findall(r"\| (\d+) \|$", (predictor.bundle / "MODEL_CARD.md").read_text(), re.MULTILINE)
    }
    assert "trained on " in predictor.caveat
    assert "Not fit to judge patients" in (predictor.bundle / "MODEL_CARD.md").read_text()
