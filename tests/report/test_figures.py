"""The report's figures."""

from __future__ import annotations

from kagglehms.report.figures import ladder_chart
from kagglehms.runs.ladder import Row


def test_what_has_no_published_figure_is_not_drawn_on_the_published_axis() -> None:
    rows = [
        Row("baseline", cv_all=0.9, published_cv=0.7287, published_lb=0.45, records=20_183),
        Row("percentiles", cv_all=1.4, published_cv=0.7644, records=273),  # of a simulated competition
        Row("demo", cv_all=1.3),
        Row("mel-zoom", published_lb=0.3),
    ]
    (axes,) = ladder_chart(rows).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["baseline", "percentiles", "mel-zoom"]
    drawn = {float(x) for points in axes.collections for x, _ in points.get_offsets()}
    assert drawn == {0.9, 0.7287, 0.45, 0.7644, 0.3}
