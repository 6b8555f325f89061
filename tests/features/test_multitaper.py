"""Rows of spectrogram files from the signal: against SciPy in float64, and against the competition's own files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from folders import eeg_frame
from oracles_spectrogram import EDGE_S, spectrogram_rows

from kagglehms.data.competition import CHAINS, CHANNELS, PANELS
from kagglehms.errors import UsageError
from kagglehms.features import multitaper_rows

UV = eeg_frame(60 * 200).to_numpy()


def log_of(power: np.ndarray) -> np.ndarray:
    return np.log(power + 0.02)


@pytest.mark.parametrize("start_s", [0.0, 0.4])
def test_rows_are_those_of_scipy(start_s: float) -> None:
    numbers, expected = spectrogram_rows(UV, -start_s)
    found = multitaper_rows(UV, 1.0 + start_s)
    assert found.dtype == np.float32
    inner = np.abs(log_of(found[numbers]) - log_of(expected))
    assert inner.max() < 0.005  # rounding to 0.01 of values around 10


def test_every_row_with_a_whole_window_has_values() -> None:
    rows = multitaper_rows(UV)
    assert rows.shape == (29, 400)  # the last is centred at 57 s
    np.testing.assert_array_equal(np.isfinite(rows).all(axis=1), [False] + [True] * 28)
    more = multitaper_rows(UV, -9.0, 40)
    np.testing.assert_array_equal(more[5:34], rows)
    assert np.isnan(more[:6]).all()
    assert np.isnan(more[34:]).all()
    assert multitaper_rows(UV[:500]).shape == (0, 400)


def test_a_gap_costs_the_rows_that_touch_it_only() -> None:
    gappy = UV.copy()
    gappy[6000:6400] = np.nan  # seconds 30 to 32
    rows, whole = multitaper_rows(gappy), multitaper_rows(UV)
    lost = np.isnan(rows).all(axis=1)
    centres_s = 1 + 2 * np.arange(len(rows))
    np.testing.assert_array_equal(lost[1:], (centres_s[1:] > 28) & (centres_s[1:] < 34))
    far = (np.abs(centres_s - 31) > 12) & np.isfinite(whole).all(axis=1)
    np.testing.assert_allclose(log_of(rows[far]), log_of(whole[far]), atol=0.05)


def test_a_missing_electrode_leaves_the_mean_over_the_other_derivations() -> None:
    """Fp1 is the end of both left chains: three derivations of each are left."""
    lacking = UV.copy()
    lacking[:, CHANNELS.index("Fp1")] = np.nan
    rows = multitaper_rows(lacking).reshape(-1, 4, 100)[4:-4]
    whole = multitaper_rows(UV).reshape(-1, 4, 100)[4:-4]
    np.testing.assert_array_equal(rows[:, [1, 3]], whole[:, [1, 3]])
    three = UV.copy()  # the same mean: of three derivations, a fourth without power and a factor
    for panel in ("LL", "LP"):
        second = CHANNELS.index(CHAINS[panel][1])
        alone = three.copy()
        alone[:, CHANNELS.index("Fp1")] = alone[:, second]
        expected = multitaper_rows(alone).reshape(-1, 4, 100)[4:-4, PANELS.index(panel)] * 4 / 3
        np.testing.assert_allclose(rows[:, PANELS.index(panel)], expected, rtol=0.02, atol=0.02)


def test_nothing_recorded_is_no_value() -> None:
    assert np.isnan(multitaper_rows(np.full((4000, 20), np.nan))).all()
    lacking = UV.copy()
    lacking[:, [CHANNELS.index(name) for name in CHAINS["RP"]]] = np.nan
    rows = multitaper_rows(lacking).reshape(-1, 4, 100)[1:]
    assert np.isnan(rows[:, 3]).all()
    assert np.isfinite(rows[:, 0]).all()


def test_other_shapes_are_refused() -> None:
    with pytest.raises(UsageError, match=r"eeg_uv.*\(n_times, 20\)"):
        multitaper_rows(UV[:, :19])


def test_rows_agree_with_the_competitions_files(hms_sample: Path) -> None:
    """The error that the documentation states; 8 s at either end of each EEG are left out."""
    table = pl.read_csv(hms_sample / "train.csv").unique("eeg_id", keep="first", maintain_order=True)
    differences = []
    for row in table.iter_rows(named=True):
        uv_TC = (
            pl.read_parquet(hms_sample / f"train_eegs/{row['eeg_id']}.parquet").select(CHANNELS).to_numpy()
        )
        if np.isnan(uv_TC).any():
            continue
        # The middles of the 50 s and of the ten minutes are the same moment.
        start_s = row["spectrogram_label_offset_seconds"] + 300 - 25 - row["eeg_label_offset_seconds"]
        file = pl.read_parquet(hms_sample / f"train_spectrograms/{row['spectrogram_id']}.parquet").drop(
            "time"
        )
        first = int((start_s + EDGE_S) // 2) + 1
        last = int((start_s + len(uv_TC) / 200 - EDGE_S) // 2) - 1
        found = multitaper_rows(uv_TC, 2 * first + 1 - start_s, last - first)
        real = file.to_numpy()[first:last]
        known = np.isfinite(real)
        differences.append(np.abs(log_of(found) - log_of(real))[known])
    errors = np.concatenate(differences)
    assert len(errors) > 10_000
    assert errors.mean() < 0.02
    assert np.median(errors) < 0.01
