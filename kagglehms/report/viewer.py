"""`kagglehms view`: one EEG as neurologists read it, as a PNG and as a page that steps through its sub-windows."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import (
    CLASSES,
    FREQUENCIES_HZ,
    LABEL_S,
    N_BINS,
    N_TIMES,
    PANELS,
    SFREQ_HZ,
    SPECTROGRAM_ROWS,
    SPECTROGRAM_STEP_S,
    WINDOW_S,
)
from kagglehms.data.readers import Half
from kagglehms.errors import UsageError, closest
from kagglehms.files import write_bytes
from kagglehms.inputs.layouts import MEL
from kagglehms.report import drawing
from kagglehms.report.eeg_view import EegView, Window
from kagglehms.report.montage import (
    DERIVATIONS,
    PASS_BAND_HZ,
    SENSITIVITIES_UV,
    TRACE_HZ,
    rows,
    sensitivity_uv,
    traces,
)
from kagglehms.report.style import LIGHT, figure, palette_png, png, styled
from kagglehms.report.templating import policy, render, source

MOST_WINDOWS = 60
"""Most sub-windows on a page; an EEG can have hundreds, and each needs some 100 KB of images."""


def view_png(view: EegView, position: int) -> bytes:
    """Draw one sub-window on white paper: traces on the left, images and votes on the right."""
    window = view.windows[position]
    crop = view.crop(window)
    with styled(LIGHT):
        drawn = figure(15.5, 9.2, LIGHT)
        left, right = np.ravel(drawn.subfigures(1, 2, width_ratios=(1.45, 1)))  # type: ignore[arg-type]
        drawing.draw_traces(left.add_subplot(), traces(crop.of("eeg")), drawing.SHOWN_S, LIGHT)
        upper, lower = np.ravel(right.subfigures(2, 1, height_ratios=(2.6, 1)))
        drawing.draw_images(upper, crop, LIGHT)
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


def view_page(view: EegView, position: int) -> str:
    """Return the page that steps through an EEG's sub-windows, the one at `position` first.

    It holds at most `MOST_WINDOWS` sub-windows, those nearest to that one.
    """
    centre = view.windows[position].offset_s
    nearest = sorted(range(len(view.windows)), key=lambda i: abs(view.windows[i].offset_s - centre))
    shown = sorted(nearest[:MOST_WINDOWS])
    windows = [view.windows[i] for i in shown]
    first_row = min(window.start[0] for window in windows)
    last_row = max(window.start[0] for window in windows) + SPECTROGRAM_ROWS
    first_s, last_s = min(w.offset_s for w in windows), max(w.offset_s for w in windows) + WINDOW_S
    script = source("viewer.js")
    traces_DT = traces(view.eeg_uv)[:, int(first_s * TRACE_HZ) : int(last_s * TRACE_HZ)]
    content = {
        "eeg": _packed(traces_DT) | {"first_s": first_s, "hz": TRACE_HZ},
        "derivations": [{"label": d.label, "group": d.group} for d in DERIVATIONS],
        "rows": rows(),
        "sensitivities_uv": SENSITIVITIES_UV,
        "sensitivity_uv": sensitivity_uv(traces_DT),
        "spectrogram": _spectrogram(view.log_power[first_row:last_row]) | {"first_row": first_row},
        "windows": [_content(view, window, view.windows.index(window)) for window in windows],
        "start": shown.index(position),
        "classes": [drawing.CLASS_NAMES[name] for name in CLASSES],
        "who": view.who,
        "facts": {
            "window_s": WINDOW_S, "label_s": LABEL_S, "rows": SPECTROGRAM_ROWS, "row_s": SPECTROGRAM_STEP_S,
            "panels": PANELS, "low_hz": FREQUENCIES_HZ[0], "high_hz": FREQUENCIES_HZ[-1],
            "mel_high_hz": MEL.fmax, "mel_s": (N_TIMES // MEL.n_frames) * MEL.n_frames / SFREQ_HZ,
            "mel_columns": MEL.n_frames,
        },
    }  # fmt: skip
    left_out = len(view.windows) - len(windows)
    shown_with = {"content": content, "view": view, "left_out": left_out, "band": PASS_BAND_HZ}
    return render("viewer.html", policy=policy(script), script=script, **shown_with)


def _content(view: EegView, window: Window, number: int) -> dict[str, Any]:
    mel_PFT = drawing.panels(view.crop(window), "eeg")
    return {
        "title": f"{number + 1} of {len(view.windows)}",
        "offset_s": window.offset_s,
        "row": window.start[0],
        "votes": window.votes_K,
        "consensus": window.consensus,
        "prediction": window.prediction_K,
        "mel": _data_uri(palette_png(_stacked(mel_PFT), *drawing.MEL_LIMITS)),
    }


def _spectrogram(log_power: Half) -> dict[str, Any]:
    """Draw all rows as one picture, each panel with its low frequencies at the bottom."""
    power_PFT = log_power.reshape(len(log_power), len(PANELS), N_BINS).transpose(1, 2, 0).astype(np.float32)
    image = palette_png(_stacked(power_PFT), *drawing.power_limits(power_PFT))
    return {"image": _data_uri(image), "n_rows": len(log_power)}


def _stacked(panels_PFT: NDArray[np.float32]) -> NDArray[np.float32]:
    """Put four panels one below the other, with high frequencies at the top of each."""
    return np.concatenate(list(panels_PFT[:, ::-1]))


def _packed(traces_DT: NDArray[np.float32]) -> dict[str, Any]:
    """Encode traces as 16-bit integers in base64; −32768 is a gap."""
    largest = float(np.nanmax(np.abs(traces_DT))) if np.isfinite(traces_DT).any() else 0.0
    step_uv = max(largest / 32767, 0.01)
    scaled = np.where(np.isfinite(traces_DT), np.round(np.nan_to_num(traces_DT) / step_uv), -32768)
    encoded = base64.b64encode(scaled.astype("<i2").tobytes()).decode()
    return {"samples": encoded, "step_uv": step_uv, "n": traces_DT.shape[1]}


def _data_uri(image: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"


def write_view(view: EegView, offset_s: float | None, out: Path) -> list[Path]:
    """Write the PNG, the page, or both.

    Args:
        view: EEG to show.
        offset_s: offset of the sub-window to show first, or of one near it; None takes the first.
        out: path that ends in .png or .html; both are written if it has no ending.

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
        write_bytes(
            path, view_png(view, position) if ending == ".png" else view_page(view, position).encode()
        )
        written.append(path)
    return written
