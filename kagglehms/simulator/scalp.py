"""What all parts of the simulated signal are made of: electrodes and fields, shaped noise, events, slow changes.

A *source* is a time course with a field, how strongly each electrode sees it. The EEG is the sum of all sources,
so one matrix product makes it.

Shape suffixes: C channel, T time, S seconds, N source, F frequency.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from kagglehms.data.competition import CHANNELS, SFREQ_HZ

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

MARGIN_S = 4
"""Signal before second 0 and after the last, so that the first and last spectrum have a whole window."""

ELECTRODES = CHANNELS[:19]
POSITIONS = np.array(
    [
        (-0.31, 0.95), (-0.40, 0.50), (-0.50, 0.00), (-0.40, -0.50), (-0.81, 0.59), (-1.00, 0.00),
        (-0.81, -0.59), (-0.31, -0.95), (0.00, 0.50), (0.00, 0.00), (0.00, -0.50),
        (0.31, 0.95), (0.40, 0.50), (0.50, 0.00), (0.40, -0.50), (0.81, 0.59), (1.00, 0.00),
        (0.81, -0.59), (0.31, -0.95),
    ],
    np.float32,
)  # fmt: skip
"""Places of the 19 electrodes on a disc: (right, front), the ears at ±1. Source: the 10–20 system, flattened."""


class Source(NamedTuple):
    """A time course and its field: how strongly each of the 19 electrodes sees it."""

    course_T: F32
    field_C: F32


def field(x: float, y: float, width: float) -> F32:
    """(19,) a field that is 1 at (x, y) and falls off as a Gaussian."""
    distance2 = ((POSITIONS - np.array([x, y], np.float32)) ** 2).sum(axis=1)
    return np.exp(-distance2 / np.float32(2 * width**2))


def hemisphere(side: float, y: float, width: float) -> F32:
    """(19,) a field over one hemisphere (−1 left, 1 right), its crest at height y, and a trace on the other."""
    return field(side * 0.65, y, width) + np.float32(0.12) * field(-side * 0.65, y, width)


def mixing(width: float) -> F64:
    """(19, 19) volume conduction: near electrodes see nearly the same sources. Rows have unit power."""
    distance2 = ((POSITIONS[:, None] - POSITIONS[None]) ** 2).sum(axis=-1)
    weights = np.exp(-distance2 / (2 * width**2))
    return weights / np.sqrt((weights**2).sum(axis=1, keepdims=True))


def bins_hz(n_times: int, cutoff_hz: float) -> F64:
    """Frequencies of the first bins of a real transform, up to `cutoff_hz`."""
    return np.arange(int(cutoff_hz * n_times / SFREQ_HZ), dtype=np.float64) * (SFREQ_HZ / n_times)


def shaped_noise(amplitude_F: F64, n_sources: int, n_times: int, rng: np.random.Generator) -> F32:
    """(n_sources, n_times) Gaussian noise of unit variance with the spectrum `amplitude_F` over the first bins."""
    gain = amplitude_F * n_times / (2 * np.sqrt((amplitude_F**2).sum()))
    parts = rng.standard_normal((n_sources, len(amplitude_F), 2), np.float32)
    parts *= gain.astype(np.float32)[:, None]
    return fft.irfft(parts.view(np.complex64)[..., 0], n_times, axis=-1).astype(np.float32, copy=False)


def events(places: NDArray[np.int64], sizes: F64, wave: F32, n_times: int) -> F32:
    """(n_times,) `wave` put down at each of `places` (sample of its first point), times the event's size."""
    out = np.zeros(n_times + len(wave), np.float32)
    for place, size in zip(places.tolist(), sizes.astype(np.float32), strict=True):
        out[place : place + len(wave)] += size * wave
    return out[:n_times]


def beats(n_times: int, rate_hz: float, jitter: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Samples of events about `rate_hz` a second, their intervals scattered by the fraction `jitter`."""
    count = int(n_times / SFREQ_HZ * rate_hz * 2) + 2
    intervals = SFREQ_HZ / rate_hz * np.maximum(1 + jitter * rng.standard_normal(count), 0.5)
    places = np.cumsum(intervals).astype(np.int64)
    return places[places < n_times]


def at_random(n_times: int, per_min: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Samples of events that come independently, `per_min` a minute in the mean."""
    return np.sort(rng.integers(0, n_times, rng.poisson(per_min * n_times / SFREQ_HZ / 60)))


def knots(at_s: NDArray[np.floating], values: NDArray[np.floating], n_times: int) -> F32:
    """(n_times,) straight lines between `values` at seconds `at_s`, which rise, of the signal."""
    return np.interp(np.arange(n_times) / SFREQ_HZ, at_s, values).astype(np.float32)


def wander(n_times: int, every_s: int, rng: np.random.Generator) -> F32:
    """(n_times,) a slowly changing number of about unit size."""
    n_knots = -(-n_times // (every_s * SFREQ_HZ)) + 1
    return knots(np.arange(n_knots) * float(every_s), rng.standard_normal(n_knots), n_times)
