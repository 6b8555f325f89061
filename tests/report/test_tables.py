"""What notebooks ask for as frames: of pandas and polars, taken and returned by the names of their columns."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from runs_folder import make_run, oof_table
from scipy.special import rel_entr

from kagglehms import tables
from kagglehms.data.competition import CLASSES, PROBABILITY_COLUMNS, VOTE_COLUMNS
from kagglehms.data.records import Records, read_records
from kagglehms.errors import DataError, UsageError
from kagglehms.kernel.submission import read_submission
from kagglehms.recordings.results import Prediction

LIBRARIES: dict[str, Any] = {"pandas": pd.DataFrame, "polars": pl.DataFrame}


def as_pandas(table: pl.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({name: table[name].to_list() for name in reversed(table.columns)})


@pytest.mark.parametrize("library", LIBRARIES)
def test_records_come_from_a_folder_a_file_and_frames_alike(
    competition_folder: Path, records: Records, library: Any
) -> None:
    csv = competition_folder / "train.csv"
    for train in (
        competition_folder,
        str(csv),
        pd.read_csv(csv),
        pl.read_csv(csv),
        as_pandas(pl.read_csv(csv)),
    ):
        found = tables.records(train, library)
        assert type(found) is LIBRARIES[library]
        assert list(found.columns) == records.frame.columns
        assert found["eeg_id"].to_list() == records.frame["eeg_id"].to_list()
        np.testing.assert_array_equal(found[list(VOTE_COLUMNS)].to_numpy(), records.votes_NK)
        assert read_records(csv).digest == records.digest


def test_a_frame_is_read_as_strictly_as_a_file(competition_folder: Path) -> None:
    train = pd.read_csv(competition_folder / "train.csv")
    for change, says in (
        (
            {"eeg_id": train["eeg_id"].astype(float).where(train.index != 3)},
            r"eeg_id has no usable value in row 3",
        ),
        ({"lpd_vote": -1}, "negative votes in row"),
        ({"expert_consensus": "Sneeze"}, "unknown expert_consensus 'Sneeze'"),
    ):
        with pytest.raises(DataError, match=says) as raised:
            tables.records(train.assign(**change))
        assert str(raised.value).startswith("the frame: ")
    with pytest.raises(DataError, match="the frame: lacks column"):
        tables.records(train.drop(columns="patient_id"))


@pytest.mark.parametrize("library", LIBRARIES)
def test_runs_give_their_predictions_and_evaluations(tmp_path: Path, library: Any) -> None:
    make_run(tmp_path, "baseline", finished=[0, 1], table=oof_table())
    found = tables.out_of_fold(tmp_path, "baseline", library)
    assert type(found) is LIBRARIES[library]
    by_record = pl.DataFrame({name: list(found[name]) for name in found.columns}).sort("record")
    assert by_record["patient_id"].to_list() == oof_table()["patient_id"].to_list()
    np.testing.assert_array_equal(
        by_record.select(PROBABILITY_COLUMNS).to_numpy(), oof_table().select(PROBABILITY_COLUMNS).to_numpy()
    )
    history = tables.history(str(tmp_path), "baseline", library)
    assert list(history["fold"]) == [0, 0, 0, 1, 1, 1]
    assert list(history["score_all"])[:3] == [1.4, 1.1, 1.0]
    assert list(history["step"])[:3] == [4, 8, 12]
    assert pd.isna(history["score_votes10"].to_list()[0])
    assert list(history["score_votes10"])[1:3] == [0.9, 0.8]


def test_a_history_without_any_record_of_many_votes_is_one_table(tmp_path: Path) -> None:
    run = make_run(tmp_path, "baseline")
    for path in run.glob("fold1/result.json"):
        path.unlink()
    history = run / "fold1" / "history.csv"
    lines = [line.split(",") for line in history.read_text().splitlines()]
    column = lines[0].index("score_votes10")
    kept = [lines[0], *([*line[:column], "", *line[column + 1 :]] for line in lines[1:])]
    history.write_text("".join(",".join(line) + "\n" for line in kept))
    assert (
        list(tables.history(tmp_path, "baseline")["score_votes10"].isna())
        == [True, False, False] + [True] * 3
    )


def test_the_ladder_is_a_frame_of_every_recipe(tmp_path: Path) -> None:
    make_run(tmp_path, "baseline")
    found = tables.ladder(tmp_path).set_index("recipe")
    assert found.loc["baseline", "folds"] == "2/2"
    assert found.loc["baseline", "published_cv"] == 0.7287
    assert found.loc["two-stage", "folds"] == ""


def test_runs_that_are_not_there_say_so(tmp_path: Path) -> None:
    make_run(tmp_path, "baseline", finished=[], begun=[])
    for read in (tables.out_of_fold, tables.history):
        with pytest.raises(UsageError, match="no run of recipe 'basline'; did you mean 'baseline'"):
            read(tmp_path, "basline")
        with pytest.raises(UsageError, match="finish it with `kagglehms train baseline`"):
            read(tmp_path, "baseline")
    with pytest.raises(UsageError, match="not of 'spark'"):
        tables.ladder(tmp_path, "spark")  # type: ignore[arg-type]


def test_what_we_write_is_read_by_pandas(tmp_path: Path) -> None:
    pytest.importorskip(
        "pyarrow", reason="pandas reads parquet with pyarrow, which `pandas[parquet]` brings along"
    )
    run = make_run(tmp_path, "baseline", table=oof_table())
    found = pd.read_parquet(run / "oof.parquet")
    assert found.columns.to_list() == oof_table().columns
    np.testing.assert_array_equal(found[list(VOTE_COLUMNS)], oof_table().select(VOTE_COLUMNS).to_numpy())
    assert pd.read_csv(run / "fold0" / "history.csv")["score_all"].to_list() == [1.4, 1.1, 1.0]


def test_a_score_is_the_divergence_of_rows_with_the_same_key() -> None:
    oof = oof_table()
    votes_NK = oof.select(VOTE_COLUMNS).to_numpy().astype(float)
    predicted_NK = oof.select(PROBABILITY_COLUMNS).to_numpy()
    expected = rel_entr(votes_NK / votes_NK.sum(axis=1, keepdims=True), predicted_NK).sum(axis=1).mean()
    own = oof.select("record", *PROBABILITY_COLUMNS).sample(fraction=1.0, shuffle=True, seed=3)
    renamed = own.rename(dict(zip(PROBABILITY_COLUMNS, CLASSES, strict=True)))
    for predictions in (oof, own, renamed, as_pandas(own)):
        for votes in (oof, as_pandas(oof)):
            assert tables.score(votes, predictions, "record") == pytest.approx(expected, rel=1e-12)


def test_scores_of_other_rows_are_refused() -> None:
    oof = oof_table()
    for votes, predictions, says in (
        (oof, oof.head(70), r"differ in 10 values of column record"),
        (oof, pl.concat([oof, oof.head(1)]), "predictions: a value of column record stands twice"),
        (oof.with_columns(pl.lit(0).alias(name) for name in VOTE_COLUMNS), oof, "votes: a row has none"),
        (oof, oof.select("record"), "no columns seizure_probability"),
    ):
        with pytest.raises(UsageError, match=says):
            tables.score(votes, predictions, "record")
    with pytest.raises(DataError, match="lacks column"):
        tables.score(oof, oof, "label")


@pytest.mark.parametrize("library", LIBRARIES)
def test_submissions_are_made_written_and_read_as_frames(tmp_path: Path, library: Any) -> None:
    values_NK = np.random.default_rng(0).dirichlet(np.ones(6), 3)
    no = np.zeros(3, bool)
    prediction = Prediction(values_NK, no, no, np.full((3, 6), np.nan))
    made = tables.submission([7, "8.0", 9], prediction, library)
    assert list(made.columns) == ["eeg_id", *VOTE_COLUMNS]
    for other in (values_NK, prediction.to_pandas(), prediction.to_polars()):
        assert tables.submission([7, "8.0", 9], other, library).equals(made)
    path = tmp_path / "submission.csv"
    tables.write_submission(path, made[list(reversed(made.columns))])
    np.testing.assert_array_equal(read_submission(path, ["9", "8.0", "7"]), values_NK[::-1])
    assert tables.read_submission(path, library).equals(made)
    assert tables.read_submission(made, library).equals(made)
    # Of the releases of pandas, not all read the last digit of a number.
    np.testing.assert_allclose(pd.read_csv(path)["lpd_vote"], values_NK[:, 1], rtol=1e-14)


def test_submissions_that_would_be_refused_are_not_made(tmp_path: Path) -> None:
    sixths = np.full((2, 6), 1 / 6)
    with pytest.raises(UsageError, match=r"3 ids need \(3, 6\) probabilities, but got \(2, 6\)"):
        tables.submission([1, 2, 3], sixths)
    with pytest.raises(DataError, match="sums to"):
        tables.submission([1, 2], sixths * 1.1)
    with pytest.raises(DataError, match="stands there before"):
        tables.submission([1, 1], sixths)
    good = tables.submission([1, 2], sixths)
    for bad in (good.drop(columns="lpd_vote"), good.assign(eeg_id=1), good.assign(lpd_vote=2.0)):
        with pytest.raises(DataError):
            tables.write_submission(tmp_path / "s.csv", bad)
    assert not (tmp_path / "s.csv").exists()


def test_polars_users_never_wait_for_pandas(tmp_path: Path) -> None:
    make_run(tmp_path, "baseline")
    code = (
        "import sys\nfrom kagglehms import tables\n"
        f"tables.out_of_fold({str(tmp_path)!r}, 'baseline', 'polars')\nprint('pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
