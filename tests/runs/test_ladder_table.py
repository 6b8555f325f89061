"""The ladder as text: everything that it knows in CSV and JSON, what fits a terminal in the terminal."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest

from kagglehms.inputs.kinds import describe
from kagglehms.runs.ladder import Row, ladder
from kagglehms.runs.ladder_table import render
from kagglehms.training.recipes import RECIPES

TRAINED = Row(
    "baseline",
    cv_all=0.98744,
    cv_votes10=0.87521,
    cv_settled=0.9,
    folds="5/5",
    records=20183,
    data="abcdef",
    epochs=6,
    backbone="efficientnet_b2",
    seconds_per_fold=1234.5,
    hardware="NVIDIA H100 80GB HBM3 in bfloat16, which this architecture computes natively",
    published_cv=0.7287,
    published_lb=0.45,
    prior_all=1.2798,
    prior_votes10=0.8494,
    uniform_all=1.4535,
    uniform_votes10=1.1378,
)


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    """Every recipe and ensemble, the first of them trained, with all that can be known of a run."""
    own = replace(TRAINED, recipe="my-own-recipe-with-a-name-that-is-longer-than-others", note="x " * 120)
    whole = replace(
        TRAINED, recovered=-0.1234, recovered_votes10=1.0, folds="10/10", note="quick pass: other lr"
    )
    return [whole, own, *ladder(tmp_path)[1:]]


def test_the_table_fits_a_hundred_columns(rows: list[Row]) -> None:
    for shown in (rows, rows[2:], [TRAINED], [replace(row, cv_all=10.1234, prior_all=11.5) for row in rows]):
        text = render(shown)
        assert max(map(len, text.splitlines())) <= 100
        for row in shown:
            assert any(line.split()[:1] == [row.recipe] for line in text.splitlines())


def test_every_recipe_is_followed_by_what_it_is(tmp_path: Path) -> None:
    lines = render(ladder(tmp_path)).splitlines()
    for name, recipe in RECIPES.items():
        (at,) = (number for number, line in enumerate(lines) if line.split()[:1] == [name])
        below = lines[at + 1] if len(name) <= 22 else lines[at + 2]
        assert below.startswith(
            f"  {describe(recipe.layout)}; {recipe.network}; loss {recipe.stages[0].loss}"[:90]
        )


def test_scores_stand_beside_what_knowing_nothing_scores(rows: list[Row]) -> None:
    line = next(line for line in render([TRAINED, *rows[2:]]).splitlines() if line.startswith("baseline"))
    expected = ["0.9874", "0.8752", "1.2798", "0.8494", "1.4535", "1.1378", "5/5", "0.7287", "0.45"]
    assert line.split() == ["baseline", *expected]
    head, below = render([TRAINED]).splitlines()[:2]
    assert head.split() == ["ours", "class", "prior", "uniform", "published"]
    assert [
        below.index("all", head.index(group)) - head.index(group) for group in ("ours", "class", "uniform")
    ] == [3, 3, 3]
    assert below.split() == ["all", "many", "all", "many", "all", "many", "fold", "CV", "LB"]


def test_notes_stand_below_and_equal_ones_once() -> None:
    noted = [
        replace(TRAINED, recipe=name, note=note) for name, note in (("a", "one"), ("b", "two"), ("c", "one"))
    ]
    lines = render(noted).splitlines()
    assert [line.split()[-1] for line in lines if line[:1] in {"a", "b", "c"} and "*" in line] == [
        "*1",
        "*2",
        "*1",
    ]
    assert lines[-2:] == ["*1 one", "*2 two"]


def test_formats_agree(rows: list[Row]) -> None:
    parsed = list(csv.DictReader(io.StringIO(render(rows, "csv"))))
    assert [line["recipe"] for line in parsed] == [row.recipe for row in rows]
    assert float(parsed[0]["cv_all"]) == TRAINED.cv_all
    assert parsed[2]["cv_all"] == ""
    assert json.loads(render(rows, "json")) == [asdict(row) for row in rows]
    markdown = render(rows, "markdown").splitlines()
    assert len(markdown) == len(rows) + 2
    assert len({line.count("|") for line in markdown}) == 1
    assert "| 0.9874 " in markdown[2]
    assert "| -12.3 % " in markdown[2]
    assert "0.6355" in next(line for line in markdown if "| global-norm " in line)


def test_columns_that_programs_read_keep_their_names() -> None:
    before = [
        "recipe", "cv_all", "cv_votes10", "cv_settled", "recovered", "recovered_votes10", "folds", "records", "data",
        "epochs", "backbone", "seconds_per_fold", "hardware", "published_cv", "published_lb", "note",
    ]  # fmt: skip
    assert [field.name for field in fields(Row)][: len(before)] == before


def test_nothing_trained_is_said(tmp_path: Path) -> None:
    text = render(ladder(tmp_path))
    assert "nothing is trained here yet" in text
    assert len(
        [line for line in text.splitlines() if line.split()[:1] and line.split()[0] in RECIPES]
    ) == len(RECIPES)
