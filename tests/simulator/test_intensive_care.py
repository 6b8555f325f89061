"""Each artefact of intensive care, against what it is said to be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.signal import find_peaks, welch

from kagglehms.data.competition import CHANNELS, SFREQ_HZ
from kagglehms.simulator.intensive_care import RAIL_UV, intensive_care, spoil_electrodes
from kagglehms.simulator.patients import Patient

N_TIMES = 300 * SFREQ_HZ
QUIET = Patient()


def scalp(patient: Patient, seed: int) -> NDArray[np.float32]:
    sources = intensive_care(N_TIMES, patient, np.random.default_rng(seed))
    return np.sum([np.outer(source.field_C, source.course_T) for source in sources], axis=0)


def test_a_quiet_patient_has_none() -> None:
    assert intensive_care(N_TIMES, QUIET, np.random.default_rng(0)) == []


def test_a_ventilator_breathes_twelve_to_twenty_times_a_minute() -> None:
    for seed in range(4):
        x = scalp(replace(QUIET, ventilator_uv=20), seed)
        loudest = x[x.std(axis=1).argmax()].astype(np.float64)
        hz, power = welch(np.abs(loudest), SFREQ_HZ, nperseg=60 * SFREQ_HZ)
        assert 0.18 < hz[power[hz > 0.1].argmax() + np.count_nonzero(hz <= 0.1)] < 0.36


def test_the_pulse_is_below_one_electrode_at_the_hearts_rate() -> None:
    x = scalp(replace(QUIET, pulse_uv=40, heart_hz=1.3), 1)
    electrode = np.flatnonzero(x.std(axis=1))
    assert len(electrode) == 1
    beats, _ = find_peaks(x[electrode[0]], distance=SFREQ_HZ // 3, prominence=2)
    rate_hz = SFREQ_HZ / np.median(np.diff(beats))
    assert 1.1 < rate_hz < 1.5


def test_chewing_is_muscle_over_the_temples_in_bursts() -> None:
    x = scalp(replace(QUIET, chews_per_min=2), 2)
    by_name = dict(zip(CHANNELS, x.std(axis=1), strict=False))
    assert min(by_name["T3"], by_name["T4"], by_name["F7"], by_name["F8"]) > 3 * by_name["Cz"]
    hz, power = welch(x[CHANNELS.index("T3")], SFREQ_HZ, nperseg=1024)
    assert power[hz > 15].sum() > 2 * power[hz <= 15].sum()
    assert np.mean(np.abs(x[CHANNELS.index("T3")]) < 1e-3) > 0.3


def eeg(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 20, (19, N_TIMES)).astype(np.float32)


def test_paste_joins_two_neighbours() -> None:
    x, before = eeg(0), eeg(0)
    spoil_electrodes(x, replace(QUIET, bridged=1.0), np.random.default_rng(3))
    a, b = np.flatnonzero((x != before).any(axis=1))
    assert np.std(x[a] - x[b]) < 1
    assert np.corrcoef(x[a], before[a] + before[b])[0, 1] > 0.99


def test_a_loose_electrode_is_noisy_up_to_the_amplifiers_limit() -> None:
    louder = []
    for seed in range(6):
        x, before = eeg(seed), eeg(seed)
        spoil_electrodes(x, replace(QUIET, bad=1.0), np.random.default_rng(seed))
        changed = np.flatnonzero((x != before).any(axis=1))
        assert len(changed) == 1
        assert np.abs(x).max() <= RAIL_UV
        louder.append(x[changed[0]].std() / before[changed[0]].std())
    assert min(louder) > 1
    assert max(louder) > 3
