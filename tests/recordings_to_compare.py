"""Recordings that are compared with each other: simulated ones, and the real ones of a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kagglehms.data.competition import CHANNELS, SFREQ_HZ, SPECTROGRAM_COLUMNS, Competition
from kagglehms.simulator.signal import MARGIN_S, Patient, Segment, simulate_study, spectrogram
from kagglehms.simulator.votes import CLASS_MEANS

F32 = NDArray[np.float32]
Recording = tuple[F32, F32]
"""An EEG, (n_times, 20) µV, and its spectrogram, (n_rows, 400)."""


def simulated_recording(seed: int) -> Recording:
    """70 s of EEG and 620 s of spectrogram of a random patient, mostly of one class, as frequent as among real ones."""
    rng = np.random.default_rng((seed, 5))
    concentration = np.full(len(CLASS_MEANS), 0.2)
    concentration[rng.choice(len(CLASS_MEANS), p=CLASS_MEANS)] += 4
    truth_K = rng.dirichlet(concentration)
    segment = Segment(295, 320, tuple(truth_K.tolist()))
    uv_CT = simulate_study(620, [(segment,)], Patient.draw(rng, truth_K), rng)
    eeg_TC = uv_CT[:, (MARGIN_S + 275) * SFREQ_HZ :][:, : 70 * SFREQ_HZ].T
    return eeg_TC, np.round(spectrogram(uv_CT, 310), 2)


def real_recordings(folder: Path) -> list[Recording]:
    """Every EEG of a competition's folder with its spectrogram."""
    competition = Competition(folder)
    found = []
    for split, table in (("train", competition.train_csv), ("test", competition.test_csv)):
        for eeg_id, spectrogram_id in (
            pl.read_csv(table).select("eeg_id", "spectrogram_id").unique().sort("eeg_id").rows()
        ):
            eeg, power = competition.eeg(eeg_id, split), competition.spectrogram(spectrogram_id, split)
            if eeg.is_file() and power.is_file():
                found.append(
                    (
                        pl.read_parquet(eeg).select(CHANNELS).to_numpy(),
                        pl.read_parquet(power).select(SPECTROGRAM_COLUMNS).to_numpy(),
                    )
                )
    return found
