"""Simulated recordings and labels beside real ones; needs the real ones, which are not part of the project."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from eeg_statistics import eeg_statistics, panel_statistics, side_by_side, statistics_of
from numpy.typing import NDArray
from oracles_spectrogram import spectrogram_rows
from recordings_to_compare import Recording, real_recordings, simulated_recording
from window_statistics import auc_by_recording, quantiles, windows

from kagglehms.data.competition import VOTE_COLUMNS, Competition
from kagglehms.data.records import Records, make_records, read_train_table
from kagglehms.simulator.studies import Study, draw_studies

N_SIMULATED = 48
N_PLANNED = 5000


@pytest.fixture(scope="module")
def made() -> list[Recording]:
    return [simulated_recording(seed) for seed in range(N_SIMULATED)]


@pytest.mark.slow
def test_signals_look_like_real_ones(hms_sample: Path, made: list[Recording]) -> None:
    """Every statistic's real median (of six) lies among the simulated recordings, give or take a tenth of their
    range, and most of the real values do."""
    real_eegs, real_panels = statistics_of(hms_sample)
    rows = side_by_side(real_eegs, [eeg_statistics(eeg_TC) for eeg_TC, _ in made])
    rows += side_by_side(real_panels, [panel_statistics(power_TF) for _, power_TF in made])
    assert len(rows) > 25
    inside = []
    for name, real, (low, _, high) in rows:
        margin = (high - low) / 10
        assert low - margin <= np.median(real) <= high + margin, name
        inside.append(np.mean((real >= low) & (real <= high)))
    assert np.mean(inside) > 0.8


@pytest.mark.slow
def test_a_classifier_hardly_tells_real_recordings_from_simulated(
    hms_sample: Path, made: list[Recording]
) -> None:
    """Docs/simulator.md has 0.6 with 180 simulated recordings; with chance alone, six real ones scatter by 0.12."""
    real = [windows(*recording) for recording in real_recordings(hms_sample)]
    simulated = [windows(*recording) for recording in made]
    assert len(real) == 6
    assert auc_by_recording([w.eeg for w in real], [w.eeg for w in simulated])[0] <= 0.8
    assert auc_by_recording([w.panels for w in real], [w.panels for w in simulated])[0] <= 0.8


@pytest.mark.slow
def test_the_classifier_finds_what_is_planted(made: list[Recording]) -> None:
    """Half of the simulated recordings, with a rhythm of 10 Hz at two electrodes, are told from the other half."""
    t = np.arange(len(made[0][0])) / 200
    added_TC = 40 * np.sin(2 * np.pi * 10 * t)[:, None] * (np.arange(20) < 2)
    odd = [windows(eeg_TC + added_TC, power_TF) for eeg_TC, power_TF in made[::2]]
    rest = [windows(*recording) for recording in made[1::2]]
    assert auc_by_recording([w.eeg for w in odd], [w.eeg for w in rest])[0] > 0.85
    names = [name for name, *_ in quantiles([w.eeg for w in odd], [w.eeg for w in rest])]
    assert any(name.startswith(("8–13", "peaks")) for name in names[:3])


def test_real_spectrograms_follow_the_recipe_of_the_simulated(hms_sample: Path) -> None:
    """What `spectrogram` states, on real files: within rounding everywhere, half of it within 1 %."""
    table = pl.read_csv(hms_sample / "train.csv")
    competition = Competition(hms_sample)
    off = []
    for row in table.filter(pl.col("eeg_sub_id") == 0).iter_rows(named=True):
        uv_TC = pl.read_parquet(competition.eeg(row["eeg_id"])).to_numpy()
        stored = pl.read_parquet(competition.spectrogram(row["spectrogram_id"])).drop("time").to_numpy()
        rows, power = spectrogram_rows(uv_TC, row["spectrogram_label_offset_seconds"] + 275)
        off.append(np.abs(np.log((power + 0.02) / (stored[rows] + 0.02))))
    error = np.concatenate(off)
    assert error.mean() < 0.02
    assert np.median(error) < 0.01


@pytest.fixture(scope="module")
def real(real_train_table: Path) -> tuple[pl.DataFrame, Records]:
    table = read_train_table(real_train_table)
    return table, make_records(table)


@pytest.fixture(scope="module")
def planned() -> list[Study]:
    studies = draw_studies(N_PLANNED, 1, np.random.default_rng((0, 0)))
    return [study for study in studies if study.split == "train"]


@pytest.fixture(scope="module")
def made_votes(planned: list[Study]) -> NDArray[np.int64]:
    return np.array([label.votes for s in planned for r in s.recordings for label in r.labels])


def test_votes_are_as_many_and_as_divided(
    real: tuple[pl.DataFrame, Records], made_votes: NDArray[np.int64]
) -> None:
    real_votes = real[1].votes_NK
    for low, high, tolerance in ((1, 3, 0.04), (4, 7, 0.07), (10, 28, 0.04)):
        of_real = real_votes[(real_votes.sum(axis=1) >= low) & (real_votes.sum(axis=1) <= high)]
        of_made = made_votes[(made_votes.sum(axis=1) >= low) & (made_votes.sum(axis=1) <= high)]
        assert len(of_made) / len(made_votes) == pytest.approx(len(of_real) / len(real_votes), abs=0.04)
        shares = [votes / votes.sum(axis=1, keepdims=True) for votes in (of_real, of_made)]
        np.testing.assert_allclose(shares[1].mean(axis=0), shares[0].mean(axis=0), atol=0.06)
        assert shares[1].max(axis=1).mean() == pytest.approx(shares[0].max(axis=1).mean(), abs=tolerance)
        classes = [(votes > 0).sum(axis=1).mean() for votes in (of_real, of_made)]
        assert classes[1] == pytest.approx(classes[0], abs=0.2)


def test_eegs_and_records_are_as_the_real_ones(
    real: tuple[pl.DataFrame, Records], planned: list[Study]
) -> None:
    table, records = real
    recordings = [recording for study in planned for recording in study.recordings]
    labels = [label for recording in recordings for label in recording.labels]
    n_eegs = table["eeg_id"].n_unique()
    assert len(labels) / len(recordings) == pytest.approx(len(records) / n_eegs, rel=0.05)
    windows = table.group_by("eeg_id", *VOTE_COLUMNS).len()["len"].to_numpy()
    made = np.array([len(label.offsets_s) for label in labels])
    assert np.mean(made == 1) == pytest.approx(np.mean(windows == 1), abs=0.05)
    np.testing.assert_allclose(
        np.quantile(made, (0.5, 0.75, 0.9)), np.quantile(windows, (0.5, 0.75, 0.9)), rtol=0.35
    )
    per_spectrogram = table.group_by("spectrogram_id").agg(pl.col("eeg_id").n_unique())["eeg_id"].to_numpy()
    assert np.mean([len(s.recordings) == 1 for s in planned]) == pytest.approx(
        np.mean(per_spectrogram == 1), abs=0.05
    )
    last = table.group_by("eeg_id").agg(pl.col("eeg_label_offset_seconds").max()).to_series(1).to_numpy()
    made_last = np.array([recording.last_offset_s for recording in recordings])
    np.testing.assert_allclose(
        np.quantile(made_last, (0.5, 0.75, 0.9)), np.quantile(last, (0.5, 0.75, 0.9)), rtol=0.35
    )


def test_records_of_a_patient_are_as_alike(real: tuple[pl.DataFrame, Records], planned: list[Study]) -> None:
    """How many pairs have the same consensus: in two spectrograms of a patient, two EEGs of a spectrogram, one EEG."""
    made = [
        (study.patient_id, study.spectrogram_id, recording.eeg_id, int(np.argmax(label.votes)))
        for study in planned
        for recording in study.recordings
        for label in recording.labels
    ]
    frame = real[1].frame.select("patient_id", "spectrogram_id", "eeg_id")
    theirs = [(*row, int(k)) for row, k in zip(frame.rows(), real[1].votes_NK.argmax(axis=1), strict=True)]
    for unit, smaller in ((0, 1), (1, 2), (2, None)):
        assert _agreement(made, unit, smaller) == pytest.approx(_agreement(theirs, unit, smaller), abs=0.09)


def _agreement(rows: list[tuple[int, ...]], unit: int, smaller: int | None) -> float:
    """The share of pairs within a unit, but of different smaller ones, that agree: at most 30 records of a unit."""
    groups: dict[int, list[tuple[int, ...]]] = {}
    for row in rows:
        groups.setdefault(row[unit], []).append(row)
    rng = np.random.default_rng(0)
    same = [
        a[3] == b[3]
        for group in groups.values()
        for a, b in combinations([group[i] for i in rng.permutation(len(group))[:30]], 2)
        if smaller is None or a[smaller] != b[smaller]
    ]
    return float(np.mean(same))
