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
from kagglehms.simulator.scalp import (
    ELECTRODES,
    F32,
    F64,
    POSITIONS,
    Source,
    at_random,
    bins_hz,
    events,
    field,
    knots,
    mixing,
    shaped_noise,
    wander,
)

STATES = ("awake", "asleep", "slow", "suppressed")
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
WAXING = 0.3
"""Standard deviation of the logarithm of the background's slowly varying level."""
CUTOFF_HZ = 60
"""Highest frequency of the background; above it there are only muscle and the amplifier."""


@dataclass(frozen=True)
class Patient:
    """Properties of a patient that are the same in all recordings. By default the patient is quiet, without artefacts.

    Attributes:
        level_uv: standard deviation of the 1/f background at an electrode.
        spectral_exponent: exponent of the frequency by which the background's power falls.
        slow_uv: standard deviation of the slow activity in slow states.
        alpha_hz: frequency of the posterior rhythm when awake.
        alpha_uv: amplitude of the posterior rhythm.
        asymmetry: half the logarithm of the ratio between right and left ear.
        unevenness: standard deviation of the logarithm of the electrodes' gains.
        reference_uv: activity at the common reference, which all electrodes share and differences do not contain.
        state: the most frequent state.
        blinks_per_min: number of blinks per minute.
        muscle_uv: amplitude of muscle activity.
        floor_uv: constant noise of electrodes and amplifier.
        line_uv: amplitude of mains hum.
        sway_uv: amplitude of slow drifts.
        heart_hz: heart rate.
        heart_uv: amplitude of the heartbeat on the scalp.
        moves_per_min: number of movements of the patient per minute.
        pops_per_min: number of electrode pops per minute.
        flat: probability that an electrode is flat for part of a study.
        strays_per_min: number of isolated sharp waves per minute, which are not a pattern.
    """

    level_uv: float = 16
    spectral_exponent: float = 2.4
    slow_uv: float = 12
    alpha_hz: float = 9.5
    alpha_uv: float = 0
    asymmetry: float = 0
    unevenness: float = 0
    reference_uv: float = 0
    state: str = "slow"
    blinks_per_min: float = 0
    muscle_uv: float = 0
    floor_uv: float = 0.3
    line_uv: float = 0
    sway_uv: float = 0
    heart_hz: float = 1.2
    heart_uv: float = 0
    moves_per_min: float = 0
    pops_per_min: float = 0
    flat: float = 0
    strays_per_min: float = 0

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Patient:
        """Draw a patient, with levels that resemble those of the real recordings in docs/simulator.md."""
        state = str(rng.choice(STATES, p=[0.3, 0.17, 0.45, 0.08]))
        level_uv = float(13 * np.exp(0.35 * rng.standard_normal()))
        return cls(
            level_uv=level_uv,
            spectral_exponent=float(np.clip(rng.normal(2.15, 0.45), 1.2, 3.2)),
            slow_uv=level_uv * float(0.6 * np.exp(0.4 * rng.standard_normal())),
            alpha_hz=float(rng.uniform(7.5, 11)),
            alpha_uv=float(rng.choice([0, 5, 12], p=[0.3, 0.45, 0.25]) * np.exp(0.3 * rng.standard_normal())),
            asymmetry=float(0.35 * rng.standard_normal()),
            unevenness=float(rng.uniform(0.1, 0.4)),
            reference_uv=level_uv * float(0.75 * np.exp(0.7 * rng.standard_normal())),
            state=state,
            blinks_per_min=float(rng.choice([0, 4, 14], p=[0.45, 0.3, 0.25])),
            muscle_uv=float(7 * np.exp(1.0 * rng.standard_normal())),
            floor_uv=float(1.1 * np.exp(1.0 * rng.standard_normal())),
            line_uv=float(3 * np.exp(0.8 * rng.standard_normal())),
            sway_uv=float(rng.choice([0, 20, 60], p=[0.5, 0.35, 0.15])),
            heart_hz=float(rng.uniform(1, 1.7)),
            heart_uv=float(1.5 * np.exp(1.0 * rng.standard_normal())),
            moves_per_min=float(rng.choice([0, 0.15], p=[0.6, 0.4])),
            pops_per_min=float(rng.choice([0, rng.uniform(0.2, 3)], p=[0.85, 0.15])),
            flat=0.06,
            strays_per_min=float(rng.choice([0, 2, 8], p=[0.6, 0.3, 0.1])),
        )

    def quiet(self) -> Patient:
        """Return a patient with the same level and rhythm, but hardly any artefacts, in a single steady state."""
        return Patient(
            level_uv=self.level_uv,
            alpha_hz=self.alpha_hz,
            alpha_uv=self.alpha_uv,
            asymmetry=self.asymmetry / 3,
            blinks_per_min=self.blinks_per_min / 3,
            line_uv=self.line_uv,
        )


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
            at_s.append(at_s[-1] + rng.uniform(60, 400))
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
        gain = np.exp(np.float32(WAXING) * wander(n_times, 15, rng))
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
    hz = bins_hz(n_times, CUTOFF_HZ)
    high_pass = hz / np.sqrt(hz**2 + 0.3**2)
    one_over_f = shaped_noise(
        (1.5**2 + hz**2) ** (-patient.spectral_exponent / 4) * high_pass, len(ELECTRODES), n_times, rng
    )
    hz = bins_hz(n_times, 8)
    delta = np.exp(-((np.log(np.maximum(hz, 0.05)) - np.log(rng.uniform(0.9, 2.0))) ** 2) / (2 * 0.5**2))
    slow = shaped_noise(delta, len(ELECTRODES), n_times, rng)
    hz = bins_hz(n_times, CUTOFF_HZ)
    reference = shaped_noise(hz / (hz**2 + 0.5**2) ** 0.72, 1, n_times, rng)
    one_over_f *= states.gain_T
    slow *= states.gain_T * states.slow_T
    places = patient.asymmetry * POSITIONS[:, :1] + patient.unevenness * rng.standard_normal(
        (len(ELECTRODES), 1)
    )
    sides = np.exp(places)
    fields = [
        mixing(0.37) * (patient.level_uv * sides),
        mixing(0.42) * (patient.slow_uv * sides * np.exp(rng.normal(0, 0.4) * POSITIONS[:, 1:])),
        np.full((len(ELECTRODES), 1), patient.reference_uv),
    ]
    return np.concatenate([one_over_f, slow, reference]), np.concatenate(fields, axis=1)


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
