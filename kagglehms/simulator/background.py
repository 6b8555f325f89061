"""The background of a simulated EEG: 1/f activity, alpha, sleep, diffuse slowing and burst suppression.

The states are: awake (posterior alpha, little slow activity), asleep (slow activity, spindles, vertex waves), slow
(the diffuse slowing of most patients in intensive care) and suppressed (bursts of a few seconds between longer
silences). A study starts in one state and may change to others.

Shape suffixes: C channel, T time, S seconds, N source, F frequency.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kagglehms.data.competition import SFREQ_HZ
from kagglehms.simulator.patients import STATES, Patient
from kagglehms.simulator.scalp import (
    ELECTRODES,
    F32,
    F64,
    POSITIONS,
    Source,
    at_random,
    bins_hz,
    distances,
    events,
    field,
    knots,
    mixing,
    shaped_noise,
    wander,
)

_HOW_MUCH = {
    "awake": (1.0, 0.3, 0.0),
    "asleep": (0.1, 1.1, 1.0),
    "slow": (0.15, 0.9, 0.0),
    "suppressed": (0, 0.8, 0),
}
"""Levels of alpha, slow activity and spindles in each state."""
_NEXT = {
    "awake": ("asleep", "awake", "slow"), "asleep": ("awake", "asleep", "slow"),
    "slow": ("slow", "slow", "awake", "asleep"), "suppressed": ("suppressed", "slow"),
}  # fmt: skip
WAXING = 0.12
"""Standard deviation of the logarithm of the slowly varying level of the whole background."""
_REGIONS = np.array(
    [(-0.5, 0.65), (0.5, 0.65), (-0.7, -0.1), (0.7, -0.1), (-0.4, -0.75), (0.4, -0.75), (0.0, 0.0)]
)
"""Centres of the regions whose levels change on their own."""
CUTOFF_HZ = 60
"""Highest frequency of the background; above it there are only muscle and the amplifier."""


@dataclass(frozen=True)
class States:
    """The state of a patient at each sample.

    Attributes:
        alpha_T: level of alpha, from 0 to about 1.
        slow_T: level of slow activity.
        spindles_T: level of spindles and vertex waves.
        gain_T: gain of the whole background.
    """

    alpha_T: F32
    slow_T: F32
    spindles_T: F32
    gain_T: F32

    @classmethod
    def draw(cls, n_times: int, patient: Patient, rng: np.random.Generator) -> States:
        """Draw the states of a study."""
        seconds = n_times / SFREQ_HZ
        at_s, names = [0.0], [patient.state if rng.random() < 0.8 else str(rng.choice(STATES[:3]))]
        while at_s[-1] < seconds:
            at_s.append(at_s[-1] + rng.uniform(90, 600))
            names.append(str(rng.choice(_NEXT[names[-1]])))
        # Each state lasts until ten seconds before the next one begins, and then changes gradually.
        times = np.array(
            [t for i, start in enumerate(at_s) for t in (start, at_s[min(i + 1, len(at_s) - 1)] - 10)]
        )
        times[-1] = times[-2] + 1
        alpha, slow, spindles = (
            knots(times, np.repeat([_HOW_MUCH[name][k] for name in names], 2), n_times) for k in range(3)
        )
        suppressed = knots(times, np.repeat([float(name == "suppressed") for name in names], 2), n_times)
        gain = np.exp(np.float32(WAXING) * wander(n_times, 40, rng))
        if suppressed.any():
            gain *= 1 + suppressed * (_bursts(n_times, rng) - 1)
        return cls(alpha, slow, spindles, gain)


def _bursts(n_times: int, rng: np.random.Generator) -> F32:
    """Return the gain of burst suppression: 1.4 in bursts of 1–5 s, and a few hundredths in silences of 2–15 s."""
    at_s, values, now = [0.0], [0.05], 0.0
    long_s, silence = rng.uniform(2, 10), rng.uniform(0.03, 0.15)
    while now < n_times / SFREQ_HZ:
        start = now + 1 + rng.exponential(long_s)
        stop = start + 0.6 + rng.exponential(1.5)
        at_s += [start, start + 0.15, stop, stop + 0.4]
        values += [silence, 1.4, 1.2, silence]
        now = stop + 0.4
    return knots(np.array(at_s), np.array(values), n_times)


def background(n_times: int, patient: Patient, states: States, rng: np.random.Generator) -> tuple[F32, F64]:
    """Simulate the sources that are everywhere on the scalp: 1/f and slow activity, and that of the reference.

    Args:
        n_times: number of samples.
        patient: the patient.
        states: the patient's state at each sample.
        rng: random generator.

    Returns:
        (N, n_times) time courses and their (19, N) fields in µV.
    """
    one_over_f = shaped_noise(_one_over_f(n_times, patient, rng), len(ELECTRODES), n_times, rng)
    hz = bins_hz(n_times, 8)
    delta = np.exp(
        -((np.log(np.maximum(hz, 0.05)) - np.log(rng.uniform(0.8, 2.4))) ** 2)
        / (2 * rng.uniform(0.4, 0.8) ** 2)
    )
    slow = shaped_noise(delta, len(ELECTRODES), n_times, rng)
    hz = bins_hz(n_times, CUTOFF_HZ)
    reference = shaped_noise(hz / (hz**2 + 0.5**2) ** rng.uniform(0.62, 0.8), 1, n_times, rng)
    _wax(one_over_f, states.gain_T, patient.restlessness, rng)
    _wax(slow, states.gain_T * states.slow_T, patient.restlessness, rng)
    positions = POSITIONS + patient.misplaced * rng.standard_normal(POSITIONS.shape)
    places = patient.asymmetry * POSITIONS[:, 0] + patient.unevenness * rng.standard_normal(len(ELECTRODES))
    front, temple = POSITIONS[:, 1], np.abs(POSITIONS[:, 0]) - 0.5
    slower, faster = _lesion(patient, rng)
    fast_C = patient.level_uv * np.exp(places + 0.15 * rng.standard_normal() * front - 0.25 * temple) * faster
    slow_C = patient.slow_uv * np.exp(places + patient.frontality * front + 0.3 * temple) * slower
    fields = [
        mixing(patient.width, positions) * fast_C[:, None],
        mixing(patient.width * 1.15, positions) * slow_C[:, None],
        np.full((len(ELECTRODES), 1), patient.reference_uv),
    ]
    return np.concatenate([one_over_f, slow, reference]), np.concatenate(fields, axis=1)


def _one_over_f(n_times: int, patient: Patient, rng: np.random.Generator) -> F64:
    """Return the amplitudes of the 1/f background, with the maximum that sedatives cause."""
    hz = bins_hz(n_times, CUTOFF_HZ)
    high_pass = hz / np.sqrt(hz**2 + 0.3**2)
    amplitude = (1.5**2 + hz**2) ** (-patient.spectral_exponent / 4) * high_pass
    if patient.beta:
        amplitude *= 1 + patient.beta * np.exp(-((hz - rng.uniform(14, 25)) ** 2) / (2 * 4.0**2))
    return amplitude


def _wax(noise_NT: F32, gain_T: F32, restlessness: float, rng: np.random.Generator) -> None:
    """Let the level of each region change, in seconds and in tens of seconds, each on its own."""
    if not restlessness:
        noise_NT *= gain_T
        return
    n_times = noise_NT.shape[1]
    nearest = distances(POSITIONS, _REGIONS).argmin(axis=1)
    for region in range(len(_REGIONS)):
        level = np.float32(restlessness) * (
            wander(n_times, 0.9, rng) + np.float32(0.35) * wander(n_times, 12, rng)
        )
        noise_NT[nearest == region] *= np.exp(level) * gain_T


def _lesion(patient: Patient, rng: np.random.Generator) -> tuple[F64, F64]:
    """Return the factors by which a lesion and a gap of the skull change slow and faster activity, (19,) each."""
    y = float(rng.uniform(-0.5, 0.6))
    over = field(patient.side * 0.6, y, 0.5).astype(np.float64)
    under = field(patient.side * 0.55, y, 0.25).astype(np.float64)
    slower = 1 + 2 * patient.lesion * over
    faster = np.exp(-0.5 * patient.lesion * over) * (1 + patient.breach * under)
    return slower, faster


def rhythms(n_times: int, patient: Patient, states: States, rng: np.random.Generator) -> list[Source]:
    """Simulate posterior alpha when awake, and spindles and vertex waves when asleep."""
    sources: list[Source] = []
    if patient.alpha_uv and states.alpha_T.any():
        amplitude = np.exp(-((bins_hz(n_times, 15) - patient.alpha_hz) ** 2) / (2 * 0.6**2))
        shared, left, right = shaped_noise(amplitude, 3, n_times, rng) * np.float32(patient.alpha_uv)
        sides = np.exp(np.array([-1, 1]) * patient.asymmetry).astype(np.float32)
        level = states.alpha_T * states.gain_T
        sources += [
            Source((shared * 0.8 + left * 0.6) * level, field(-0.35, -0.9, 0.4) * sides[0]),
            Source((shared * 0.8 + right * 0.6) * level, field(0.35, -0.9, 0.4) * sides[1]),
        ]
    if states.spindles_T.any():
        t = np.arange(0, 1, 1 / SFREQ_HZ)
        spindle = (np.hanning(len(t)) * np.sin(2 * np.pi * rng.uniform(11.5, 14.5) * t)).astype(np.float32)
        places = at_random(n_times, 6, rng)
        course = events(places, rng.uniform(8, 25, len(places)), spindle, n_times)
        sources.append(Source(course * states.spindles_T, field(0, 0.1, 0.5)))
        vertex = np.hanning(SFREQ_HZ // 4).astype(np.float32)
        places = at_random(n_times, 3, rng)
        course = events(places, -rng.uniform(30, 90, len(places)), vertex, n_times)
        sources.append(Source(course * states.spindles_T, field(0, 0.05, 0.35)))
    return sources
