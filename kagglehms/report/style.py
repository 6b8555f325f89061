"""The style of pages and pictures: every colour with its one meaning, and figures as inline SVG or as PNG.

Figures are drawn with matplotlib's objects and the Agg and SVG canvases; pyplot and its global state are not used.
Text and rules are drawn in colours that stand for CSS variables, which the page sets by `prefers-color-scheme`; so a
figure follows the reader's preference without being drawn twice.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from kagglehms.console import visible

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "seizure": "#c728ad", "lpd": "#e08218", "gpd": "#905f2c", "lrda": "#437869", "grda": "#1db670",
    "other": "#b1b5bb", "left": "#3d85c6", "right": "#d1534f", "model": "#7b5ee6", "labelled": "#d9a800",
    "missing": "#8a8f98", "mark": "#ffffff",
}  # fmt: skip
"""Each colour and the one thing that it stands for: a class, a hemisphere, what models trained here say, the labelled
seconds, nothing recorded, marks on an image. They are the same on light and dark pages, and readers who are blind to
red, green or blue can tell classes apart. Whatever models are compared with (votes, published figures, training) has
the colour of soft text; what belongs to no hemisphere has that of ink."""
MODEL = COLOURS["model"]
MARKERS = "osD^vPX*"
"""One marker for each fold or run."""
COLOUR_MAP = "magma"
SMALLEST_PT = 8.25
"""Size of the smallest text: 11 CSS pixels."""
_PX_PER_PT = 4 / 3


@dataclass(frozen=True)
class Theme:
    """Colours that depend on whether the page is light or dark.

    Attributes:
        ink: colour of text.
        soft: colour of less important text, and of what models are compared with.
        rule: colour of rules.
        paper: colour of the page.
        card: colour of boxes on the page.
    """

    ink: str
    soft: str
    rule: str
    paper: str
    card: str


LIGHT = Theme("#1c2128", "#5b636e", "#d5dae1", "#fcfcfd", "#ffffff")
DARK = Theme("#e6e9ed", "#9aa4b0", "#333a43", "#14171b", "#1b1f24")
PAGE = Theme("#010203", "#010204", "#010205", "#010206", "#010207")
"""Colours that stand for the page's CSS variables, see `svg`."""
_VARIABLES = {getattr(PAGE, field.name): f"var(--{field.name})" for field in fields(Theme)}


def figure(width_in: float, height_in: float, theme: Theme = PAGE) -> Figure:
    """Make an empty figure; its size is in inches of 72 points."""
    from matplotlib.figure import Figure

    with styled(theme):
        return Figure(figsize=(width_in, height_in), layout="constrained")


@contextmanager
def styled(theme: Theme) -> Iterator[None]:
    """Draw in the project's style, whatever the user's own matplotlibrc says."""
    import matplotlib as mpl

    style: dict[Any, Any] = {
        "font.family": "sans-serif", "font.size": 9, "text.color": theme.ink, "axes.labelcolor": theme.soft,
        "axes.edgecolor": theme.rule, "axes.titlesize": 9.5, "axes.titlelocation": "left", "axes.titleweight": "bold",
        "axes.titlecolor": theme.ink, "axes.spines.top": False, "axes.spines.right": False, "axes.facecolor": "none",
        "axes.labelsize": 8.5, "xtick.labelsize": SMALLEST_PT, "ytick.labelsize": SMALLEST_PT,
        "xtick.color": theme.rule, "ytick.color": theme.rule, "xtick.labelcolor": theme.soft,
        "ytick.labelcolor": theme.soft,
        "grid.color": theme.rule, "grid.linewidth": 0.6, "legend.frameon": False, "legend.fontsize": SMALLEST_PT,
        "legend.labelcolor": theme.ink, "lines.linewidth": 1.4, "figure.facecolor": "none", "svg.fonttype": "none",
        "svg.hashsalt": "kagglehms", "text.parse_math": False,
        "path.simplify": True, "path.simplify_threshold": 0.2, "image.cmap": COLOUR_MAP,
        "figure.constrained_layout.h_pad": 0.03, "figure.constrained_layout.w_pad": 0.03,
    }  # fmt: skip
    with mpl.rc_context(), _quiet_font_cache():
        mpl.rcdefaults()
        mpl.rcParams.update(style)
        yield


@contextmanager
def _quiet_font_cache() -> Iterator[None]:
    """Keep matplotlib from logging that it builds its list of fonts, as it does on its first use on a machine."""
    import logging

    logger = logging.getLogger("matplotlib.font_manager")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def svg(drawn: Figure, label: str) -> Markup:
    """Return a figure as an inline `<svg>` element; text stays text, colours follow the page.

    It grows with the place that it is given and never shrinks, so that its text stays large enough to read.

    Args:
        drawn: the figure.
        label: description of the figure for readers who cannot see it.
    """
    from markupsafe import Markup
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    canvas: Any = FigureCanvasSVG(drawn)
    with styled(PAGE):  # savefig would draw all of it twice, and half of a report's time is drawing
        canvas.print_svg(buffer, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # ids such as axes_1, which several figures would share
    text = re.sub(r'(?<= d=")[^"]{400,}(?=")', lambda path: _shortened(path[0]), text)
    text = re.sub(r"(?<=data:image/png;base64,)[^\"]+", lambda data: _indexed(data[0]), text)
    text = re.sub(r"font: ((?:italic |bold |\d{3} )*[\d.]+px) [^;\"]+", r"font: \1 var(--sans)", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    width, height = (float(drawn.get_size_inches()[i]) * 72 for i in (0, 1))
    px = width * _PX_PER_PT
    opening = (
        f'<svg class="figure" role="img" aria-label="{html.escape(visible(label))}" viewBox="0 0 {width:g} {height:g}"'
        f' style="min-width:{px:.0f}px;max-width:{1.25 * px:.0f}px" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return Markup(opening + text[text.index(">") + 1 :].rstrip() + "\n")


def _shortened(path: str) -> str:
    """Rewrite a long line of an SVG path in steps of a tenth of a point, each relative to the one before."""
    if re.search(r"[A-KN-Za-z]", path):
        return path  # curves are short already
    shortened: list[str] = []
    x = y = 0
    for command, px, py in re.findall(r"([ML]) (-?[\d.]+) (-?[\d.]+)", path):
        to_x, to_y = round(float(px) * 10), round(float(py) * 10)
        if command == "M":
            shortened.append(f"M{to_x / 10:g} {to_y / 10:g}l0 0 ")
        elif (to_x, to_y) != (x, y):
            shortened.append(f"{(to_x - x) / 10:g} {(to_y - y) / 10:g} ")
        x, y = to_x, to_y
    return re.sub(r"(?<!\d)0\.", ".", "".join(shortened)).replace(" -", "-").rstrip()


def _indexed(data: str) -> str:
    """Recode a base64 PNG with a palette if it has at most 256 colours, as drawn images have."""
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        rgba = np.asarray(image.convert("RGBA"))
    packed = np.ascontiguousarray(rgba).view(np.uint32)[..., 0]
    colours, index = np.unique(packed, return_inverse=True)
    if len(colours) > 256 or (rgba[..., 3] != 255).any():
        return data
    recoded = Image.fromarray(index.reshape(packed.shape).astype(np.uint8))
    recoded.putpalette(colours.view(np.uint8).reshape(-1, 4)[:, :3].ravel().tolist())
    buffer = io.BytesIO()
    recoded.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def png(drawn: Figure, dpi: int = 130) -> bytes:
    """Return a figure as a PNG on white paper."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(drawn)
    buffer = io.BytesIO()
    with styled(LIGHT):
        drawn.savefig(buffer, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
    return _few_colours(buffer.getvalue())


def _few_colours(content: bytes) -> bytes:
    """Reduce a PNG to a palette of 256 colours: a third of the bytes, and no visible change of lines and bars."""
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(io.BytesIO(content)) as image:
        image.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def tidy(axes: Axes, grid: str = "y") -> None:
    """Give axes a grid along one direction, and no ticks."""
    axes.grid(axis=grid, zorder=0)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.tick_params(length=0)


def palette_png(values_HW: Any, low: float, high: float) -> bytes:
    """Return an image as a PNG with the project's palette; values are clipped to `low` … `high`, NaN is `missing`.

    Args:
        values_HW: (H, W) numbers; the first row is at the top.
        low: value that gets the palette's first colour.
        high: value that gets the palette's last colour.
    """
    import numpy as np
    from matplotlib import colormaps
    from PIL import Image

    values = np.asarray(values_HW, dtype=np.float32)
    scaled = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
    index = np.where(np.isnan(scaled), 255, np.nan_to_num(scaled) * 254).astype(np.uint8)
    colours = (colormaps[COLOUR_MAP](np.linspace(0, 1, 255))[:, :3] * 255).round().astype(np.uint8)
    image = Image.fromarray(index)
    image.putpalette([*colours.ravel().tolist(), *bytes.fromhex(COLOURS["missing"][1:])])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
