"""`kagglehms view`: one EEG as a neurologist expects it, as a PNG and as a page to step through its sub-windows."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    VOTE_COLUMNS,
    WINDOW_S,
    Competition,
)
from kagglehms.data.readers import Half, read_eeg, read_spectrogram
from kagglehms.data.records import (
    EEG_OFFSET,
    SPECTROGRAM_OFFSET,
    Content,
    read_table,
    read_train_table,
    window_starts,
)
from kagglehms.data.store import Store
from kagglehms.errors import DataError, UsageError, closest
from kagglehms.files import write_bytes
from kagglehms.inputs.layouts import MEL, PANEL_SHAPES, Crop, draw_source
from kagglehms.report import drawing
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
from kagglehms.runs.reading import focus_of, read_runs

if TYPE_CHECKING:
    import polars as pl

_AGAIN = "download it again"
MOST_WINDOWS = 60
"""Sub-windows on a page; an EEG can have hundreds, and each brings some 100 KB of images."""


@dataclass(frozen=True)
class Window:
    """One sub-window: 50 s of EEG and ten minutes of spectrogram around the same labelled 10 s.

    Attributes:
        number: its number in the EEG, as train.csv counts.
        offset_s: of the 50 s from the beginning of the EEG.
        spectrogram_offset_s: of the ten minutes from the beginning of the spectrogram.
        votes_K: (6,) vote counts; None for a test recording.
        consensus: the class that train.csv names; empty for a test recording.
        prediction_K: (6,) out-of-fold probabilities; None without any.
    """

    number: int
    offset_s: float
    spectrogram_offset_s: float
    votes_K: tuple[int, ...] | None
    consensus: str
    prediction_K: tuple[float, ...] | None = None

    @property
    def start(self) -> tuple[int, int]:
        """First row of the spectrogram and first sample of the EEG."""
        row, sample = window_starts(self.spectrogram_offset_s, self.offset_s)
        return int(row), int(sample)


@dataclass(frozen=True)
class EegView:
    """All that is shown of one EEG.

    Attributes:
        eeg_id: which one.
        patient_id: whose.
        eeg_uv: (n_times, 20) µV.
        log_power: (n_rows, 400) natural logarithm of spectrogram power.
        windows: its sub-windows, by offset.
        who: the run that predictions are from; None without any.
    """

    eeg_id: int
    patient_id: int
    eeg_uv: Half
    log_power: Half
    windows: tuple[Window, ...]
    who: str | None = None

    def crop(self, window: Window) -> Crop:
        """What a model would see of a sub-window."""
        row, sample = window.start
        return Crop(self.log_power[row : row + SPECTROGRAM_ROWS], self.eeg_uv[sample : sample + N_TIMES])

    def nearest(self, offset_s: float | None) -> int:
        """Position of the sub-window whose offset is nearest; the first without one."""
        if offset_s is None:
            return 0
        return int(np.argmin([abs(w.offset_s - offset_s) for w in self.windows]))


def load_view(
    eeg_id: int, data: Path, store: Path | None = None, runs: Path | None = None, recipe: str | None = None
) -> EegView:
    """Read an EEG of the training or the test set, its votes, and what a run predicts for it.

    Args:
        eeg_id: as train.csv or test.csv names it.
        data: the competition's folder.
        store: decoded recordings; those that it lacks are read from `data`.
        runs: the folder of all runs, for a prediction.
        recipe: whose prediction; None takes the best run's.

    Raises:
        UsageError: no such EEG, or no such run.
        DataError: files that cannot be used.
    """
    competition = Competition(data)
    if competition.train_csv.is_file():
        table = read_train_table(competition.train_csv)
        found = _train_windows(table, eeg_id)
        if found:
            first = _first(table, eeg_id)
            windows, who = _with_predictions(found, eeg_id, runs, recipe)
            eeg, power = _recordings(competition, store, eeg_id, first["spectrogram_id"])
            return _checked(EegView(eeg_id, first["patient_id"], eeg, power, windows, who), competition)
    return _test_view(competition, eeg_id)


def _first(table: pl.DataFrame, eeg_id: int) -> dict[str, Any]:
    return table.filter(table["eeg_id"] == eeg_id).row(0, named=True)


def _train_windows(table: pl.DataFrame, eeg_id: int) -> list[Window]:
    rows_ = table.filter(table["eeg_id"] == eeg_id).sort(EEG_OFFSET).to_dicts()
    return [
        Window(
            number=row["eeg_sub_id"],
            offset_s=row[EEG_OFFSET],
            spectrogram_offset_s=row[SPECTROGRAM_OFFSET],
            votes_K=tuple(row[name] for name in VOTE_COLUMNS),
            consensus=row["expert_consensus"],
        )
        for row in rows_
    ]


def _test_view(competition: Competition, eeg_id: int) -> EegView:
    columns: dict[str, Content] = dict.fromkeys(("eeg_id", "spectrogram_id", "patient_id"), "whole")
    test = read_table(competition.test_csv, columns) if competition.test_csv.is_file() else None
    if test is None or eeg_id not in test["eeg_id"].to_list():
        raise UsageError(
            f"{competition.root}: no EEG {eeg_id} in train.csv or test.csv; {_some_ids(competition)}"
        )
    row = _first(test, eeg_id)
    eeg = read_eeg(competition.eeg(eeg_id, "test"))
    power = read_spectrogram(competition.spectrogram(row["spectrogram_id"], "test"), SPECTROGRAM_ROWS)
    return EegView(eeg_id, row["patient_id"], eeg, power, (Window(0, 0.0, 0.0, None, ""),))


def _some_ids(competition: Competition) -> str:
    """The first few ids that there are, for somebody who has none at hand."""
    for path in (competition.train_csv, competition.test_csv):
        if path.is_file():
            ids = read_table(path, {"eeg_id": "text"})["eeg_id"].unique(maintain_order=True)
            return f"it has {len(ids)}, such as {', '.join(map(str, ids[:3].to_list()))}"
    return "it has neither table"


def _recordings(
    competition: Competition, store: Path | None, eeg_id: int, spectrogram_id: int
) -> tuple[Half, Half]:
    if store is not None and (store / "store.json").is_file():
        try:
            opened = Store(store)
            return opened.eeg(eeg_id), opened.spectrogram(spectrogram_id)
        except UsageError:
            pass  # a store of a few records only: the files themselves are at hand
    return read_eeg(competition.eeg(eeg_id)), read_spectrogram(competition.spectrogram(spectrogram_id))


def _checked(view: EegView, competition: Competition) -> EegView:
    """Refuse recordings that end before their last sub-window does."""
    row, sample = (max(starts) for starts in zip(*(window.start for window in view.windows), strict=True))
    if len(view.eeg_uv) < sample + N_TIMES:
        end_s = max(window.offset_s for window in view.windows) + WINDOW_S
        raise DataError(
            competition.eeg(view.eeg_id), f"ends before {end_s:g} s, where train.csv does", _AGAIN
        )
    if len(view.log_power) < row + SPECTROGRAM_ROWS:
        reason = f"names ten minutes of EEG {view.eeg_id} which its spectrogram does not have"
        raise DataError(competition.train_csv, reason, _AGAIN)
    return view


def _with_predictions(
    windows: Sequence[Window], eeg_id: int, runs: Path | None, recipe: str | None
) -> tuple[tuple[Window, ...], str | None]:
    """Give each sub-window the prediction of its record: the one of the same EEG and the same votes."""
    from dataclasses import replace

    if runs is None or (recipe is None and not runs.is_dir()):
        return tuple(windows), None
    run = focus_of(read_runs(runs), recipe)
    if run is None or run.scored is None or run.oof is None or "eeg_id" not in run.oof.columns:
        return tuple(windows), None
    places = np.flatnonzero(run.oof["eeg_id"].to_numpy() == eeg_id)
    known = {
        tuple(run.scored.votes_NK[i].tolist()): tuple(run.scored.predictions_NK[i].tolist()) for i in places
    }
    return tuple(replace(w, prediction_K=known.get(w.votes_K or ())) for w in windows), run.name


def view_png(view: EegView, position: int) -> bytes:
    """Draw one sub-window on white paper: traces on the left, images and votes on the right."""
    window = view.windows[position]
    crop = view.crop(window)
    mel_PFT, power_PFT = (_panels(crop, name) for name in ("eeg", "kaggle"))
    with styled(LIGHT):
        drawn = figure(15.5, 9.2, LIGHT)
        left, right = np.ravel(drawn.subfigures(1, 2, width_ratios=(1.45, 1)))  # type: ignore[arg-type]
        drawing.draw_traces(left.add_subplot(), traces(crop.of("eeg")), drawing.SHOWN_S, LIGHT)
        upper, lower = np.ravel(right.subfigures(2, 1, height_ratios=(2.6, 1)))
        axes_PX = upper.subplots(len(PANELS), 2, sharex="col")
        drawing.draw_mel(axes_PX[:, 0], mel_PFT, LIGHT)
        drawing.draw_kaggle(axes_PX[:, 1], power_PFT, LIGHT)
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


def _panels(crop: Crop, name: Any) -> NDArray[np.float32]:
    out = np.empty((len(PANELS), *PANEL_SHAPES[name]), np.float32)
    draw_source(name, crop, out)
    return out


def view_page(view: EegView, position: int) -> str:
    """Return the page that steps through an EEG's sub-windows, the one at `position` first.

    Of an EEG with more than `MOST_WINDOWS` sub-windows it holds those nearest to that one.
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
            "bins": N_BINS, "panels": PANELS, "low_hz": FREQUENCIES_HZ[0], "high_hz": FREQUENCIES_HZ[-1],
            "mel_high_hz": MEL.fmax, "mel_s": (N_TIMES // MEL.n_frames) * MEL.n_frames / SFREQ_HZ,
            "mel_rows": MEL.n_mels, "mel_columns": MEL.n_frames,
        },
    }  # fmt: skip
    left_out = len(view.windows) - len(windows)
    shown_with = {"content": content, "view": view, "left_out": left_out, "band": PASS_BAND_HZ}
    return render("viewer.html", policy=policy(script), script=script, **shown_with)


def _content(view: EegView, window: Window, number: int) -> dict[str, Any]:
    mel_PFT = _panels(view.crop(window), "eeg")
    return {
        "title": f"{number + 1} of {len(view.windows)}",
        "offset_s": window.offset_s,
        "row": window.start[0],
        "votes": window.votes_K,
        "consensus": window.consensus,
        "prediction": window.prediction_K,
        "mel": _data_uri(palette_png(_stacked(mel_PFT), -0.5, 1.0)),
    }


def _spectrogram(log_power: Half) -> dict[str, Any]:
    """All rows as one picture, each panel with its low frequencies at the bottom."""
    power_PFT = log_power.reshape(len(log_power), len(PANELS), N_BINS).transpose(1, 2, 0).astype(np.float32)
    finite = power_PFT[np.isfinite(power_PFT)]
    low, high = (float(v) for v in np.percentile(finite, (2, 99.5))) if len(finite) else (0.0, 1.0)
    return {"image": _data_uri(palette_png(_stacked(power_PFT), low, high)), "n_rows": len(log_power)}


def _stacked(panels_PFT: NDArray[np.float32]) -> NDArray[np.float32]:
    """Four panels one under the other, with high frequencies at the top of each."""
    return np.concatenate(list(panels_PFT[:, ::-1]))


def _packed(traces_DT: NDArray[np.float32]) -> dict[str, Any]:
    """Traces as 16-bit integers in base64; −32768 is a gap."""
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
        view: what to show.
        offset_s: show the sub-window nearest to it; the first when None.
        out: a name that ends in .png or .html; any other gets both.

    Raises:
        UsageError: another ending.
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
