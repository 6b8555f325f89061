"""One EEG with its sub-windows, its votes, and what a run predicts for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kagglehms.data.competition import N_TIMES, SPECTROGRAM_ROWS, VOTE_COLUMNS, WINDOW_S, Competition
from kagglehms.data.readers import Half, read_eeg, read_spectrogram
from kagglehms.data.records import EEG_OFFSET, SPECTROGRAM_OFFSET, first_row_and_sample, read_train_table
from kagglehms.data.store import INDEX, Store
from kagglehms.data.tables import Content, read_table
from kagglehms.errors import DataError, UsageError
from kagglehms.inputs.layouts import Crop
from kagglehms.runs.run_view import focus_of, view_runs

if TYPE_CHECKING:
    import polars as pl

_AGAIN = "download it again"


@dataclass(frozen=True)
class Window:
    """One sub-window: 50 s of EEG and ten minutes of spectrogram around the same labelled 10 s.

    Attributes:
        number: number of the sub-window in the EEG, as train.csv counts.
        offset_s: seconds from the beginning of the EEG to the 50 s.
        spectrogram_offset_s: seconds from the beginning of the spectrogram to the ten minutes.
        votes_K: (6,) vote counts; None for a test recording.
        consensus: class that train.csv names; empty for a test recording.
        prediction_K: (6,) out-of-fold probabilities; None without a prediction.
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
        row, sample = first_row_and_sample(self.spectrogram_offset_s, self.offset_s)
        return int(row), int(sample)


@dataclass(frozen=True)
class EegView:
    """Everything that is shown of one EEG.

    Attributes:
        eeg_id: id of the EEG.
        patient_id: id of the patient.
        eeg_uv: (n_times, 20) µV.
        log_power: (n_rows, 400) natural logarithm of spectrogram power.
        windows: sub-windows, in the order of their offsets.
        who: name of the run that predictions are from; None without predictions.
    """

    eeg_id: int
    patient_id: int
    eeg_uv: Half
    log_power: Half
    windows: tuple[Window, ...]
    who: str | None = None

    def crop(self, window: Window) -> Crop:
        """Cut what a model would see of a sub-window."""
        row, sample = window.start
        return Crop(self.log_power[row : row + SPECTROGRAM_ROWS], self.eeg_uv[sample : sample + N_TIMES])

    def nearest(self, offset_s: float | None) -> int:
        """Return the position of the sub-window whose offset is nearest; of the first if `offset_s` is None."""
        if offset_s is None:
            return 0
        return int(np.argmin([abs(w.offset_s - offset_s) for w in self.windows]))


def load_view(
    eeg_id: int, data: Path, store: Path | None = None, runs: Path | None = None, recipe: str | None = None
) -> EegView:
    """Read an EEG of the training or the test set, its votes, and what a run predicts for it.

    Args:
        eeg_id: id of the EEG in train.csv or test.csv.
        data: folder of the competition.
        store: folder of decoded recordings; those that it lacks are read from `data`.
        runs: folder of all runs, for predictions; None shows none.
        recipe: name of the run whose predictions to show; None takes the best run.

    Raises:
        UsageError: there is no such EEG, or no such run.
        DataError: a file cannot be used.
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
    rows = table.filter(table["eeg_id"] == eeg_id).sort(EEG_OFFSET).to_dicts()
    return [
        Window(
            number=row["eeg_sub_id"],
            offset_s=row[EEG_OFFSET],
            spectrogram_offset_s=row[SPECTROGRAM_OFFSET],
            votes_K=tuple(row[name] for name in VOTE_COLUMNS),
            consensus=row["expert_consensus"],
        )
        for row in rows
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
    """Name the first few ids that there are."""
    for path in (competition.train_csv, competition.test_csv):
        if path.is_file():
            ids = read_table(path, {"eeg_id": "text"})["eeg_id"].unique(maintain_order=True)
            return f"it has {len(ids)}, such as {', '.join(map(str, ids[:3].to_list()))}"
    return "it has neither table"


def _recordings(
    competition: Competition, store: Path | None, eeg_id: int, spectrogram_id: int
) -> tuple[Half, Half]:
    if store is not None and (store / INDEX).is_file():
        try:
            opened = Store(store)
            return opened.eeg(eeg_id), opened.spectrogram(spectrogram_id)
        except UsageError:
            pass  # a store of a few records only: read the files themselves
    return read_eeg(competition.eeg(eeg_id)), read_spectrogram(competition.spectrogram(spectrogram_id))


def _checked(view: EegView, competition: Competition) -> EegView:
    """Raise `DataError` if a recording ends before its last sub-window does."""
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
    """Give each sub-window the prediction of its record, which has the same EEG and the same votes."""
    if runs is None or (recipe is None and not runs.is_dir()):
        return tuple(windows), None
    run = focus_of(view_runs(runs), recipe)
    if run is None or run.scored is None:
        return tuple(windows), None
    own = np.flatnonzero(run.scored.records.eeg_ids == eeg_id)
    votes_NK, predictions_NK = run.scored.records.votes_NK[own], run.scored.predictions_NK[own]
    known = dict(zip(map(tuple, votes_NK.tolist()), map(tuple, predictions_NK.tolist()), strict=True))
    return tuple(replace(w, prediction_K=known.get(w.votes_K or ())) for w in windows), run.name
