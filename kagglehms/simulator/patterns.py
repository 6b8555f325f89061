"""The patterns that experts vote for, each as strong as its class is probable.

Source of the definitions: American Clinical Neurophysiology Society's Standardized Critical Care EEG Terminology
(Hirsch et al. 2021). Periodic discharges repeat at 0.5–3 Hz with quiet intervals between them; rhythmic delta at
1–4 Hz has no such intervals. Both are either lateralised over one hemisphere or generalised. Seizures are discharges
above 2.5 Hz, or activity that evolves in frequency, amplitude and location.

Shape suffixes: C channel, T time, S seconds, K class, G segment.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import CLASSES, SFREQ_HZ
from kagglehms.simulator.patients import Patient
from kagglehms.simulator.scalp import (
    F32,
    F64,
    MARGIN_S,
    POSITIONS,
    Source,
    at_random,
    beats,
    delayed,
    events,
    field,
    generalised,
    hemisphere,
    knots,
    wander,
)
from kagglehms.simulator.seizures import SPREAD, Segment, brief_runs, seizures

DISCHARGE, DELTA = 13.0, 6.5
"""Median amplitudes of the patterns, in standard deviations of the background."""
NOISE = 0.3
"""Standard deviation of the logarithm of a segment's pattern strength that its probabilities do not explain."""


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
    segments = [segment for recording in recordings for segment in recording]
    truth_GK = np.array([segment.probabilities for segment in segments])
    strengths_GK = strengths(truth_GK) * np.exp(NOISE * rng.standard_normal((len(segments), 5)))
    over_time_SK = _over_time(n_times // SFREQ_HZ, segments, strengths_GK, patient, rng)
    at_s = np.arange(len(over_time_SK)) + 0.5
    seizure, lpd, gpd, lrda, grda = (knots(at_s, strength_S, n_times) for strength_S in over_time_SK.T)
    ictal = float(truth_GK[:, CLASSES.index("seizure")].max())
    sources: list[Source] = []
    if lpd.any() or gpd.any():
        sources += _periodic(n_times, lpd, gpd, ictal, patient, rng)
    if lrda.any() or grda.any():
        sources += _rhythmic(n_times, lrda, grda, patient, rng)
    if seizure.any():
        sources += seizures(n_times, seizure, recordings, patient, rng)
    sources.append(_stray_sharp_waves(n_times, patient, rng))
    if patient.runs_per_min:
        sources.append(brief_runs(n_times, patient, rng))
    return sources


def strengths(truth_GK: F64) -> F64:
    """Return the (G, 5) strengths of seizure, lpd, gpd, lrda and grda that (G, 6) true probabilities explain.

    They are multiples of each pattern's median amplitude. The strength of a kind is its probability to the power of
    0.7, divided between its lateralised and its generalised form in proportion to their probabilities.
    """
    seizure, lpd, gpd, lrda, grda, _ = truth_GK.T
    discharges, delta = (np.maximum(pair, 1e-6) ** -0.3 for pair in (lpd + gpd, lrda + grda))
    return np.stack([seizure**0.7, lpd * discharges, gpd * discharges, lrda * delta, grda * delta], axis=1)


def _over_time(
    n_seconds: int, segments: list[Segment], strengths_GK: F64, patient: Patient, rng: np.random.Generator
) -> F64:
    """Return (n_seconds, 5) strengths: those of the nearest segment, with interruptions far from the labels.

    Some patterns are there all the time, some come and go; some stop and start within seconds even where labelled.
    """
    at_S = np.arange(n_seconds) + 0.5 - MARGIN_S
    away = np.stack([np.maximum(s.start_s - at_S, at_S - s.stop_s) for s in segments])
    strengths_SK = strengths_GK[away.argmin(axis=0)]
    present = (away.min(axis=0) < 15).astype(np.float64)
    how_often = float(rng.choice([1.0, 0.75], p=[0.5, 0.5]))
    second = 0
    while second < n_seconds:
        length = int(rng.integers(15, 90))
        if rng.random() < how_often:
            present[second : second + length] = 1
        second += length
    strengths_SK = strengths_SK * present[:, None]
    strengths_SK *= np.exp(0.2 * patient.irregularity * rng.standard_normal((n_seconds, 1)))
    padded = np.pad(strengths_SK, ((2, 2), (0, 0)), mode="edge")
    sums = np.cumsum(np.concatenate([np.zeros((1, 5)), padded]), axis=0)
    return (sums[5:] - sums[:-5]) / 5


def _spread(rng: np.random.Generator) -> float:
    return float(np.exp(SPREAD * rng.standard_normal()))


def _on_other_side(rng: np.random.Generator) -> float:
    """Return how much of a lateralised pattern the other hemisphere shows; bilateral ones are asymmetric."""
    return float(0.6 * rng.beta(1.0, 1.6))


def _periodic(
    n_times: int, lpd: F32, gpd: F32, ictal: float, patient: Patient, rng: np.random.Generator
) -> list[Source]:
    """Simulate discharges at 0.5–3 Hz, faster if a seizure is likely, that reach neighbouring regions with a delay.

    Intervals vary from one discharge to the next and drift over minutes, some discharges are left out, and sizes and
    widths vary, all the more the more irregular the patient's patterns are. Triphasic waves reach the back later.
    """
    triphasic = gpd.sum() > lpd.sum() and rng.random() < 0.4
    rate_hz = min(float(rng.uniform(0.5, 1.9)) + 1.1 * ictal, 3.0)
    places = _irregular_beats(n_times, rate_hz, patient.irregularity, rng)
    sizes = np.exp((0.12 + 0.25 * patient.irregularity) * rng.standard_normal(len(places)))
    course = np.zeros(n_times, np.float32)
    shape = _triphasic if triphasic else _sharp
    first = shape(rng)
    kind = rng.random(len(places)) < 0.3 * min(patient.irregularity, 1)
    for wave, mine in ((first, ~kind), (shape(rng), kind)):
        course += events(places[mine], sizes[mine], wave, n_times)
    course *= np.float32(DISCHARGE * patient.pattern_uv * _spread(rng))
    y = float(rng.uniform(-0.6, 0.6))
    near = hemisphere(patient.side, y, float(rng.uniform(0.3, 0.48)), _on_other_side(rng))
    wide = hemisphere(patient.side, y + float(rng.uniform(-0.5, 0.5)), 0.5) * np.float32(
        rng.uniform(0.1, 0.5)
    )
    general = generalised(rng)
    front = 1 / (1 + np.exp(-4 * POSITIONS[:, 1]))
    late = delayed(course, float(rng.uniform(0.03, 0.1) if triphasic else rng.uniform(0.0, 0.04)))
    return [
        Source(course * lpd, near),
        Source(course * gpd, (general * front).astype(np.float32)),
        Source(late * lpd, wide),
        Source(late * gpd, (general * (1 - front)).astype(np.float32)),
    ]


def _irregular_beats(
    n_times: int, rate_hz: float, irregularity: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the samples of discharges: a drifting rate, jittered intervals, and some left out."""
    drift = 1 + 0.12 * irregularity * wander(n_times, 20, rng)
    at_T = np.cumsum(drift, dtype=np.float64) / SFREQ_HZ
    places = beats(
        int(at_T[-1] * SFREQ_HZ), rate_hz, float(rng.uniform(0.03, 0.12)) + 0.12 * irregularity, rng
    )
    places = np.searchsorted(at_T, places / SFREQ_HZ)
    kept = rng.random(len(places)) >= 0.1 * irregularity
    return places[kept & (places < n_times)]


def _sharp(rng: np.random.Generator) -> F32:
    """Return a sharp wave of 40–200 ms of amplitude 1, alone, with a slow after-wave, or of two phases."""
    t = np.arange(-0.2, 0.6, 1 / SFREQ_HZ)
    width_s = float(np.exp(rng.uniform(np.log(0.015), np.log(0.06))))
    sharp = np.exp(-(t**2) / (2 * width_s**2))
    after = np.exp(-((t - rng.uniform(0.12, 0.28)) ** 2) / (2 * rng.uniform(0.05, 0.12) ** 2))
    before = np.exp(-((t + 2.2 * width_s) ** 2) / (2 * width_s**2))
    wave = sharp - rng.uniform(0.1, 0.9) * after - rng.choice([0, rng.uniform(0.2, 0.8)]) * before
    # Most discharges are negative at the scalp.
    return (wave * (1 if rng.random() < 0.25 else -1)).astype(np.float32)


def _triphasic(rng: np.random.Generator) -> F32:
    """Return a triphasic wave of amplitude 1: small negative, large positive and slow negative."""
    t = np.arange(-0.3, 0.7, 1 / SFREQ_HZ)
    first = rng.uniform(0.3, 0.6) * np.exp(-((t + 0.1) ** 2) / (2 * 0.035**2))
    second = np.exp(-(t**2) / (2 * rng.uniform(0.045, 0.065) ** 2))
    third = rng.uniform(0.4, 0.7) * np.exp(-((t - 0.22) ** 2) / (2 * 0.09**2))
    return (first - second + third).astype(np.float32)


def _rhythmic(n_times: int, lrda: F32, grda: F32, patient: Patient, rng: np.random.Generator) -> list[Source]:
    """Simulate rhythmic delta, which spreads over its region with a lag of a few hundredths of a second."""
    delta = _delta(n_times, patient.irregularity, rng) * np.float32(DELTA * patient.pattern_uv * _spread(rng))
    late = delayed(delta, float(rng.uniform(0.01, 0.08)))
    y = float(rng.uniform(-0.2, 0.7))
    near = hemisphere(patient.side, y, float(rng.uniform(0.35, 0.6)), _on_other_side(rng))
    wide = hemisphere(patient.side, y - float(rng.uniform(0.2, 0.8)), 0.45) * np.float32(
        rng.uniform(0.1, 0.6)
    )
    back = field(0, -0.5, 0.6) * np.float32(rng.uniform(0.0, 0.4))
    return [
        Source(delta * lrda, near), Source(delta * grda, generalised(rng)),
        Source(late * lrda, wide), Source(late * grda, back),
    ]  # fmt: skip


def _delta(n_times: int, irregularity: float, rng: np.random.Generator) -> F32:
    """Return a waxing and waning wave of 1–4 Hz, mostly below 2.5 Hz, of amplitude about 1.

    The terminology calls delta rhythmic while neighbouring cycles differ by less than half in duration.
    """
    hz = 0.9 + 3 * rng.beta(1.4, 3.2)
    from_cycle_to_cycle = 0.04 + rng.uniform(0.08, 0.22) * irregularity
    rate = (
        1
        + from_cycle_to_cycle * wander(n_times, 0.8 / hz, rng)
        + 0.1 * irregularity * wander(n_times, 15, rng)
    )
    phase = (2 * np.pi / SFREQ_HZ * hz) * np.cumsum(np.maximum(rate, 0.3), dtype=np.float64)
    second, third = rng.uniform(0.05, 0.45), rng.uniform(0, 0.2)
    wave = (
        np.sin(phase)
        + second * np.sin(2 * phase + rng.uniform(0, 2 * np.pi))
        + third * np.sin(3 * phase + rng.uniform(0, 2 * np.pi))
    )
    size = 0.3 * irregularity * wander(n_times, 1.5, rng) + 0.2 * wander(n_times, 10, rng)
    return (wave * np.exp(size)).astype(np.float32)


def _stray_sharp_waves(n_times: int, patient: Patient, rng: np.random.Generator) -> Source:
    """Simulate isolated sharp waves, which belong to none of the five patterns."""
    places: NDArray[np.int64] = at_random(n_times, patient.strays_per_min, rng)
    sizes = rng.uniform(2, 5, len(places)) * patient.level_uv
    where = field(float(rng.uniform(-0.8, 0.8)), float(rng.uniform(-0.6, 0.6)), 0.35)
    return Source(events(places, sizes, _sharp(rng), n_times), where)
