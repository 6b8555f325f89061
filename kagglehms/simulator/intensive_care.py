"""Artefacts of intensive care: ventilators, pulse, chewing, and electrodes that are loose, flat or joined by paste.

Shape suffixes: C channel, T time.
"""

from __future__ import annotations

import numpy as np

from kagglehms.data.competition import SFREQ_HZ
from kagglehms.simulator.patients import Patient
from kagglehms.simulator.scalp import (
    ELECTRODES,
    F32,
    POSITIONS,
    Source,
    at_random,
    beats,
    bins_hz,
    distances,
    events,
    field,
    one_electrode,
    shaped_noise,
    wander,
)

RAIL_UV = 900
"""Amplitude at which a loose electrode's amplifier saturates."""


def intensive_care(n_times: int, patient: Patient, rng: np.random.Generator) -> list[Source]:
    """Simulate what a ventilator, the pulse and chewing add.

    Args:
        n_times: number of samples.
        patient: the patient.
        rng: random generator.
    """
    return [
        *_ventilator(n_times, patient, rng),
        *_pulse(n_times, patient, rng),
        *_chewing(n_times, patient, rng),
    ]


def _ventilator(n_times: int, patient: Patient, rng: np.random.Generator) -> list[Source]:
    """Simulate cycles of 12–20 a minute: a slow movement of the head and, of some, water that bubbles in the tube."""
    if not patient.ventilator_uv:
        return []
    places = beats(n_times, float(rng.uniform(0.2, 0.33)), 0.02, rng)
    t = np.arange(0, 2, 1 / SFREQ_HZ)
    push = (np.hanning(len(t)) * np.sin(np.pi * t)).astype(np.float32)
    course = events(places, 1 + 0.1 * rng.standard_normal(len(places)), push, n_times)
    if rng.random() < 0.4:
        bubbles = np.hanning(SFREQ_HZ).astype(np.float32)
        level = events(places, rng.uniform(0.2, 1, len(places)), bubbles, n_times)
        amplitude = np.exp(-((bins_hz(n_times, 20) - rng.uniform(7, 13)) ** 2) / (2 * 2.0**2))
        course += np.float32(0.5) * level * shaped_noise(amplitude, 1, n_times, rng)[0]
    where = field(float(rng.uniform(-0.6, 0.6)), float(rng.uniform(-1, 0)), 0.5)
    return [Source(course * np.float32(patient.ventilator_uv), where)]


def _pulse(n_times: int, patient: Patient, rng: np.random.Generator) -> list[Source]:
    """Simulate the pulse below one electrode: a smooth wave per heartbeat, whose rate drifts over minutes."""
    if not patient.pulse_uv:
        return []
    hz = patient.heart_hz * (1 + np.float32(0.05) * wander(n_times, 60, rng))
    phase = 2 * np.pi * np.cumsum(hz, dtype=np.float64) / SFREQ_HZ
    course = np.exp(1.5 * np.cos(phase) - 1.5).astype(np.float32)
    level = np.clip(1 + np.float32(0.7) * wander(n_times, 60, rng), 0, 2)
    return [Source(course * level * np.float32(patient.pulse_uv), one_electrode(rng))]


def _chewing(n_times: int, patient: Patient, rng: np.random.Generator) -> list[Source]:
    """Simulate bouts of chewing: bursts of muscle over both temples, once or twice a second."""
    if not patient.chews_per_min:
        return []
    level = np.zeros(n_times, np.float32)
    burst = np.hanning(SFREQ_HZ // 3).astype(np.float32)
    for start in at_random(n_times, patient.chews_per_min, rng).tolist():
        length = min(int(rng.uniform(4, 20) * SFREQ_HZ), n_times - start)
        places = beats(length, float(rng.uniform(0.9, 1.8)), 0.1, rng)
        level[start : start + length] += events(places, rng.uniform(0.5, 1.5, len(places)), burst, length)
    hz = bins_hz(n_times, 90)
    noise = shaped_noise(hz / (hz + 20), 2, n_times, rng) * level
    size = np.float32(rng.uniform(15, 80))
    return [Source(noise[side] * size, field(2 * side - 1.0, 0.3, 0.45)) for side in (0, 1)]


def spoil_electrodes(uv_CT: F32, patient: Patient, rng: np.random.Generator) -> None:
    """Join two electrodes by paste, make others loose or flat, in some studies and for part of the time.

    Args:
        uv_CT: (19, n_times) EEG in µV, which is changed in place.
        patient: the patient.
        rng: random generator.
    """
    for_flat, for_bad, for_bridge = rng.spawn(3)
    if for_bridge.random() < patient.bridged:
        _bridge(uv_CT, for_bridge)
    if for_bad.random() < patient.bad:
        _loosen(uv_CT, for_bad)
    if for_flat.random() < patient.flat:
        _flatten(uv_CT, for_flat)


def _stretch(n_times: int, seconds: float, rng: np.random.Generator) -> slice:
    length = int(seconds * SFREQ_HZ)
    start = int(rng.integers(0, max(n_times - length, 1)))
    return slice(start, start + length)


def _flatten(uv_CT: F32, rng: np.random.Generator) -> None:
    """Make one or two electrodes flat for part of the study, with an offset and the noise of the amplifier."""
    for channel in rng.choice(len(ELECTRODES), int(rng.integers(1, 3)), replace=False):
        stretch = uv_CT[channel, _stretch(uv_CT.shape[1], float(rng.uniform(5, 200)), rng)]
        stretch[:] = np.float32(rng.normal(0, 30)) + np.float32(0.01) * np.round(
            rng.standard_normal(len(stretch), np.float32)
        )


def _loosen(uv_CT: F32, rng: np.random.Generator) -> None:
    """Add noise, hum and drift to an electrode whose contact comes and goes, up to the amplifier's limit."""
    part = _stretch(uv_CT.shape[1], float(np.exp(rng.uniform(np.log(20), np.log(900)))), rng)
    stretch = uv_CT[rng.integers(len(ELECTRODES)), part]
    n_times = len(stretch)
    size = float(np.exp(rng.uniform(np.log(10), np.log(400))))
    hum = np.sin(2 * np.pi * 60 / SFREQ_HZ * np.arange(n_times)).astype(np.float32)
    drift = np.cumsum(rng.standard_normal(n_times, np.float32)) * np.float32(0.05)
    drift -= drift.mean()
    noise = rng.standard_normal(n_times, np.float32) + np.float32(rng.uniform(0, 2)) * hum + drift
    contact = np.clip(
        wander(n_times, float(rng.uniform(0.3, 10)), rng) + np.float32(rng.uniform(-1, 1)), 0, 2
    )
    stretch += np.float32(size) * contact * noise
    np.clip(stretch, -RAIL_UV, RAIL_UV, out=stretch)


def _bridge(uv_CT: F32, rng: np.random.Generator) -> None:
    """Let two neighbouring electrodes record the same signal, up to a little noise."""
    away = distances(POSITIONS, POSITIONS) + 9 * np.eye(len(ELECTRODES))
    a = int(rng.integers(len(ELECTRODES)))
    b = int(away[a].argmin())
    uv_CT[[a, b]] = (uv_CT[a] + uv_CT[b]) / 2 + rng.standard_normal(
        (2, uv_CT.shape[1]), np.float32
    ) * np.float32(0.3)
