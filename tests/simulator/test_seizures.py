"""Seizures of each kind, against the terminology's definitions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import welch

from kagglehms.data.competition import SFREQ_HZ
from kagglehms.simulator import seizures as module
from kagglehms.simulator.patients import Patient
from kagglehms.simulator.scalp import MARGIN_S
from kagglehms.simulator.seizures import KINDS, Segment, brief_runs, seizures

SECONDS = 600
N_TIMES = SECONDS * SFREQ_HZ
PATIENT = replace(Patient(), irregularity=0.5)
SEGMENT = Segment(280, 310, (1.0, 0, 0, 0, 0, 0))


def focus(kind: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> NDArray[np.float32]:
    monkeypatch.setattr(module, "_SHARES", tuple(float(name == kind) for name in KINDS))
    strength_T = np.ones(N_TIMES, np.float32)
    return seizures(N_TIMES, strength_T, [(SEGMENT,)], PATIENT, np.random.default_rng(seed))[0].course_T


def peak_hz(x_T: NDArray[np.float32]) -> float:
    hz, power = welch(x_T, SFREQ_HZ, nperseg=min(4 * SFREQ_HZ, len(x_T)))
    return float(hz[power.argmax()])


@pytest.mark.parametrize("kind", KINDS)
def test_a_seizure_lasts_longer_than_its_labels_and_ends(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(4):
        active = np.flatnonzero(np.abs(focus(kind, seed, monkeypatch)) > 1) / SFREQ_HZ - MARGIN_S
        assert active[0] < SEGMENT.start_s
        assert active[-1] > SEGMENT.stop_s
        assert active[-1] - active[0] >= 10
        assert active[-1] < SECONDS - 60


def test_discharges_are_faster_than_two_and_a_half_hz_or_change(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in KINDS:
        for seed in range(4):
            x_T = focus(kind, seed, monkeypatch)
            active = np.flatnonzero(np.abs(x_T) > 1)
            early, late = np.array_split(x_T[active[0] : active[-1]], 2)
            change = abs(np.log(peak_hz(early) / peak_hz(late)))
            assert peak_hz(early) > 2 or change > 0.2


def test_a_fast_one_begins_low_and_above_ten_hz(monkeypatch: pytest.MonkeyPatch) -> None:
    x_T = focus("fast", 1, monkeypatch)
    active = np.flatnonzero(np.abs(x_T) > 0.5)
    first, *_, last = np.array_split(x_T[active[0] : active[-1]], 6)
    assert peak_hz(first) > 10 > peak_hz(last)
    assert np.abs(last).mean() > 1.5 * np.abs(first).mean()


def test_spike_waves_are_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SHARES", tuple(float(name == "spike-wave") for name in KINDS))
    strength_T = np.ones(N_TIMES, np.float32)
    source = seizures(N_TIMES, strength_T, [(SEGMENT,)], PATIENT, np.random.default_rng(0))[0]
    left, right = source.field_C[:8], source.field_C[11:]
    np.testing.assert_allclose(np.sort(left), np.sort(right), atol=1e-6)


def test_brief_runs_are_faster_than_four_hz_and_shorter_than_ten_seconds() -> None:
    course_T = brief_runs(N_TIMES, replace(PATIENT, runs_per_min=1.0), np.random.default_rng(0)).course_T
    level = np.abs(course_T).reshape(-1, SFREQ_HZ).max(axis=1) > 1
    edges = np.flatnonzero(np.diff(np.concatenate([[0], level, [0]])))
    lengths = edges[1::2] - edges[::2]
    assert len(lengths) >= 3
    assert lengths.max() < 10
    assert peak_hz(course_T) > 4
