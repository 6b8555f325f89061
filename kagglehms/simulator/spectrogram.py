"""The spectrogram files, computed as the competition's were.

The recipe below was found by comparing rows of five real spectrogram files with the real EEG files that they were
made of: a Butterworth high-pass of order 3 at 0.5 Hz, forwards and backwards; windows of 4 s around each row's
second, their straight line taken out; three Slepian tapers of time–bandwidth 2; transforms of 1024 points; power
per Hz, not doubled for the negative frequencies; mean over the four derivations of a chain; rounded to 0.01.
A test computes real rows so and compares: the logarithms differ by 0.01 in the mean, which is the rounding.

Shape suffixes: C channel, T time, F frequency, W window.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import fft
from scipy.signal import windows

from kagglehms.data.competition import (
    BIN_HZ,
    CHAINS,
    CHANNELS,
    N_BINS,
    PANELS,
    SFREQ_HZ,
    SPECTROGRAM_STEP_S,
)
from kagglehms.simulator.scalp import F32, MARGIN_S

WINDOW_TIMES = 4 * SFREQ_HZ
TRANSFORM_TIMES = round(SFREQ_HZ / BIN_HZ)
FIRST_BIN = 3
TIME_BANDWIDTH, N_TAPERS = 2, 3
HIGH_PASS_HZ, HIGH_PASS_ORDER = 0.5, 3
_ROWS_AT_ONCE = 64
"""So many rows of one derivation fit into the cache together with their transforms."""


def spectrogram(uv_CT: F32, n_rows: int) -> F32:
    """Power of the four chains by multitaper.

    Args:
        uv_CT: what `simulate_session` returned: (≥ 19, n_times), second 0 of the session `MARGIN_S` in.
        n_rows: rows wanted, one every 2 s, the first centred at second 1 of the session.

    Returns:
        (n_rows, 400) in µV²/Hz, panels LL, RL, LP, RP, each with bins 3 … 102 of a 1024-point transform.
    """
    line_W2, tapers_KW = _line_and_tapers()
    high_pass_F = _high_pass(uv_CT.shape[1])
    step = SPECTROGRAM_STEP_S * SFREQ_HZ
    first = MARGIN_S * SFREQ_HZ + step // 2 - WINDOW_TIMES // 2
    bins = slice(FIRST_BIN, FIRST_BIN + N_BINS)
    power = np.zeros((n_rows, len(PANELS), N_BINS), np.float32)
    for panel, name in enumerate(PANELS):
        chain_CT = uv_CT[[CHANNELS.index(electrode) for electrode in CHAINS[name]]]
        spectrum_CF = fft.rfft(chain_CT[:-1] - chain_CT[1:], axis=-1) * high_pass_F
        bipolar_CT = fft.irfft(spectrum_CF, uv_CT.shape[1], axis=-1)
        frames_CTW = np.lib.stride_tricks.sliding_window_view(bipolar_CT, WINDOW_TIMES, axis=1)
        frames_CTW = frames_CTW[:, first : first + n_rows * step : step]
        for frames_TW in frames_CTW:
            for start in range(0, n_rows, _ROWS_AT_ONCE):
                rows = slice(start, start + _ROWS_AT_ONCE)
                level_TW = frames_TW[rows] - (frames_TW[rows] @ line_W2) @ line_W2.T
                for taper_W in tapers_KW:
                    spectra = fft.rfft(level_TW * taper_W, TRANSFORM_TIMES)[:, bins]
                    power[rows, panel] += spectra.real**2 + spectra.imag**2
    power *= np.float32(1 / (SFREQ_HZ * N_TAPERS * (len(CHAINS["LL"]) - 1)))
    return power.reshape(n_rows, len(PANELS) * N_BINS)


def rows_of(first: int, last: int) -> slice:
    """The rows of `spectrogram` whose windows touch samples `first` … `last` − 1 of the session's signal."""
    step = SPECTROGRAM_STEP_S * SFREQ_HZ
    window = MARGIN_S * SFREQ_HZ + step // 2 - WINDOW_TIMES // 2
    return slice(max((first - window - WINDOW_TIMES) // step + 1, 0), max(-((window - last) // step), 0))


def _high_pass(n_times: int) -> F32:
    """Gain of the Butterworth filter passed twice, over the bins of a real transform."""
    hz = fft.rfftfreq(n_times, 1 / SFREQ_HZ)
    power = (hz / HIGH_PASS_HZ) ** (2 * HIGH_PASS_ORDER)
    return (power / (1 + power)).astype(np.float32)


@lru_cache(maxsize=1)
def _line_and_tapers() -> tuple[F32, F32]:
    """An orthonormal base of straight lines, (window, 2), and tapers of unit power, (3, window)."""
    ramp = np.linspace(-1, 1, WINDOW_TIMES)
    line = np.stack([np.full(WINDOW_TIMES, WINDOW_TIMES**-0.5), ramp / np.sqrt((ramp**2).sum())], axis=1)
    tapers = windows.dpss(WINDOW_TIMES, TIME_BANDWIDTH, N_TAPERS)
    return line.astype(np.float32), tapers.astype(np.float32)
