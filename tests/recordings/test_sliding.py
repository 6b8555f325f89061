"""Where windows stand, and what is found wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from kagglehms.data.competition import CHANNELS, DIFFERENCES
from kagglehms.errors import UsageError
from kagglehms.recordings.channels import PAIRS
from kagglehms.recordings.sliding import Flags, inspect_window, near_zero, window_starts

INDEX = {name: i for i, name in enumerate(CHANNELS)}


def eeg(seed: int = 0, size_uv: float = 30) -> np.ndarray:
    """(10,000, 20) µV of slow noise."""
    noise = np.random.default_rng(seed).normal(0, 1, (10_050, 20))
    slow = np.stack([np.convolve(x, np.ones(51) / 51, "valid") for x in noise.T], axis=1)
    return (slow * size_uv / slow.std()).astype(np.float32)


def flags(uv_TC: np.ndarray, **more: object) -> Flags:
    return inspect_window(uv_TC, PAIRS, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spans", "every_s", "expected_s"),
    [
        ([(0, 60 * 200)], 10, [0, 10, 20, 30, 40, 50]),
        ([(0, 65 * 200)], 10, [0, 10, 20, 30, 40, 50, 60]),
        ([(0, 25 * 200)], 5, [0, 5, 10, 15, 20]),
        ([(0, 3 * 200)], 2.5, [0, 2.5]),
        ([(0, 20 * 200), (95 * 200, 120 * 200)], 10, [0, 10, 90, 100, 110]),
        ([(0, 20 * 200), (95 * 200, 120 * 200)], 2, [*range(0, 20, 2), *range(86, 120, 2)]),
        ([(0, 1)], 10, [0]),
    ],
)
def test_windows_are_laid_over_what_was_recorded(
    spans: list[tuple[int, int]], every_s: float, expected_s: list[float]
) -> None:
    np.testing.assert_array_equal(window_starts(spans, every_s) / 200, expected_s)


@pytest.mark.parametrize("every_s", [0, -1, 0.5, 1.0013, float("nan"), float("inf"), "10s"])
def test_other_steps_are_refused(every_s: float) -> None:
    with pytest.raises(UsageError, match="every second or more, in whole samples"):
        window_starts([(0, 1000)], every_s)


def test_nothing_is_wrong_with_eeg() -> None:
    assert flags(eeg()) == Flags(edge=False, gap=False, flat=False, artefact=False)
    assert flags(eeg()).clean
    assert flags(eeg(size_uv=2)).clean  # hardly any activity, and noise
    assert flags(eeg(size_uv=100)).clean


def test_windows_at_the_ends_are_known() -> None:
    window = eeg()
    window[:4000] = np.nan
    assert flags(window, inside=(4000, 10_000)) == Flags(edge=True, gap=False, flat=False, artefact=False)


@pytest.mark.parametrize(("samples", "gap"), [(150, False), (300, True), (6000, True)])
def test_more_than_a_second_without_samples_is_a_gap(samples: int, gap: bool) -> None:
    window = eeg()
    window[1000 : 1000 + samples] = np.nan
    assert flags(window).gap is gap


def test_a_joint_is_a_gap_although_no_sample_is_missing() -> None:
    assert flags(eeg(), joined=True) == Flags(edge=False, gap=True, flat=False, artefact=False)


def test_electrodes_that_come_and_go_make_a_gap() -> None:
    window = eeg()
    window[2000:7000, INDEX["C3"]] = np.nan
    assert flags(window).gap


def test_an_electrode_that_the_recording_has_not_makes_none() -> None:
    window = eeg()
    window[:, INDEX["C3"]] = np.nan
    pairs = [pair for pair in DIFFERENCES if "C3" not in pair]
    assert inspect_window(window, pairs).clean


@pytest.mark.parametrize(("electrodes", "flat"), [(2, False), (5, True), (19, True)])
def test_flat_electrodes_make_a_flat_window(electrodes: int, flat: bool) -> None:
    window = eeg()
    window[3000:8000, :electrodes] = 7.25
    assert flags(window, measured=CHANNELS[:19]).flat is flat


def test_flat_lines_of_a_reference_that_is_zero_do_not_count() -> None:
    window = eeg()
    window[:, INDEX["Cz"]] = 0
    assert flags(window, measured=[name for name in CHANNELS[:19] if name != "Cz"]).clean


def test_a_flat_outer_part_is_not_judged() -> None:
    window = eeg()
    window[:3000] = 0
    assert not flags(window).flat


@pytest.mark.parametrize("kind", ["movement", "muscle", "mains"])
def test_artefacts_over_most_of_the_judged_seconds_are_flagged(kind: str) -> None:
    window, at = eeg(), np.arange(10_000) / 200
    sizes = np.linspace(0.5, 1.5, 20) * np.where(np.arange(20) % 2, 1, -1)
    if kind == "movement":
        window += np.outer(1500 * np.sin(2 * np.pi * 1.3 * at), sizes).astype(np.float32)
    elif kind == "muscle":
        window += np.random.default_rng(1).normal(0, 60, window.shape).astype(np.float32)
    else:
        window += np.outer(200 * np.sin(2 * np.pi * 50 * at), sizes).astype(np.float32)
    assert flags(window) == Flags(edge=False, gap=False, flat=False, artefact=True)
    outer = window.copy()
    outer[3000:7000] = eeg()[3000:7000]
    assert not flags(outer).artefact


def test_a_pop_is_no_reason_to_judge_nothing() -> None:
    window = eeg()
    window[5000:5100, INDEX["F3"]] += 5000
    assert flags(window).clean


def test_a_window_near_zero_is_left_as_it_is() -> None:
    window = eeg()
    window[5000:5050, 3] += 20_000  # a pop
    same, offset = near_zero(window)
    assert same is window
    assert not offset


def test_offsets_of_an_amplifier_are_taken_out_before_half_precision() -> None:
    window, offset_C = eeg(), np.linspace(-30_000, 30_000, 20).astype(np.float32)
    near, offset = near_zero(window + offset_C)
    assert offset
    assert (np.abs(near.mean(axis=0)) < 0.01).all()
    half = near.astype(np.float16).astype(np.float64)
    for a, b in PAIRS:
        i, j = INDEX[a], INDEX[b]
        error = (half[:, i] - half[:, j]) - (window[:, i] - window[:, j])
        assert error.std() < 0.1


def test_what_all_electrodes_share_costs_no_precision() -> None:
    """Mains of two millivolts and a drift of the reference: differences keep the steps of half precision at 64 µV."""
    window, at = eeg(), np.arange(10_000) / 200
    common = 2000 * np.sin(2 * np.pi * 50 * at + 0.1) + 3000 * at / 50
    shifted = (window + common[:, None]).astype(np.float32)
    shifted[4000:4100] = np.nan
    near, offset = near_zero(shifted)
    assert not offset
    half = near.astype(np.float16).astype(np.float64)
    np.testing.assert_array_equal(np.isnan(half).all(axis=1), np.isnan(shifted).all(axis=1))
    for a, b in PAIRS:
        i, j = INDEX[a], INDEX[b]
        assert np.nanmax(np.abs((half[:, i] - half[:, j]) - (window[:, i] - window[:, j]))) < 0.15


def test_few_windows_of_real_recordings_are_flagged(hms_sample: Path) -> None:
    found = []
    for path in sorted((hms_sample / "train_eegs").glob("*.parquet")):
        uv_TC = pl.read_parquet(path).to_numpy()
        for first in range(0, len(uv_TC) - 9999, 2000):
            window = uv_TC[first : first + 10_000].astype(np.float32)
            found.append(inspect_window(window, PAIRS, measured=CHANNELS[:19]))
    assert len(found) >= 20
    assert sum(not f.clean for f in found) <= 0.1 * len(found)
