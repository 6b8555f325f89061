"""The end marker is read back as it was written, and its line has counts where the file has names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kagglehms.kernel.marker import MARKER, Marker


def test_the_marker_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    marker = Marker(rows=3, models=["a"], rows_with_prior={"7": "why"}, bundle="d" * 64)
    marker.write(tmp_path, 1.26)
    assert Marker.read(tmp_path) == marker
    assert json.loads((tmp_path / MARKER).read_text())["status"] == "complete"
    Marker.remove(tmp_path)
    assert Marker.read(tmp_path) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"status": "complete", "rows": 1}', '"x"'])
def test_what_is_no_marker_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / MARKER).write_text(content)
    assert Marker.read(tmp_path) is None


@pytest.mark.parametrize("value", [None, True, -1.5, "x", [], [1], {}, {"a": 1}])
def test_values_of_other_types_make_no_marker(tmp_path: Path, value: object) -> None:
    Marker(rows=3).write(tmp_path, 1.0)
    content = json.loads((tmp_path / MARKER).read_text())
    read = []
    for name in content.keys() - {"status"}:
        (tmp_path / MARKER).write_text(json.dumps(content | {name: value}))
        marker = Marker.read(tmp_path)
        if marker is not None:
            read.append(name)
            marker.judge()
            assert marker.lines()
    assert len(read) < 8


def test_the_status_says_what_took_part() -> None:
    assert Marker(rows=1).status == "prior"
    assert Marker(rows=1, models=["a"]).status == "complete"
    assert Marker(rows=1, models=["a"], left_out={"b": "time"}).status == "partial"
    assert Marker(rows=1, models=["a"], problems=["b failed"]).status == "partial"


def test_the_line_counts_and_the_lines_list_only_so_many() -> None:
    marker = Marker(rows=40, models=["a"], rows_with_prior={str(i): "broken" for i in range(12)})
    assert json.loads(marker.line())["rows_with_prior"] == 12
    lines = marker.lines()
    assert len(lines) == 12
    assert lines[0] == "  row 0 keeps the prior: broken"
    assert lines[-2:] == ["  and 2 more", "finished (complete): 1 pass, 0 left out, 12 of 40 rows prior"]


@pytest.mark.parametrize(
    ("rows", "n_prior", "says"),
    [
        (0, 0, "there is no row to predict"),
        (1, 0, None),
        (1, 1, "no row was predicted, all 1 keep the prior; row 0: broken"),
        (100, 5, None),
        (100, 6, "6 of 100 rows keep the prior, more than 5%; row 0: broken"),
        (100, 100, "no row was predicted, all 100 keep the prior; row 0: broken"),
    ],
)
def test_success_is_judged_by_rows(rows: int, n_prior: int, says: str | None) -> None:
    marker = Marker(rows=rows, models=["a"], rows_with_prior={str(i): "broken" for i in range(n_prior)})
    for _ in range(2):
        marker.judge()
        assert marker.problems == ([says] if says else [])
    assert marker.status == ("partial" if says else "complete")
