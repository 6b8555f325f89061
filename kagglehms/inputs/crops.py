"""Cut the windows of records out of their recordings."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from kagglehms.data.competition import N_TIMES, SFREQ_HZ, SPECTROGRAM_ROWS, SPECTROGRAM_STEP_S
from kagglehms.data.records import Records, Windows
from kagglehms.inputs.layouts import Crop, Source

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Recordings(Protocol):
    """A source of decoded recordings, such as `data.store.Store`."""

    def spectrogram(self, spectrogram_id: int) -> NDArray[np.float16]:
        """Return one spectrogram: (n_rows, 400) log power."""

    def eeg(self, eeg_id: int) -> NDArray[np.float16]:
        """Return one EEG: (n_times, 20) µV."""


@dataclass(frozen=True, slots=True)
class Window:
    """The window of one record.

    Attributes:
        position: position of the record.
        row: first row of the ten minutes of spectrogram.
        sample: first sample of the 50 s of EEG.
        shift_s: seconds by which to move the window, as far as the recordings go.
    """

    position: int
    row: int
    sample: int
    shift_s: float = 0.0


def windows_of(records: Records, positions: NDArray[np.integer], windows: Windows = "middle") -> list[Window]:
    """Return the windows that represent records, see `data.records.Records.places`."""
    rows, samples = (starts[positions].tolist() for starts in records.places(windows))
    return [Window(*found) for found in zip(positions.tolist(), rows, samples, strict=True)]


def crop_of(
    recordings: Recordings,
    records: Records,
    position: int,
    sources: Collection[Source],
    windows: Windows = "middle",
) -> Crop:
    """Cut the window that represents one record; nothing is copied.

    Args:
        recordings: source of the recordings.
        records: all records.
        position: position of the record.
        sources: kinds of recordings to cut.
        windows: which window represents a record, see `data.records.Windows`.
    """
    (window,) = windows_of(records, np.array([position]), windows)
    return cut(recordings, records, window, sources)


def cut(recordings: Recordings, records: Records, window: Window, sources: Collection[Source]) -> Crop:
    """Cut a window; nothing is copied.

    Args:
        recordings: source of the recordings.
        records: all records.
        window: the window.
        sources: kinds of recordings to cut.
    """
    log_power = eeg_uv = None
    shift_s = window.shift_s
    if "eeg" in sources:
        eeg = recordings.eeg(int(records.eeg_ids[window.position]))
        start = _moved(window.sample, round(shift_s * SFREQ_HZ), len(eeg) - N_TIMES)
        shift_s = (start - window.sample) / SFREQ_HZ  # the spectrogram moves as far as the EEG could
        eeg_uv = eeg[start : start + N_TIMES]
    if "kaggle" in sources:
        rows = recordings.spectrogram(int(records.spectrogram_ids[window.position]))
        row = _moved(window.row, round(shift_s / SPECTROGRAM_STEP_S), len(rows) - SPECTROGRAM_ROWS)
        log_power = rows[row : row + SPECTROGRAM_ROWS]
    return Crop(log_power, eeg_uv)


def _moved(start: int, by: int, last: int) -> int:
    """Return `start` moved within 0 to `last`; a start that is outside already does not move further out."""
    return min(max(start + by, min(start, 0)), max(start, last)) if by else start
