"""Compute ten minutes of spectrogram around any second of a recording, a part at a time."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np

from kagglehms.data.competition import SFREQ_HZ, SPECTROGRAM_COLUMNS, SPECTROGRAM_ROWS, SPECTROGRAM_STEP_S
from kagglehms.data.readers import encode_spectrogram
from kagglehms.features.multitaper import REACH_TIMES, WINDOW_TIMES, multitaper_rows
from kagglehms.recordings.electrodes import Electrodes

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PART_ROWS = 450
"""Number of rows that are computed together: a quarter of an hour."""
_PARTS_KEPT = 4
"""Number of parts that are kept in memory: ten minutes touch two."""
_STEP_TIMES = SPECTROGRAM_STEP_S * SFREQ_HZ


class Spectrograms:
    """The spectrogram of a recording, one row every 2 s.

    Args:
        electrodes: signal of the recording.
        centre: sample at 200 Hz that rows are placed around, so that the ten minutes around it are exact.
    """

    def __init__(self, electrodes: Electrodes, centre: int = 0) -> None:
        self._electrodes = electrodes
        # The rows of ten minutes stand 299, 297 … 1 s before their middle, and as far behind it.
        self._phase = (centre - _STEP_TIMES // 2) % _STEP_TIMES
        self._parts: OrderedDict[int, NDArray[np.float16]] = OrderedDict()

    def crop(self, centre: int) -> tuple[NDArray[np.float16], float]:
        """Return the ten minutes around a sample, and the share of their rows that have values.

        Args:
            centre: sample at 200 Hz in the middle, which rows may miss by up to 1 s.

        Returns:
            (300, 400) float16 natural logarithm of power, as `readers.encode_spectrogram` makes it, NaN beyond the
            ends of the recording and where it has no signal; and the share of rows with values.
        """
        last_before = (centre - self._phase) // _STEP_TIMES  # up to a second after it, if that is nearer
        first = last_before - SPECTROGRAM_ROWS // 2 + 1
        out = np.empty((SPECTROGRAM_ROWS, len(SPECTROGRAM_COLUMNS)), np.float16)
        done = 0
        while done < SPECTROGRAM_ROWS:
            part, within = divmod(first + done, _PART_ROWS)
            n = min(_PART_ROWS - within, SPECTROGRAM_ROWS - done)
            out[done : done + n] = self._part(part)[within : within + n]
            done += n
        return out, float(np.isfinite(out).any(axis=1).mean())

    def _part(self, part: int) -> NDArray[np.float16]:
        if part not in self._parts:
            self._parts[part] = self._computed(part * _PART_ROWS)
            if len(self._parts) > _PARTS_KEPT:
                self._parts.popitem(last=False)
        self._parts.move_to_end(part)
        return self._parts[part]

    def _computed(self, first_row: int) -> NDArray[np.float16]:
        """The rows of a part from `first_row`; the signal is read as far beyond them as the filter extends."""
        first = first_row * _STEP_TIMES + self._phase
        last = first + (_PART_ROWS - 1) * _STEP_TIMES
        margin = WINDOW_TIMES // 2 + REACH_TIMES
        low, high = max(0, first - margin), min(self._electrodes.n_times, last + margin)
        if high - low < WINDOW_TIMES:
            return np.full((_PART_ROWS, len(SPECTROGRAM_COLUMNS)), np.nan, np.float16)
        signal = self._electrodes.read(low, high)
        for joint in self._electrodes.joints:  # rows across one are left out as those across a gap are
            if low < joint < high:
                signal[joint - low] = np.nan
        rows = multitaper_rows(signal, (first - low) / SFREQ_HZ, _PART_ROWS)
        return encode_spectrogram(rows)
