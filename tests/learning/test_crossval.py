"""Runs: out-of-fold predictions are of held-out records, nothing is trained twice, nothing is mixed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from kagglehms.data.competition import VOTE_COLUMNS, Competition
from kagglehms.data.records import make_records, read_train_table
from kagglehms.data.store import plan, prepare
from kagglehms.errors import RunError, UsageError
from kagglehms.learning.crossval import PROBABILITY_COLUMNS, Dataset, Outcome, cross_validate
from kagglehms.learning.metric import kl_score
from kagglehms.learning.recipes import Stage, get_recipe, recipe_from_json
from kagglehms.runtime import choose_device, exclusive

CPU = choose_device("cpu")
RECIPE = replace(
    get_recipe("baseline"), backbone="half:test_efficientnet", batch_size=8, stages=(Stage(epochs=1),)
)


@pytest.fixture(scope="module")
def dataset(competition_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    competition = Competition(competition_folder)
    records = make_records(read_train_table(competition.train_csv))
    store = prepare(plan(competition, records), tmp_path_factory.mktemp("store")).store
    return Dataset.of(store, records, 2)


@pytest.fixture(scope="module")
def runs(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs")
    first = cross_validate(RECIPE, dataset, path, CPU, only_folds=[1])
    assert first == Outcome(path / "baseline", (1,), 2)
    assert first.sentence.startswith("baseline: 1 of 2 folds trained")
    cross_validate(RECIPE, dataset, path, CPU)
    return path


def test_every_record_is_predicted_once_and_by_a_model_that_never_saw_it(
    dataset: Dataset, runs: Path
) -> None:
    oof = pl.read_parquet(runs / "baseline" / "oof.parquet")
    assert oof["record"].to_list() == list(range(len(dataset.records)))
    assert oof["fold"].to_list() == dataset.folds.tolist()
    np.testing.assert_array_equal(oof.select(VOTE_COLUMNS).to_numpy(), dataset.records.votes_NK)
    assert oof["eeg_id"].to_list() == dataset.records.eeg_ids.tolist()
    np.testing.assert_allclose(oof.select(PROBABILITY_COLUMNS).to_numpy().sum(axis=1), 1)


def test_the_score_is_that_of_the_joined_predictions(dataset: Dataset, runs: Path) -> None:
    oof = pl.read_parquet(runs / "baseline" / "oof.parquet").select(PROBABILITY_COLUMNS).to_numpy()
    run = json.loads((runs / "baseline" / "run.json").read_text())
    targets, many = dataset.records.targets_NK, dataset.records.many_votes
    assert run["scores"]["all"] == pytest.approx(kl_score(targets, oof), rel=1e-12)
    assert run["scores"]["votes10"] == pytest.approx(kl_score(targets[many], oof[many]), rel=1e-12)
    np.testing.assert_allclose(run["prior"], targets.mean(axis=0))
    assert run["records"] == len(dataset.records)


def test_a_fold_says_what_it_is(dataset: Dataset, runs: Path) -> None:
    folder = runs / "baseline" / "fold0"
    result = json.loads((folder / "result.json").read_text())
    assert (result["fold"], result["n_records"]) == (0, int((dataset.folds == 0).sum()))
    assert result["device"].startswith("device: cpu")
    assert set(result["versions"]) >= {"torch", "timm", "numba", "kagglehms"}
    history = pl.read_csv(folder / "history.csv")
    assert history["score_all"].min() == pytest.approx(result["score_all"])
    assert recipe_from_json((runs / "baseline" / "recipe.json").read_bytes()) == RECIPE


def test_what_is_finished_is_not_trained_again(
    dataset: Dataset, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = list(runs.rglob("*.safetensors"))
    before = {path: path.stat().st_mtime_ns for path in files}
    outcome = cross_validate(RECIPE, dataset, runs, CPU)
    assert outcome.finished == (0, 1)
    assert {path: path.stat().st_mtime_ns for path in files} == before
    assert capsys.readouterr().out.count("already trained") == 2


def test_another_recipe_or_other_data_are_refused(dataset: Dataset, runs: Path) -> None:
    with pytest.raises(RunError, match="holds another run .stages .*epochs=1.* there, .*epochs=2.* now"):
        cross_validate(RECIPE.with_epochs(2), dataset, runs, CPU)
    fewer = replace(dataset, records=dataset.records.take(np.arange(5)), folds=dataset.folds[:5])
    with pytest.raises(RunError, match="other records; other folds"):
        cross_validate(RECIPE, fewer, runs, CPU)


def test_a_broken_run_is_named(dataset: Dataset, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "baseline").mkdir()
    (tmp_path / "baseline" / "run.json").write_text("{")
    with pytest.raises(RunError, match=r"run\.json: cannot be read"):
        cross_validate(RECIPE, dataset, tmp_path, CPU)


def test_an_unknown_fold_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no fold 2; this data is cut into folds 0 to 1"):
        cross_validate(RECIPE, dataset, tmp_path, CPU, only_folds=[2])
    assert not list(tmp_path.iterdir())


def test_a_fold_that_is_being_trained_is_left_alone(dataset: Dataset, tmp_path: Path) -> None:
    with (
        exclusive(tmp_path / "baseline" / "fold0", "training"),
        pytest.raises(RunError, match="training of baseline, fold 0, is under way by process"),
    ):
        cross_validate(RECIPE, dataset, tmp_path, CPU)
