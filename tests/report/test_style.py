"""Colours with one meaning each; figures in pages: paths and pictures lose bytes and nothing else, text stays text."""

from __future__ import annotations

import base64
import io
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kagglehms.data.competition import CLASSES
from kagglehms.report.style import (
    COLOURS,
    DARK,
    LIGHT,
    PAGE,
    _indexed,
    _shortened,
    figure,
    palette_png,
    png,
    styled,
    svg,
)  # fmt: skip

POINT = st.tuples(st.floats(-2000, 2000), st.floats(-2000, 2000))


def corners(path: str) -> list[tuple[float, float]]:
    """The corners of a path of M, relative l and implicit l, read as the SVG specification says."""
    found: list[tuple[float, float]] = []
    for command, body in re.findall(r"([Ml])([^Ml]*)", path):
        numbers = [float(n) for n in re.findall(r"-?(?:\d+\.\d*|\.\d+|\d+)", body)]
        for x, y in zip(numbers[::2], numbers[1::2], strict=True):
            before = (0.0, 0.0) if command == "M" else found[-1]
            found.append((before[0] + x, before[1] + y))
    return found


@settings(deadline=None)
@given(st.lists(POINT, min_size=2, max_size=40))
def test_a_shortened_path_stays_where_it_was(points: list[tuple[float, float]]) -> None:
    path = " ".join(f"{'L' if i else 'M'} {x:.6f} {y:.6f}" for i, (x, y) in enumerate(points))
    rounded = [(round(x * 10), round(y * 10)) for x, y in points]
    expected = [rounded[0], *(p for i, p in enumerate(rounded) if i == 0 or p != rounded[i - 1])]
    found = corners(_shortened(path))
    assert len(found) == len(expected)
    np.testing.assert_allclose(np.array(found) * 10, expected, atol=1.01)
    np.testing.assert_allclose(found[-1], points[-1], atol=0.1001)


def test_gaps_of_a_path_stay_gaps_and_curves_are_left_alone() -> None:
    found = corners(_shortened("M 1 2 L 11.5 12.21 M 100 200 L 110.5 200"))
    expected = [(1, 2), (1, 2), (11.5, 12.2), (100, 200), (100, 200), (110.5, 200)]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    curve = "M 1 2 C 1 2 3 4 5 6"
    assert _shortened(curve) == curve


def test_a_recoded_picture_has_the_same_pixels() -> None:
    rng = np.random.default_rng(0)
    few = rng.integers(0, 255, (200, 3), dtype=np.uint8)[rng.integers(0, 200, (60, 80))]
    many = rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)
    for pixels in (few, many):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        data = base64.b64encode(buffer.getvalue()).decode()
        recoded = Image.open(io.BytesIO(base64.b64decode(_indexed(data))))
        np.testing.assert_array_equal(np.asarray(recoded.convert("RGB")), pixels)
    assert len(_indexed(base64.b64encode(buffer.getvalue()).decode())) == len(data)


def test_a_figure_is_an_element_whose_text_is_text_and_whose_ink_is_the_pages() -> None:
    with styled(PAGE):
        drawn = figure(3, 2)
        axes = drawn.add_subplot()
        axes.set_title("<b>$x_1$ & y</b>")
        axes.plot(np.arange(300), np.sin(np.arange(300)), color=PAGE.ink)
    made = svg(drawn, 'a "label" <i>')
    assert made.startswith('<svg class="figure" role="img" aria-label="a &quot;label&quot; &lt;i&gt;"')
    assert "&lt;b&gt;$x_1$ &amp; y&lt;/b&gt;" in made
    assert "var(--ink)" in made
    assert PAGE.ink not in made
    assert "<b>" not in made
    assert not re.search(r'<g id="', made)


def test_a_png_is_on_white_paper() -> None:
    with Image.open(io.BytesIO(png(figure(2, 1), dpi=50))) as image:
        assert image.size == (100, 50)
        assert set(np.asarray(image.convert("RGB")).ravel().tolist()) == {255}


def test_a_palette_holds_values_at_its_ends_and_shows_gaps_in_grey() -> None:
    values = np.array([[-9.0, 0.0, 0.5, 1.0, 9.0, np.nan]])
    with Image.open(io.BytesIO(palette_png(values, 0, 1))) as image:
        assert np.asarray(image).tolist() == [[0, 0, 127, 254, 254, 255]]
        rgb = np.asarray(image.convert("RGB"))[0]
    assert rgb[5].tolist() == [138, 143, 152]
    assert rgb[0].sum() < rgb[2].sum() < rgb[3].sum()


PROTAN, DEUTAN, TRITAN = (
    ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
)
"""How dichromats see linear RGB; Machado, Oliveira and Fernandes 2009, severity 1."""
XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
"""Linear sRGB → CIE XYZ."""


def linear(colour: str) -> np.ndarray:
    """(3,) linear RGB of a colour such as #3d85c6."""
    srgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear RGB under D65."""
    x, y, z = np.cbrt(np.array(XYZ) @ np.clip(rgb, 0.01, 1) / (0.9505, 1, 1.089))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(one: str, other: str) -> float:
    """WCAG's ratio of two colours' luminances."""
    low, high = sorted(float(np.array(XYZ[1]) @ linear(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(
    "sight", [np.eye(3), PROTAN, DEUTAN, TRITAN], ids=["all", "protan", "deutan", "tritan"]
)
def test_colours_of_one_figure_can_be_told_apart_by_everybody(sight: Any) -> None:
    seen = {name: lab(np.array(sight) @ linear(colour)) for name, colour in COLOURS.items()}
    pairs = [*combinations(CLASSES, 2), ("left", "right")]
    assert [pair for pair in pairs if np.linalg.norm(seen[pair[0]] - seen[pair[1]]) < 20] == []
    for theme in (LIGHT, DARK):
        votes = lab(np.array(sight) @ linear(theme.soft))
        assert np.linalg.norm(seen["model"] - votes) > 15


def test_no_two_meanings_look_alike_and_all_stand_out_from_the_page() -> None:
    seen = {name: lab(linear(colour)) for name, colour in COLOURS.items() if name != "missing"}
    alike = [pair for pair in combinations(seen, 2) if np.linalg.norm(seen[pair[0]] - seen[pair[1]]) < 20]
    assert alike == []
    for theme in (LIGHT, DARK):
        for ground in (theme.paper, theme.card):
            assert min(contrast(ink, ground) for ink in (theme.ink, theme.soft)) >= 4.5
            assert min(contrast(COLOURS[name], ground) for name in ("left", "right", "model")) >= 3
            assert min(contrast(COLOURS[name], ground) for name in CLASSES[:5]) >= 2.5


def test_no_colour_is_used_that_has_no_meaning() -> None:
    root = Path(__file__).resolve().parents[2]
    sources = [
        p for p in (root / "kagglehms/report").rglob("*.*") if p.suffix in (".py", ".css", ".js", ".html")
    ]
    sources += (root / "benchmarks").glob("*picture*.py")
    assert len(sources) > 20
    literal = re.compile(
        r"#[0-9a-f]{6}\b|#[0-9a-f]{3}\b|\brgba?\(|\bhsla?\(|\btab:|color=\"(?!none)[a-z]", re.IGNORECASE
    )
    used = {p.name: literal.findall(p.read_text(encoding="utf-8")) for p in sources if p.name != "style.py"}
    assert {name: found for name, found in used.items() if found} == {}
