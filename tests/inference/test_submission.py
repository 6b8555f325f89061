"""The scored run leaves a valid submission, whatever the test set is like."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from folders import copied, spectrogram_frame

from kagglehms.data.competition import VOTE_COLUMNS, Competition
from kagglehms.errors import DataError, UsageError
from kagglehms.inference import submission
from kagglehms.inference.predictor import LoadedModel, load_bundle
from kagglehms.inference.submission import read_submission, read_test_table, run_scored, write_submission


@pytest.fixture
def folder(competition_folder: Path, tmp_path: Path) -> Path:
    return copied(competition_folder, tmp_path / "competition")


def ids_of(folder: Path) -> list[int]:
    return pl.read_csv(folder / "test.csv")["eeg_id"].to_list()


def run(dist: Path, folder: Path, out: Path) -> tuple[int, np.ndarray, dict[str, object]]:
    code = run_scored(dist / "dataset", folder, out, "cpu")
    values = read_submission(out / "submission.csv", ids_of(folder))
    return code, values, json.loads((out / "scored-run.json").read_text())


def test_every_row_is_predicted(dist: Path, folder: Path, tmp_path: Path) -> None:
    code, values, summary = run(dist, folder, tmp_path / "out")
    assert code == 0
    assert summary["models"] == ["baseline fold 0", "baseline fold 1"]
    assert summary["rows_with_prior"] == {}
    predictor = load_bundle(dist / "dataset", "cpu")
    for row, values_K in zip(pl.read_csv(folder / "test.csv").iter_rows(named=True), values, strict=True):
        power = pl.read_parquet(Competition(folder).spectrogram(row["spectrogram_id"], "test")).drop("time")
        np.testing.assert_allclose(values_K, predictor.predict(spectrogram=power.to_numpy()), atol=1e-6)


def test_the_file_is_what_the_competition_wants(dist: Path, folder: Path, tmp_path: Path) -> None:
    run(dist, folder, tmp_path)
    made, wanted = pl.read_csv(tmp_path / "submission.csv"), pl.read_csv(folder / "sample_submission.csv")
    assert made.columns == wanted.columns
    assert made["eeg_id"].to_list() == wanted["eeg_id"].to_list()


def test_broken_recordings_cost_their_own_rows_only(dist: Path, folder: Path, tmp_path: Path) -> None:
    _, whole, _ = run(dist, folder, tmp_path / "whole")
    test = pl.read_csv(folder / "test.csv")
    paths = [Competition(folder).spectrogram(i, "test") for i in test["spectrogram_id"].to_list()]
    paths[0].unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:300])
    spectrogram_frame(200).write_parquet(paths[2])
    code, values, summary = run(dist, folder, tmp_path / "out")
    prior = load_bundle(dist / "dataset", "cpu").prior
    assert code == 0
    np.testing.assert_allclose(values[:3], np.tile(prior, (3, 1)))
    np.testing.assert_allclose(values[3:], whole[3:], atol=1e-6)
    reasons = summary["rows_with_prior"]
    assert isinstance(reasons, dict)
    assert list(reasons) == [str(i) for i in ids_of(folder)[:3]]
    assert [r.split(": ")[1][:10] for r in reasons.values()] == ["no such fi", "cannot be ", "200 rows w"]


def test_a_model_that_fails_leaves_the_submission_before_it(
    dist: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = LoadedModel.predict

    def fails(self: LoadedModel, crops: object) -> np.ndarray:
        if self.entry.fold == 1:
            raise RuntimeError("CUDA error: out of memory")
        return real(self, crops)  # type: ignore[arg-type]

    monkeypatch.setattr(LoadedModel, "predict", fails)
    code, values, summary = run(dist, folder, tmp_path)
    assert code == 1
    assert summary["models"] == ["baseline fold 0"]
    assert summary["error"] == "RuntimeError: CUDA error: out of memory"
    first = next(load_bundle(dist / "dataset", "cpu").models())
    crops = submission._crops(Competition(folder), read_test_table(folder / "test.csv"), {"kaggle"})
    np.testing.assert_allclose(values, real(first, next(crops)[1]), atol=1e-6)  # type: ignore[arg-type]


def test_output_that_is_not_finite_becomes_the_prior(
    dist: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LoadedModel, "predict", lambda self, crops: np.full((len(crops), 6), np.nan))
    code, values, summary = run(dist, folder, tmp_path)
    assert code == 0
    np.testing.assert_allclose(values, np.tile(load_bundle(dist / "dataset", "cpu").prior, (len(values), 1)))
    assert len(summary["rows_with_prior"]) == len(values)  # type: ignore[arg-type]


def test_a_prior_submission_stands_before_the_first_model(
    dist: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr("kagglehms.inference.predictor.Predictor.models", killed)
    with pytest.raises(KeyboardInterrupt):
        run_scored(dist / "dataset", folder, tmp_path, "cpu")
    assert len(read_submission(tmp_path / "submission.csv", ids_of(folder))) == 4


@pytest.mark.parametrize("rows", [1, 33, 70])
def test_any_number_of_rows(dist: Path, folder: Path, tmp_path: Path, rows: int) -> None:
    one = pl.read_csv(folder / "test.csv").head(1)
    many = pl.concat([one] * rows).with_columns(pl.Series("eeg_id", range(rows)))
    many.write_csv(folder / "test.csv")
    code, values, _ = run(dist, folder, tmp_path)
    assert code == 0
    assert len(values) == rows
    np.testing.assert_allclose(values, np.tile(values[0], (rows, 1)), atol=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("spectrogram_id,eeg_id,patient_id\n", "has no rows"),
        ("spectrogram_id,eeg_id,patient_id\n1,2,3\n4,2,3\n", "eeg_id 2 stands twice"),
        (
            "spectrogram_id,eeg_id,patient_id\n1,2,3\nx,5,3\n",
            "column spectrogram_id has no whole number in row 1",
        ),
        ("eeg_id,patient_id\n1,2\n", r"lacks column\(s\) spectrogram_id"),
    ],
)
def test_a_test_table_that_cannot_be_used_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "test.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        read_test_table(tmp_path / "test.csv")


def test_only_valid_submissions_are_written(tmp_path: Path) -> None:
    good = np.full((2, 6), 1 / 6)
    write_submission(tmp_path / "s.csv", [5, 6], good)
    before = (tmp_path / "s.csv").read_bytes()
    for bad in (good * 1.1, good * np.nan, np.array([[2.0, -1, 0, 0, 0, 0]] * 2)):
        with pytest.raises(UsageError):
            write_submission(tmp_path / "s.csv", [5, 6], bad)
    assert (tmp_path / "s.csv").read_bytes() == before
    np.testing.assert_array_equal(read_submission(tmp_path / "s.csv", [6, 5]), good)


def test_submissions_that_would_be_refused_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    write_submission(path, [5, 6], np.full((2, 6), 1 / 6))
    with pytest.raises(DataError, match="its 2 ids are not the test set's 1"):
        read_submission(path, [5])
    table = pl.read_csv(path)
    table.select("eeg_id", *reversed(VOTE_COLUMNS)).write_csv(path)
    with pytest.raises(DataError, match="has columns eeg_id, other_vote"):
        read_submission(path, [5, 6])
    table.with_columns(pl.lit(0.5).alias("lpd_vote")).write_csv(path)
    with pytest.raises(DataError, match="row 0 of the predictions sums to"):
        read_submission(path, [5, 6])


def test_a_recipe_of_both_recordings_needs_both(
    competition_folder: Path, folder: Path, tmp_path: Path
) -> None:
    from trained import make_dist

    dist = make_dist(competition_folder, tmp_path / "trained", "kaggle+eeg")
    code, whole, _ = run(dist, folder, tmp_path / "whole")
    assert code == 0
    predictor = load_bundle(dist / "dataset", "cpu")
    first = pl.read_csv(folder / "test.csv").row(0, named=True)
    eeg_uv = pl.read_parquet(Competition(folder).eeg(first["eeg_id"], "test")).to_numpy()
    power = (
        pl.read_parquet(Competition(folder).spectrogram(first["spectrogram_id"], "test"))
        .drop("time")
        .to_numpy()
    )
    np.testing.assert_allclose(predictor.predict(eeg_uv, spectrogram=power), whole[0], atol=1e-6)
    Competition(folder).eeg(first["eeg_id"], "test").unlink()
    code, values, summary = run(dist, folder, tmp_path / "out")
    assert code == 0
    assert list(summary["rows_with_prior"]) == [str(first["eeg_id"])]  # type: ignore[call-overload]
    np.testing.assert_allclose(values[0], predictor.prior)
    np.testing.assert_allclose(values[1:], whole[1:], atol=1e-6)
