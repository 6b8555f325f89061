"""The ladder: every experiment of the source has its recipe, and the table says what was trained on what."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from kagglehms.data.competition import CLASSES, VOTE_COLUMNS
from kagglehms.errors import RunError, UsageError
from kagglehms.learning.crossval import PROBABILITY_COLUMNS
from kagglehms.learning.ladder import RUNGS, blend_path, find_blend, ladder, render, untrained
from kagglehms.learning.metric import kl_score
from kagglehms.learning.recipes import RECIPES, Recipe, get_recipe


def fake_run(runs: Path, recipe: Recipe, folds: int = 2, n_folds: int = 2) -> pl.DataFrame:
    """What `crossval` would have left, with random predictions."""
    draw = np.random.default_rng(len(recipe.name))
    folder = runs / recipe.name
    tables = []
    for fold in range(folds):
        (folder / f"fold{fold}").mkdir(parents=True)
        votes = draw.integers(0, 6, (20, 6)) + np.eye(6, dtype=int)[draw.integers(0, 6, 20)]
        columns = dict(zip(VOTE_COLUMNS, votes.T, strict=True))
        probabilities = dict(zip(PROBABILITY_COLUMNS, draw.dirichlet(np.ones(6), 20).T, strict=True))
        tables.append(pl.DataFrame({"record": np.arange(20) + 20 * fold, **columns, **probabilities}))
        tables[-1].write_parquet(folder / f"fold{fold}" / "oof.parquet")
        result = {"fold": fold, "seconds": 10.0 + fold, "device": "device: cpu in float32"}
        (folder / f"fold{fold}" / "result.json").write_text(json.dumps(result))
    (folder / "recipe.json").write_bytes(recipe.to_json())
    run = {"n_folds": n_folds, "records": 40, "identity": {"records": "abcdef0123"}}
    (folder / "run.json").write_text(json.dumps(run))
    return pl.concat(tables)


def test_every_rung_has_a_recipe() -> None:
    assert {rung.recipe for rung in RUNGS} <= set(RECIPES)
    assert len({rung.recipe for rung in RUNGS}) == len(RUNGS)


def test_scores_are_those_of_the_predictions(tmp_path: Path) -> None:
    oof = fake_run(tmp_path, get_recipe("baseline"))
    row = next(row for row in ladder(tmp_path) if row.recipe == "baseline")
    votes, predictions = oof.select(VOTE_COLUMNS).to_numpy(), oof.select(PROBABILITY_COLUMNS).to_numpy()
    n = votes.sum(axis=1)
    targets = votes / n[:, None]
    settled = (n >= 5) | ((n == 4) & (votes.max(axis=1) == 4))
    assert row.cv_all == pytest.approx(kl_score(targets, predictions))
    assert row.cv_votes10 == pytest.approx(kl_score(targets[n >= 10], predictions[n >= 10]))
    assert row.cv_settled == pytest.approx(kl_score(targets[settled], predictions[settled]))
    assert (row.folds, row.records, row.data, row.seconds_per_fold) == ("2/2", 40, "abcdef", 10.5)
    assert (row.published_cv, row.published_lb, row.note) == (0.7287, 0.45, "its notebook: 0.7289")


def test_with_a_truth_the_way_from_prior_to_perfect_is_shown(tmp_path: Path) -> None:
    """A model half-way between prior and truth has come some of the way; the truth itself has come all of it."""
    oof = fake_run(tmp_path, get_recipe("baseline")).with_columns(pl.Series("eeg_id", np.arange(40)))
    votes = oof.select(VOTE_COLUMNS).to_numpy()
    targets = votes / votes.sum(axis=1, keepdims=True)
    truth = 0.8 * targets + 0.2 / 6
    columns = {f"{name}_probability": truth[:, k] for k, name in enumerate(CLASSES)}
    oof.select("eeg_id", *VOTE_COLUMNS).with_columns(**columns).write_csv(tmp_path / "truth.csv")
    prior = targets.mean(axis=0)
    many = votes.sum(axis=1) >= 10

    def way(predictions: np.ndarray) -> tuple[float | None, float | None]:
        table = oof.with_columns(
            pl.Series(name, predictions[:, k]) for k, name in enumerate(PROBABILITY_COLUMNS)
        )
        for fold in range(2):
            table[20 * fold : 20 * fold + 20].write_parquet(
                tmp_path / "baseline" / f"fold{fold}" / "oof.parquet"
            )
        row = next(row for row in ladder(tmp_path, tmp_path / "truth.csv") if row.recipe == "baseline")
        return row.recovered, row.recovered_votes10

    run = json.loads((tmp_path / "baseline" / "run.json").read_text())
    (tmp_path / "baseline" / "run.json").write_text(json.dumps(run | {"prior": prior.tolist()}))
    assert way(truth) == pytest.approx((1, 1))
    assert way(np.tile(prior, (40, 1))) == pytest.approx((0, 0), abs=1e-12)
    between = 0.5 * truth + 0.5 * prior
    everywhere, on_many = way(between)
    assert everywhere is not None
    assert 0.3 < everywhere < 1
    scores = [kl_score(targets[many], p[many]) for p in (np.tile(prior, (40, 1)), between, truth)]
    assert on_many == pytest.approx((scores[0] - scores[1]) / (scores[0] - scores[2]))
    text = render(ladder(tmp_path, tmp_path / "truth.csv"))
    assert f"{100 * everywhere:.1f} %" in text
    assert "recovered votes10" in text
    assert "recovered" not in render(ladder(tmp_path))


def test_quick_passes_and_unfinished_runs_say_so(tmp_path: Path) -> None:
    fake_run(tmp_path, replace(get_recipe("baseline"), backbone="resnet18").with_epochs(1))
    fake_run(tmp_path, get_recipe("percentiles"), folds=1, n_folds=5)
    fake_run(tmp_path, replace(get_recipe("baseline"), name="my-own"))
    rows = {row.recipe: row for row in ladder(tmp_path)}
    assert rows["baseline"].note == "its notebook: 0.7289; quick pass: other backbone, stages"
    assert (rows["percentiles"].folds, rows["percentiles"].note) == (
        "1/5",
        "from its notebook, whose last run was interrupted; over the folds so far",
    )
    assert rows["my-own"].note == "no recipe of this version"
    assert rows["two-stage"].note == "published 0.4142, on settled records only"
    assert rows["two-stage"].published_cv is None
    missing = untrained(list(rows.values()))
    assert "baseline" not in missing
    assert "percentiles" in missing
    assert "demo" not in missing


def test_formats_agree(tmp_path: Path) -> None:
    fake_run(tmp_path, get_recipe("global-norm"))
    rows = ladder(tmp_path)
    parsed = list(csv.DictReader(io.StringIO(render(rows, "csv"))))
    assert [line["recipe"] for line in parsed] == [row.recipe for row in rows]
    trained = next(line for line in parsed if line["recipe"] == "global-norm")
    assert float(trained["cv_all"]) == next(r.cv_all for r in rows if r.recipe == "global-norm")
    markdown = render(rows, "markdown").splitlines()
    assert len(markdown) == len(rows) + 2
    assert len({line.count("|") for line in markdown}) == 1
    assert "0.6355" in next(line for line in markdown if "global-norm " in line)
    assert len(render(rows).splitlines()) == len(rows) + 1


def test_an_empty_folder_shows_the_published_ladder(tmp_path: Path) -> None:
    assert [row.recipe for row in ladder(tmp_path)] == [rung.recipe for rung in RUNGS]


def test_a_broken_run_is_named(tmp_path: Path) -> None:
    fake_run(tmp_path, get_recipe("baseline"))
    (tmp_path / "baseline" / "run.json").write_text('{"n_folds": 2, "identity": {}}')
    with pytest.raises(RunError, match="baseline: its run.json or a result.json lacks"):
        ladder(tmp_path)


def test_blends_are_found_by_name(tmp_path: Path) -> None:
    given = find_blend(tmp_path, "kaggle-ensemble")
    assert given.members == ("baseline", "global-stats")
    assert given.weights == (0.5, 0.5)
    path = blend_path(tmp_path, "mine")
    path.parent.mkdir()
    path.write_bytes(replace(given, name="mine", weights=(0.25, 0.75)).to_json())
    assert find_blend(tmp_path, "mine").weights == (0.25, 0.75)
    with pytest.raises(UsageError, match=r"no blend 'mien'; did you mean 'mine'\?"):
        find_blend(tmp_path, "mien")
    with pytest.raises(UsageError, match="no blend 'single-models'"):
        find_blend(tmp_path, "single-models")
