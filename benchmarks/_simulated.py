"""EEG windows that look like recordings, from the simulator of simulated competitions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import CLASSES, N_TIMES, SFREQ_HZ
from kagglehms.simulator.signal import MARGIN_S, Patient, Segment, simulate_study

STUDY_S = 450


def eeg_windows(n_windows: int, seed: int = 0) -> NDArray[np.float32]:
    """(n_windows, 10000, 20) µV: 50 s windows of studies whose patients and patterns differ."""
    rng = np.random.default_rng(seed)
    windows: list[NDArray[np.float32]] = []
    while len(windows) < n_windows:
        probabilities = np.full(len(CLASSES), 0.04)
        probabilities[rng.integers(len(CLASSES))] += 0.76
        segment = Segment(0, STUDY_S, tuple(probabilities))
        study_CT = simulate_study(STUDY_S, [(segment,)], Patient.draw(rng), rng)
        for start_s in range(MARGIN_S, STUDY_S - 50, 50):
            first = start_s * SFREQ_HZ
            windows.append(np.ascontiguousarray(study_CT[:, first : first + N_TIMES].T))
    return np.stack(windows[:n_windows])
