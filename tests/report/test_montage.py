"""The double banana: what is subtracted from what, and what the display filter does to known waves."""

from __future__ import annotations

import numpy as np
import pytest

from kagglehms.data.competition import CHANNELS
from kagglehms.errors import UsageError
from kagglehms.report.montage import (
    DERIVATIONS,
    SENSITIVITIES_UV,
    TRACE_HZ,
    ekg_gain,
    montage,
    rows,
    sensitivity_uv,
    traces,
)

AS_READ = [
    *("Fp1–F7", "F7–T3", "T3–T5", "T5–O1"),
    *("Fp2–F8", "F8–T4", "T4–T6", "T6–O2"),
    *("Fp1–F3", "F3–C3", "C3–P3", "P3–O1"),
    *("Fp2–F4", "F4–C4", "C4–P4", "P4–O2"),
    *("Fz–Cz", "Cz–Pz", "EKG"),
]


def test_the_derivations_are_those_of_the_double_banana() -> None:
    assert [d.label for d in DERIVATIONS] == AS_READ
    heights = rows()
    assert len(heights) == 19
    assert np.diff(heights).min() == pytest.approx(1)


def test_montage_subtracts_the_named_electrodes() -> None:
    eeg_uv = np.random.default_rng(0).normal(0, 50, (300, len(CHANNELS))).astype(np.float32)
    made = montage(eeg_uv)
    for label, row in zip(AS_READ, made, strict=True):
        plus, _, minus = label.partition("–")
        expected = eeg_uv[:, CHANNELS.index(plus)] - (eeg_uv[:, CHANNELS.index(minus)] if minus else 0)
        np.testing.assert_array_equal(row, expected)
    with pytest.raises(UsageError, match=r"eeg_uv must be \(n_times, 20\)"):
        montage(eeg_uv.T)


def wave(hz: float, amplitude_uv: float = 50.0, seconds: int = 50) -> np.ndarray:
    """A sine at Fp1 alone, on an offset that a bad electrode could have."""
    eeg_uv = np.zeros((seconds * 200, len(CHANNELS)), np.float32)
    eeg_uv[:, 0] = 900 + amplitude_uv * np.sin(2 * np.pi * hz * np.arange(len(eeg_uv)) / 200)
    return eeg_uv


@pytest.mark.parametrize(
    ("hz", "passes"), [(1.5, 1.0), (3, 1.0), (10, 1.0), (25, 1.0), (60, 0.0), (0.1, 0.0)]
)
def test_what_is_read_passes_and_hum_and_drift_do_not(hz: float, passes: float) -> None:
    middle = traces(wave(hz))[0][10 * TRACE_HZ : 40 * TRACE_HZ]
    assert np.abs(middle).max() == pytest.approx(50 * passes, abs=2.5)


def test_nothing_is_shifted_in_time() -> None:
    eeg_uv = np.zeros((10_000, len(CHANNELS)), np.float32)
    eeg_uv[4990:5011, 0] = 100 * np.hanning(21)
    assert int(np.argmax(traces(eeg_uv)[0])) == 5000 // 2


def test_gaps_stay_gaps_and_do_not_spread() -> None:
    eeg_uv = wave(5)
    eeg_uv[2000:2400, 0] = np.nan
    eeg_uv[:, CHANNELS.index("O2")] = np.nan
    made = traces(eeg_uv)
    assert np.isnan(made[0][1000:1200]).all()
    assert np.isfinite(made[0][:1000]).all()
    assert np.isfinite(made[0][1200:]).all()
    assert np.isnan(made[AS_READ.index("T6–O2")]).all()


def test_sensitivity_follows_the_size_of_the_traces() -> None:
    assert sensitivity_uv(np.full((19, 100), 60, np.float32)) == 70
    assert sensitivity_uv(np.full((19, 100), np.nan, np.float32)) == SENSITIVITIES_UV[0]
    assert sensitivity_uv(np.full((19, 100), 1e6, np.float32)) == SENSITIVITIES_UV[-1]
    loud_heart = np.zeros((19, 100), np.float32)
    loud_heart[-1] = 2000
    assert sensitivity_uv(loud_heart) == SENSITIVITIES_UV[0]
    assert 2000 * ekg_gain(loud_heart, 70) == pytest.approx(49)
    assert ekg_gain(np.full((19, 9), np.nan, np.float32), 70) == 1
