"""Statistics by which simulated recordings are compared with real ones.

One number each per recording, so that a set of recordings gives a distribution of each.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.signal import welch

from kagglehms.data.competition import CHAINS, CHANNELS, FREQUENCIES_HZ, SFREQ_HZ, Competition

F64 = NDArray[np.float64]

BANDS_HZ = {"delta": (0.6, 4), "theta": (4, 8), "alpha": (8, 13), "beta": (13, 25), "gamma": (30, 55)}
HOMOLOGOUS = (("Fp1", "Fp2"), ("C3", "C4"), ("T3", "T4"), ("O1", "O2"))


def eeg_statistics(uv_TC: NDArray[np.floating]) -> dict[str, float]:
    """Statistics of one EEG, (n_times, 20) µV; samples with a NaN are left out, and what is said of an electrode
    is the median over electrodes."""
    uv = uv_TC[np.isfinite(uv_TC).all(axis=1)].astype(np.float64)
    brain_TC = uv[:, :19]
    away = np.abs(brain_TC - np.median(brain_TC, axis=0))
    found = {
        f"|x| {q}th percentile, µV": float(np.median(np.percentile(away, q, axis=0)))
        for q in (25, 50, 75, 95)
    }
    found["|x| 99.9th percentile, µV"] = float(np.median(np.percentile(away, 99.9, axis=0)))
    found["EKG standard deviation, µV"] = float(uv[:, 19].std())
    hz, power_CF = welch(brain_TC.T, SFREQ_HZ, nperseg=1024)
    power_F = np.median(power_CF, axis=0)
    fitted = (hz >= 1) & (hz <= 20)
    found["slope of log power over log Hz, 1–20 Hz"] = float(
        np.polyfit(np.log(hz[fitted]), np.log(power_F[fitted]), 1)[0]
    )
    for name, (low, high) in BANDS_HZ.items():
        inside = (hz >= low) & (hz < high)
        found[f"{name} power, log10 µV²"] = float(np.log10(power_F[inside].sum() * (hz[1] - hz[0])))
    line = np.median(power_CF[:, np.abs(hz - 60) < 0.5].max(axis=1))
    found["60 Hz, log10 µV²/Hz"] = float(np.log10(line))
    correlation = np.corrcoef(brain_TC.T + 1e-9 * np.random.default_rng(0).standard_normal(brain_TC.T.shape))
    found |= _correlations(correlation)
    return found


def _correlations(correlation_CC: F64) -> dict[str, float]:
    def mean(pairs: list[tuple[str, str]]) -> float:
        return float(np.mean([correlation_CC[CHANNELS.index(a), CHANNELS.index(b)] for a, b in pairs]))

    neighbours = [pair for chain in CHAINS.values() for pair in pairwise(chain)]
    return {
        "correlation of all pairs": float(correlation_CC[np.triu_indices(19, 1)].mean()),
        "correlation of neighbours": mean(neighbours),
        "correlation left–right": mean(list(HOMOLOGOUS)),
        "correlation front–back": mean([("Fp1", "O1"), ("Fp2", "O2")]),
    }


def panel_statistics(power_TF: NDArray[np.floating]) -> dict[str, float]:
    """Statistics of one spectrogram file, (n_rows, 400)."""
    log_TF = np.log(
        np.clip(power_TF[np.isfinite(power_TF).all(axis=1)].astype(np.float64), np.exp(-4), np.exp(8))
    )
    panels = log_TF.reshape(len(log_TF), 4, 100)
    hz = np.array(FREQUENCIES_HZ)
    found = {f"log power, {q}th percentile": float(np.percentile(log_TF, q)) for q in (5, 50, 95)}
    found["log power, mean"] = float(log_TF.mean())
    found["log power, standard deviation"] = float(log_TF.std())
    for low, high in ((0.5, 2), (2, 4), (4, 8), (8, 13), (13, 20)):
        found[f"log power, {low:g}–{high} Hz"] = float(panels[:, :, (hz >= low) & (hz < high)].mean())
    over_time = panels.mean(axis=2)
    found["standard deviation over time"] = float(panels.std(axis=0).mean())
    found["|left − right|"] = float(np.abs(over_time[:, 0] - over_time[:, 1]).mean())
    spread = panels.max(axis=1) - panels.min(axis=1)
    found["range over the four panels"] = float(spread.mean())
    return found


def statistics_of(folder: Path) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Statistics of every EEG, and of every spectrogram, of a competition's folder."""
    competition = Competition(folder)
    eegs, panels = [], []
    for path in sorted(competition.root.glob("*_eegs/*.parquet")):
        eegs.append(eeg_statistics(pl.read_parquet(path).to_numpy()))
    for path in sorted(competition.root.glob("*_spectrograms/*.parquet")):
        panels.append(panel_statistics(pl.read_parquet(path).drop("time").to_numpy()))
    return eegs, panels


def side_by_side(real: list[dict[str, float]], made: list[dict[str, float]]) -> list[tuple[str, F64, F64]]:
    """For each statistic the real values, and the 5th, 50th and 95th percentile of the simulated ones."""
    return [
        (name, np.sort([r[name] for r in real]), np.percentile([m[name] for m in made], (5, 50, 95)))
        for name in real[0]
    ]
