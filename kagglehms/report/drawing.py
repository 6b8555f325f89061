"""Draw one stretch of EEG: traces, images with their axes, votes beside a prediction.

Each function draws on given axes, so that the report and the view show the same picture.
Shape legend: D derivations, T time, P the four panels, F frequency, K the six classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import (
    CLASSES,
    FREQUENCIES_HZ,
    LABEL_S,
    LEAD_S,
    N_TIMES,
    PANELS,
    SFREQ_HZ,
    SPECTROGRAM_S,
    WINDOW_S,
)
from kagglehms.data.records import vote_fractions
from kagglehms.errors import counted
from kagglehms.inputs.layouts import MEL, PANEL_SHAPES, Crop, Source
from kagglehms.inputs.rendering import draw_source
from kagglehms.report.montage import DERIVATIONS, PASS_BAND_HZ, TRACE_HZ, ekg_gain, rows, sensitivity_uv
from kagglehms.report.style import COLOURS, MODEL, SMALLEST_PT, Theme, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

    from kagglehms.bundle.explanation import Explanation

Floats = NDArray[np.float32]
T = TypeVar("T")

LABEL_SPAN_S = (LEAD_S, LEAD_S + LABEL_S)
"""Labelled seconds within the window: 20 to 30."""
SHOWN_S = (15.0, 35.0)
"""Seconds of the window that traces show; the images beside them show all fifty."""
SIDES = {"LL": "left", "LP": "left", "RL": "right", "RP": "right"}
"""Hemisphere of each chain; the midline and the electrocardiogram have none."""
LEAST_MOST = 0.05
"""Reasons that add less than this to a probability are drawn pale, however small the others are."""
CLASS_NAMES = {"seizure": "seizure", "other": "other"} | {
    n: n.upper() for n in ("lpd", "gpd", "lrda", "grda")
}
TRACES = f"Double banana, {PASS_BAND_HZ[0]:g}–{PASS_BAND_HZ[1]:g} Hz, negative up; EKG on its own scale"
"""What traces are, in words."""
_CLIP_ROWS = 1.5
"""Rows beyond which a trace is cut, so that an artefact does not cover its neighbours."""
MEL_LIMITS = (-0.5, 1.0)
"""Values of a mel image that get the first and the last colour."""


def spacing_uv(traces_DT: Floats, span_s: tuple[float, float]) -> int:
    """Return the µV from trace to trace that fit these seconds of a window; see `montage.sensitivity_uv`."""
    first, last = (round(t * TRACE_HZ) for t in span_s)
    return sensitivity_uv(traces_DT[:, first:last])


def draw_traces(
    axes: Axes,
    traces_DT: Floats,
    span_s: tuple[float, float],
    theme: Theme,
    start_s: float,
    between_uv: float | None = None,
) -> None:
    """Draw the double banana of one window, negative up, the labelled seconds shaded; `TRACES` says what it is.

    Args:
        axes: axes to draw on.
        traces_DT: (19, 5000) µV, the window's 50 s as `montage.traces` returns them.
        span_s: first and last second of the window to show.
        theme: colours of text and rules.
        start_s: second of the recording at which the window begins.
        between_uv: µV from trace to trace; None for what fits these seconds.
    """
    first, last = (round(t * TRACE_HZ) for t in span_s)
    part_DT = traces_DT[:, first:last]
    between_uv = between_uv or spacing_uv(traces_DT, span_s)
    heights = rows()
    span_s = _shifted(span_s, start_s)
    time_s = span_s[0] + np.arange(part_DT.shape[1]) / TRACE_HZ
    gains = np.ones(len(DERIVATIONS))
    gains[-1] = ekg_gain(part_DT, between_uv)
    for trace, height, gain, derivation in zip(part_DT, heights, gains, DERIVATIONS, strict=True):
        level = height + np.clip(trace * gain / between_uv, -_CLIP_ROWS, _CLIP_ROWS)
        axes.plot(time_s, level, color=_side(derivation.group, theme), linewidth=0.7, solid_joinstyle="round")
    axes.axvspan(*_shifted(LABEL_SPAN_S, start_s), color=COLOURS["labelled"], alpha=0.15, linewidth=0)
    axes.set_ylim(heights[-1] + 1.3, -1.4)
    axes.set_xlim(span_s)
    axes.set_yticks(heights, [d.label for d in DERIVATIONS])
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", alpha=0.7)
    axes.set_axisbelow(True)
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("seconds of the recording (labelled: shaded)")
    _scale_bar(axes, span_s, between_uv, heights[-2] + 0.2, theme)


def _side(group: str, theme: Theme) -> str:
    """Return blue for the left and red for the right, as is customary, and ink for what has no side."""
    return COLOURS[SIDES[group]] if group in SIDES else theme.ink


def _shifted(span_s: tuple[float, float], by_s: float) -> tuple[float, float]:
    return span_s[0] + by_s, span_s[1] + by_s


def draw_reasons(
    axes: Axes, explanation: Explanation, span_s: tuple[float, float], theme: Theme, start_s: float
) -> None:
    """Tint the traces of a window by what mattered to a model: in its colour what speaks for its class, else grey.

    Args:
        axes: axes that `draw_traces` drew on.
        explanation: what each chain and each second adds to the probability of the most likely class.
        span_s: first and last second of the window that are shown.
        theme: colours of text and rules.
        start_s: second of the recording at which the window begins.
    """
    name, heights = explanation.most_likely, rows()
    seconds, chains = explanation.seconds_for(), explanation.chains_for()
    for second, tint in _tints(seconds, 0.4, theme).items():
        if span_s[0] <= second < span_s[1]:
            axes.axvspan(start_s + second, start_s + second + 1, **tint)
    for chain, tint in _tints(chains, 0.3, theme).items():
        own = [y for y, derivation in zip(heights, DERIVATIONS, strict=True) if derivation.group == chain]
        axes.axhspan(own[0] - 0.5, own[-1] + 0.5, **tint)
        said = f"{chain} {chains[chain]:+.2f}"
        box = {"facecolor": theme.card, "alpha": 0.8, "linewidth": 0, "pad": 1}  # traces run behind it
        axes.text(start_s + span_s[0] + 0.1, own[0] - 0.45, said, va="top", fontsize=SMALLEST_PT, bbox=box)
    axes.set_title(
        f"For {CLASS_NAMES[name]}: violet; against: grey; numbers: what each chain adds to its probability"
    )


def _tints(values: Mapping[T, float], strongest: float, theme: Theme) -> dict[T, dict[str, Any]]:
    """Return the colour of each part, as strong as what it adds."""
    most = max(LEAST_MOST, *map(abs, values.values()))
    return {
        part: {"color": MODEL if value > 0 else theme.ink, "alpha": strongest * abs(value) / most, "lw": 0}
        for part, value in values.items()
    }


def _scale_bar(
    axes: Axes, span_s: tuple[float, float], spacing_uv: float, bottom: float, theme: Theme
) -> None:
    length_s = span_s[1] - span_s[0]
    at = span_s[1] + 0.012 * length_s
    axes.plot(
        [at, at], [bottom - 1, bottom], color=theme.ink, linewidth=2, clip_on=False, solid_capstyle="butt"
    )
    where = {"ha": "left", "va": "center", "rotation": 90, "fontsize": SMALLEST_PT, "color": theme.ink}
    axes.text(at + 0.008 * length_s, bottom - 0.5, f"{spacing_uv:g} µV", clip_on=False, **where)  # type: ignore[arg-type]


def panels(crop: Crop, source: Source) -> Floats:
    """Return the four panels of a crop's EEG, (4, 128, 256) mel images, or of its spectrogram, (4, 100, 300)."""
    panels_PFT = np.empty((len(PANELS), *PANEL_SHAPES[source]), np.float32)
    draw_source(source, crop, panels_PFT)
    return panels_PFT


def draw_images(container: FigureBase, crop: Crop, theme: Theme, start_s: float) -> None:
    """Draw both images of a window side by side: mel images of the EEG, and Kaggle's spectrogram.

    Args:
        container: figure to draw on.
        crop: recordings of the window.
        theme: colours of text and rules.
        start_s: second of the recording at which the window begins.
    """
    axes_PX = container.subplots(len(PANELS), 2, sharex="col")
    draw_mel(axes_PX[:, 0], panels(crop, "eeg"), theme, start_s)
    draw_kaggle(axes_PX[:, 1], panels(crop, "kaggle"), theme, start_s)


def draw_mel(axes_P: Sequence[Axes], mel_PFT: Floats, theme: Theme, start_s: float) -> None:
    """Draw the four mel images of a window, (4, 128, 256), with seconds of the recording and Hz."""
    hop_s = (N_TIMES // MEL.n_frames) / SFREQ_HZ
    extent = (start_s, start_s + hop_s * mel_PFT.shape[2], MEL.fmin, MEL.fmax)
    _draw_panels(axes_P, mel_PFT, extent, MEL_LIMITS, _shifted(LABEL_SPAN_S, start_s), theme)
    axes_P[0].set_title("EEG, mel images")
    axes_P[-1].set_xlabel("seconds of the recording")


def draw_kaggle(axes_P: Sequence[Axes], log_power_PFT: Floats, theme: Theme, start_s: float) -> None:
    """Draw four panels of the spectrogram file, (4, 100, 300) log power, with seconds of the recording and Hz.

    The ten minutes have the window's middle in theirs, so that they may begin before the EEG, at seconds below 0.
    """
    middle_s, half_s = start_s + WINDOW_S / 2, SPECTROGRAM_S / 2
    extent = (middle_s - half_s, middle_s + half_s, FREQUENCIES_HZ[0], FREQUENCIES_HZ[-1])
    limits = power_limits(log_power_PFT)
    _draw_panels(axes_P, log_power_PFT, extent, limits, _shifted(LABEL_SPAN_S, start_s), theme)
    axes_P[0].set_title("Kaggle's spectrogram")
    axes_P[-1].set_xlabel("seconds of the recording (labelled: dashed)")


def power_limits(log_power: Floats) -> tuple[float, float]:
    """Return the values of log power that get the first and the last colour."""
    finite = log_power[np.isfinite(log_power)]
    if not len(finite):
        return 0.0, 1.0
    low, high = np.percentile(finite, (2, 99.5))
    return float(low), float(high)


def _draw_panels(
    axes_P: Sequence[Axes],
    panels_PFT: Floats,
    extent: tuple[float, float, float, float],
    limits: tuple[float, float],
    marked: tuple[float, float],
    theme: Theme,
) -> None:
    for axes, panel_FT, name in zip(axes_P, panels_PFT, PANELS, strict=True):
        axes.imshow(
            panel_FT, origin="lower", aspect="auto", extent=extent, vmin=limits[0], vmax=limits[1],
            interpolation="nearest",
        )  # fmt: skip
        for at in marked:
            axes.axvline(at, color=COLOURS["mark"], linewidth=0.9, alpha=0.9, linestyle=(0, (3, 2)))
        axes.set_ylabel(f"{name}, Hz", color=theme.ink)
        axes.set_yticks([5, 10, 15])
        axes.tick_params(length=2, labelbottom=axes is axes_P[-1])
        axes.spines[["left", "bottom"]].set_visible(False)


def draw_votes(
    axes: Axes, votes_K: Any, prediction_K: Any | None, theme: Theme, who: str = "prediction"
) -> None:
    """Draw vote fractions as bars and, where there is one, the prediction beside them.

    Args:
        axes: axes to draw on.
        votes_K: (6,) vote counts.
        prediction_K: (6,) probabilities; None draws the votes alone.
        theme: colours of text and rules.
        who: name of the run that predicts, for the legend.
    """
    votes = np.asarray(votes_K)
    fractions = vote_fractions(votes[None])[0]
    at = np.arange(len(CLASSES))
    height = 0.38 if prediction_K is not None else 0.6
    shift = height / 2 if prediction_K is not None else 0.0
    axes.barh(at - shift, fractions, height, color=theme.soft, label=f"votes (n = {int(votes.sum())})")
    if prediction_K is not None:
        axes.barh(at + shift, prediction_K, height, color=MODEL, label=who)
    for k, count in enumerate(votes.tolist()):
        if count:
            said = counted(count, "vote")
            axes.text(
                fractions[k] + 0.015, k - shift, said, va="center", fontsize=SMALLEST_PT, color=theme.ink
            )
    axes.set_yticks(at, [CLASS_NAMES[name] for name in CLASSES])
    axes.set_ylim(len(CLASSES) - 0.4, -0.6)
    axes.set_xlim(0, 1.25)  # room for the words at the longest bar
    axes.set_xticks([0, 0.5, 1])
    axes.set_xlabel("fraction of votes, probability")
    tidy(axes, "x")
    # Above the bars, because these can be long in any row.
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=2, handlelength=1, borderpad=0.2, columnspacing=1
    )
