"""Members of a blend: aligned by record, of the same records, folds and data, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from runs_folder import edit, forget_digests, make_run, oof_table

from kagglehms.data.competition import PROBABILITY_COLUMNS, VOTE_COLUMNS
from kagglehms.errors import RunError, UsageError
from kagglehms.runs.blend_fitting import nested_score
from kagglehms.runs.blends import Fitting
from kagglehms.runs.out_of_fold import load_oof, load_training_weights
from kagglehms.runs.prior_correction import class_prior
from kagglehms.training.first_weights import Origin
from kagglehms.training.metric import kl_score
from kagglehms.training.recipes import get_recipe

N = 30


def make_table(seed: int) -> pl.DataFrame:
    """Rows in an order of their own; the number of votes depends on the record alone."""
    votes = np.random.default_rng(99).multinomial(np.arange(N) % 15 + 1, np.full(6, 1 / 6))
    rng = np.random.default_rng(seed)
    return oof_table(N, seed=seed).with_columns(
        pl.Series("patient_id", np.arange(N) // 3),
        *(pl.Series(name, column) for name, column in zip(VOTE_COLUMNS, votes.T, strict=True)),
    )[rng.permutation(N)]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for seed, name in enumerate(("first", "second", "third")):
        make_run(tmp_path, name, table=make_table(seed))
    return tmp_path


def test_a_member_whose_folds_started_from_different_weights_is_refused(runs: Path) -> None:
    edit(runs / "second/run.json", first_weights=Origin().to_json())
    edit(runs / "second/fold0/result.json", first_weights=Origin("file", "w", "ab" * 32).to_json())
    with pytest.raises(RunError, match=r"fold0/result\.json: started from other first weights"):
        load_oof(runs, ["first", "second"])


def test_members_are_aligned_by_record(runs: Path) -> None:
    oof = load_oof(runs, ["second", "first"])
    assert oof.names == ("second", "first")
    assert oof.fingerprints == ("of second", "of first")
    assert oof.numbers_N.tolist() == list(range(N))
    assert oof.records.patients.tolist() == [record // 3 for record in range(N)]
    for seed, name in ((0, "first"), (1, "second")):
        expected = make_table(seed).sort("record")
        np.testing.assert_array_equal(oof.by_name[name], expected.select(PROBABILITY_COLUMNS).to_numpy())
    votes = make_table(0).sort("record").select(VOTE_COLUMNS).to_numpy()
    np.testing.assert_array_equal(oof.records.votes_NK, votes)
    np.testing.assert_array_equal(oof.records.n_votes, [record % 15 + 1 for record in range(N)])
    np.testing.assert_allclose(oof.records.targets_NK.sum(axis=1), 1)


def test_they_can_be_blended(runs: Path) -> None:
    oof = load_oof(runs, ["first", "second", "third"])
    nested = nested_score(oof.rows(), Fitting(shrinkage=0.1), seeds=[0])
    assert kl_score(oof.records.targets_NK, nested.blend.apply(oof.by_name)) == pytest.approx(
        nested.in_sample
    )


def test_every_run_says_what_its_last_stage_learned_from(runs: Path) -> None:
    for name, recipe in (("first", "baseline"), ("second", "vote-weighted"), ("third", "raw-fold")):
        (forget_digests(runs / name) / "recipe.json").write_bytes(get_recipe(recipe).to_json())
    oof = load_oof(runs, ["third", "first", "second"])
    n = oof.records.n_votes
    expected = [n >= 10, np.ones(N), np.log(n + 1)]
    np.testing.assert_allclose(load_training_weights(runs, oof), expected, rtol=1e-6)
    (runs / "first" / "recipe.json").unlink()
    with pytest.raises(RunError, match=r"first.recipe\.json: cannot be read .*train again"):
        load_training_weights(runs, oof)


def test_the_prior_of_a_plain_run_is_that_in_its_run_json(dist: Path) -> None:
    runs = dist.parent / "runs"
    oof = load_oof(runs, ["baseline"])
    run = json.loads((runs / "baseline" / "run.json").read_text())
    expected = (np.array(run["prior"]) * run["records"] + 1 / 6) / (run["records"] + 1)
    np.testing.assert_allclose(
        class_prior(oof.records.targets_NK, load_training_weights(runs, oof)[0]), expected, rtol=1e-9
    )


def test_a_run_of_crossval_is_understood(dist: Path) -> None:
    oof = load_oof(dist.parent / "runs", ["baseline"])
    run = json.loads((dist.parent / "runs" / "baseline" / "run.json").read_text())
    assert len(oof.numbers_N) == run["records"]
    assert oof.fingerprints == (run["fingerprint"],)
    assert kl_score(oof.records.targets_NK, oof.predictions_MNK[0]) == pytest.approx(
        run["scores"]["all"], rel=1e-12
    )


def test_records_with_few_votes_can_be_left_out(runs: Path) -> None:
    table = make_table(7)
    make_run(runs, "two-stage", table=table.filter(pl.sum_horizontal(VOTE_COLUMNS) >= 5))
    with pytest.raises(RunError, match=r"two-stage: has no predictions of 8 of the 30 records.*min_votes"):
        load_oof(runs, ["first", "two-stage"])
    oof = load_oof(runs, ["first", "two-stage"], min_votes=5)
    assert oof.predictions_MNK.shape == (2, N - 8, 6)
    assert oof.records.n_votes.min() == 5
    with pytest.raises(UsageError, match="no record of first has at least 16 votes"):
        load_oof(runs, ["first"], min_votes=16)


@pytest.mark.parametrize(
    ("identity", "words"),
    [
        ({"records": "x"}, "other records than first"),
        ({"folds": "x"}, "other folds than first"),
        ({"store": "x", "folds": "x"}, r"other folds and data \(store\) than first"),
    ],
)
def test_other_records_folds_or_data_are_refused(runs: Path, identity: Mapping[str, str], words: str) -> None:
    make_run(runs, "stranger", table=make_table(4), identity=identity)
    with pytest.raises(RunError, match=f"stranger: was trained on {words}"):
        load_oof(runs, ["first", "second", "stranger"])


def test_a_missing_or_unfinished_run_is_named(runs: Path) -> None:
    with pytest.raises(RunError, match=r"scond: no such run; did you mean 'second'.*kagglehms train scond"):
        load_oof(runs, ["first", "scond"])
    with pytest.raises(RunError, match="first: no such run; there is none at all"):
        load_oof(runs / "first", ["first"])
    edit(runs / "second/run.json", scores=None)
    with pytest.raises(RunError, match="second: not all folds are trained"):
        load_oof(runs, ["first", "second"])
    (runs / "third" / "oof.parquet").unlink()
    with pytest.raises(RunError, match="third: not all folds are trained"):
        load_oof(runs, ["third"])


def test_broken_files_are_named(runs: Path) -> None:
    edit(runs / "first/run.json", identity={"records": "r", "store": "s"})
    with pytest.raises(RunError, match=r"first.run\.json: cannot be read .identity\.folds: "):
        load_oof(runs, ["first"])
    (runs / "second" / "run.json").write_text("{")
    with pytest.raises(RunError, match=r"second.run\.json: cannot be read"):
        load_oof(runs, ["second"])
    (runs / "third" / "oof.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(RunError, match=r"third.oof\.parquet: has changed since it was written"):
        load_oof(runs, ["third"])
    forget_digests(runs / "third")
    with pytest.raises(RunError, match=r"third.oof\.parquet: cannot be read"):
        load_oof(runs, ["third"])
    make_run(runs, "fourth", table=make_table(3).drop("lpd_probability"))
    with pytest.raises(RunError, match=r"fourth.oof\.parquet: cannot be read \(.*lpd_probability"):
        load_oof(runs, ["fourth"])


def test_broken_content_is_named(runs: Path) -> None:
    table = make_table(5)
    make_run(runs, "twice", table=pl.concat([table, table[:1]]))
    with pytest.raises(RunError, match="twice.*has a record twice or missing values"):
        load_oof(runs, ["twice"])
    make_run(runs, "holes", table=table.with_columns(pl.lit(None, pl.Float64).alias("gpd_probability")))
    with pytest.raises(RunError, match="holes.*has a record twice or missing values"):
        load_oof(runs, ["holes"])
    make_run(runs, "double", table=table.with_columns(pl.col(PROBABILITY_COLUMNS) * 2))
    with pytest.raises(RunError, match="double.*row 0 of the predictions sums to 2"):
        load_oof(runs, ["first", "double"])
    make_run(runs, "voters", table=table.with_columns(pl.col("lpd_vote") + 1))
    with pytest.raises(RunError, match="voters: has other votes or patients than first"):
        load_oof(runs, ["first", "voters"])


def test_a_name_twice_is_refused(runs: Path) -> None:
    with pytest.raises(UsageError, match="members must be different names"):
        load_oof(runs, ["first", "first"])
