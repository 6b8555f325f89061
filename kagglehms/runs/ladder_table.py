"""The ladder's rows as text: for a terminal, as Markdown, CSV or JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from typing import Any, Literal

from kagglehms.inputs.kinds import describe
from kagglehms.runs.ladder import Row
from kagglehms.training.recipes import RECIPES

Format = Literal["table", "markdown", "csv", "json"]

WIDTH = 100
"""Columns of a terminal that the table fits into."""
_MARK = 4
"""Columns of the mark of a note, with the space before it."""
_NAME = 22
"""Columns of a name; the numbers of one that is longer stand in the line below it."""


_COLUMNS = {
    "cv_all": ("ours", "all"),
    "cv_votes10": ("ours", "many"),
    "prior_all": ("class prior", "all"),
    "prior_votes10": ("class prior", "many"),
    "uniform_all": ("uniform", "all"),
    "uniform_votes10": ("uniform", "many"),
    "recovered": ("way to truth", "all"),
    "recovered_votes10": ("way to truth", "many"),
    "folds": ("", "fold"),
    "published_cv": ("published", "CV"),
    "published_lb": ("published", "LB"),
}
"""Columns of the terminal's table: the row's field → the group that stands above its neighbours too, and its head."""
_LEFT_OUT_FIRST = ("folds", "published_lb", "published_cv", "recovered_votes10", "recovered")
"""Fields that a table which would be too wide does without, one after the other."""
_DIGITS = {"published_lb": 2, "seconds_per_fold": 0}
"""Digits after the decimal point of fields that have not four."""
_EXPLAINED = " `kagglehms recipes` shows their stages too."
_LEGEND_UNTRAINED = (
    f"KL divergence, lower is better, on the source's records; nothing is trained here yet.{_EXPLAINED}"
)
_LEGEND = (
    "KL divergence, lower is better, on all records and on those with many (≥ 10) votes; class prior: what the class "
    "means of the same records score. Published CV is on the source's records. `--format csv` has everything."
    f"{_EXPLAINED}"
)


def render(rows: Sequence[Row], form: Format = "table") -> str:
    """Return the table as text for a terminal, as Markdown, or, unrounded, as CSV with a header or as JSON.

    For a terminal it has the scores and what they are compared with, in at most `WIDTH` columns, and notes below;
    the other forms have everything.
    """
    if form == "table":
        return _for_terminal(rows)
    if form == "markdown":
        return _markdown(rows)
    content = [asdict(row) for row in rows]
    if form == "json":
        return json.dumps(content, indent=1) + "\n"
    import polars as pl

    return pl.DataFrame(content, infer_schema_length=None).write_csv()


def _markdown(rows: Sequence[Row]) -> str:
    names = _filled([field.name for field in fields(Row)], rows)
    lines = [[name.replace("_", " ") for name in names]]
    lines += [[_text(name, getattr(row, name), " %") for name in names] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "".join(f"| {' | '.join(map(str.ljust, line, widths))} |\n" for line in lines)


def _for_terminal(rows: Sequence[Row]) -> str:
    shown = _filled(_COLUMNS, rows)
    for name in _LEFT_OUT_FIRST:
        if _NAME + sum(width + 1 for width in _widths(rows, shown)) + _MARK <= WIDTH:
            break
        shown = [other for other in shown if other != name]
    widths = _widths(rows, shown)
    marks = {note: f"*{n}" for n, note in enumerate(dict.fromkeys(row.note for row in rows if row.note), 1)}
    lines = [_groups(shown, widths), _line("", [_COLUMNS[name][1] for name in shown], widths)]
    for row in rows:
        cells = [_text(name, getattr(row, name)) for name in shown]
        fits = len(row.recipe) <= _NAME
        if not fits:
            lines.append(row.recipe)
        mark = marks.get(row.note, "")
        lines.append(_line(row.recipe if fits else "", [*cells, mark], [*widths, 0]))
        lines += _described(row)
    trained = any(row.cv_all is not None for row in rows)
    notes = [textwrap.fill(_LEGEND if trained else _LEGEND_UNTRAINED, WIDTH)]
    for note, mark in marks.items():
        notes.append(textwrap.fill(f"{mark} {note}", WIDTH, subsequent_indent="   ", break_on_hyphens=False))
    return "\n".join([*lines, "", *notes]) + "\n"


def _described(row: Row) -> list[str]:
    """Return the line that says what a recipe is; none for ensembles and runs of other recipes, whose notes do."""
    recipe = RECIPES.get(row.recipe)
    if recipe is None:
        return []
    losses = ", then ".join(dict.fromkeys(stage.loss for stage in recipe.stages))
    text = f"{describe(recipe.layout)}; {recipe.network}; loss {losses}"
    return [f"  {textwrap.shorten(text, WIDTH - 2, placeholder=' …')}"]


def _filled(names: Iterable[str], rows: Sequence[Row]) -> list[str]:
    """Return the fields that any row has a value of."""
    return [name for name in names if any(getattr(row, name) not in {None, ""} for row in rows)]


def _widths(rows: Sequence[Row], shown: Sequence[str]) -> list[int]:
    return [
        max(len(_COLUMNS[name][1]), *(len(_text(name, getattr(row, name))) for row in rows)) for name in shown
    ]


def _line(name: str, cells: Sequence[str], widths: Sequence[int]) -> str:
    return " ".join([name.ljust(_NAME), *map(str.rjust, cells, widths)]).rstrip()


def _groups(shown: Sequence[str], widths: Sequence[int]) -> str:
    """Return the upper line of the head: each group's name above its columns."""
    line, left, before = "", _NAME + 1, ""
    for name, width in zip(shown, widths, strict=True):
        group, _ = _COLUMNS[name]
        if group and group != before:
            line = line.ljust(left) + group
        left, before = left + width + 1, group
    return line


def _text(name: str, value: Any, percent: str = "%") -> str:
    if value is None or value == "":
        return "–"
    if name.startswith("recovered"):
        return f"{100 * value:.1f}{percent}"
    return f"{value:.{_DIGITS.get(name, 4)}f}" if isinstance(value, float) else str(value)
