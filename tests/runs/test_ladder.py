"""The ladder: every experiment of the source has its recipe, and the table says what was trained on what."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from kagglehms.data.competition import CLASSES, PROBABILITY_COLUMNS, VOTE_COLUMNS
from kagglehms.errors import RunError, UsageError
from kagglehms.runs.blends import LADDER_BLENDS, Blend, Fitting, get_blend_spec
from kagglehms.runs.ladder import RUNGS, blend_members, blend_path, find_blend, ladder, untrained
from kagglehms.runs.ladder_table import render
from kagglehms.runs.prior_correction import PriorCorrection
from kagglehms.training.metric import kl_score
from kagglehms.training.recipes import RECIPES, Recipe, get_recipe


def fake_run(
    runs: Path, recipe: Recipe, folds: int = 2, n_folds: int = 2, seed: int | None = None
) -> pl.DataFrame:
    """What `crossval` would have left, with random predictions."""
    draw = np.random.default_rng(len(recipe.name) if seed is None else seed)
    folder = runs / recipe.name
    tables = []
    for fold in range(folds):
        (folder / f"fold{fold}").mkdir(parents=True)
        vote = np.random.default_rng(1 + fold)  # the same records for every recipe
        votes = vote.integers(0, 6, (20, 6)) * vote.integers(0, 2, (20, 1))
        votes += np.eye(6, dtype=int)[vote.integers(0, 6, 20)]
        columns = dict(zip(VOTE_COLUMNS, votes.T, strict=True))
        probabilities = dict(zip(PROBABILITY_COLUMNS, draw.dirichlet(np.ones(6), 20).T, strict=True))
        numbers = np.arange(20) + 20 * fold
        keys = {"record": numbers, "patient_id": numbers // 2}
        tables.append(pl.DataFrame({**keys, **columns, **probabilities}))
        tables[-1].write_parquet(folder / f"fold{fold}" / "oof.parquet")
        result = {"fold": fold, "seconds": 10.0 + fold, "device": "device: cpu in float32"}
        (folder / f"fold{fold}" / "result.json").write_text(json.dumps(result))
    (folder / "recipe.json").write_bytes(recipe.to_json())
    identity = {"records": "abcdef0123", "folds": "f", "store": "s"}
    run = {
        "n_folds": n_folds,
        "records": 40,
        "identity": identity,
        "fingerprint": recipe.name,
        "prior": [1 / 6] * 6,
    }
    run |= {"scores": {"all": 1.0, "votes10": 1.0} if folds == n_folds else None}
    (folder / "run.json").write_text(json.dumps(run))
    oof = pl.concat(tables)
    if folds == n_folds:
        oof.write_parquet(folder / "oof.parquet")
    return oof


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
    assert rows["my-own"].note.startswith("no recipe of this version")
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
    assert names[: len(RUNGS)] == [rung.recipe for rung in RUNGS]
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
    path = tmp_path / "global-stats" / "run.json"
    run = json.loads(path.read_text())
    path.write_text(json.dumps(run | {"identity": run["identity"] | {"records": "other"}}))
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


def test_a_broken_run_is_named(tmp_path: Path) -> None:
    fake_run(tmp_path, get_recipe("baseline"))
    (tmp_path / "baseline" / "run.json").write_text('{"n_folds": 2, "identity": {}}')
    with pytest.raises(RunError, match="baseline: its run.json or a result.json lacks"):
        ladder(tmp_path)


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


def test_names_to_blend_are_runs_one_run_or_one_blend(tmp_path: Path) -> None:
    fake_run(tmp_path, get_recipe("baseline"))
    assert blend_members(tmp_path, ["baseline"]) == ("baseline",)
    assert blend_members(tmp_path, ["kaggle-ensemble"]) == ("baseline", "global-stats")
    assert blend_members(tmp_path, ["baseline", "any"]) == ("baseline", "any")
    with pytest.raises(UsageError, match=r"no run or blend 'basline'; did you mean 'baseline'\?"):
        blend_members(tmp_path, ["basline"])
    with pytest.raises(UsageError, match="name the runs to blend"):
        blend_members(tmp_path, [])


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


@pytest.mark.parametrize("name", ["run", "recipe", "folds", "Run"])
def test_a_blend_cannot_be_called_like_a_file_of_a_run(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"a blend cannot be called '{name}'"):
        blend_path(tmp_path, name)
