"""A simulated patient: what is the same in all of a patient's recordings, brain, amplifier and artefacts alike.

A patient is drawn for the class probabilities that are usual in the patient's recordings, because diseases come with
their backgrounds: patients with generalised discharges are often suppressed, lateralised patterns stand over a lesion,
and people whose EEG shows no pattern are more often awake. How much is an assumption of ours.

Shape suffixes: K class.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kagglehms.simulator.votes import CLASS_MEANS

STATES = ("awake", "asleep", "slow", "suppressed")
_STATES_OF_CLASS_K4 = np.array(
    [
        (0.20, 0.10, 0.60, 0.10),
        (0.10, 0.15, 0.65, 0.10),
        (0.03, 0.07, 0.65, 0.25),
        (0.15, 0.20, 0.62, 0.03),
        (0.15, 0.20, 0.62, 0.03),
        (0.45, 0.22, 0.27, 0.06),
    ]
)
"""Frequency of each of `STATES` in patients of each class."""
_LOUDNESS_K = np.array((0.15, 0.10, 0.0, 0.15, 0.20, -0.15))
"""What each class adds to the logarithm of the background's level."""
_LESION_K = np.array((0.55, 0.80, 0.25, 0.75, 0.20, 0.25))
"""Probability of a lesion in patients of each class."""


@dataclass(frozen=True)
class Patient:
    """Properties of a patient that are the same in all recordings. By default the patient is quiet, without artefacts.

    Attributes:
        level_uv: standard deviation of the 1/f background at an electrode.
        spectral_exponent: exponent of the frequency by which the background's power falls.
        slow_uv: standard deviation of the slow activity in slow states.
        beta: strength of a broad maximum of the background between 14 and 25 Hz, as sedatives cause; 0 for none.
        alpha_hz: frequency of the posterior rhythm when awake.
        alpha_uv: amplitude of the posterior rhythm.
        width: standard deviation of the field of a source of the background, in units of the disc.
        asymmetry: half the logarithm of the ratio between right and left ear.
        frontality: logarithm of the ratio between the slow activity of front and centre.
        unevenness: standard deviation of the logarithm of the electrodes' gains.
        misplaced: standard deviation of the electrodes' places, in units of the disc.
        restlessness: how much the level of each region changes from second to second.
        irregularity: how irregular patterns are: 0 for clockwork, 1 for as in intensive care.
        side: side of lateralised patterns and of the lesion, −1 for left and 1 for right.
        lesion: strength of the slowing and of the loss of fast activity over the lesion; 0 for none.
        breach: strength of the faster, sharper activity under a gap of the skull; 0 for none.
        reference_uv: activity at the common reference, which all electrodes share and differences do not contain.
        state: the most frequent state.
        blinks_per_min: number of blinks per minute.
        muscle_uv: amplitude of muscle activity; little in patients who are paralysed or deeply sedated.
        muscle_cutoff_hz: highest frequency of muscle activity that the amplifier lets through.
        floor_uv: constant noise of electrodes and amplifier.
        floor_spread: standard deviation of the logarithm of that noise over the electrodes.
        line_uv: amplitude of mains hum.
        sway_uv: amplitude of slow drifts.
        heart_hz: heart rate.
        heart_uv: amplitude of the heartbeat on the scalp.
        pulse_uv: amplitude of the pulse below one electrode, which lies on an artery.
        moves_per_min: number of movements of the patient per minute.
        pops_per_min: number of electrode pops per minute.
        chews_per_min: number of bouts of chewing per minute.
        ventilator_uv: amplitude of what a ventilator's cycles add.
        flat: probability that an electrode is flat for part of a study.
        bad: probability that an electrode is loose for part of a study.
        bridged: probability that two neighbouring electrodes are joined by paste.
        strays_per_min: number of isolated sharp waves per minute, which are not a pattern.
        runs_per_min: number of brief rhythmic discharges per minute, too short for a seizure.
    """

    level_uv: float = 16
    spectral_exponent: float = 2.4
    slow_uv: float = 12
    beta: float = 0
    alpha_hz: float = 9.5
    alpha_uv: float = 0
    width: float = 0.37
    asymmetry: float = 0
    frontality: float = 0
    unevenness: float = 0
    misplaced: float = 0
    restlessness: float = 0
    irregularity: float = 0
    side: float = 1
    lesion: float = 0
    breach: float = 0
    reference_uv: float = 0
    state: str = "slow"
    blinks_per_min: float = 0
    muscle_uv: float = 0
    muscle_cutoff_hz: float = 75
    floor_uv: float = 0.3
    floor_spread: float = 0.4
    line_uv: float = 0
    sway_uv: float = 0
    heart_hz: float = 1.2
    heart_uv: float = 0
    pulse_uv: float = 0
    moves_per_min: float = 0
    pops_per_min: float = 0
    chews_per_min: float = 0
    ventilator_uv: float = 0
    flat: float = 0
    bad: float = 0
    bridged: float = 0
    strays_per_min: float = 0
    runs_per_min: float = 0

    @property
    def pattern_uv(self) -> float:
        """Level that patterns are multiples of: it grows with the background's, but less, so that all are seen."""
        return float(np.sqrt(self.level_uv * 16))

    @classmethod
    def draw(cls, rng: np.random.Generator, usual_K: NDArray[np.floating] | None = None) -> Patient:
        """Draw a patient, with levels that resemble those of the real recordings in docs/simulator.md.

        Args:
            rng: random generator.
            usual_K: (6,) mean class probabilities of the patient's recordings; those of all real ones by default.
        """
        usual_K = np.asarray(CLASS_MEANS if usual_K is None else usual_K, np.float64)
        usual_K = usual_K / usual_K.sum()
        level_uv = float(9.0 * np.exp(usual_K @ _LOUDNESS_K) * _lognormal(0.4, rng))
        return cls(
            level_uv=level_uv,
            spectral_exponent=float(np.clip(rng.normal(2.2, 0.5), 0.9, 3.3)),
            slow_uv=level_uv * 0.7 * _lognormal(0.5, rng),
            beta=float(rng.choice([0, rng.uniform(0.3, 2.5)], p=[0.65, 0.35])),
            alpha_hz=float(rng.uniform(7, 11)),
            alpha_uv=float(rng.choice([0, 4, 10], p=[0.3, 0.45, 0.25])) * _lognormal(0.4, rng),
            width=float(rng.uniform(0.24, 0.42)),
            asymmetry=float(0.3 * rng.standard_normal()),
            frontality=float(rng.normal(0.45, 0.4)),
            unevenness=float(rng.uniform(0.05, 0.4)),
            misplaced=float(rng.uniform(0.02, 0.1)),
            restlessness=float(rng.uniform(0.2, 0.6)),
            irregularity=float(rng.uniform(0.35, 1.2)),
            side=float(rng.choice([-1.0, 1.0])),
            lesion=float(rng.uniform(0.4, 1.4)) if rng.random() < usual_K @ _LESION_K else 0.0,
            breach=float(rng.choice([0, rng.uniform(0.5, 1.5)], p=[0.92, 0.08])),
            reference_uv=level_uv * 0.6 * _lognormal(0.8, rng),
            state=str(rng.choice(STATES, p=usual_K @ _STATES_OF_CLASS_K4)),
            **_artefacts(rng),
        )

    def quiet(self) -> Patient:
        """Return a patient with the same level and rhythm, but hardly any artefacts, in a single steady state."""
        return Patient(
            level_uv=self.level_uv,
            alpha_hz=self.alpha_hz,
            alpha_uv=self.alpha_uv,
            asymmetry=self.asymmetry / 3,
            side=self.side,
            irregularity=self.irregularity / 4,
            blinks_per_min=self.blinks_per_min / 3,
            line_uv=self.line_uv,
        )

    def in_study(self, rng: np.random.Generator) -> Patient:
        """Return the patient in one study: of ten, one has the other side affected."""
        return replace(self, side=-self.side) if rng.random() < 0.1 else self


def _artefacts(rng: np.random.Generator) -> dict[str, float]:
    return {
        "blinks_per_min": float(rng.choice([0, 4, 14], p=[0.45, 0.3, 0.25])),
        "muscle_uv": float(rng.choice([0.2, 6], p=[0.2, 0.8])) * _lognormal(1.0, rng),
        "muscle_cutoff_hz": float(rng.uniform(40, 90)),
        "floor_uv": 0.8 * _lognormal(1.1, rng),
        "floor_spread": float(rng.uniform(0.1, 1.1)),
        "line_uv": 3 * _lognormal(0.8, rng),
        "sway_uv": float(rng.choice([0, 20, 60], p=[0.5, 0.35, 0.15])),
        "heart_hz": float(rng.uniform(0.9, 1.9)),
        "heart_uv": 1.5 * _lognormal(1.2, rng),
        "pulse_uv": float(rng.choice([0, rng.uniform(10, 60)], p=[0.88, 0.12])),
        "moves_per_min": float(rng.choice([0, 0.15, 1.0], p=[0.55, 0.33, 0.12])),
        "pops_per_min": float(rng.choice([0, rng.uniform(0.2, 3)], p=[0.8, 0.2])),
        "chews_per_min": float(rng.choice([0, 0.5], p=[0.9, 0.1])),
        "ventilator_uv": float(rng.choice([0, rng.uniform(5, 40)], p=[0.85, 0.15])),
        "flat": 0.06,
        "bad": 0.15,
        "bridged": 0.06,
        "strays_per_min": float(rng.choice([0, 2, 8], p=[0.55, 0.33, 0.12])),
        "runs_per_min": float(rng.choice([0, 0.5], p=[0.88, 0.12])),
    }


def _lognormal(sigma: float, rng: np.random.Generator) -> float:
    return float(np.exp(sigma * rng.standard_normal()))
