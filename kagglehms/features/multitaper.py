"""EEG → rows of a spectrogram file, computed as the competition's were.

The recipe below was found by comparing rows of five real spectrogram files with the real EEG files that they were
made of: a Butterworth high-pass of order 3 at 0.5 Hz, forwards and backwards; windows of 4 s around each row's
second, their linear trend removed; three Slepian tapers of time–bandwidth 2; transforms of 1024 points; power
per Hz, not doubled for the negative frequencies; mean over the four derivations of a chain; rounded to 0.01.
A test computes rows of real files in this way: the logarithms differ by 0.01 in the mean, which is the rounding.

Shape suffixes: C channel, T time, F frequency, W window, P panel.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import (
    BIN_HZ,
    CHAINS,
    CHANNELS,
    N_BINS,
    PANELS,
    SFREQ_HZ,
    SPECTROGRAM_STEP_S,
)
from kagglehms.data.gaps import bridge
from kagglehms.features.arrays import expected

F32 = NDArray[np.float32]

WINDOW_TIMES = 4 * SFREQ_HZ
TRANSFORM_TIMES = round(SFREQ_HZ / BIN_HZ)
FIRST_BIN = 3
TIME_BANDWIDTH, N_TAPERS = 2, 3
HIGH_PASS_HZ, HIGH_PASS_ORDER = 0.5, 3
REACH_TIMES = 16 * SFREQ_HZ
"""Memory of the high-pass: samples farther away change a value by less than 1e-10 of itself."""
_ROWS_AT_ONCE = 64
"""Rows of one derivation that fit into the cache together with their transforms."""


def multitaper_rows(eeg_uv: NDArray[np.floating], first_s: float = 1.0, n_rows: int | None = None) -> F32:
    """Compute rows of a spectrogram file from the signal.

    A row describes the 4 s around its second. A derivation in which one of their samples is missing is left out of the
    mean over the chain; where all are, and beyond the ends of the signal, the row is NaN. Within 8 s of an end, rows
    differ slightly from those of a longer signal, because the high-pass has no samples beyond the end.

    On real recordings, 8 s at either end left out, the logarithms of the power (+ 0.02) differ from those of the
    competition's files by less than 0.02 in the mean and less than 0.01 in the median.

    Args:
        eeg_uv: (n_times, 20) µV at 200 Hz, channels as in `competition.CHANNELS`; NaN where nothing was recorded.
        first_s: second of the signal on which the first row is centred.
        n_rows: number of rows, one every 2 s; if None, up to the last whose 4 s end within the signal.

    Returns:
        (n_rows, 400) float32 power in µV²/Hz, rounded to 0.01, columns as in `competition.SPECTROGRAM_COLUMNS`.

    Raises:
        UsageError: another shape.
    """
    if eeg_uv.ndim != 2 or eeg_uv.shape[1] != len(CHANNELS):
        raise expected("eeg_uv", f"(n_times, {len(CHANNELS)})", eeg_uv.shape)
    n_times = len(eeg_uv)
    step = SPECTROGRAM_STEP_S * SFREQ_HZ
    begin = round(first_s * SFREQ_HZ) - WINDOW_TIMES // 2
    if n_rows is None:
        n_rows = max(0, (n_times - WINDOW_TIMES - begin) // step + 1)
    starts = begin + step * np.arange(n_rows)
    inside = (starts >= 0) & (starts + WINDOW_TIMES <= n_times)
    rows = np.full((n_rows, len(PANELS), N_BINS), np.nan, np.float32)
    for panel, name in enumerate(PANELS if inside.any() else ()):
        chain_CT = eeg_uv[:, [CHANNELS.index(electrode) for electrode in CHAINS[name]]].T.astype(np.float32)
        power_TF, known_T = _mean_power(chain_CT[:-1] - chain_CT[1:], starts[inside])
        power_TF[known_T == 0] = np.nan
        rows[inside, panel] = power_TF
    return np.round(rows.reshape(n_rows, len(PANELS) * N_BINS), 2)


def _mean_power(bipolar_CT: F32, starts: NDArray[np.int64]) -> tuple[F32, NDArray[np.int64]]:
    """Return the mean power of the derivations that are complete in each window, and their number."""
    missing_CT = bridge(bipolar_CT)
    touched_CT = np.cumsum(np.pad(missing_CT, ((0, 0), (1, 0))), axis=1)
    whole_CT = touched_CT[:, starts + WINDOW_TIMES] == touched_CT[:, starts]
    filtered_CT = filtered(bipolar_CT)
    power_TF = np.zeros((len(starts), N_BINS), np.float32)
    for signal_T, whole_T in zip(filtered_CT, whole_CT, strict=True):
        if whole_T.any():
            part_TF = np.zeros((int(whole_T.sum()), N_BINS), np.float32)
            frames_TW = np.lib.stride_tricks.sliding_window_view(signal_T, WINDOW_TIMES)
            add_power(frames_TW[starts[whole_T]], part_TF)
            power_TF[whole_T] += part_TF
    known_T = whole_CT.sum(axis=0)
    power_TF *= np.float32(power_scale()) / np.maximum(known_T, 1)[:, None].astype(np.float32)
    return power_TF, known_T


def filtered(bipolar_CT: F32) -> F32:
    """High-pass derivations without gaps, mirrored at both ends as far as the filter reaches."""
    from scipy import fft

    n_times = bipolar_CT.shape[1]
    reach = min(REACH_TIMES, n_times - 1)
    padded_CT = np.pad(bipolar_CT, ((0, 0), (reach, reach)), mode="reflect", reflect_type="odd")
    length = fft.next_fast_len(padded_CT.shape[1] + reach, real=True)
    gain_F = high_pass(length)
    out_CT = np.empty_like(bipolar_CT)
    for signal_T, out_T in zip(padded_CT, out_CT, strict=True):
        # The transform treats the signal as periodic, so a straight line joins its end to its beginning.
        bridge_T = np.linspace(signal_T[-1], signal_T[0], length - len(signal_T) + 2, dtype=np.float32)[1:-1]
        spectrum_F = fft.rfft(np.concatenate([signal_T, bridge_T])) * gain_F
        out_T[:] = fft.irfft(spectrum_F, length)[reach : reach + n_times]
    return out_CT


def add_power(frames_TW: F32, power_TF: F32) -> None:
    """Add the power of one derivation's windows, summed over the tapers, to bins 3 … 102 of each row.

    Args:
        frames_TW: (n_rows, 800) filtered windows.
        power_TF: (n_rows, 100) sums that are added to; times `power_scale` they are power.
    """
    from scipy import fft

    line_W2, tapers_KW = _line_and_tapers()
    bins = slice(FIRST_BIN, FIRST_BIN + N_BINS)
    for start in range(0, len(power_TF), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        level_TW = frames_TW[rows] - (frames_TW[rows] @ line_W2) @ line_W2.T
        for taper_W in tapers_KW:
            spectra = fft.rfft(level_TW * taper_W, TRANSFORM_TIMES)[:, bins]
            power_TF[rows] += spectra.real**2 + spectra.imag**2


def power_scale() -> float:
    """Return the factor from sums over the tapers to mean power per Hz."""
    return 1 / (SFREQ_HZ * N_TAPERS)


def high_pass(n_times: int) -> F32:
    """Return the gain of the Butterworth filter, applied twice, at the bins of a real transform."""
    from scipy import fft

    hz = fft.rfftfreq(n_times, 1 / SFREQ_HZ)
    power = (hz / HIGH_PASS_HZ) ** (2 * HIGH_PASS_ORDER)
    return (power / (1 + power)).astype(np.float32)


@lru_cache(maxsize=1)
def _line_and_tapers() -> tuple[F32, F32]:
    """Return a (window, 2) orthonormal basis of straight lines, and (3, window) tapers of unit power."""
    from scipy.signal import windows

    ramp = np.linspace(-1, 1, WINDOW_TIMES)
    line = np.stack([np.full(WINDOW_TIMES, WINDOW_TIMES**-0.5), ramp / np.sqrt((ramp**2).sum())], axis=1)
    tapers = windows.dpss(WINDOW_TIMES, TIME_BANDWIDTH, N_TAPERS)
    return line.astype(np.float32), tapers.astype(np.float32)
