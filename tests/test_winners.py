"""Recipes of the winners' kind all the way: trained, bundled, loaded, scored and rehearsed, all in one bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from stand_ins import WINNERS, stand_in

from kagglehms.bundle.predictor import load_bundle
from kagglehms.data.competition import CHANNELS, SPECTROGRAM_COLUMNS, Competition
from kagglehms.data.preparing import prepare, recordings_of
from kagglehms.data.records import read_records
from kagglehms.device import choose_device
from kagglehms.kernel.marker import Marker
from kagglehms.kernel.protocol import Task
from kagglehms.kernel.scored_run import run_scored
from kagglehms.kernel.submission import read_submission
from kagglehms.packing.build import build
from kagglehms.rehearsal import launching
from kagglehms.rehearsal.run import rehearse
from kagglehms.runs.cross_validation import cross_validate
from kagglehms.runs.dataset import Dataset
from kagglehms.training.recipes import Recipe

TEACHER = "raw-fold"


def one_stage(name: str) -> Recipe:
    """The stand-in with its first stage alone, on all records: hardly any of so few have many votes."""
    recipe = stand_in(name)
    first = replace(recipe.stages[0], records="all", judged_by="all")
    if first.pseudo_labels is not None:
        first = replace(first, pseudo_labels=replace(first.pseudo_labels, teachers=(TEACHER,)))
    return replace(recipe, stages=(first,))


@pytest.fixture(scope="module")
def dist(competition_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("winners")
    competition = Competition(competition_folder)
    records = read_records(competition.train_csv)
    store = prepare(recordings_of(competition, records), where / "store").store
    dataset = Dataset.of(store, records, 2)
    for name in WINNERS:
        folds = None if name == TEACHER else [0]
        cross_validate(one_stage(name), dataset, where / "runs", choose_device("cpu"), only_folds=folds)
    build(where / "runs", where / "dist", owner="some-owner")
    return where / "dist"


def test_the_bundle_predicts_and_the_card_names_both_views(dist: Path) -> None:
    rng = np.random.default_rng(0)
    eeg_uv = rng.normal(0, 50, (2, 10_000, len(CHANNELS))).astype(np.float32)
    power = rng.lognormal(0, 2, (2, 300, len(SPECTROGRAM_COLUMNS))).astype(np.float32)
    predictor = load_bundle(dist / "dataset", "cpu")
    recipes = {model.recipe.name for model in predictor.models()}
    assert recipes == set(WINNERS)
    both = predictor.predict(eeg_uv, spectrogram=power).probabilities
    np.testing.assert_allclose(both.sum(axis=1), 1)
    assert np.ptp(both, axis=0).max() > 1e-6
    card = (dist / "dataset" / "MODEL_CARD.md").read_text()
    image = "raw EEG folded into an image, 160 × 1000 beside global-panels, 400 × 300"
    network = r"half:test\_efficientnet beside half:test\_efficientnet"
    assert f"| two-views | {image} | {network} |" in card
    assert "finer in the centre, 3 × 1024 × 852" in card
    assert (
        "Of raw-fold-pseudo, the targets of records with few votes are partly what raw-fold predicted" in card
    )
    assert card.count("are partly what") == 1


def test_the_scored_run_shows_every_model_what_the_predictor_shows_it(
    dist: Path, competition_folder: Path, tmp_path: Path
) -> None:
    task = Task(str(dist / "dataset"), str(competition_folder), str(tmp_path), device="cpu", mirror=False)
    assert run_scored(task) == 0
    marker = Marker.read(tmp_path)
    assert marker is not None
    assert {name.split(" fold ")[0] for name in marker.models} == set(WINNERS)
    assert marker.status == "complete"
    rows = pl.read_csv(competition_folder / "test.csv")
    values_NK = read_submission(tmp_path / "submission.csv", rows["eeg_id"].to_list())
    competition, predictor = Competition(competition_folder), load_bundle(dist / "dataset", "cpu")
    for row, values_K in zip(rows.iter_rows(named=True), values_NK, strict=True):
        eeg = pl.read_parquet(competition.eeg(row["eeg_id"], "test"))
        power = pl.read_parquet(competition.spectrogram(row["spectrogram_id"], "test")).drop("time")
        wanted_K = predictor.predict(eeg, spectrogram=power).probabilities
        np.testing.assert_allclose(values_K, wanted_K, atol=1e-6)


@pytest.mark.slow(seconds=20)
def test_the_bundle_rehearses(
    dist: Path, competition_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With features in plain NumPy: to compile all of them, as the run above has done, takes longer than the rest."""
    monkeypatch.setattr(launching, "_INHERITED", (*launching._INHERITED, "NUMBA_DISABLE_JIT"))
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    report = rehearse("infer", dist, competition_folder, tmp_path / "out")
    assert report.ok, report
    marker = Marker.read(tmp_path / "out")
    assert marker is not None
    assert {name.split(" fold ")[0] for name in marker.models} == set(WINNERS)
