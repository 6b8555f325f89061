"""Ten minutes of spectrogram, computed a part at a time, against all of it at once."""

from __future__ import annotations

import numpy as np
import pytest
from own_recordings import simulated_uv

from kagglehms.data.competition import CHANNELS
from kagglehms.features import multitaper_rows
from kagglehms.recordings.channels import map_channels
from kagglehms.recordings.electrodes import Electrodes
from kagglehms.recordings.reading import open_recording
from kagglehms.recordings.spectrograms import Spectrograms
from kagglehms.recordings.stored import Stretch

UV = simulated_uv(1300)


def electrodes(uv_TC: np.ndarray) -> Electrodes:
    recording = open_recording(uv_TC, sfreq_hz=200, channels=CHANNELS)
    return Electrodes(recording, map_channels(recording))


@pytest.mark.parametrize("centre_s", [5, 305, 650, 652, 995, 1295])
def test_parts_are_those_of_the_whole(centre_s: int) -> None:
    """Rows of the whole signal at once, laid so that they stand 299, 297 … 1 s around the middle."""
    spectrograms = Spectrograms(electrodes(UV), 5 * 200)
    found, share = spectrograms.crop(centre_s * 200)
    late_s = (
        0 if centre_s % 2 else 1
    )  # rows were laid for odd seconds; around even ones they are a second late
    expected = multitaper_rows(UV, centre_s - 299 + late_s, 300)
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))
    power = np.exp(found.astype(float))
    low, high = np.exp(-4), np.exp(8)
    np.testing.assert_allclose(
        power, np.clip(expected, low, high), rtol=5e-3, atol=0.011
    )  # a step of rounding
    assert share == pytest.approx(np.isfinite(expected).any(axis=1).mean())


def test_parts_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, int]] = []
    signal = electrodes(UV)
    original = signal.read
    monkeypatch.setattr(signal, "read", lambda a, b: read.append((a, b)) or original(a, b))
    spectrograms = Spectrograms(signal, 5 * 200)
    for centre_s in range(5, 1300, 10):
        spectrograms.crop(centre_s * 200)
    assert len(read) == len(set(read)) <= 3


def test_no_row_describes_both_sides_of_a_joint() -> None:
    """Rows whose four seconds reach across it are missing; those far from it are as they were without it."""
    joint = 651 * 200 + 7
    recording = open_recording(UV, sfreq_hz=200, channels=CHANNELS)
    recording.stretches = (Stretch(0, 0, joint), Stretch(joint / 200, joint, len(UV)))
    found, _ = Spectrograms(Electrodes(recording, map_channels(recording)), 5 * 200).crop(655 * 200)
    at_s = 655 - 299 + 2 * np.arange(300)  # in the middle of each row's four seconds
    across = np.abs(at_s - joint / 200) < 2
    np.testing.assert_array_equal(np.isnan(found).all(axis=1), across)
    assert across.sum() == 2
    whole, _ = Spectrograms(electrodes(UV), 5 * 200).crop(655 * 200)
    far = np.abs(at_s - joint / 200) > 20
    np.testing.assert_array_equal(found[far], whole[far])


def test_a_short_recording_shows_what_is_there() -> None:
    found, share = Spectrograms(electrodes(UV[: 40 * 200]), 25 * 200).crop(25 * 200)
    assert share == pytest.approx(18 / 300, abs=0.01)
    there = np.isfinite(found).all(axis=1)
    assert there.sum() == round(share * 300)
    empty, none = Spectrograms(electrodes(UV[: 3 * 200]), 0).crop(0)
    assert none == 0
    assert np.isnan(empty).all()
