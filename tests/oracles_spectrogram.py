"""An independent computation of spectrogram rows, by SciPy in float64, from an EEG file's values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, detrend, sosfiltfilt
from scipy.signal.windows import dpss

from kagglehms.data.competition import CHAINS, CHANNELS, PANELS

EDGE_S = 8
"""Rows nearer to an end of the EEG than this feel that the filter does not see what is beyond."""


def spectrogram_rows(
    uv_TC: NDArray[np.floating], eeg_start_s: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rows that can be computed from an EEG.

    Args:
        uv_TC: (n_times, 20) µV without NaN.
        eeg_start_s: its first sample, in seconds of the spectrogram.

    Returns:
        (n,) row numbers and (n, 400) power.
    """
    stop_s = eeg_start_s + len(uv_TC) / 200
    rows = np.arange(int(eeg_start_s + EDGE_S + 1) // 2, int(stop_s - EDGE_S) // 2)
    sos = butter(3, 0.5, "high", fs=200, output="sos")
    tapers = dpss(800, 2, 3)
    found = np.empty((len(rows), 4, 100))
    for panel, name in enumerate(PANELS):
        chain = uv_TC[:, [CHANNELS.index(electrode) for electrode in CHAINS[name]]].astype(np.float64)
        bipolar = sosfiltfilt(sos, np.diff(chain, axis=1), axis=0)
        for i, row in enumerate(rows):
            centre = round((2 * row + 1 - eeg_start_s) * 200)
            window = detrend(bipolar[centre - 400 : centre + 400], axis=0)
            spectra = [np.fft.rfft(window * taper[:, None], 1024, axis=0)[3:103] for taper in tapers]
            found[i, panel] = np.mean([np.abs(s) ** 2 for s in spectra], axis=(0, 2)) / 200
    return rows, found.reshape(len(rows), 400)
