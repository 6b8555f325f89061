"""A signal model of scalp EEG whose class probabilities are known.

A study is one continuous recording of a patient. Its signal consists of the patient's background (`background`), the
patterns of the American Clinical Neurophysiology Society's terminology, each as strong as its class is probable at that
moment (`patterns`), and artefacts (`artefacts`). EEG files are cut from this signal, and spectrogram files contain its
power (`spectrogram`), so the two agree as they do in the competition.

Shape suffixes: C channel, T time, N source.
"""

from __future__ import annotations

import numpy as np
from scipy.fft import next_fast_len

from kagglehms.data.competition import CHANNELS, SFREQ_HZ
from kagglehms.simulator.artefacts import artefacts, heart, muscle
from kagglehms.simulator.background import States, background, rhythms
from kagglehms.simulator.intensive_care import intensive_care, spoil_electrodes
from kagglehms.simulator.patients import Patient
from kagglehms.simulator.patterns import patterns
from kagglehms.simulator.scalp import F32, MARGIN_S
from kagglehms.simulator.seizures import Segment
from kagglehms.simulator.spectrogram import spectrogram

__all__ = ["MARGIN_S", "Patient", "Segment", "simulate_study", "spectrogram"]


def simulate_study(
    seconds: int, recordings: list[tuple[Segment, ...]], patient: Patient, rng: np.random.Generator
) -> F32:
    """Simulate one study.

    Args:
        seconds: length of the study.
        recordings: labelled segments, in order of time, of each EEG that is cut from the study.
        patient: the patient.
        rng: random generator.

    Returns:
        (20, at least (seconds + 2 · MARGIN_S) · 200) µV, beginning MARGIN_S before second 0 of the study.
    """
    n_times = next_fast_len(seconds + 2 * MARGIN_S, real=True) * SFREQ_HZ
    # Each part has its own generator, so that its draws do not change the others.
    for_states, for_all, for_rhythms, for_patterns, for_muscle = rng.spawn(5)
    for_heart, for_artefacts, for_care, for_contact = rng.spawn(4)
    states = States.draw(n_times, patient, for_states)
    everywhere_NT, everywhere_CN = background(n_times, patient, states, for_all)
    heart_T, ekg_T = heart(n_times, patient, for_heart)
    sources = [
        *rhythms(n_times, patient, states, for_rhythms),
        *patterns(n_times, recordings, patient, for_patterns),
        *artefacts(n_times, patient, states, heart_T, for_artefacts),
        *intensive_care(n_times, patient, for_care),
    ]
    fields_CN = np.stack([s.field_C for s in sources], axis=1)
    uv_CT = np.empty((len(CHANNELS), n_times), np.float32)
    np.matmul(everywhere_CN.astype(np.float32), everywhere_NT, out=uv_CT[:-1])
    uv_CT[:-1] += fields_CN.astype(np.float32) @ np.stack([s.course_T for s in sources])
    uv_CT[:-1] += muscle(n_times, patient, for_muscle)
    uv_CT[-1] = ekg_T
    spoil_electrodes(uv_CT[:-1], patient, for_contact)
    return uv_CT
