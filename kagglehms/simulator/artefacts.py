"""Artefacts, the parts of a recording that do not come from the brain: eyes, muscle, electrodes, cables, mains, heart.

Those of intensive care are in `intensive_care`.

Shape suffixes: C channel, T time, F frequency.
"""

from __future__ import annotations

import numpy as np

from kagglehms.data.competition import SFREQ_HZ
from kagglehms.simulator.background import States
from kagglehms.simulator.patients import Patient
from kagglehms.simulator.scalp import (
    ELECTRODES,
    F32,
    POSITIONS,
    Source,
    at_random,
    beats,
    bins_hz,
    events,
    field,
    knots,
    one_electrode,
    shaped_noise,
    wander,
)

LINE_HZ = 60


def artefacts(
    n_times: int, patient: Patient, states: States, heart_T: F32, rng: np.random.Generator
) -> list[Source]:
    """Simulate all artefacts except muscle and those of intensive care."""
    return [
        *_eyes(n_times, patient, states, rng),
        *_pops(n_times, patient, rng),
        *_sway(n_times, patient, rng),
        *_movement(n_times, patient, rng),
        *_line(n_times, patient, rng),
        Source(
            heart_T * np.float32(patient.heart_uv / 500),
            (1 + 0.8 * POSITIONS[:, 0] - 0.3 * POSITIONS[:, 1]).astype(np.float32),
        ),
    ]


def _eyes(n_times: int, patient: Patient, states: States, rng: np.random.Generator) -> list[Source]:
    """Simulate blinks and glances to the side, which F7 and F8 record with opposite signs."""
    if not patient.blinks_per_min:
        return []
    awake = (0.25 + 0.75 * states.alpha_T) * (1 - 0.9 * states.spindles_T)
    blink = np.hanning(SFREQ_HZ * 2 // 5).astype(np.float32)
    places = at_random(n_times, patient.blinks_per_min, rng)
    blinks = events(places, rng.uniform(60, 200, len(places)), blink, n_times) * awake
    look = np.concatenate([np.linspace(0, 1, 20), np.ones(150), np.linspace(1, 0, 20)]).astype(np.float32)
    places = at_random(n_times, patient.blinks_per_min / 3, rng)
    looks = events(places, rng.normal(0, 40, len(places)), look, n_times) * awake
    front = np.exp(-((POSITIONS[:, 1] - 1) ** 2) / np.float32(2 * 0.25**2))
    return [Source(blinks, front), Source(looks, field(0.85, 0.7, 0.3) - field(-0.85, 0.7, 0.3))]


def muscle(n_times: int, patient: Patient, rng: np.random.Generator) -> F32:
    """Simulate muscle activity, which comes in bouts and is strongest at temples and forehead, and constant noise.

    Args:
        n_times: number of samples.
        patient: the patient.
        rng: random generator.

    Returns:
        (19, n_times) µV, different at every electrode.
    """
    hz = bins_hz(n_times, 90)
    # Surface muscle has a broad spectrum with a maximum at 30–60 Hz, cut off by the filter of the amplifier.
    amplitude = hz / (hz + 25) / (1 + (hz / patient.muscle_cutoff_hz) ** 6)
    noise = shaped_noise(amplitude + 0.02, len(ELECTRODES), n_times, rng)
    where = (
        0.15
        + field(-0.95, 0.2, 0.4)
        + field(0.95, 0.2, 0.4)
        + 0.6 * np.exp(-((POSITIONS[:, 1] - 1) ** 2) / 0.2)
    )
    tense = np.clip(wander(n_times, 8, rng) - 0.8, 0, 1.5)
    left, right = (np.clip(tense + np.float32(0.3) * wander(n_times, 20, rng), 0, 2) for _ in range(2))
    floor = patient.floor_uv * np.exp(patient.floor_spread * rng.standard_normal(len(ELECTRODES)))
    for number, (x, _) in enumerate(POSITIONS):
        tension = left if x < 0 else right if x > 0 else tense
        noise[number] *= np.float32(floor[number]) + tension * np.float32(patient.muscle_uv * where[number])
    return noise


def _pops(n_times: int, patient: Patient, rng: np.random.Generator) -> list[Source]:
    """Simulate pops of an electrode that loses contact: a jump and its decay."""
    if not patient.pops_per_min:
        return []
    decay = np.exp(-np.arange(SFREQ_HZ) / (rng.uniform(0.05, 0.3) * SFREQ_HZ)).astype(np.float32)
    places = at_random(n_times, patient.pops_per_min, rng)
    sizes = rng.normal(0, 1, len(places)) * 10 ** rng.uniform(2, 3.5)
    return [Source(events(places, sizes, decay, n_times), one_electrode(rng))]


def _sway(n_times: int, patient: Patient, rng: np.random.Generator) -> list[Source]:
    """Simulate slow drifts far below 1 Hz, from sweat and cables, each over a few electrodes."""
    if not patient.sway_uv:
        return []
    amplitude = np.exp(-((bins_hz(n_times, 1.5) - 0.2) ** 2) / (2 * 0.12**2))
    courses = shaped_noise(amplitude, 2, n_times, rng) * np.float32(patient.sway_uv)
    return [
        Source(course * np.abs(wander(n_times, 30, rng)), field(float(x), float(y), 0.3))
        for course, (x, y) in zip(courses, rng.uniform(-0.9, 0.9, (2, 2)), strict=True)
    ]


def _movement(n_times: int, patient: Patient, rng: np.random.Generator) -> list[Source]:
    """Simulate movements of the patient: seconds of large, slow, irregular waves at all electrodes."""
    places = at_random(n_times, patient.moves_per_min, rng) / SFREQ_HZ
    if not len(places):
        return []
    at_s, values = [-1.0], [0.0]
    for start in places.tolist():
        if start > at_s[-1]:
            at_s += [start, start + 0.5, start + rng.uniform(1, 6), start + 8]
            values += [0, float(rng.uniform(30, 250)), float(rng.uniform(30, 250)), 0]
    amplitude = 1 / (1 + (bins_hz(n_times, 50) / rng.uniform(1.5, 5)) ** 2)
    course = shaped_noise(amplitude, 1, n_times, rng)[0] * knots(np.array(at_s), np.array(values), n_times)
    return [Source(course, rng.normal(0.3, 0.6, len(ELECTRODES)).astype(np.float32))]


def _line(n_times: int, patient: Patient, rng: np.random.Generator) -> list[Source]:
    """Simulate mains hum, with the same phase at all electrodes and a strength that depends on their contact."""
    if not patient.line_uv:
        return []
    phase = 2 * np.pi * LINE_HZ / SFREQ_HZ * np.arange(n_times) + rng.uniform(0, 2 * np.pi)
    bad = patient.line_uv * np.exp(0.7 * rng.standard_normal(len(ELECTRODES)))
    return [Source(np.sin(phase).astype(np.float32), bad.astype(np.float32))]


def heart(n_times: int, patient: Patient, rng: np.random.Generator) -> tuple[F32, F32]:
    """Simulate the heartbeat.

    Args:
        n_times: number of samples.
        patient: the patient.
        rng: random generator.

    Returns:
        The heartbeat with an amplitude of 500 µV, and the EKG channel: a QRS complex and a T wave per beat, with noise.
    """
    t = np.arange(-0.1, 0.45, 1 / SFREQ_HZ)
    wave = np.exp(-(t**2) / (2 * 0.012**2)) - 0.25 * np.exp(-((t - 0.035) ** 2) / (2 * 0.012**2))
    wave += 0.2 * np.exp(-((t - 0.28) ** 2) / (2 * 0.04**2))
    places = beats(n_times, patient.heart_hz, 0.03, rng)
    beat = events(places, np.full(len(places), 500.0), wave.astype(np.float32), n_times)
    size = np.float32(np.exp(rng.uniform(np.log(0.02), np.log(3))))
    sway = wander(n_times, 3, rng) * np.float32(np.exp(rng.uniform(0, 3.4)))
    noise = rng.standard_normal(n_times, np.float32) * np.float32(rng.uniform(1, 6))
    return beat, beat * size * np.float32(rng.choice([-1, 1])) + sway + noise
