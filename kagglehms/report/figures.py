"""The report's figures. Each function returns one figure that fits a phone, so that a page can show them side by side
or one below the other.

What models say has a colour of its own; whatever they are compared with is grey, as is their training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import CLASSES
from kagglehms.report.drawing import CLASS_NAMES
from kagglehms.report.style import MARKERS, MODEL, PAGE, SMALLEST_PT, figure, styled, tidy
from kagglehms.runs.blends import Blend
from kagglehms.runs.ladder import Row
from kagglehms.runs.published_figures import N_RECORDS
from kagglehms.runs.statistics import Calibration, Group

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

SMALL = (3.3, 2.5)
"""Width and height in inches; the width is 317 CSS pixels, for which every phone has room."""


def ladder_chart(rows: Sequence[Row]) -> Figure:
    """Draw the scores of each recipe that has a published figure: out of fold, ours and the published, and leaderboard.

    Other recipes have nothing on this axis to be compared with, nor have runs on other records than the published ones.
    """
    rows = [row for row in rows if row.published_cv is not None or row.published_lb is not None]
    drawn = figure(SMALL[0], 1.2 + 0.2 * len(rows))
    with styled(PAGE):
        axes = drawn.add_subplot()
        at = np.arange(len(rows))
        ours = [row.cv_all if row.records == N_RECORDS else None for row in rows]
        hollow = {"facecolors": "none", "edgecolors": PAGE.soft}
        kinds = (
            ("published leaderboard", [r.published_lb for r in rows], {"marker": "|", "color": PAGE.soft}),
            ("published, out of fold", [r.published_cv for r in rows], hollow),
            ("ours, out of fold", ours, {"color": MODEL}),
        )
        for row, own, y in zip(rows, ours, at, strict=True):
            if own is not None and row.published_cv is not None:
                axes.plot([row.published_cv, own], [y, y], color=PAGE.rule, linewidth=1.5, zorder=1)
        for label, values, look in kinds:
            points = [(value, y) for value, y in zip(values, at, strict=True) if value is not None]
            if points:
                xs, ys = zip(*points, strict=True)
                axes.scatter(xs, ys, 34, linewidths=1.5, label=label, zorder=3, **look)  # type: ignore[arg-type]
        axes.set_yticks(at, [row.recipe for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel("KL divergence, lower is better")
        tidy(axes, "both")
        axes.spines["left"].set_visible(False)
        drawn.legend(loc="outside upper left", handletextpad=0.3)
    return drawn


def learning_curves(history: pl.DataFrame) -> Figure:
    """Draw each fold over epochs, with warm-ups shaded and stages separated.

    The held-out score and, on the same axis and dashed, the KL divergence in training, whose distance shows
    over-fitting; the training loss below, on a scale of its own.
    """
    drawn = figure(*SMALL)
    with styled(PAGE):
        score, loss = drawn.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        folds = history["fold"].unique().sort().to_list()
        for number, fold in enumerate(folds):
            table = history.filter(history["fold"] == fold).sort("epoch")
            look: dict[str, Any] = {"marker": MARKERS[number % len(MARKERS)], "markersize": 3.5}
            score.plot(table["epoch"], table["score_all"], color=MODEL, label=f"fold {fold}", **look)
            look |= {"color": PAGE.soft, "linewidth": 1, "linestyle": "--", "markerfacecolor": "none"}
            (training,) = score.plot(table["epoch"], table["train_kl"], **look)
            loss.plot(table["epoch"], table["train_loss"], **look)
        training.set_label("training")
        for axes in (score, loss):
            _mark_stages(axes, history)
            tidy(axes)
        score.set_ylabel("KL divergence")
        loss.set_ylabel("training loss")
        loss.set_xlabel("epoch")
        loss.set_xlim(left=0)
        drawn.legend(
            loc="outside upper right", ncols=4, handlelength=1.2, handletextpad=0.4, columnspacing=0.8
        )
    return drawn


def _mark_stages(axes, history: pl.DataFrame) -> None:  # type: ignore[no-untyped-def]
    """Shade warm-ups, and draw a line where a new stage begins."""
    import polars as pl

    begin = 0.0
    for (_,), stage in history.sort("stage").group_by("stage", maintain_order=True):
        if begin:
            axes.axvline(begin, color=PAGE.soft, linewidth=1, linestyle=":")
        warm = stage.filter(pl.col("warm_up"))["epoch"].max()
        if warm is not None:
            axes.axvspan(begin, float(warm), color=PAGE.rule, alpha=0.4, linewidth=0)  # type: ignore[arg-type]
        begin = float(stage["epoch"].max())  # type: ignore[arg-type]


def group_scores(groups: dict[str, list[Group]]) -> Figure:
    """Draw the scores of the same groups of records in several runs, with twice their standard error.

    Args:
        groups: groups by name of the run; the markers of the first are filled.
    """
    labels = list(dict.fromkeys(group.label for run in groups.values() for group in run))
    drawn = figure(SMALL[0], max(1.5, 0.75 + (0.16 + 0.11 * len(groups)) * len(labels)))
    with styled(PAGE):
        axes = drawn.add_subplot()
        step = 0.7 / max(len(groups), 1)
        for number, (run, members) in enumerate(groups.items()):
            y = [labels.index(g.label) - 0.35 + step * (number + 0.5) for g in members]
            errors = [2 * g.error if g.error is not None else 0.0 for g in members]
            axes.errorbar(
                [g.score for g in members], y, xerr=errors, fmt=MARKERS[number % len(MARKERS)], markersize=4.5,
                color=MODEL, markerfacecolor="none" if number else MODEL, elinewidth=1, label=run,
            )  # fmt: skip
        axes.set_yticks(range(len(labels)), [CLASS_NAMES.get(label, label) for label in labels])
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.set_xlabel("KL divergence ± 2 standard errors")
        tidy(axes, "x")
        if len(groups) > 1:
            drawn.legend(loc="outside upper left", ncols=2, handletextpad=0.2, columnspacing=0.8)
    return drawn


def confusion_figure(counts_KK: NDArray[np.int64]) -> Figure:
    """Draw records by the class with the most votes and the most probable class; colour is the share of the row."""
    from matplotlib.colors import to_rgb

    drawn = figure(SMALL[0], 3.0)
    with styled(PAGE):
        axes = drawn.add_subplot()
        shares_KK = counts_KK / np.maximum(counts_KK.sum(axis=1, keepdims=True), 1)
        cells = np.zeros((*counts_KK.shape, 4))
        cells[..., :3] = to_rgb(MODEL)
        cells[..., 3] = 0.6 * shares_KK
        axes.imshow(cells, aspect="auto", interpolation="nearest")
        for (row, column), count in np.ndenumerate(counts_KK):
            colour = PAGE.ink if count else PAGE.soft
            axes.text(column, row, f"{count}", ha="center", va="center", fontsize=SMALLEST_PT, color=colour)
        names = [CLASS_NAMES[name] for name in CLASSES]
        axes.set_xticks(range(len(CLASSES)), names)
        axes.set_yticks(range(len(CLASSES)), names)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("most probable")
        axes.set_ylabel("most votes")
    return drawn


def calibration_figure(measured: Sequence[Calibration]) -> Figure:
    """Draw mean vote fraction over mean prediction for each class; on the diagonal predictions are calibrated."""
    drawn = figure(SMALL[0], 4.4)
    with styled(PAGE):
        axes_K = drawn.subplots(3, 2, sharex=True, sharey=True).ravel()
        for axes, name, one in zip(axes_K, CLASSES, measured, strict=True):
            axes.plot([0, 1], [0, 1], color=PAGE.soft, linewidth=1, linestyle="--")
            sizes = 8 + 60 * np.sqrt(one.counts_B / one.counts_B.max())
            axes.plot(one.predicted_B, one.voted_B, color=MODEL, linewidth=1)
            axes.scatter(one.predicted_B, one.voted_B, sizes, color=MODEL, alpha=0.8, linewidths=0, zorder=3)
            axes.set_xlim(-0.04, 1.04)
            axes.set_ylim(-0.04, 1.04)
            axes.set_xticks([0, 0.5, 1])
            axes.set_yticks([0, 0.5, 1])
            axes.set_title(CLASS_NAMES[name])
            said = {"fontsize": SMALLEST_PT, "fontweight": "normal", "color": PAGE.soft}
            axes.set_title(f"off by {one.error:.3f}", said, loc="right")
            tidy(axes, "both")
        drawn.supxlabel("predicted", fontsize=8.5, color=PAGE.soft)
        drawn.supylabel("voted", fontsize=8.5, color=PAGE.soft)
    return drawn


def blend_figure(blend: Blend) -> Figure:
    """Draw the weight of each member of a blend."""
    drawn = figure(SMALL[0], 0.6 + 0.26 * len(blend.members))
    with styled(PAGE):
        axes = drawn.add_subplot()
        order = np.argsort(blend.weights)[::-1]
        weights = [blend.weights[i] for i in order]
        axes.barh(range(len(order)), weights, 0.6, color=MODEL)
        for y, weight in enumerate(weights):
            axes.text(weight + 0.01, y, f"{weight:.3f}", va="center", fontsize=SMALLEST_PT)
        axes.set_yticks(range(len(order)), [blend.members[i] for i in order])
        axes.set_ylim(len(order) - 0.4, -0.6)
        axes.set_xlim(0, max(weights) * 1.25)
        axes.set_xlabel("weight")
        tidy(axes, "x")
    return drawn
