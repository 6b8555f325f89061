"""The patterns that experts vote for, each as strong as its class is probable.

Source of the definitions: American Clinical Neurophysiology Society's Standardized Critical Care EEG Terminology
(Hirsch et al. 2021). Periodic discharges repeat at 0.5–3 Hz with quiet intervals between them; rhythmic delta at
1–4 Hz has no such intervals. Both are either lateralised over one hemisphere or generalised. Seizures are discharges
above 2.5 Hz, or activity that evolves in frequency, amplitude and location.

Shape suffixes: C channel, T time, S seconds, K class, G segment.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import CLASSES, SFREQ_HZ
from kagglehms.simulator.background import Patient
from kagglehms.simulator.scalp import (
    F32,
    F64,
    MARGIN_S,
    POSITIONS,
    Source,
    at_random,
    beats,
    events,
    field,
    hemisphere,
    knots,
    wander,
)

DISCHARGE, DELTA, ICTAL = 13.0, 5.5, 6.5
"""Median amplitudes of the patterns, in standard deviations of the background."""
NOISE = 0.3
"""Standard deviation of the logarithm of a segment's pattern strength that its probabilities do not explain."""


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


def patterns(
    n_times: int, recordings: list[tuple[Segment, ...]], patient: Patient, rng: np.random.Generator
) -> list[Source]:
    """Simulate all patterns of a study.

    The lateralised and the generalised pattern of a kind share their waves: where experts are undecided between the
    two, the same wave appears on both sides, but not equally strong.

    Args:
        n_times: number of samples.
        recordings: labelled segments of each EEG.
        patient: the patient.
        rng: random generator.
    """
    level_uv = patient.level_uv
    segments = [segment for recording in recordings for segment in recording]
    truth_GK = np.array([segment.probabilities for segment in segments])
    strengths_GK = _strengths(truth_GK) * np.exp(NOISE * rng.standard_normal((len(segments), 5)))
    over_time_SK = _over_time(n_times // SFREQ_HZ, segments, strengths_GK, rng)
    at_s = np.arange(len(over_time_SK)) + 0.5
    seizure, lpd, gpd, lrda, grda = (knots(at_s, strength_S, n_times) for strength_S in over_time_SK.T)
    side = float(rng.choice([-1.0, 1.0]))
    lateral = hemisphere(side, float(rng.uniform(-0.5, 0.6)), float(rng.uniform(0.3, 0.48)))
    ictal = float(truth_GK[:, CLASSES.index("seizure")].max())
    sources = _periodic(n_times, lpd, gpd, lateral, ictal, level_uv, rng)
    if lrda.any() or grda.any():
        delta = _rhythmic_delta(n_times, rng) * np.float32(DELTA * level_uv * _spread(rng))
        slow_lateral = hemisphere(side, float(rng.uniform(-0.2, 0.6)), float(rng.uniform(0.4, 0.6)))
        sources += [Source(delta * lrda, slow_lateral), Source(delta * grda, _generalised())]
    sources += _seizures(n_times, seizure, recordings, side, level_uv, rng)
    sources.append(_stray_sharp_waves(n_times, patient, rng))
    return sources


def _strengths(truth_GK: F64) -> F64:
    """Return (G, 5) strengths of seizure, lpd, gpd, lrda and grda.

    The strength of a kind is its probability to the power of 0.7, divided between its lateralised and its
    generalised form in proportion to their probabilities.
    """
    seizure, lpd, gpd, lrda, grda, _ = truth_GK.T
    discharges, delta = (np.maximum(pair, 1e-6) ** -0.3 for pair in (lpd + gpd, lrda + grda))
    return np.stack([seizure**0.7, lpd * discharges, gpd * discharges, lrda * delta, grda * delta], axis=1)


def _over_time(n_seconds: int, segments: list[Segment], strengths_GK: F64, rng: np.random.Generator) -> F64:
    """Return (n_seconds, 5) strengths: those of the nearest segment, with interruptions far from the labels."""
    at_S = np.arange(n_seconds) + 0.5 - MARGIN_S
    away = np.stack([np.maximum(s.start_s - at_S, at_S - s.stop_s) for s in segments])
    strengths_SK = strengths_GK[away.argmin(axis=0)]
    present = away.min(axis=0) < 15
    second = 0
    while second < n_seconds:
        length = int(rng.integers(15, 90))
        present[second : second + length] |= rng.random() < 0.75
        second += length
    padded = np.pad(strengths_SK * present[:, None], ((2, 2), (0, 0)), mode="edge")
    sums = np.cumsum(np.concatenate([np.zeros((1, 5)), padded]), axis=0)
    return (sums[5:] - sums[:-5]) / 5


def _spread(rng: np.random.Generator) -> float:
    return float(np.exp(0.25 * rng.standard_normal()))


def _generalised() -> F32:
    """Return a symmetric field, largest in front; a field without a gradient vanishes in bipolar derivations."""
    return 0.2 + 0.8 * np.exp(-((POSITIONS[:, 1] - 0.7) ** 2) / np.float32(2 * 0.55**2))


def _periodic(
    n_times: int, lpd: F32, gpd: F32, lateral: F32, ictal: float, level_uv: float, rng: np.random.Generator
) -> list[Source]:
    """Simulate discharges at 0.5–3 Hz, faster if a seizure is likely; triphasic ones reach the back with a delay."""
    if not (lpd.any() or gpd.any()):
        return []
    triphasic = gpd.sum() > lpd.sum() and rng.random() < 0.4
    rate_hz = min(float(rng.uniform(0.5, 1.9)) + 1.1 * ictal, 3.0)
    wave = _triphasic(rng) if triphasic else _sharp(rng)
    places = beats(n_times, rate_hz, float(rng.uniform(0.03, 0.12)), rng)
    course = events(places, 1 + 0.15 * rng.standard_normal(len(places)), wave, n_times)
    course *= np.float32(DISCHARGE * level_uv * _spread(rng))
    sources = [Source(course * lpd, lateral)]
    general = _generalised()
    if not triphasic:
        return [*sources, Source(course * gpd, general)]
    lag = int(rng.uniform(0.03, 0.1) * SFREQ_HZ)
    front = 1 / (1 + np.exp(-4 * POSITIONS[:, 1]))
    late = np.concatenate([np.zeros(lag, np.float32), course[:-lag]])
    return [
        *sources,
        Source(course * gpd, (general * front).astype(np.float32)),
        Source(late * gpd, (general * (1 - front)).astype(np.float32)),
    ]


def _sharp(rng: np.random.Generator) -> F32:
    """Return a sharp wave of 40–80 ms with a slow after-wave, of amplitude 1."""
    t = np.arange(-0.15, 0.6, 1 / SFREQ_HZ)
    sharp = np.exp(-(t**2) / (2 * rng.uniform(0.02, 0.04) ** 2))
    slow = np.exp(-((t - 0.2) ** 2) / (2 * 0.07**2))
    return (sharp - rng.uniform(0.4, 0.8) * slow).astype(np.float32)


def _triphasic(rng: np.random.Generator) -> F32:
    """Return a triphasic wave of amplitude 1: small negative, large positive and slow negative."""
    t = np.arange(-0.3, 0.7, 1 / SFREQ_HZ)
    first = rng.uniform(0.3, 0.6) * np.exp(-((t + 0.1) ** 2) / (2 * 0.035**2))
    second = np.exp(-(t**2) / (2 * rng.uniform(0.045, 0.065) ** 2))
    third = rng.uniform(0.4, 0.7) * np.exp(-((t - 0.22) ** 2) / (2 * 0.09**2))
    return (first - second + third).astype(np.float32)


def _rhythmic_delta(n_times: int, rng: np.random.Generator) -> F32:
    """Return a waxing and waning, nearly sinusoidal wave of 1–4 Hz, mostly below 3 Hz, of amplitude about 1."""
    hz = (1 + 3 * rng.beta(1.5, 2.5)) * (1 + np.float32(0.08) * wander(n_times, 2, rng))
    phase = 2 * np.pi * np.cumsum(hz, dtype=np.float64) / SFREQ_HZ
    wave = np.sin(phase) + 0.15 * np.sin(2 * phase + 1)
    return wave.astype(np.float32) * (1 + np.float32(0.25) * wander(n_times, 10, rng))


def _seizures(
    n_times: int,
    strength_T: F32,
    recordings: list[tuple[Segment, ...]],
    side: float,
    level_uv: float,
    rng: np.random.Generator,
) -> list[Source]:
    """Simulate one seizure around each recording's labels, which grows, slows down, spreads and stops."""
    if not strength_T.any():
        return []
    generalised = rng.random() < 0.3
    if generalised:
        focus, spread = _generalised(), _generalised()
    else:
        x, y = side * rng.uniform(0.45, 0.85), rng.uniform(-0.6, 0.6)
        focus = field(x, y, float(rng.uniform(0.3, 0.45)))
        far = side * -0.6 if rng.random() < 0.3 else side * 0.6
        spread = field(far, y - float(np.sign(y)) * 0.6, 0.5)
    near, wide = np.zeros(n_times, np.float32), np.zeros(n_times, np.float32)
    for segments in recordings:
        _one_seizure(near, wide, segments, rng)
    scale = strength_T * np.float32(ICTAL * level_uv * _spread(rng))
    return [Source(near * scale, focus), Source(wide * scale, spread)]


def _one_seizure(near: F32, wide: F32, segments: tuple[Segment, ...], rng: np.random.Generator) -> None:
    """Add one seizure to the signals of its focus and its surroundings."""
    start = segments[0].start_s - rng.uniform(4, 25)
    stop = segments[-1].stop_s + rng.uniform(6, 40)
    first = max(int((start + MARGIN_S) * SFREQ_HZ), 0)
    last = min(int((stop + MARGIN_S) * SFREQ_HZ), len(near))
    at_s = np.arange(first, last) / SFREQ_HZ - MARGIN_S
    progress = (at_s - start) / (stop - start)
    # A third begin fast and low; all end slow and high. Clonic endings are sharper than sine waves.
    from_hz = rng.uniform(9, 16) if rng.random() < 0.33 else rng.uniform(5, 8)
    to_hz = rng.uniform(2, 4)
    hz = to_hz + (from_hz - to_hz) * (1 - progress) ** 1.5
    phase = 2 * np.pi * np.cumsum(hz * (1 + 0.08 * wander(len(at_s), 2, rng))) / SFREQ_HZ
    edge = np.clip(np.minimum(at_s - start, stop - at_s) / 2, 0, 1)
    wave = np.sin(phase) + (0.2 + 0.4 * progress) * np.sin(2 * phase + 0.7)
    growing = edge * (0.35 + 0.65 * progress) * wave
    near[first:last] += growing.astype(np.float32)
    wide[first:last] += (growing * np.clip(2 * progress - 0.4, 0, 1)).astype(np.float32)


def _stray_sharp_waves(n_times: int, patient: Patient, rng: np.random.Generator) -> Source:
    """Simulate isolated sharp waves, which belong to none of the five patterns."""
    places: NDArray[np.int64] = at_random(n_times, patient.strays_per_min, rng)
    sizes = rng.uniform(2, 5, len(places)) * patient.level_uv
    where = field(float(rng.uniform(-0.8, 0.8)), float(rng.uniform(-0.6, 0.6)), 0.35)
    return Source(events(places, sizes, _sharp(rng), n_times), where)
