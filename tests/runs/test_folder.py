"""Strict reading of run folders: only finished, whole runs go into a bundle."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from runs_folder import IDENTITY, PRIOR, edit, forget_digests, make_fold, make_run, oof_table, write_json

from kagglehms.errors import RunError, UsageError
from kagglehms.runs.contents import StoredFolds
from kagglehms.runs.folder import RunFolder, find_runs, select_runs
from kagglehms.training.first_weights import Origin
from kagglehms.training.recipes import get_recipe


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two finished runs."""
    make_run(tmp_path / "runs", "baseline")
    make_run(tmp_path / "runs", "panels+global")
    return tmp_path / "runs"


def test_all_finished_folds_of_all_runs_are_taken_by_name(runs: Path) -> None:
    (runs / "notes").mkdir()
    (runs / "baseline/fold2").mkdir()  # begun, not finished
    found = select_runs(runs)
    assert [run.recipe.name for run in found] == ["baseline", "panels+global"]
    assert [[fold.fold for fold in run.results] for run in found] == [[0, 1], [0, 1]]
    assert found[0].info.prior == PRIOR
    assert found[0].results[1].score_all == pytest.approx(1.9)
    assert found[0].results[1].score_votes10 is None


def test_recipes_and_folds_choose(runs: Path) -> None:
    found = select_runs(runs, ["panels+global", "baseline", "baseline"], [1])
    assert [run.recipe.name for run in found] == ["panels+global", "baseline"]
    assert [[fold.fold for fold in run.results] for run in found] == [[1], [1]]


def test_folds_are_sorted_by_number(tmp_path: Path) -> None:
    make_run(tmp_path / "runs", "baseline", finished=(10, 2, 0), n_folds=11)
    assert [fold.fold for fold in select_runs(tmp_path / "runs")[0].results] == [0, 2, 10]


def test_an_unknown_recipe_is_a_users_mistake_with_a_suggestion(runs: Path) -> None:
    with pytest.raises(UsageError, match=r"did you mean 'baseline'\?"):
        select_runs(runs, ["basline"])


def test_a_folder_without_runs_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        select_runs(tmp_path / "absent")
    with pytest.raises(UsageError, match="holds no run"):
        select_runs(tmp_path)


def test_an_unfinished_run_is_refused_and_says_what_to_do(runs: Path) -> None:
    make_run(runs, "mosaic-xloss", finished=())
    (runs / "mosaic-xloss/fold0").mkdir()
    with pytest.raises(RunError, match="unfinished") as raised:
        select_runs(runs)
    assert "kagglehms train mosaic-xloss" in str(raised.value)
    assert "--recipe" in str(raised.value)
    assert len(select_runs(runs, ["baseline"])) == 1


@pytest.mark.parametrize(
    ("origin", "ending"),
    [
        (Origin(), " --weights none"),
        (Origin("file", "w.safetensors", "ab" * 32), " --weights w.safetensors"),
        (Origin("hub", "timm/x", "ab" * 32), ""),
    ],
)
def test_the_command_that_finishes_a_run_starts_from_the_same_weights(
    runs: Path, origin: Origin, ending: str
) -> None:
    edit(runs / "baseline/run.json", first_weights=origin.to_json())
    assert RunFolder(runs / "baseline").finishing == f"kagglehms train baseline{ending}"
    for result in (runs / "baseline").glob("fold*/result.json"):
        edit(result, first_weights=origin.to_json())
    with pytest.raises(RunError, match=f"finish it with `kagglehms train baseline{ending}`"):
        select_runs(runs, ["baseline"], [3])
    (runs / "baseline/run.json").write_text("{")
    assert RunFolder(runs / "baseline").finishing == "kagglehms train baseline"


def test_an_unfinished_fold_that_is_asked_for_is_refused(runs: Path) -> None:
    with pytest.raises(RunError, match=r"fold 2, 3 is not finished \(finished: 0, 1 of 2\)"):
        select_runs(runs, ["baseline"], [0, 2, 3])


@pytest.mark.parametrize("damage", ["missing", "truncated", "empty", "no tensors"])
def test_damaged_weights_are_refused_by_name(runs: Path, damage: str) -> None:
    weights = runs / "baseline/fold1/weights.safetensors"
    whole = weights.read_bytes()
    if damage == "missing":
        weights.unlink()
    elif damage == "truncated":
        weights.write_bytes(whole[:-1])
    elif damage == "empty":
        weights.write_bytes(b"")
    else:
        weights.write_bytes((2).to_bytes(8, "little") + b"{}")
    with pytest.raises(RunError, match="train this fold again") as raised:
        select_runs(runs)
    assert str(weights) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_first_weights_are_read_and_folds_of_different_ones_refused(runs: Path) -> None:
    assert [run.first_weights for run in select_runs(runs)] == [None] * len(select_runs(runs))
    folder = runs / "baseline"
    origin = Origin("file", "w.safetensors", "ab" * 32)
    files = [folder / "run.json", folder / "fold0/result.json", folder / "fold1/result.json"]
    for path in files[:2]:
        edit(path, first_weights=origin.to_json())
    with pytest.raises(
        RunError, match=r"fold1/result\.json: started from .* than its run .not recorded there"
    ):
        select_runs(runs, ["baseline"])
    edit(files[2], first_weights=Origin().to_json())
    with pytest.raises(
        RunError, match=r"\(none, from scratch there, w\.safetensors, sha256 abababababab in"
    ) as raised:
        select_runs(runs, ["baseline"])
    assert "\n" not in str(raised.value)
    edit(files[2], first_weights=origin.to_json())
    assert select_runs(runs, ["baseline"])[0].first_weights == origin


def test_result_of_another_fold_is_refused(runs: Path) -> None:
    edit(runs / "baseline/fold1/result.json", fold=0)
    with pytest.raises(RunError, match="is of fold 0"):
        select_runs(runs)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("run.json", None),
        ("run.json", b""),
        ("run.json", b'{"recipe": "baseline"}'),
        ("recipe.json", None),
        ("recipe.json", b'{"name": '),
        ("fold0/result.json", b"{}"),
    ],
)
def test_a_damaged_json_file_is_refused_by_name(runs: Path, file: str, content: bytes | None) -> None:
    path = runs / "baseline" / file
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunError, match="and train again|train this fold again") as raised:
        select_runs(runs)
    assert str(path) in str(raised.value)


def test_a_recipe_that_the_bundled_library_cannot_read_is_refused(runs: Path) -> None:
    """On Kaggle every model of it would be left out."""
    path = runs / "baseline/recipe.json"
    edit(path, of_another_version=1)
    with pytest.raises(RunError, match="is no recipe of this version: of_another_version") as raised:
        select_runs(runs)
    assert str(path) in str(raised.value)
    forget_digests(runs / "baseline")
    path.write_bytes(get_recipe("percentiles").to_json())
    with pytest.raises(RunError, match="is of recipe 'percentiles' in the run of 'baseline'"):
        select_runs(runs)


def test_a_renamed_run_is_refused(runs: Path) -> None:
    (runs / "baseline").rename(runs / "baseline-2")
    with pytest.raises(RunError, match="rename it back"):
        select_runs(runs)


def test_more_may_be_written_than_is_read(runs: Path) -> None:
    edit(runs / "baseline/run.json", anything={"else": 1})
    edit(runs / "baseline/fold0/result.json", curve=[1.0, 0.5])
    make_fold(runs / "baseline", 7)
    assert [fold.fold for fold in select_runs(runs, ["baseline"])[0].results] == [0, 1, 7]


def test_what_is_written_is_read_back_and_older_files_are_understood(tmp_path: Path) -> None:
    folder = RunFolder(make_run(tmp_path, "baseline"))
    info, result = folder.info(), folder.result(0)
    folder.write_info(info)
    folder.write_result(result)
    assert (folder.info(), folder.result(0)) == (info, result)
    assert folder.stored_folds() is None
    stored = StoredFolds("a" * 64, 2, [0, 1, 1, 0])
    folder.write_folds(stored)
    assert folder.stored_folds() == stored
    content = json.loads((folder.path / "run.json").read_text())
    assert content["identity"] == {**IDENTITY, "teachers": {}}
    for name in ("first_weights", "scores", "prior_scores", "uniform_scores"):
        del content[name]
    write_json(folder.path / "run.json", content)
    assert folder.info() == replace(info, scores=None)
    needed = ("fold", "score_all", "score_votes10", "n_records", "seconds", "device")
    content = json.loads((folder.fold(0) / "result.json").read_text())
    write_json(folder.fold(0) / "result.json", {name: content[name] for name in needed})
    assert folder.result(0).scores == {"all": 0.9, "votes10": None}
    assert result.scores == folder.result(1).scores | {"all": 0.9}


def test_a_column_that_only_some_folds_have_is_empty_in_the_others(tmp_path: Path) -> None:
    table = oof_table()
    folder = RunFolder(make_run(tmp_path, "baseline", table=table))
    part = table.filter(pl.col("fold") == 1).with_columns(pl.lit(7).alias("new"))
    folder.write_predictions(part, 1)
    forget_digests(folder.path)
    joined = folder.finished_predictions()
    assert joined is not None
    assert joined.filter(pl.col("fold") == 0)["new"].is_null().all()
    assert joined.drop("new").sort("record").equals(table)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (pl.lit(None, pl.Float64).alias("eeg_offset_min_s"), "missing values"),
        (pl.lit("x").alias("lpd_probability"), "cannot be read"),
        (pl.lit(0.9).alias("lpd_probability"), "row 0 of the predictions sums to"),
        (pl.lit(-0.1).alias("gpd_probability"), "negative or not finite"),
        (pl.lit(3).alias("record"), "a record twice"),
    ],
)
def test_predictions_that_are_none_are_refused(tmp_path: Path, change: pl.Expr, problem: str) -> None:
    folder = RunFolder(make_run(tmp_path, "baseline"))
    folder.write_predictions(oof_table().with_columns(change), 0)
    forget_digests(folder.path)
    with pytest.raises(RunError, match=problem) as raised:
        folder.finished_predictions()
    assert str(folder.fold(0) / "oof.parquet") in str(raised.value)
    assert "\n" not in str(raised.value)


def everything(folder: RunFolder) -> tuple[object, ...]:
    """All that a run folder says; only the weights are compared by their bytes."""
    folder.check_fold(0)
    tables = (folder.fold_predictions(0), folder.predictions(), folder.history(0))
    weights = folder.check_weights(0).read_bytes()
    content = (folder.info(), folder.recipe(), folder.stored_folds(), folder.result(0))
    return (*content, *(table.to_dict(as_series=False) for table in tables), weights)


def test_every_flipped_bit_of_a_run_is_noticed_or_changes_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, draw = RunFolder(make_run(tmp_path, "baseline")), random.Random(0)
    folder.write_folds(StoredFolds("a" * 64, 2, [0, 1, 1, 0]))
    folder.write_info(folder.info())
    before, noticed = everything(folder), dict.fromkeys(FILES, 0)
    for name in FILES:
        path = folder.path / name
        whole = path.read_bytes()
        for at in draw.sample(range(len(whole)), 25):
            flipped = bytearray(whole)
            flipped[at] ^= 1 << draw.randrange(8)
            path.write_bytes(flipped)
            try:
                assert everything(folder) == before
            except RunError as error:
                noticed[name] += str(path) in str(error)
        path.write_bytes(whole)
    assert everything(folder) == before
    binary = [name for name in FILES if not name.endswith(".json")]
    assert [noticed[name] for name in (*binary, "recipe.json")] == [25] * (len(binary) + 1)
    assert min(noticed.values()) > 12  # what is left are blanks between values
    # Nor does a library that meets damaged bytes print what it thinks of them.
    assert capfd.readouterr().err == ""


FILES = (
    "run.json",
    "recipe.json",
    "folds.json",
    "oof.parquet",
    "fold0/result.json",
    "fold0/oof.parquet",
    "fold0/history.csv",
    "fold0/weights.safetensors",
)


@pytest.mark.parametrize("unreadable", [".", "baseline", "baseline/fold0"])
def test_a_folder_that_cannot_be_read_is_named_and_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unreadable: str
) -> None:
    make_run(tmp_path, get_recipe("baseline"), (0, 1))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes.txt").touch()
    assert [run.name for run in find_runs(tmp_path)] == ["baseline"]
    assert find_runs(tmp_path)[0].finished == [0, 1]
    closed, iterdir = tmp_path / unreadable, Path.iterdir

    def refuse(path: Path) -> Iterator[Path]:
        if path == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(RunError, match=re.escape(str(closed))):
        print([run.finished for run in find_runs(tmp_path)])


def test_no_folder_holds_no_runs(tmp_path: Path) -> None:
    assert find_runs(tmp_path / "runs") == []
    assert RunFolder(tmp_path / "runs" / "baseline").finished == []
