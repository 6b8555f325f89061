"""The ladder: every experiment of the source has its recipe, and the table says what was trained on what."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from runs_folder import IDENTITY, edit, forget_digests, make_run, oof_table

from kagglehms.data.competition import CLASSES, PROBABILITY_COLUMNS, VOTE_COLUMNS
from kagglehms.runs.blends import Blend, Fitting
from kagglehms.runs.ladder import ladder, untrained
from kagglehms.runs.ladder_table import render
from kagglehms.runs.named_blends import LADDER_BLENDS, blend_path, get_blend_spec
from kagglehms.runs.prior_correction import PriorCorrection
from kagglehms.runs.published_figures import RUNGS
from kagglehms.training.metric import kl_score
from kagglehms.training.recipes import RECIPES, Recipe, get_recipe


def fake_run(
    runs: Path, recipe: Recipe, folds: int = 2, n_folds: int = 2, seed: int | None = None
) -> pl.DataFrame:
    """A run with random predictions of the same forty records as every other; returns those of its finished folds."""
    table = oof_table(40, n_folds, len(recipe.name) if seed is None else seed)
    make_run(runs, recipe, range(folds), n_folds, table)
    return table.filter(pl.col("fold") < folds)


def test_every_rung_has_a_recipe() -> None:
    assert set(RUNGS) <= set(RECIPES)


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
    for part, rows in (("all", n > 0), ("votes10", n >= 10), ("settled", settled)):
        means = np.tile(targets[rows].mean(axis=0), (rows.sum(), 1))
        assert getattr(row, f"prior_{part}") == pytest.approx(kl_score(targets[rows], means))
        sixths = np.full_like(means, 1 / 6)
        assert getattr(row, f"uniform_{part}") == pytest.approx(kl_score(targets[rows], sixths))
    assert (row.folds, row.records, row.data, row.seconds_per_fold) == ("2/2", 40, "abcdef", 10.5)
    assert (row.published_cv, row.published_lb) == (0.7287, 0.45)
    # Random predictions are worse than knowing nothing, and the table says so.
    neither = "the class prior and a uniform guess on"
    assert row.note == "its notebook: 0.7289; worse than " + ", and than ".join(
        f"{neither} {records}" for records in ("all records", "those with many votes", "the settled ones")
    )


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
            table.filter(pl.col("fold") == fold).write_parquet(
                tmp_path / "baseline" / f"fold{fold}" / "oof.parquet"
            )
        row = next(row for row in ladder(tmp_path, tmp_path / "truth.csv") if row.recipe == "baseline")
        return row.recovered, row.recovered_votes10

    edit(forget_digests(tmp_path / "baseline") / "run.json", prior=prior.tolist())
    assert way(truth) == pytest.approx((1, 1))
    assert way(np.tile(prior, (40, 1))) == pytest.approx((0, 0), abs=1e-12)
    between = 0.5 * truth + 0.5 * prior
    everywhere, on_many = way(between)
    assert everywhere is not None
    assert 0.3 < everywhere < 1
    scores = [kl_score(targets[many], p[many]) for p in (np.tile(prior, (40, 1)), between, truth)]
    assert on_many == pytest.approx((scores[0] - scores[1]) / (scores[0] - scores[2]))
    text = render(ladder(tmp_path, tmp_path / "truth.csv"))
    assert f" {100 * everywhere:.1f}%" in text
    assert "way to truth" in text
    assert "way to truth" not in render(ladder(tmp_path))


def test_quick_passes_and_unfinished_runs_say_so(tmp_path: Path) -> None:
    fake_run(tmp_path, replace(get_recipe("baseline"), backbone="resnet18").with_epochs(1))
    fake_run(tmp_path, get_recipe("percentiles"), folds=1, n_folds=5)
    fake_run(tmp_path, replace(get_recipe("baseline"), name="my-own"))
    rows = {row.recipe: row for row in ladder(tmp_path)}
    assert rows["baseline"].note.startswith("its notebook: 0.7289; quick pass: other backbone, stages")
    assert rows["percentiles"].folds == "1/5"
    assert "; over the folds so far" in rows["percentiles"].note
    assert rows["my-own"].note.startswith("own recipe: ")
    assert rows["two-stage"].note == "published 0.4142, on settled records only"
    assert rows["two-stage"].published_cv is None
    missing = untrained(list(rows.values()))
    assert "baseline" not in missing
    assert "percentiles" in missing
    assert "demo" not in missing


def test_a_run_as_published_stands_beside_its_figure(tmp_path: Path) -> None:
    fake_run(tmp_path, get_recipe("global-norm-stats-as-published"))
    row = next(r for r in ladder(tmp_path) if r.recipe == "global-norm-stats-as-published")
    assert (row.published_cv, row.published_lb, row.epochs) == (0.6566, 0.41, 5)
    assert "quick pass" not in row.note
    assert "no recipe" not in row.note


def test_every_recipe_and_every_ensemble_is_shown(tmp_path: Path) -> None:
    fake_run(tmp_path, replace(get_recipe("baseline"), name="my-own"))
    blend = replace(
        get_blend_spec("kaggle-ensemble").blend(), name="mine", scores={"nested": 0.9, "prior": 1.2}
    )
    blend_path(tmp_path, "mine").parent.mkdir()
    blend_path(tmp_path, "mine").write_bytes(blend.to_json())
    names = [row.recipe for row in ladder(tmp_path)]
    assert names[: len(RUNGS)] == list(RUNGS)
    assert len(names) == len(set(names))
    assert set(names) == {*RECIPES, "my-own", *(spec.name for spec in LADDER_BLENDS), "mine"}
    text = render(ladder(tmp_path))
    shown = {line.split()[0] for line in text.splitlines() if line}
    assert set(names) <= shown
    fitted = next(row for row in ladder(tmp_path) if row.recipe == "mine")
    assert (fitted.kind, fitted.cv_all, fitted.prior_all, fitted.cv_votes10) == ("blend", 0.9, 1.2, None)


def test_an_ensemble_is_scored_once_its_members_are_trained(tmp_path: Path) -> None:
    """Halves of probabilities, against plain NumPy; and equal parts where the weights would be fitted."""
    first = fake_run(tmp_path, get_recipe("baseline"), seed=1)
    rows = {row.recipe: row for row in ladder(tmp_path)}
    assert rows["kaggle-ensemble"].cv_all is None
    second = fake_run(tmp_path, get_recipe("global-stats"), seed=2)
    rows = {row.recipe: row for row in ladder(tmp_path)}
    votes = first.select(VOTE_COLUMNS).to_numpy()
    targets, many = votes / votes.sum(axis=1, keepdims=True), votes.sum(axis=1) >= 10
    mean = (first.select(PROBABILITY_COLUMNS).to_numpy() + second.select(PROBABILITY_COLUMNS).to_numpy()) / 2
    row = rows["kaggle-ensemble"]
    assert row.cv_all == pytest.approx(kl_score(targets, mean))
    assert row.cv_votes10 == pytest.approx(kl_score(targets[many], mean[many]))
    means = np.tile(targets.mean(axis=0), (40, 1))
    assert row.prior_all == pytest.approx(kl_score(targets, means))
    assert (row.kind, row.records, row.data, row.published_lb) == ("blend", 40, "abcdef", 0.42)
    assert rows["kaggle+eeg-ensemble"].cv_all is None


def test_members_of_other_records_are_named_instead_of_scored(tmp_path: Path) -> None:
    fake_run(tmp_path, get_recipe("baseline"))
    fake_run(tmp_path, get_recipe("global-stats"))
    edit(tmp_path / "global-stats/run.json", identity=IDENTITY | {"records": "other"})
    row = next(row for row in ladder(tmp_path) if row.recipe == "kaggle-ensemble")
    assert row.cv_all is None
    assert "was trained on other records than baseline" in row.note


def test_an_empty_folder_shows_the_published_ladder(tmp_path: Path) -> None:
    rows = {row.recipe: row for row in ladder(tmp_path)}
    assert all(row.cv_all is None for row in rows.values())
    assert (rows["percentiles"].published_cv, rows["eeg-panels"].published_cv) == (0.7644, 0.7528)
    settled = {name: row.published_settled for name, row in rows.items() if row.published_settled}
    assert settled == {
        "two-stage": 0.4142,
        "two-stage-weighted": 0.4108,
        "two-stage-stats": 0.4240,
        "two-stage-ensemble": 0.4142,
        "eeg-two-stage-ensemble": 0.4608,
    }
    assert (rows["final"].published_lb, rows["single-models"].published_lb) == (0.32, None)


def test_a_broken_run_costs_its_own_part_and_is_named(tmp_path: Path) -> None:
    for name in ("baseline", "percentiles", "global-stats"):
        fake_run(tmp_path, get_recipe(name))
    whole = {row.recipe: row for row in ladder(tmp_path)}
    (tmp_path / "baseline" / "run.json").write_text('{"n_folds": 2, "identity": {}}')
    (tmp_path / "percentiles" / "fold0" / "result.json").write_text("{}")
    (tmp_path / "percentiles" / "fold1" / "oof.parquet").write_bytes(b"PAR1")
    (tmp_path / "blends").mkdir()
    (tmp_path / "blends" / "mine.json").write_text("[]")
    rows = {row.recipe: row for row in ladder(tmp_path)}
    for name, file in (
        ("baseline", "baseline/run.json: cannot be read"),
        ("percentiles", "fold0/result.json: cannot be read"),
        ("percentiles", "fold1/oof.parquet: has changed since it was written"),
        ("mine", "blends/mine.json: is no blend of this version"),
    ):
        assert file in rows[name].note
        assert "\n" not in rows[name].note
    assert (rows["baseline"].cv_all, rows["baseline"].folds) == (whole["baseline"].cv_all, "")
    assert (rows["percentiles"].folds, rows["percentiles"].seconds_per_fold) == ("1/2", 11)
    assert rows["global-stats"] == whole["global-stats"]


def test_a_blend_for_many_votes_says_so_in_its_row(tmp_path: Path) -> None:
    even, prior = (1 / 6,) * 6, (0.05, 0.15, 0.1, 0.1, 0.1, 0.5)
    blend = Blend(
        "mine",
        ("baseline",),
        (1.0,),
        fitting=Fitting(population="many", prior_exponent=1.0, shrinkage=0.1),
        n_rows=12,
        scores={"nested": 0.9, "prior": 1.2, "uniform": 1.4, "nested_votes10": 0.5},
        prior=PriorCorrection("many", prior, (even,)),
    )
    blend_path(tmp_path, "mine").parent.mkdir()
    blend_path(tmp_path, "mine").write_bytes(blend.to_json())
    row = next(row for row in ladder(tmp_path) if row.recipe == "mine")
    assert (row.cv_all, row.cv_votes10) == (0.9, 0.5)
    assert (
        row.note == "fitted to 12 records with many votes, class priors corrected: nested scores, of baseline"
    )


def test_the_winners_blend_is_shown_without_a_published_figure(tmp_path: Path) -> None:
    row = next(row for row in ladder(tmp_path) if row.recipe == "winners")
    assert (row.kind, row.published_cv, row.published_lb, row.published_settled) == (
        "blend",
        None,
        None,
        None,
    )
    assert "2nd and the 7th place" in row.note
    for name in get_blend_spec("winners").members:
        fake_run(tmp_path, get_recipe(name))
    row = next(row for row in ladder(tmp_path) if row.recipe == "winners")
    assert row.cv_all is not None
    assert "winners " in render(ladder(tmp_path))
