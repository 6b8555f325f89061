"""Seizures of several kinds, and rhythmic discharges too brief for one.

Source of the definitions: American Clinical Neurophysiology Society's Standardized Critical Care EEG Terminology
(Hirsch et al. 2021). A seizure is 10 s and more of discharges above 2.5 Hz, or of activity that evolves in frequency,
shape or place; brief potentially ictal rhythmic discharges are the same above 4 Hz, shorter than 10 s.

Shape suffixes: C channel, T time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kagglehms.data.competition import SFREQ_HZ
from kagglehms.simulator.patients import Patient
from kagglehms.simulator.scalp import (
    F32,
    F64,
    MARGIN_S,
    Source,
    at_random,
    field,
    generalised,
    wander,
)

ICTAL = 6.0
"""Median amplitude of a seizure, in standard deviations of the background."""
SPREAD = 0.3
"""Standard deviation of the logarithm of a pattern's amplitude over studies, in all segments of each."""
KINDS = ("evolving", "steady", "spike-wave", "fast")
_SHARES = (0.5, 0.28, 0.1, 0.12)


@dataclass(frozen=True)
class Segment:
    """A labelled stretch of a study.

    Attributes:
        start_s: start of the first labelled 10 s, in seconds of the study.
        stop_s: end of the last labelled 10 s, in seconds of the study.
        probabilities: true probability of each class.
    """

    start_s: float
    stop_s: float
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class _Kind:
    """What the seizures of one study have in common.

    Attributes:
        name: one of `KINDS`.
        from_hz: frequency at the beginning.
        to_hz: frequency at the end.
        sharpness: amplitude of the second harmonic at the end, relative to the first.
        before_s: most seconds by which a seizure begins before its labels.
        after_s: most seconds by which it ends after them.
        growth: part of the final amplitude that is missing at the beginning.
        low_until: part of a seizure in which its amplitude is still low.
    """

    name: str
    from_hz: float
    to_hz: float
    sharpness: float
    before_s: float
    after_s: float
    growth: float
    low_until: float

    @classmethod
    def draw(cls, patient: Patient, rng: np.random.Generator) -> _Kind:
        """Draw one; without irregularity it is one that evolves."""
        name = str(rng.choice(KINDS, p=_SHARES)) if patient.irregularity else "evolving"
        if name == "steady":
            hz = float(rng.uniform(2.5, 7))
            return cls(
                name, hz, hz * float(rng.uniform(0.7, 1.1)), float(rng.uniform(0.1, 0.7)), 200, 150, 0.1, 0
            )
        if name == "spike-wave":
            hz = float(rng.uniform(2.5, 3.8))
            return cls(name, hz, hz * float(rng.uniform(0.75, 1)), 0.9, 30, 40, 0.1, 0)
        if name == "fast":
            return cls(name, float(rng.uniform(13, 24)), float(rng.uniform(5, 10)), 0.2, 12, 25, 0.5, 0.4)
        from_hz = rng.uniform(9, 16) if rng.random() < 0.33 else rng.uniform(5, 8)
        return cls(name, float(from_hz), float(rng.uniform(2, 4)), 0.6, 25, 40, 0.65, 0)


def seizures(
    n_times: int,
    strength_T: F32,
    recordings: list[tuple[Segment, ...]],
    patient: Patient,
    rng: np.random.Generator,
) -> list[Source]:
    """Simulate one seizure around each recording's labels, which grows, slows down, spreads and stops.

    Args:
        n_times: number of samples.
        strength_T: (n_times,) strength.
        recordings: labelled segments of each EEG.
        patient: the patient.
        rng: random generator.

    Returns:
        The activity at its focus and in its surroundings, and, of some seizures, the muscle of convulsions.
    """
    kind = _Kind.draw(patient, rng)
    if kind.name == "spike-wave" or rng.random() < 0.2:
        focus, spread = generalised(rng), generalised(rng)
    else:
        x, y = patient.side * rng.uniform(0.4, 0.85), rng.uniform(-0.7, 0.7)
        focus = field(x, y, float(rng.uniform(0.25, 0.45)))
        far = patient.side * (-0.6 if rng.random() < 0.3 else 0.6)
        spread = field(far, y - float(np.sign(y)) * 0.6, 0.5)
    near, wide, tense = (np.zeros(n_times, np.float32) for _ in range(3))
    for segments in recordings:
        _one_seizure(near, wide, tense, segments, kind, patient.irregularity, rng)
    spread_uv = np.exp(SPREAD * rng.standard_normal())
    scale = strength_T * np.float32(ICTAL * patient.pattern_uv * spread_uv)
    sources = [Source(near * scale, focus), Source(wide * scale, spread)]
    if patient.muscle_uv and rng.random() < 0.25:
        tense *= rng.standard_normal(n_times, np.float32) * strength_T
        temples = field(0.95, 0.2, 0.5) + field(-0.95, 0.2, 0.5) + np.float32(0.1)
        sources.append(Source(tense * np.float32(3 * patient.muscle_uv), temples))
    return sources


def _one_seizure(
    near: F32,
    wide: F32,
    tense: F32,
    segments: tuple[Segment, ...],
    kind: _Kind,
    irregularity: float,
    rng: np.random.Generator,
) -> None:
    """Add one seizure to the signals of its focus and its surroundings, and how tense muscles are in it."""
    start = segments[0].start_s - rng.uniform(4, kind.before_s)
    stop = segments[-1].stop_s + rng.uniform(6, kind.after_s)
    first = max(int((start + MARGIN_S) * SFREQ_HZ), 0)
    last = min(int((stop + MARGIN_S) * SFREQ_HZ), len(near))
    at_s = np.arange(first, last) / SFREQ_HZ - MARGIN_S
    progress = (at_s - start) / (stop - start)
    wave = _ictal_wave(progress, kind, irregularity, rng)
    edge = np.clip(np.minimum(at_s - start, stop - at_s) / 2, 0, 1)
    growing = edge * (1 - kind.growth + kind.growth * progress) * wave
    growing *= np.clip((progress - kind.low_until) / 0.2, 0.3 if kind.low_until else 1, 1)
    near[first:last] += growing.astype(np.float32)
    wide[first:last] += (growing * np.clip(2 * progress - 0.4, 0, 1)).astype(np.float32)
    tense[first:last] += (edge * np.clip(1.5 * progress, 0, 1)).astype(np.float32)


def _ictal_wave(progress: F64, kind: _Kind, irregularity: float, rng: np.random.Generator) -> F64:
    """Return the rhythm of a seizure, from its first frequency to its last; the end is sharper than the beginning."""
    n_times = len(progress)
    hz = kind.to_hz + (kind.from_hz - kind.to_hz) * (1 - progress) ** 1.5
    uneven = 0.05 + 0.12 * irregularity
    rate = 1 + uneven * wander(n_times, 1.2, rng) + 0.06 * wander(n_times, 8, rng)
    phase = 2 * np.pi * np.cumsum(hz * np.maximum(rate, 0.3)) / SFREQ_HZ
    harmonic = 0.2 + (kind.sharpness - 0.2) * progress
    wave = np.sin(phase) + harmonic * np.sin(2 * phase + 0.7) + 0.4 * harmonic**2 * np.sin(3 * phase + 1.4)
    return wave * np.exp(0.25 * irregularity * wander(n_times, 1.0, rng))


def brief_runs(n_times: int, patient: Patient, rng: np.random.Generator) -> Source:
    """Simulate brief potentially ictal rhythmic discharges: runs of 0.5–4 s above 4 Hz at one place."""
    course = np.zeros(n_times, np.float32)
    hz = float(rng.uniform(4.5, 11))
    for place in at_random(n_times, patient.runs_per_min, rng).tolist():
        length = min(int(rng.uniform(0.5, 4) * SFREQ_HZ), n_times - place)
        t = np.arange(length) / SFREQ_HZ
        course[place : place + length] += (np.hanning(length) ** 0.5 * np.sin(2 * np.pi * hz * t)).astype(
            np.float32
        )
    where = field(patient.side * float(rng.uniform(0.3, 0.85)), float(rng.uniform(-0.6, 0.6)), 0.3)
    return Source(course * np.float32(4 * patient.level_uv), where)
