"""The elements of the simulated signal: electrodes and fields, shaped noise, events and slow changes.

A *source* is a time course and a field, which says how strongly each electrode records it. The EEG is the sum of all
sources, and can be computed by a single matrix product.

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
"""Seconds of signal before second 0 and after the end, so that the first and the last spectrum have a full window."""

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
"""Positions (right, front) of the 19 electrodes on a disc, with the ears at ±1. Source: the 10–20 system, flattened."""
RADIUS_RAD = np.radians(72)
"""Angle at the centre of the head that is one unit of the disc: T3 and T4 are 40 % of the way between the ears from the
vertex."""


class Source(NamedTuple):
    """A source of the EEG.

    Attributes:
        course_T: time course.
        field_C: strength at each of the 19 electrodes.
    """

    course_T: F32
    field_C: F32


def on_sphere(places: NDArray[np.floating]) -> F64:
    """Return (…, 3) points of the unit sphere for (…, 2) places on the disc."""
    radius = np.sqrt((np.asarray(places, np.float64) ** 2).sum(axis=-1, keepdims=True))
    angle = radius * RADIUS_RAD
    return np.concatenate([np.sin(angle) * places / np.maximum(radius, 1e-9), np.cos(angle)], axis=-1)


def distances(a: NDArray[np.floating], b: NDArray[np.floating]) -> F64:
    """Return the (A, B) distances along the head between places on the disc, in units of the disc."""
    return np.arccos(np.clip(on_sphere(a) @ on_sphere(b).T, -1, 1)) / RADIUS_RAD


def field(x: float, y: float, width: float) -> F32:
    """Return a (19,) field that is 1 at (x, y) and falls off like a Gaussian along the head."""
    away_C = distances(POSITIONS, np.array([(x, y)]))[:, 0]
    return np.exp(-(away_C**2) / (2 * width**2)).astype(np.float32)


def hemisphere(side: float, y: float, width: float, other: float = 0.12) -> F32:
    """Return a (19,) field over one hemisphere with its peak at height y, and less of it on the other.

    Args:
        side: −1 for left, 1 for right.
        y: position of the peak from back (−1) to front (1).
        width: standard deviation of the field.
        other: strength at the same place of the other hemisphere.
    """
    return field(side * 0.65, y, width) + np.float32(other) * field(-side * 0.65, y, width)


def generalised(rng: np.random.Generator) -> F32:
    """Return a symmetric field, largest in front; a field without a gradient vanishes in bipolar derivations."""
    y, width, least = rng.uniform(0.5, 0.9), rng.uniform(0.4, 0.65), rng.uniform(0.1, 0.35)
    return (least + (1 - least) * np.exp(-((POSITIONS[:, 1] - y) ** 2) / (2 * width**2))).astype(np.float32)


def one_electrode(rng: np.random.Generator) -> F32:
    """Return the (19,) field of something that happens at a single electrode."""
    return np.eye(len(ELECTRODES), dtype=np.float32)[rng.integers(len(ELECTRODES))]


def delayed(course_T: F32, lag_s: float) -> F32:
    """Return a time course that lags behind another."""
    lag = round(lag_s * SFREQ_HZ)
    return np.concatenate([np.zeros(lag, np.float32), course_T[: len(course_T) - lag]])


def mixing(width: float, positions: NDArray[np.floating] = POSITIONS) -> F64:
    """Return (19, 19) volume conduction: neighbouring electrodes record similar signals. Rows have unit power.

    Args:
        width: standard deviation of a source's field, in units of the disc.
        positions: (19, 2) places of the electrodes, above sources that stand where they should.
    """
    weights = np.exp(-(distances(positions, POSITIONS) ** 2) / (2 * width**2))
    return weights / np.sqrt((weights**2).sum(axis=1, keepdims=True))


def bins_hz(n_times: int, cutoff_hz: float) -> F64:
    """Return the frequencies of the bins of a real Fourier transform below `cutoff_hz`."""
    return np.arange(int(cutoff_hz * n_times / SFREQ_HZ), dtype=np.float64) * (SFREQ_HZ / n_times)


def shaped_noise(amplitude_F: F64, n_sources: int, n_times: int, rng: np.random.Generator) -> F32:
    """Return (n_sources, n_times) Gaussian noise of unit variance with a given spectrum.

    Args:
        amplitude_F: amplitudes of the first bins; the others are 0.
        n_sources: number of independent signals.
        n_times: number of samples.
        rng: random generator.
    """
    gain = amplitude_F * n_times / (2 * np.sqrt((amplitude_F**2).sum()))
    parts = rng.standard_normal((n_sources, len(amplitude_F), 2), np.float32)
    parts *= gain.astype(np.float32)[:, None]
    return fft.irfft(parts.view(np.complex64)[..., 0], n_times, axis=-1).astype(np.float32, copy=False)


def events(places: NDArray[np.int64], sizes: F64, wave: F32, n_times: int) -> F32:
    """Return (n_times,) signal with a waveform at every event.

    Args:
        places: sample at which each event begins.
        sizes: factor of each event.
        wave: the waveform.
        n_times: number of samples.
    """
    out = np.zeros(n_times + len(wave), np.float32)
    for place, size in zip(places.tolist(), sizes.astype(np.float32), strict=True):
        out[place : place + len(wave)] += size * wave
    return out[:n_times]


def beats(n_times: int, rate_hz: float, jitter: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the samples of events that come `rate_hz` times per second, with intervals that vary by `jitter`."""
    count = int(n_times / SFREQ_HZ * rate_hz * 2) + 2
    intervals = SFREQ_HZ / rate_hz * np.maximum(1 + jitter * rng.standard_normal(count), 0.5)
    places = np.cumsum(intervals).astype(np.int64)
    return places[places < n_times]


def at_random(n_times: int, per_min: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the samples of independent events, on average `per_min` per minute."""
    return np.sort(rng.integers(0, n_times, rng.poisson(per_min * n_times / SFREQ_HZ / 60)))


def knots(at_s: NDArray[np.floating], values: NDArray[np.floating], n_times: int) -> F32:
    """Return (n_times,) linear interpolation between `values` at increasing times `at_s`, in seconds."""
    return np.interp(np.arange(n_times) / SFREQ_HZ, at_s, values).astype(np.float32)


def wander(n_times: int, every_s: float, rng: np.random.Generator) -> F32:
    """Return (n_times,) a slowly changing number with a standard deviation of about 1."""
    step = max(round(every_s * SFREQ_HZ), 1)
    values = rng.standard_normal(-(-n_times // step) + 1, np.float32)
    ramp = np.arange(step, dtype=np.float32) / np.float32(step)
    return (values[:-1, None] + np.diff(values)[:, None] * ramp).ravel()[:n_times]
