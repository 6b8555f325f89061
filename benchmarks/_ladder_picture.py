"""How far each recipe of `ladder_on_simulated.py` comes, as a picture."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

import _pictures
from _ladder_report import Results, scores, ways
from PIL import Image

from kagglehms.report.style import LIGHT, MODEL

DPI = 110
TITLES = ("all records", "ten and more votes")


def draw(results: Results, path: Path) -> None:
    """Draw a line for each recipe and ensemble, the best above; a dot is a seed, a hollow one of an ensemble."""
    _pictures.save(_pictures.rendered(picture(results), DPI), path, 64, Image.Quantize.MEDIANCUT)


def picture(results: Results) -> Any:
    """Return matplotlib's figure of `draw`."""
    from matplotlib import pyplot as plt
    from matplotlib.ticker import PercentFormatter

    found = ways(scores(results))
    names = sorted(results.predictions, key=lambda name: mean(row[0] for row in found[name]))
    size = (9, 1 + 0.24 * len(names))
    figure, axes = plt.subplots(1, 2, figsize=size, layout="constrained", sharey=True)
    for k, (axis, title) in enumerate(zip(axes, TITLES, strict=True)):
        floor = found["electrodes' energy"][0][k]
        axis.axvline(floor, color=LIGHT.soft, lw=1, ls=":")
        for row, name in enumerate(names):
            of_seed = [seed[k] for seed in found[name]]
            axis.plot([min(of_seed), max(of_seed)], [row, row], color=MODEL, lw=1)
            face = LIGHT.paper if name in results.blends else MODEL
            axis.plot(of_seed, [row] * len(of_seed), "o", ms=5, color=MODEL, mfc=face)
        axis.set(title=title, yticks=range(len(names)), yticklabels=names)
        axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.grid(axis="x", color=LIGHT.rule, lw=0.6)
        axis.set_axisbelow(True)
        axis.spines[["left", "right", "top"]].set_visible(False)
    figure.supxlabel(
        "way from the class prior to the perfect predictor; dotted: the electrodes' energy", fontsize=9
    )
    return figure
