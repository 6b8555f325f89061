"""A signal model of scalp EEG whose class probabilities are known.

A session is one continuous signal: a patient's background (`background`), the patterns of the American
Clinical Neurophysiology Society's terminology, each as strong as its class is probable at that moment
(`patterns`), and artefacts (`artefacts`). EEG files are cuts of that signal, spectrogram
files its power (`spectrogram`), so the two agree as they do in the competition.

Shape suffixes: C channel, T time, N source.
"""

from __future__ import annotations

import numpy as np

from kagglehms.data.competition import CHANNELS, SFREQ_HZ
from kagglehms.simulator.artefacts import artefacts, heart, muscle, spoil_electrodes
from kagglehms.simulator.background import Patient, States, background, rhythms
from kagglehms.simulator.patterns import Segment, patterns
from kagglehms.simulator.scalp import F32, MARGIN_S
from kagglehms.simulator.spectrogram import spectrogram

__all__ = ["MARGIN_S", "Patient", "Segment", "simulate_session", "spectrogram"]


def simulate_session(
    seconds: int, recordings: list[tuple[Segment, ...]], patient: Patient, rng: np.random.Generator
) -> F32:
    """Simulate one session.

    Args:
        seconds: its length.
        recordings: for each EEG that is cut from it, its labelled segments in order of time.
        patient: whose brain it is.
        rng: decides everything else.

    Returns:
        The signal in µV, (20, at least (seconds + 2 · MARGIN_S) · 200): second 0 of the session is MARGIN_S in.
    """
    n_times = _fast_length(seconds + 2 * MARGIN_S) * SFREQ_HZ
    # A generator for each part: what one part draws changes nothing in another.
    for_states, for_all, for_rhythms, for_patterns, for_muscle, for_heart, for_artefacts, for_flat = (
        rng.spawn(8)
    )
    states = States.draw(n_times, patient, for_states)
    everywhere_NT, everywhere_CN = background(n_times, patient, states, for_all)
    tense_NT, tense_CN = muscle(n_times, patient, for_muscle)
    heart_T, ekg_T = heart(n_times, patient, for_heart)
    sources = [
        *rhythms(n_times, patient, states, for_rhythms),
        *patterns(n_times, recordings, patient, for_patterns),
        *artefacts(n_times, patient, states, heart_T, for_artefacts),
    ]
    sources_NT = np.concatenate([everywhere_NT, tense_NT, np.stack([s.course_T for s in sources])])
    fields_CN = np.stack([s.field_C for s in sources], axis=1)
    mixing_CN = np.concatenate([everywhere_CN, tense_CN, fields_CN], axis=1).astype(np.float32)
    uv_CT = np.empty((len(CHANNELS), n_times), np.float32)
    np.matmul(mixing_CN, sources_NT, out=uv_CT[:-1])
    uv_CT[-1] = ekg_T
    spoil_electrodes(uv_CT[:-1], patient, for_flat)
    return uv_CT


def _fast_length(at_least: int) -> int:
    """The next number without prime factors above 5, which a Fourier transform likes."""
    length = at_least
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 1
