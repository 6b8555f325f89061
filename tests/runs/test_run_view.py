"""Lenient reading of run folders: what is broken costs its own part, and is named."""

from __future__ import annotations

import copy
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from runs_folder import edit, forget_digests, make_run, oof_table

from kagglehms.errors import UsageError
from kagglehms.runs.folder import RunFolder
from kagglehms.runs.ladder import ladder
from kagglehms.runs.run_view import RunView, focus_of, view_run, view_runs
from kagglehms.training.metric import kl_score


def view(path: Path) -> RunView:
    return view_run(RunFolder(path))


def test_a_whole_run_is_read_whole(tmp_path: Path) -> None:
    table = oof_table()
    seen = view(make_run(tmp_path, "two-stage", table=table))
    assert seen.problems == []
    assert seen.complete
    assert seen.recipe is not None
    assert seen.recipe.name == "two-stage"
    assert seen.oof is not None
    assert seen.oof.sort("record").equals(table)
    votes = table.select(pl.col("^.*_vote$")).to_numpy()
    score = kl_score(
        votes / votes.sum(axis=1, keepdims=True), table.select(pl.col("^.*_probability$")).to_numpy()
    )
    assert seen.score == pytest.approx(score)


def test_folds_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    table = oof_table(120, 12)
    seen = view(make_run(tmp_path, "baseline", (10, 2, 0), 12, table, begun=(11, 1)))
    assert [result.fold for result in seen.results] == [0, 2, 10]
    assert seen.history is not None
    assert seen.history["fold"].unique(maintain_order=True).to_list() == [0, 1, 2, 10, 11]
    assert seen.oof is not None
    assert seen.oof["fold"].unique(maintain_order=True).to_list() == [0, 2, 10]
    assert not seen.complete


@pytest.mark.parametrize(
    ("file", "lost"),
    [
        ("run.json", "info"),
        ("recipe.json", "recipe"),
        ("fold0/result.json", "results"),
        ("fold0/history.csv", "history"),
        ("fold0/oof.parquet", "oof"),
    ],
)
@pytest.mark.parametrize(
    "content", [b"", b"\xff{[,", b'{"a": NaN}', None], ids=["empty", "bytes", "nan", "gone"]
)
def test_a_broken_file_costs_its_own_part(
    tmp_path: Path, file: str, lost: str, content: bytes | None
) -> None:
    whole = view(make_run(tmp_path / "whole", "baseline"))
    path = make_run(tmp_path / "broken", "baseline") / file
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    seen = view(tmp_path / "broken/baseline")
    if (file, content) == (
        "fold0/result.json",
        None,
    ):  # the fold is then unfinished, and nothing is wrong with it
        assert seen.problems == []
        return
    if (file, content) == ("fold0/history.csv", None):  # as before a fold's first evaluation
        assert seen.problems == []
    else:
        [problem] = seen.problems
        assert str(path) in problem
        assert "\n" not in problem
    n_left = {"info": None, "recipe": None, "results": 1, "history": 3, "oof": (whole.oof["fold"] == 1).sum()}  # type: ignore[index]
    for part in ("info", "recipe", "results", "history", "oof"):
        found = getattr(seen, part)
        if part != lost:
            assert str(found) == str(getattr(whole, part))
        elif n_left[part] is None:
            assert found is None
        else:
            assert len(found) == n_left[part]


def test_results_of_another_fold_and_mixed_first_weights_are_named(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "baseline")
    edit(folder / "fold1/result.json", fold=0)
    [problem] = view(folder).problems
    assert "fold1/result.json: is of fold 0" in problem
    edit(folder / "fold1/result.json", fold=1, first_weights={"source": "none", "name": "", "sha256": ""})
    seen = view(folder)
    assert "started from other first weights than its run" in seen.problems[0]
    assert len(seen.first_weights) == 2


def test_the_run_in_focus_is_the_best_complete_one(tmp_path: Path) -> None:
    table = oof_table()
    columns = [name for name in table.columns if name.endswith("_probability")]
    even = table.with_columns(pl.lit(1 / 6).alias(name) for name in columns)
    make_run(tmp_path, "baseline", table=table)
    make_run(tmp_path, "two-stage", table=even)
    make_run(tmp_path, "percentiles", finished=(1,), table=even)
    make_run(tmp_path, "global-norm", finished=())
    views = view_runs(tmp_path)
    assert [seen.name for seen in views] == ["baseline", "global-norm", "percentiles", "two-stage"]
    found = focus_of(views)
    assert found is not None
    assert found.name == "two-stage"
    for name in ("baseline", "percentiles"):
        wanted = focus_of(views, name)
        assert wanted is not None
        assert wanted.name == name
    with pytest.raises(UsageError, match="global-norm: no fold of it is finished"):
        focus_of(views, "global-norm")
    with pytest.raises(UsageError, match="did you mean 'baseline'"):
        focus_of(views, "basline")
    assert focus_of([seen for seen in views if seen.name == "global-norm"]) is None


ODD = (
    None,
    True,
    -1,
    1.5,
    1e308,
    10**19,
    10**400,
    "",
    "\x1b[2J\u202e",
    [],
    [[1]],
    {},
    {"a": 1},
    float("nan"),
)
"""Values that stand where others are expected."""


def deviations(content: Any, draw: random.Random) -> Iterator[Any]:
    """Copies of parsed JSON, in each of which one value is gone or has become an odd one."""
    for where in places(content):
        for value in (draw.choice(ODD), "gone"):
            changed = copy.deepcopy(content)
            inner = changed
            for key in where[:-1]:
                inner = inner[key]
            if value == "gone":
                del inner[where[-1]]
            else:
                inner[where[-1]] = value
            yield changed


def places(content: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    keys = content if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    for key in keys:
        yield (*before, key)
        yield from places(content[key], (*before, key))


def odd_tables(table: pl.DataFrame, draw: random.Random) -> Iterator[pl.DataFrame]:
    yield table.head(0)
    for name in table.columns:
        yield table.drop(name)
        for value in ([1], *draw.sample((None, -1, 0, 2**62, 1e300, float("nan"), "x"), 2)):
            yield table.with_columns(pl.Series(name, [value] * len(table)))


@pytest.mark.parametrize("name", ["run.json", "recipe.json", "fold0/result.json", "fold0/oof.parquet"])
def test_whatever_a_file_says_is_shown_or_a_sentence(tmp_path: Path, name: str) -> None:
    """All that a report and a ladder compute of it, too."""
    folder = RunFolder(forget_digests(make_run(tmp_path, "baseline")))
    path, draw, told = folder.path / name, random.Random(0), []
    if path.suffix == ".parquet":
        files = []
        for table in odd_tables(pl.read_parquet(path), draw):
            content = io.BytesIO()
            table.write_parquet(content)
            files.append(content.getvalue())
    else:
        parsed = {key: value for key, value in json.loads(path.read_text()).items() if key != "sha256"}
        files = [json.dumps(changed).encode() for changed in deviations(parsed, draw)]
    for content in files:
        path.write_bytes(content)
        view = view_run(folder)
        rows = {row.recipe: row for row in ladder(tmp_path)}
        if view.scored is not None:
            assert np.isfinite(view.score)
            assert np.isfinite(view.scored.terms_N).all()
        told.append(bool(view.problems))
        assert all("\n" not in problem for problem in view.problems)
        assert all(problem in rows["baseline"].note for problem in view.problems)
    assert sum(told) > len(told) / 3  # the others are values that a run may have


HISTORIES = (b"", b"\0" * 99, b"a,b\n", b"stage\n" + b"9" * 30, b"\xff\xfe,\n", b'"', b"stage,stage\n1,2\n")


@pytest.mark.parametrize("content", HISTORIES)
def test_a_history_that_is_none_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    folder = RunFolder(forget_digests(make_run(tmp_path, "baseline")))
    (folder.fold(0) / "history.csv").write_bytes(content)
    (problem,) = view_run(folder).problems
    assert problem.startswith(f"{folder.fold(0) / 'history.csv'}: cannot be read")
