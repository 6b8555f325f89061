"""Files of any rate, unit and montage → the electrodes that they were made of; what contradicts itself is refused."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from own_recordings import (
    REFERENTIAL,
    TIMED,
    at_rate,
    discontinuous,
    signal_field,
    simulated_uv,
    write_edf,
    write_referential,
)

from kagglehms.data.competition import CHAINS, CHANNELS, DIFFERENCES, MIDLINE_DIFFERENCES
from kagglehms.errors import DataError, UsageError
from kagglehms.recordings.channels import PAIRS, map_channels
from kagglehms.recordings.electrodes import Electrodes
from kagglehms.recordings.reading import open_recording

SECONDS = 150
UV = simulated_uv(SECONDS)
INDEX = {name: i for i, name in enumerate(CHANNELS)}
BANANA = [*DIFFERENCES, *MIDLINE_DIFFERENCES]


def electrodes_of(recording: object, allow_missing: bool = False, **more: object) -> Electrodes:
    opened = open_recording(recording, **more)  # type: ignore[arg-type]
    return Electrodes(opened, map_channels(opened, PAIRS, allow_missing))


def differences(uv_TC: np.ndarray) -> np.ndarray:
    return np.stack([uv_TC[:, INDEX[a]] - uv_TC[:, INDEX[b]] for a, b in PAIRS], axis=1)


@pytest.mark.parametrize("ending", ["edf", "bdf"])
def test_at_200_hz_electrodes_are_the_channels_to_the_files_resolution(tmp_path: Path, ending: str) -> None:
    found = electrodes_of(write_referential(tmp_path / f"a.{ending}", UV))
    assert found.n_times == SECONDS * 200
    np.testing.assert_allclose(found.read(0, found.n_times), UV, atol=0.051)


@pytest.mark.parametrize("rate_hz", [256, 500, 512])
def test_other_rates_come_back_to_the_signal_at_200_hz(tmp_path: Path, rate_hz: int) -> None:
    found = electrodes_of(write_referential(tmp_path / "a.edf", at_rate(UV, rate_hz), rate_hz))
    assert found.n_times == SECONDS * 200
    error = (found.read(0, found.n_times) - UV)[400:-400]
    # What simulated muscle has above 80 Hz is lost in part; the rest is rounding.
    smooth = np.stack([np.convolve(e, np.ones(5) / 5, "valid") for e in error.T])
    assert np.sqrt((smooth**2).mean()) < 0.1


def test_rates_that_differ_within_a_file_meet_at_200_hz(tmp_path: Path) -> None:
    rates = [200 if i % 3 else 400 for i in range(20)]
    doubled = at_rate(UV, 400)
    columns = [UV[:, i] if rate == 200 else doubled[:, i] for i, rate in enumerate(rates)]
    found = electrodes_of(write_edf(tmp_path / "a.edf", columns, REFERENTIAL, rates))
    out = found.read(0, found.n_times)
    for i, rate in enumerate(rates):
        error = np.convolve((out[:, i] - UV[:, i])[400:-400], np.ones(5) / 5, "valid")
        assert np.sqrt((error**2).mean()) < (0.05 if rate == 200 else 0.3)


@pytest.mark.parametrize("rate_hz", [200, 256])
def test_any_part_is_the_same_as_in_one_piece(tmp_path: Path, rate_hz: int) -> None:
    found = electrodes_of(write_referential(tmp_path / "a.edf", at_rate(UV, rate_hz), rate_hz))
    whole = found.read(-300, found.n_times + 500)
    assert np.isnan(whole[:300]).all()
    assert np.isnan(whole[-500:]).all()
    for first, stop in ((-100, 50), (11_990, 12_010), (0, 30_000), (29_900, 30_100), (-300, -200), (5, 5)):
        np.testing.assert_array_equal(found.read(first, stop), whole[first + 300 : stop + 300])


@pytest.mark.parametrize(("unit", "factor"), [("uV", 1.0), ("mV", 1e-3), ("V", 1e-6)])
def test_units_of_the_header_are_followed(tmp_path: Path, unit: str, factor: float) -> None:
    span = (-3276.8 * factor, 3276.7 * factor)
    path = write_edf(tmp_path / "a.edf", list(UV.T * factor), REFERENTIAL, [200] * 20, unit, span)
    found = electrodes_of(path)
    np.testing.assert_allclose(found.read(0, 2000), UV[:2000], atol=0.06)


@pytest.mark.parametrize(("unit", "factor"), [("uV", 1e-6), ("uV", 1e-3), ("mV", 1.0), ("", 1e-6)])
def test_amplitudes_that_contradict_the_unit_are_refused(tmp_path: Path, unit: str, factor: float) -> None:
    span = (-3276.8 * factor, 3276.7 * factor)
    path = write_edf(tmp_path / "a.edf", list(UV.T * factor), REFERENTIAL, [200] * 20, unit, span)
    with pytest.raises(
        DataError, match=r"values deviate by .* µV, and EEG by 0.2 to 5000 µV.*the unit given: "
    ):
        electrodes_of(path)


def test_a_file_without_units_is_taken_where_amplitudes_agree(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "a.edf", list(UV.T), REFERENTIAL, [200] * 20, unit="")
    np.testing.assert_allclose(electrodes_of(path).read(0, 2000), UV[:2000], atol=0.051)


def test_flat_lines_say_nothing_about_units() -> None:
    quiet = UV.copy()
    quiet[: 100 * 200] = 0
    np.testing.assert_array_equal(
        electrodes_of(quiet, sfreq_hz=200, channels=CHANNELS).read(0, len(UV)), quiet
    )
    flat = electrodes_of(np.zeros((4000, 20)), sfreq_hz=200, channels=CHANNELS)
    assert (flat.read(0, 4000) == 0).all()


def test_volts_in_an_array_are_refused() -> None:
    with pytest.raises(UsageError, match="the array: values deviate by .* they may be V or mV"):
        electrodes_of(UV * 1e-6, sfreq_hz=200, channels=CHANNELS)


def test_single_channels_in_another_unit_or_without_values_are_noted() -> None:
    odd = UV.astype(np.float64)
    odd[:, INDEX["C3"]] *= 1e-3
    odd[:, INDEX["O2"]] *= 1e3
    odd[:, INDEX["P4"]] = np.nan
    notes = electrodes_of(odd, sfreq_hz=200, channels=CHANNELS).notes
    assert notes[0].startswith("C3 alone is doubtful: values deviate by")
    assert notes[1].startswith("O2 alone is doubtful: values deviate by")
    assert notes[2:] == ("P4 holds no values",)
    assert electrodes_of(UV, sfreq_hz=200, channels=CHANNELS).notes == ()


def test_impossible_rates_are_refused() -> None:
    with pytest.raises(UsageError, match=r"Fp1 has 1e\+09 samples a second; correct the sampling rate"):
        electrodes_of(UV, sfreq_hz=1e9, channels=CHANNELS)


def test_what_is_sampled_too_slowly_is_refused(tmp_path: Path) -> None:
    columns = [UV[:, i] if i else UV[::8, 0] for i in range(20)]
    path = write_edf(tmp_path / "a.edf", columns, REFERENTIAL, [25, *[200] * 19])
    with pytest.raises(DataError, match="EEG Fp1-REF has 25 samples a second"):
        electrodes_of(path)


def test_a_bipolar_file_gives_the_same_differences(tmp_path: Path) -> None:
    columns = [UV[:, INDEX[a]] - UV[:, INDEX[b]] for a, b in BANANA]
    labels = [f"{a}-{b}" for a, b in BANANA]
    found = electrodes_of(write_edf(tmp_path / "a.edf", columns, labels, [200] * 18))
    # Up to eight channels of 0.1 µV are added up for a difference that closes a loop.
    np.testing.assert_allclose(differences(found.read(0, 6000)), differences(UV[:6000]), atol=0.4)


def test_a_channel_that_contradicts_others_is_refused(tmp_path: Path) -> None:
    columns = [UV[:, INDEX[a]] - UV[:, INDEX[b]] for a, b in BANANA]
    labels = [f"{a}-{b}" for a, b in BANANA]
    swapped = [columns[1], columns[0], *columns[2:]]  # within a chain: the sum of the loop is the same
    electrodes_of(write_edf(tmp_path / "a.edf", swapped, labels, [200] * 18))
    swapped = [columns[4], *columns[1:4], columns[0], *columns[5:]]  # left and right
    with pytest.raises(DataError, match="contradicts .*, which give the same difference"):
        electrodes_of(write_edf(tmp_path / "b.edf", swapped, labels, [200] * 18))


@pytest.mark.parametrize("same", [True, False])
def test_a_channel_that_is_there_twice_has_to_be_the_same(tmp_path: Path, same: bool) -> None:
    again = UV[:, 7] if same else UV[:, 3]
    path = write_edf(tmp_path / "a.edf", [*UV.T, again], [*REFERENTIAL, "EEG O1-REF"], [200] * 21)
    if same:
        np.testing.assert_allclose(electrodes_of(path).read(0, 2000), UV[:2000], atol=0.051)
    else:
        with pytest.raises(DataError, match="EEG O1-REF contradicts EEG O1-REF"):
            electrodes_of(path)


def test_a_file_against_cz_has_cz(tmp_path: Path) -> None:
    kept = [i for i in range(19) if CHANNELS[i] != "Cz"]
    against = UV[:, kept] - UV[:, [INDEX["Cz"]]]
    labels = [f"{CHANNELS[i]}-Cz" for i in kept]
    found = electrodes_of(write_edf(tmp_path / "a.edf", list(against.T), labels, [200] * 18))
    np.testing.assert_allclose(differences(found.read(0, 2000)), differences(UV[:2000]), atol=0.11)


def test_missing_electrodes_are_missing_and_not_zero(tmp_path: Path) -> None:
    kept = [i for i in range(20) if CHANNELS[i] not in {"T3", "EKG"}]
    path = write_edf(tmp_path / "a.edf", [UV[:, i] for i in kept], [CHANNELS[i] for i in kept], [200] * 18)
    out = electrodes_of(path, allow_missing=True).read(0, 1000)
    np.testing.assert_array_equal(np.isnan(out).all(axis=0), [name in {"T3", "EKG"} for name in CHANNELS])
    np.testing.assert_allclose(out[:, kept], UV[:1000, kept], atol=0.051)


@pytest.mark.parametrize("rate_hz", [200, 256])
def test_an_interruption_is_a_gap_and_never_joined(tmp_path: Path, rate_hz: int) -> None:
    path = write_referential(tmp_path / "a.edf", at_rate(UV, rate_hz), rate_hz, annotations=TIMED)
    found = electrodes_of(discontinuous(path, {60: 7.5}))
    assert found.spans == ((0, 12_000), (13_500, 31_500))
    out = found.read(0, found.n_times)
    assert np.isnan(out[12_000:13_500]).all()
    expected = np.concatenate([UV[:12_000], np.full((1500, 20), np.nan), UV[12_000:]])
    error = out - expected
    smooth = np.stack([np.convolve(e[400:11_600], np.ones(5) / 5, "valid") for e in error.T])
    assert np.sqrt((smooth**2).mean()) < 0.1
    later = np.stack([np.convolve(e[14_000:-400], np.ones(5) / 5, "valid") for e in error.T])
    assert np.sqrt((later**2).mean()) < 0.1


def test_turned_polarity_is_followed(tmp_path: Path) -> None:
    path = write_referential(tmp_path / "a.edf", -UV)
    for signal in range(20):
        signal_field(path, 3, signal, "3276.8")
        signal_field(path, 4, signal, "-3276.7")
    np.testing.assert_allclose(electrodes_of(path).read(0, 2000), UV[:2000], atol=0.2)


def test_chains_are_neighbours() -> None:
    assert [pair for chain in CHAINS.values() for pair in pairwise(chain)] == list(DIFFERENCES)
