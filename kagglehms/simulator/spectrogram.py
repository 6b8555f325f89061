"""The spectrogram files of a simulated study, computed like those of the competition (`features.multitaper`).

Shape suffixes: C channel, T time, F frequency, W window.
"""

from __future__ import annotations

import numpy as np
from scipy import fft

from kagglehms.data.competition import CHAINS, CHANNELS, N_BINS, PANELS, SFREQ_HZ, SPECTROGRAM_STEP_S
from kagglehms.features.multitaper import WINDOW_TIMES, add_power, high_pass, power_scale
from kagglehms.simulator.scalp import F32, MARGIN_S


def spectrogram(uv_CT: F32, n_rows: int) -> F32:
    """Compute the multitaper power of the four chains.

    Args:
        uv_CT: (≥ 19, n_times) µV from `simulate_study`, which begins `MARGIN_S` before second 0 of the study.
        n_rows: number of rows, one every 2 s, with the first centred on second 1 of the study.

    Returns:
        (n_rows, 400) power in µV²/Hz: the panels LL, RL, LP and RP, each with bins 3 … 102 of a 1024-point transform.
    """
    high_pass_F = high_pass(uv_CT.shape[1])
    step = SPECTROGRAM_STEP_S * SFREQ_HZ
    first = MARGIN_S * SFREQ_HZ + step // 2 - WINDOW_TIMES // 2
    power = np.zeros((n_rows, len(PANELS), N_BINS), np.float32)
    for panel, name in enumerate(PANELS):
        chain_CT = uv_CT[[CHANNELS.index(electrode) for electrode in CHAINS[name]]]
        spectrum_CF = fft.rfft(chain_CT[:-1] - chain_CT[1:], axis=-1) * high_pass_F
        bipolar_CT = fft.irfft(spectrum_CF, uv_CT.shape[1], axis=-1)
        frames_CTW = np.lib.stride_tricks.sliding_window_view(bipolar_CT, WINDOW_TIMES, axis=1)
        for frames_TW in frames_CTW[:, first : first + n_rows * step : step]:
            add_power(frames_TW, power[:, panel])
    power *= np.float32(power_scale() / (len(CHAINS["LL"]) - 1))
    return power.reshape(n_rows, len(PANELS) * N_BINS)


def rows_of(first: int, last: int) -> slice:
    """Return the rows of `spectrogram` whose windows overlap samples `first` to `last` − 1 of the study's signal."""
    step = SPECTROGRAM_STEP_S * SFREQ_HZ
    window = MARGIN_S * SFREQ_HZ + step // 2 - WINDOW_TIMES // 2
    return slice(max((first - window - WINDOW_TIMES) // step + 1, 0), max(-((window - last) // step), 0))
