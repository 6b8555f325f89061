"""`kagglehms view`: one EEG as neurologists read it, as a PNG and as a page to go through it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kagglehms.bundle.explanation import CHAIN_NAMES, Explanation
from kagglehms.data.competition import (
    CLASSES,
    FREQUENCIES_HZ,
    LABEL_S,
    LEAD_S,
    N_BINS,
    N_TIMES,
    PANELS,
    SFREQ_HZ,
    SPECTROGRAM_ROWS,
    SPECTROGRAM_S,
    SPECTROGRAM_STEP_S,
    WINDOW_S,
)
from kagglehms.errors import UsageError, closest
from kagglehms.files import write_bytes
from kagglehms.inputs.layouts import MEL
from kagglehms.report import drawing
from kagglehms.report.eeg_view import EegView, Window
from kagglehms.report.explaining import Reasons
from kagglehms.report.montage import traces
from kagglehms.report.paging import (
    Paged,
    Spectrogram,
    Stop,
    Tint,
    Windows,
    data_uri,
    hemispheres,
    montages,
    page,
)
from kagglehms.report.signals import BLOCK_S, Held, count_blocks, pack
from kagglehms.report.style import LIGHT, figure, palette_png, png, styled

MOST_IMAGES = 60
"""Sub-windows whose images are on a page; an EEG can have hundreds, and each needs some 100 KB."""


def view_png(view: EegView, position: int, reasons: Reasons | None = None) -> bytes:
    """Draw one sub-window on white paper: traces on the left, images and votes on the right.

    Args:
        view: the EEG.
        position: position of the sub-window.
        reasons: what mattered to a network in it, drawn behind the traces.
    """
    window = view.windows[position]
    crop = view.crop(window)
    with styled(LIGHT):
        drawn = figure(15.5, 9.2, LIGHT)
        left, right = np.ravel(drawn.subfigures(1, 2, width_ratios=(1.45, 1)))  # type: ignore[arg-type]
        axes = left.add_subplot()
        axes.set_title(drawing.TRACES)
        drawing.draw_traces(axes, traces(crop.of("eeg")), drawing.SHOWN_S, LIGHT, window.offset_s)
        if reasons is not None:
            drawing.draw_reasons(axes, reasons.explanation, drawing.SHOWN_S, LIGHT, window.offset_s)
        upper, lower = np.ravel(right.subfigures(2, 1, height_ratios=(2.6, 1)))
        drawing.draw_images(upper, crop, LIGHT, window.offset_s)
        if window.votes_K is not None:
            drawing.draw_votes(
                lower.add_subplot(), window.votes_K, window.prediction_K, LIGHT, view.who or ""
            )
        drawn.suptitle(_title(view, window), x=0.01, ha="left", fontsize=12, fontweight="bold")
        return png(drawn)


def _title(view: EegView, window: Window) -> str:
    where = f"window {window.number + 1} of {len(view.windows)}, {window.offset_s:g}–{window.offset_s + WINDOW_S:g} s"
    consensus = f", consensus {window.consensus}" if window.consensus else ", test recording"
    return f"EEG {view.eeg_id}, patient {view.patient_id}: {where}{consensus}"


def view_page(view: EegView, position: int, reasons: Reasons | None = None) -> str:
    """Return the page of an EEG, the sub-window at `position` first, with what mattered to a network in it.

    All sub-windows are on it; mel images and Kaggle's spectrogram only of the `MOST_IMAGES` that are nearest to that
    one. The signal is whole unless it is longer than an hour or two; then what is nearest is kept.
    """
    signal = Held(view.eeg_uv)
    start_s = [window.offset_s + LEAD_S for window in view.windows]
    votes = [window.votes_K for window in view.windows]
    predicted = any(window.prediction_K for window in view.windows)
    unknown = (np.nan,) * len(CLASSES)
    windows = Windows(
        np.array(start_s),
        LABEL_S,
        np.array([window.prediction_K or unknown for window in view.windows]) if predicted else None,
        votes=None if None in votes else [list(v) for v in votes if v is not None],
        who=f"probability ({view.who}, out of fold)" if view.who else "prediction",
    )
    count = len(view.windows)
    paged = Paged(
        name=f"EEG {view.eeg_id}",
        about=f"Patient {view.patient_id}, {signal.n_times / SFREQ_HZ:g} s, {count} sub-window{'s'[: count > 1]}",
        signal=signal,
        montages=montages(),
        windows=windows,
        spectrogram=_spectrogram(view),
        stops=[
            Stop(start + LABEL_S / 2, _stop_text(i + 1, count, window))
            for i, (start, window) in enumerate(zip(start_s, view.windows, strict=True))
        ],
        stop=position,
        start_s=0.0,
        remedy="repeat the command with --offset {second}",
        images=_images(view, position),
        details=[] if reasons is None else [("Why the model says so", reasons.text.splitlines())],
        tint=None if reasons is None else _tint(view.windows[position], reasons.explanation),
    )
    centre = start_s[position] // BLOCK_S
    order = sorted(range(count_blocks(signal.n_times)), key=lambda number: abs(number - centre))
    return page(paged, partial(pack, signal, order))


def _tint(window: Window, explanation: Explanation) -> Tint:
    name = explanation.most_likely
    k = CLASSES.index(name)
    by_chain = dict(zip(CHAIN_NAMES, explanation.by_chain[:, k].tolist(), strict=True))
    return Tint(window.offset_s, name, explanation.by_second[:, k].tolist(), by_chain)


def _stop_text(number: int, count: int, window: Window) -> str:
    consensus = f": {window.consensus}" if window.consensus else ""
    return f"{number} of {count}, {window.offset_s:g}–{window.offset_s + WINDOW_S:g} s{consensus}"


def _spectrogram(view: EegView) -> Spectrogram:
    """The rows of the spectrogram file that lie within the EEG."""
    window = view.windows[0]
    lead_s = (SPECTROGRAM_S - WINDOW_S) / 2
    first_s = (
        window.offset_s - window.spectrogram_offset_s - lead_s
    )  # where the spectrogram begins, in the EEG's time
    first = max(0, int(-first_s // SPECTROGRAM_STEP_S))
    last = int((len(view.eeg_uv) / SFREQ_HZ - first_s) // SPECTROGRAM_STEP_S) + 1
    rows = view.log_power[first : max(last, first)]
    return Spectrogram(first_s + first * SPECTROGRAM_STEP_S, SPECTROGRAM_STEP_S, hemispheres(rows))


def _images(view: EegView, position: int) -> dict[str, Any]:
    """Draw the images of the sub-windows that are nearest to one."""
    centre = view.windows[position].offset_s
    nearest = sorted(range(len(view.windows)), key=lambda i: abs(view.windows[i].offset_s - centre))[
        :MOST_IMAGES
    ]
    first_row = min(view.windows[i].start[0] for i in nearest)
    last_row = max(view.windows[i].start[0] for i in nearest) + SPECTROGRAM_ROWS
    log_power = view.log_power[first_row:last_row]
    power_PFT = log_power.reshape(len(log_power), len(PANELS), N_BINS).transpose(1, 2, 0).astype(np.float32)
    return {
        "windows": [_image(view, window) if i in nearest else None for i, window in enumerate(view.windows)],
        "spectrogram": data_uri(palette_png(_stacked(power_PFT), *drawing.power_limits(power_PFT))),
        "first_row": first_row, "rows": SPECTROGRAM_ROWS, "row_s": SPECTROGRAM_STEP_S, "panels": PANELS,
        "low_hz": FREQUENCIES_HZ[0], "high_hz": FREQUENCIES_HZ[-1], "mel_high_hz": MEL.fmax,
        "mel_s": (N_TIMES // MEL.n_frames) * MEL.n_frames / SFREQ_HZ, "mel_columns": MEL.n_frames,
    }  # fmt: skip


def _image(view: EegView, window: Window) -> dict[str, Any]:
    mel_PFT = drawing.panels(view.crop(window), "eeg")
    return {"mel": data_uri(palette_png(_stacked(mel_PFT), *drawing.MEL_LIMITS)), "row": window.start[0]}


def _stacked(panels_PFT: NDArray[np.float32]) -> NDArray[np.float32]:
    """Put four panels one below the other, with high frequencies at the top of each."""
    return np.concatenate(list(panels_PFT[:, ::-1]))


def write_view(
    view: EegView, offset_s: float | None, out: Path, reasons: Reasons | None = None
) -> list[Path]:
    """Write the PNG, the page, or both.

    Args:
        view: EEG to show.
        offset_s: offset of the sub-window to show first, or of one near it; None takes the first.
        out: path that ends in .png or .html; both are written if it has no ending.
        reasons: what mattered to a network in that sub-window.

    Raises:
        UsageError: the path has another ending.
        RunError: a file cannot be written.
    """
    position = view.nearest(offset_s)
    endings = {"": (".png", ".html"), ".png": (".png",), ".html": (".html",)}
    if out.suffix not in endings:
        raise UsageError(
            f"{out}: cannot be written as {out.suffix!r}; {closest(out.suffix, ('.png', '.html'))}"
        )
    written = []
    for ending in endings[out.suffix]:
        path = out.with_suffix(ending)
        drawn = ending == ".png"
        write_bytes(
            path,
            view_png(view, position, reasons) if drawn else view_page(view, position, reasons).encode(),
        )
        written.append(path)
    return written
