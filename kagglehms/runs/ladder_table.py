"""The ladder's rows as text: for a terminal, as Markdown, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from kagglehms.runs.ladder import Row

Format = Literal["table", "markdown", "csv", "json"]

WIDTH = 100
"""Columns of a terminal that the table fits into."""
_MARK = 4
"""Columns of the mark of a note, with the space before it."""
_NAME = 22
"""Columns of a name; the numbers of one that is longer stand in the line below it."""


@dataclass(frozen=True)
class _Column:
    """One column of the terminal's table.

    Attributes:
        group: what stands above it and its neighbours.
        head: what stands right above it.
        name: of the row's field.
        digits: behind the decimal point; None for text.
    """

    group: str
    head: str
    name: str
    digits: int | None = None


_COLUMNS = (
    _Column("ours", "all", "cv_all", 4),
    _Column("ours", "many", "cv_votes10", 4),
    _Column("class prior", "all", "prior_all", 4),
    _Column("class prior", "many", "prior_votes10", 4),
    _Column("uniform", "all", "uniform_all", 4),
    _Column("uniform", "many", "uniform_votes10", 4),
    _Column("way to truth", "all", "recovered"),
    _Column("way to truth", "many", "recovered_votes10"),
    _Column("", "fold", "folds"),
    _Column("published", "CV", "published_cv", 4),
    _Column("published", "LB", "published_lb", 2),
)


def render(rows: Sequence[Row], form: Format = "table") -> str:
    """Return the table as text for a terminal, as Markdown, or, unrounded, as CSV with a header or as JSON.

    For a terminal it has the scores and what they are compared with, in at most `WIDTH` columns, and notes below;
    the other forms have everything.
    """
    if form == "table":
        return _for_terminal(rows)
    names = [field.name for field in fields(Row)]
    if form == "json":
        return json.dumps([asdict(row) for row in rows], indent=1) + "\n"
    if form == "csv":
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([["" if (v := getattr(row, n)) is None else v for n in names] for row in rows])
        return out.getvalue()
    shown = [name for name in names if any(getattr(row, name) not in {None, ""} for row in rows)]
    lines = [
        [name.replace("_", " ") for name in shown],
        *([_cell(name, getattr(row, name)) for name in shown] for row in rows),
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(shown))]
    lines.insert(1, ["-" * width for width in widths])
    return "".join(
        f"| {' | '.join(text.ljust(width) for text, width in zip(line, widths, strict=True))} |\n"
        for line in lines
    )


_LEFT_OUT_FIRST = ("folds", "published_lb", "published_cv", "recovered_votes10", "recovered")
"""Fields that a table which would be too wide does without, one after the other."""


def _for_terminal(rows: Sequence[Row]) -> str:
    shown = [c for c in _COLUMNS if any(getattr(row, c.name) not in {None, ""} for row in rows)]
    for name in _LEFT_OUT_FIRST:
        if _NAME + sum(width + 1 for width in _widths(rows, shown)) + _MARK <= WIDTH:
            break
        shown = [c for c in shown if c.name != name]
    widths = _widths(rows, shown)
    cells = [[_number(getattr(row, c.name), c) for c in shown] for row in rows]
    notes: list[str] = []
    lines = [_groups(shown, widths), _line("", [c.head for c in shown], widths)]
    for row, numbers in zip(rows, cells, strict=True):
        mark = ""
        if row.note:
            if row.note not in notes:
                notes.append(row.note)
            mark = f"*{notes.index(row.note) + 1}"
        name = row.recipe
        if len(name) > _NAME:
            lines.append(name)
            name = ""
        lines.append(_line(name, [*numbers, mark], [*widths, 0]))
    trained = any(row.cv_all is not None for row in rows)
    told = [textwrap.fill(_LEGEND if trained else _LEGEND_UNTRAINED, WIDTH)]
    for number, note in enumerate(notes, 1):
        told.append(
            textwrap.fill(f"*{number} {note}", WIDTH, subsequent_indent="   ", break_on_hyphens=False)
        )
    return "\n".join([*lines, "", *told]) + "\n"


_LEGEND_UNTRAINED = "KL divergence, lower is better, on the source's records; nothing is trained here yet."
_LEGEND = (
    "KL divergence, lower is better, on all records and on those with many (≥ 10) votes; class prior: what the class "
    "means of the same records score. Published CV is on the source's records. `--format csv` has everything."
)


def _widths(rows: Sequence[Row], shown: Sequence[_Column]) -> list[int]:
    return [max(len(c.head), *(len(_number(getattr(row, c.name), c)) for row in rows)) for c in shown]


def _line(name: str, cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
    return " ".join([name.ljust(_NAME), *padded]).rstrip()


def _groups(shown: Sequence[_Column], widths: Sequence[int]) -> str:
    """The upper line of the head: each group's name above its columns."""
    line, left = "", _NAME + 1
    for i, (column, width) in enumerate(zip(shown, widths, strict=True)):
        if column.group and (i == 0 or shown[i - 1].group != column.group):
            line = line.ljust(left) + column.group
        left += width + 1
    return line


def _number(value: Any, column: _Column) -> str:
    if value is None or value == "":
        return "–"
    if column.name.startswith("recovered"):
        return f"{100 * value:.1f}%"
    return f"{value:.{column.digits}f}" if column.digits is not None else str(value)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if name.startswith("recovered"):
        return f"{100 * value:.1f} %"
    if name == "seconds_per_fold":
        return f"{value:.0f}"
    if name == "published_lb":
        return f"{value:.2f}"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
