"""Whole recordings, each against the parquet way: the same windows, cut by hand, given to `predict`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import edfio
import numpy as np
import polars as pl
import pytest
from own_recordings import (
    REFERENTIAL,
    SECRET,
    TIMED,
    Loudness,
    at_rate,
    discontinuous,
    patched,
    sharpened,
    signal_field,
    simulated_uv,
    write_edf,
    write_referential,
)
from trained import make_dist

from kagglehms.bundle.predictor import Predictor, load_bundle
from kagglehms.data.competition import CHANNELS, CLASSES, DIFFERENCES, MIDLINE_DIFFERENCES
from kagglehms.data.readers import encode_eeg, encode_spectrogram, read_eeg
from kagglehms.errors import DataError, UsageError
from kagglehms.features import multitaper_rows
from kagglehms.inputs.layouts import Crop
from kagglehms.recordings.channels import PAIRS
from kagglehms.recordings.prediction import predict_recording, rename_of
from kagglehms.recordings.results import RecordingPrediction

SECONDS = 300
UV = simulated_uv(SECONDS)
SAME = 2e-3
"""How much the same input may differ in batches of other sizes, through networks that are sharpened."""
FIRST_S = np.arange(20, SECONDS - 30 + 1, 10)
"""The judged seconds of the windows that lie within the recording begin here."""


def windows(uv_TC: np.ndarray) -> np.ndarray:
    """(n, 10,000, 20) the windows within a recording, cut by hand."""
    return np.stack([uv_TC[(s - 20) * 200 : (s + 30) * 200] for s in FIRST_S])


def tens_of_minutes(uv_TC: np.ndarray) -> np.ndarray:
    """(n, 300, 400) power of the ten minutes around the same middles; NaN beyond the recording."""
    return np.stack([multitaper_rows(uv_TC, s + 5 - 299, 300) for s in FIRST_S])


@pytest.fixture(scope="module")
def of_eeg(competition_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """A bundle that looks at the EEG, and says something else of every window."""
    dist = make_dist(competition_folder, tmp_path_factory.mktemp("eeg"), "eeg+percentiles")
    crops = [Crop(None, encode_eeg(window)) for window in windows(UV)]
    return sharpened(load_bundle(dist / "dataset", "cpu"), crops)


@pytest.fixture(scope="module")
def of_both(competition_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """A bundle that looks at the EEG and at ten minutes of spectrogram."""
    dist = make_dist(competition_folder, tmp_path_factory.mktemp("both"), "kaggle+eeg")
    powers = tens_of_minutes(UV)
    crops = [
        Crop(encode_spectrogram(power), encode_eeg(window))
        for power, window in zip(powers, windows(UV), strict=True)
    ]
    return sharpened(load_bundle(dist / "dataset", "cpu"), crops)


@pytest.fixture(scope="module")
def parquet_way(of_eeg: Predictor, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """(n, 6) what the same windows are said to be that were read from the competition's parquet."""
    path = tmp_path_factory.mktemp("parquet") / "1.parquet"
    pl.DataFrame(UV, schema=list(CHANNELS)).write_parquet(path)
    expected = np.asarray(of_eeg.predict(windows(read_eeg(path).astype(np.float32))))
    assert expected.std(axis=0).max() > 0.1  # or nothing would be found out
    return expected


def judged(predictor: Predictor, recording: Any, **more: Any) -> np.ndarray:
    return of_judged(predictor.predict_recording(recording, **more))


def of_judged(found: RecordingPrediction) -> np.ndarray:
    np.testing.assert_array_equal(found.start_s[found.judged], FIRST_S)
    return found.probabilities[found.judged]


def by_edfio(folder: Path, rate_hz: int) -> Any:
    return write_referential(folder / "a.edf", at_rate(UV, rate_hz) if rate_hz != 200 else UV, rate_hz)


def by_edfio_bdf(folder: Path, rate_hz: int) -> Any:
    return write_referential(folder / "a.bdf", at_rate(UV, rate_hz) if rate_hz != 200 else UV, rate_hz)


def by_mne(folder: Path, rate_hz: int) -> Any:
    mne = pytest.importorskip("mne", reason="the other writer")
    raw = as_raw(folder, rate_hz)
    mne.export.export_raw(folder / "b.edf", raw, physical_range=(-3276.8, 3276.7), verbose="ERROR")
    return folder / "b.edf"


def as_raw(_: Path, rate_hz: int) -> Any:
    mne = pytest.importorskip("mne", reason="its objects are taken as they are")
    info = mne.create_info(list(CHANNELS), rate_hz, ["eeg"] * 19 + ["ecg"])
    values = at_rate(UV, rate_hz) if rate_hz != 200 else UV.astype(np.float64)
    return mne.io.RawArray(values.T * 1e-6, info, verbose="ERROR")


MAKERS: dict[str, Callable[[Path, int], Any]] = {
    "EDF by edfio": by_edfio,
    "BDF by edfio": by_edfio_bdf,
    "EDF by MNE": by_mne,
    "Raw": as_raw,
}


@pytest.mark.slow(60)
@pytest.mark.parametrize(
    ("make", "rate_hz"),
    [(make, rate) for make in MAKERS for rate in (200, 512)] + [("Raw", 256), ("Raw", 500)],
)
def test_files_are_judged_as_the_parquet_way(
    of_eeg: Predictor, parquet_way: np.ndarray, tmp_path: Path, make: str, rate_hz: int
) -> None:
    """Within 0.01 at 200 Hz and within 0.03 after resampling, of probabilities that differ from window to window."""
    found = judged(of_eeg, MAKERS[make](tmp_path, rate_hz))
    assert np.abs(found - parquet_way).max() < (0.01 if rate_hz == 200 else 0.03)


def with_24_channels(folder: Path) -> Path:
    """Nineteen electrodes among others, in another order, under newer names, with annotations and a patient."""
    rng = np.random.default_rng(0)
    newer = {"T3": "T7", "T4": "T8", "T5": "P7", "T6": "P8"}
    labels = [f"EEG {newer.get(name, name)}-Ref" for name in reversed(CHANNELS[:19])]
    extra = ["EEG A1-Ref", "EEG A2-Ref", "Photic-Ref", "EMG Chin", "ECG"]
    columns = [*reversed(UV[:, :19].T), *rng.normal(0, 20, (5, len(UV)))]
    path = write_edf(folder / "c.edf", columns, labels + extra, [200] * 24, annotations=TIMED)
    return patched(path, 8, f"X F 01-JAN-1950 {SECRET}".encode("latin-1").ljust(80))


def with_19_channels(folder: Path) -> Path:
    """Each with a range of its own, and a step below 0.1 µV."""
    path = write_edf(folder / "j.edf", list(UV[:, :19].T), REFERENTIAL[:19], [200] * 19)
    signals = [
        edfio.EdfSignal(signal.data, 200, label=signal.label, physical_dimension="uV")
        for signal in edfio.read_edf(path).signals
    ]
    edfio.Edf(signals).write(path)
    return path


def with_25_channels_by_mne(folder: Path) -> Path:
    """Others among them, 256 Hz, annotations, a patient, and ranges as MNE chooses them."""
    mne = pytest.importorskip("mne", reason="the other writer")
    extra = ["A1", "A2", "Fpz", "Oz", "T1"]
    info = mne.create_info([*CHANNELS, *extra], 256, ["eeg"] * 19 + ["ecg"] + ["eeg"] * 5)
    others = np.random.default_rng(0).normal(0, 20, (5, SECONDS * 256))
    raw = mne.io.RawArray(np.vstack([at_rate(UV, 256).T, others]) * 1e-6, info, verbose="ERROR")
    raw.set_annotations(mne.Annotations([3, 70.5], [1, 0], ["eyes closed", SECRET]))
    mne.export.export_raw(folder / "k.edf", raw, physical_range="channelwise", verbose="ERROR")
    return patched(folder / "k.edf", 8, f"4711 F X {SECRET}".encode().ljust(80))


def in_volts(folder: Path) -> Path:
    """Ranges as short as they have to be to fit eight characters."""
    return write_edf(folder / "l.edf", list(UV.T * 1e-6), REFERENTIAL, [200] * 20, "V", (-0.003277, 0.003277))


def with_mixed_rates(folder: Path) -> Path:
    doubled = at_rate(UV, 400)
    rates = [400 if i in {0, 5, 12, 19} else 200 for i in range(20)]
    columns = [doubled[:, i] if rate == 400 else UV[:, i] for i, rate in enumerate(rates)]
    return write_edf(folder / "d.edf", columns, REFERENTIAL, rates)


def with_odd_ranges(folder: Path) -> Path:
    """Polarity turned in the header and in the samples, and decimal commas."""
    path = write_referential(folder / "e.edf", -UV)
    for signal in range(20):
        signal_field(path, 3, signal, "3276,8")
        signal_field(path, 4, signal, "-3276,7")
    return path


def in_millivolts(folder: Path) -> Path:
    return write_edf(folder / "f.edf", list(UV.T * 1e-3), REFERENTIAL, [200] * 20, "mV", (-3.2768, 3.2767))


def as_frame(_: Path) -> pl.DataFrame:
    return pl.DataFrame(UV, schema=list(CHANNELS)).select(sorted(CHANNELS))


def bipolar(folder: Path) -> Path:
    at = {name: i for i, name in enumerate(CHANNELS)}
    pairs = [*DIFFERENCES, *MIDLINE_DIFFERENCES]
    columns = [UV[:, at[a]] - UV[:, at[b]] for a, b in pairs]
    return write_edf(folder / "g.edf", columns, [f"{a.upper()}-{b.upper()}" for a, b in pairs], [200] * 18)


def with_another_reference(folder: Path) -> Path:
    """Everything against the right ear, which has a heart and a drift of its own: they cancel."""
    ear = 80 * np.sin(2 * np.pi * 1.1 * np.arange(len(UV)) / 200) + np.linspace(0, 300, len(UV))
    columns = [UV[:, i] - ear for i in range(19)]
    return write_edf(folder / "h.edf", columns, [f"{name}-A2" for name in CHANNELS[:19]], [200] * 19)


def with_offsets(folder: Path) -> Path:
    """An amplifier without a high-pass, with electrodes up to 15 mV from zero."""
    offsets = np.linspace(-15_000, 15_000, 20)
    return write_edf(
        folder / "i.bdf", list((UV + offsets).T), REFERENTIAL, [200] * 20, span=(-262_144, 262_143)
    )


@pytest.mark.parametrize(
    "make",
    [
        with_19_channels,
        with_24_channels,
        with_25_channels_by_mne,
        with_mixed_rates,
        with_odd_ranges,
        in_millivolts,
        in_volts,
        bipolar,
        with_another_reference,
    ],
)
def test_odd_files_are_judged_as_the_parquet_way(
    of_eeg: Predictor, parquet_way: np.ndarray, tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    limit = 0.03 if make in {with_mixed_rates, with_25_channels_by_mne} else 0.01
    found = of_eeg.predict_recording(make(tmp_path))
    assert np.abs(of_judged(found) - parquet_way).max() < limit
    assert not any(secret in repr(found) for secret in ("ller", "Zo"))


def test_coarse_steps_are_noted(of_eeg: Predictor, tmp_path: Path) -> None:
    path = write_referential(tmp_path / "a.edf", UV, span=(-500_000, 500_000))
    notes = of_eeg.predict_recording(path).notes
    assert notes[0].startswith(
        "stored in steps of up to 15.3 µV, which is coarse for an EEG: EEG Fp1-REF, EEG F3-REF"
    )
    assert "EKG" not in notes[0]
    assert of_eeg.predict_recording(write_referential(tmp_path / "b.edf", UV)).notes == ()


def test_offsets_of_electrodes_are_taken_out(of_eeg: Predictor, tmp_path: Path) -> None:
    """What an electrode's own constant was cannot be known then: all have none."""
    found = of_eeg.predict_recording(with_offsets(tmp_path))
    middles = windows(UV)
    middles -= middles.mean(axis=1, keepdims=True)
    expected = np.asarray(of_eeg.predict(middles))
    assert np.abs(found.probabilities[found.judged] - expected).max() < 0.02
    assert any(
        note.startswith("electrodes far from zero were moved to it in 30 window") for note in found.notes
    )


def test_frames_and_arrays_are_judged_as_the_parquet_way(
    of_eeg: Predictor, parquet_way: np.ndarray, tmp_path: Path
) -> None:
    np.testing.assert_allclose(judged(of_eeg, as_frame(tmp_path), sfreq_hz=200), parquet_way, atol=SAME)
    named = judged(of_eeg, UV, sfreq_hz=200, channels=CHANNELS)
    np.testing.assert_allclose(named, parquet_way, atol=SAME)
    pl.DataFrame(UV, schema=list(CHANNELS)).write_parquet(tmp_path / "a.parquet")
    np.testing.assert_allclose(judged(of_eeg, tmp_path / "a.parquet"), parquet_way, atol=SAME)


def test_a_truncated_file_is_judged_as_far_as_it_goes(
    of_eeg: Predictor, parquet_way: np.ndarray, tmp_path: Path
) -> None:
    path = write_referential(tmp_path / "a.edf", UV)
    path.write_bytes(path.read_bytes()[:-3000])
    found = of_eeg.predict_recording(path)
    assert found.duration_s == SECONDS - 1
    rows = found.probabilities[found.judged]
    assert np.abs(rows - parquet_way[: len(rows)]).max() < 0.01
    assert "its last data record is incomplete and was left out" in found.notes


def test_recipes_that_look_at_ten_minutes_have_them_computed(of_both: Predictor, tmp_path: Path) -> None:
    expected = np.asarray(of_both.predict(windows(UV), spectrogram=tens_of_minutes(UV)))
    assert expected.std(axis=0).max() > 0.1
    found = of_both.predict_recording(write_referential(tmp_path / "a.edf", UV))
    assert np.abs(found.probabilities[found.judged] - expected).max() < 0.01
    assert "shorter than the ten minutes of spectrograms, which are therefore incomplete" in found.notes
    np.testing.assert_allclose(found.spectrogram_share, 0.5, atol=0.01)


def test_where_windows_reach_beyond_the_recording_nothing_is_guessed(of_eeg: Predictor) -> None:
    found = of_eeg.predict_recording(UV, sfreq_hz=200, channels=CHANNELS)
    np.testing.assert_array_equal(found.start_s, np.arange(0, SECONDS, 10))
    np.testing.assert_array_equal(found.flags["edge"], (found.start_s < 20) | (found.start_s > SECONDS - 30))
    np.testing.assert_array_equal(found.judged, ~found.flags["edge"])
    assert np.isnan(found.probabilities[~found.judged]).all()
    asked = of_eeg.predict_recording(UV, sfreq_hz=200, channels=CHANNELS, keep_flagged=True)
    assert asked.judged.all()
    np.testing.assert_allclose(
        asked.probabilities[found.judged], found.probabilities[found.judged], atol=SAME
    )


def test_windows_may_stand_closer(of_eeg: Predictor, parquet_way: np.ndarray) -> None:
    found = of_eeg.predict_recording(UV, 2.5, sfreq_hz=200, channels=CHANNELS)
    assert len(found) == SECONDS / 2.5
    same = np.isin(found.start_s, FIRST_S)
    np.testing.assert_allclose(found.probabilities[same], parquet_way, atol=SAME)


def test_gaps_and_flat_lines_and_artefacts_are_flagged_and_not_guessed(of_eeg: Predictor) -> None:
    spoilt = UV.copy()
    spoilt[60 * 200 : 65 * 200] = np.nan
    spoilt[120 * 200 : 150 * 200, :19] = 12.0
    spoilt[200 * 200 : 230 * 200, :19] *= 40
    found = of_eeg.predict_recording(spoilt, sfreq_hz=200, channels=CHANNELS)
    flagged = {name: found.start_s[flag].tolist() for name, flag in found.flags.items()}
    assert flagged["gap"] == [40, 50, 60, 70, 80]
    assert flagged["flat"] == [120, 130, 140]
    assert flagged["artefact"] == [200, 210, 220]
    unjudged = sorted({s for starts in flagged.values() for s in starts})
    assert found.start_s[~found.judged].tolist() == unjudged


@pytest.mark.parametrize("break_s", [120.0, 200_000.0])
def test_an_interruption_splits_the_recording(
    of_eeg: Predictor, parquet_way: np.ndarray, tmp_path: Path, break_s: float
) -> None:
    path = write_referential(tmp_path / "a.edf", UV, annotations=TIMED)
    found = of_eeg.predict_recording(discontinuous(path, {150: break_s}))
    assert found.duration_s == SECONDS + break_s
    before = found.start_s < 150
    assert found.start_s[before].tolist() == list(range(0, 150, 10))
    # Nothing is listed of the hours in which nothing was recorded.
    assert found.start_s[~before].tolist() == list(np.arange(150 + break_s, SECONDS + break_s, 10))
    assert found.start_s[found.judged & before].tolist() == list(range(20, 121, 10))
    rows = found.probabilities[found.judged & before]
    np.testing.assert_allclose(rows, parquet_way[: len(rows)], atol=0.01)
    later = found.probabilities[found.judged & ~before]
    after = FIRST_S >= 170
    np.testing.assert_allclose(later, parquet_way[after], atol=0.01)
    assert found.flags["gap"].sum() == 4


@pytest.mark.parametrize("break_s", [0.006, 0.0074, 0.02, 0.5])
def test_a_short_interruption_whose_time_is_known_spoils_no_window(tmp_path: Path, break_s: float) -> None:
    path = discontinuous(write_referential(tmp_path / "a.edf", UV, annotations=TIMED), {60: break_s})
    found = predict_recording(Loudness(), path)
    assert "it has 1 interruption, left as gaps" in found.notes
    assert not found.flags["gap"].any()
    assert found.start_s[found.judged].tolist() == FIRST_S.tolist()


@pytest.mark.parametrize("rate_hz", [199.999, 199.9999])
def test_a_rate_a_hair_below_200_hz_is_judged_to_the_end(rate_hz: float) -> None:
    found = predict_recording(Loudness(), UV, sfreq_hz=rate_hz, channels=CHANNELS)
    assert found.start_s[found.judged].tolist() == FIRST_S.tolist()


@pytest.mark.parametrize("rate_hz", [128, 173, 200, 256])
def test_nothing_is_judged_across_a_joint(tmp_path: Path, rate_hz: int) -> None:
    """Two parts of 60 s, with minutes between them of which the samples, side by side, tell nothing."""
    mne = pytest.importorskip("mne", reason="its objects are taken as they are")
    whole = as_raw(tmp_path, rate_hz)
    parts = [whole.copy().crop(first, first + 60, include_tmax=False) for first in (10, 200)]
    alone = [predict_recording(Loudness(), part) for part in parts]
    found = predict_recording(Loudness(), mne.concatenate_raws(parts, verbose="ERROR"))
    assert found.duration_s == 120
    assert found.start_s[found.flags["gap"]].tolist() == [40, 50, 60, 70]
    assert found.start_s[found.judged].tolist() == [20, 30, 80, 90]
    assert "it was joined of parts at 1 place, across which nothing is judged" in found.notes
    expected = np.concatenate([part.probabilities[part.judged] for part in alone])
    np.testing.assert_allclose(found.probabilities[found.judged], expected, atol=1e-6)


@pytest.mark.parametrize("rate_hz", [41, 128, 173, 199])
def test_fifty_seconds_of_any_rate_are_one_window(tmp_path: Path, rate_hz: int) -> None:
    found = predict_recording(
        Loudness(), at_rate(UV[: 50 * 200], rate_hz), sfreq_hz=rate_hz, channels=CHANNELS
    )
    assert found.duration_s == 50
    assert found.start_s[found.judged].tolist() == [20]


def test_missing_electrodes_are_refused_unless_they_are_allowed(of_eeg: Predictor, tmp_path: Path) -> None:
    kept = [i for i in range(20) if CHANNELS[i] not in {"T3", "O2", "Fz"}]
    path = write_edf(tmp_path / "a.edf", [UV[:, i] for i in kept], [CHANNELS[i] for i in kept], [200] * 17)
    with pytest.raises(DataError, match=r"lacks T3, O2: 4 of the 16 differences"):
        of_eeg.predict_recording(path)
    found = of_eeg.predict_recording(path, allow_missing=True)
    lacking = UV.copy()
    lacking[:, [i for i in range(20) if i not in kept]] = np.nan
    expected = np.asarray(of_eeg.predict(windows(lacking)))
    assert np.abs(found.probabilities[found.judged] - expected).max() < 0.01
    zero = np.asarray(of_eeg.predict(windows(np.nan_to_num(lacking))))
    assert np.abs(zero - expected).max() > 0.02
    assert found.missing == ("T3", "Fz", "O2")
    assert "4 differences of electrodes that the models use are missing" in found.notes


def test_columns_are_never_taken_by_their_place(of_eeg: Predictor) -> None:
    names = [f"signal {i}" for i in range(20)]
    with pytest.raises(UsageError, match="no channel has the name of an electrode"):
        of_eeg.predict_recording(UV, sfreq_hz=200, channels=names)
    rename = dict(zip(names, CHANNELS, strict=True))
    found = of_eeg.predict_recording(UV, sfreq_hz=200, channels=names, rename=rename)
    named = of_eeg.predict_recording(UV, sfreq_hz=200, channels=CHANNELS)
    np.testing.assert_array_equal(found.probabilities, named.probabilities)


def test_a_wrong_rate_cannot_pass_for_another(of_eeg: Predictor, parquet_way: np.ndarray) -> None:
    fast = of_eeg.predict_recording(at_rate(UV, 256), sfreq_hz=256, channels=CHANNELS)
    assert fast.duration_s == SECONDS
    assert np.abs(fast.probabilities[fast.judged] - parquet_way).max() < 0.03


@pytest.mark.parametrize("seconds", [3, 12, 49])
def test_recordings_shorter_than_a_window_are_flagged(of_eeg: Predictor, seconds: int) -> None:
    found = of_eeg.predict_recording(UV[: seconds * 200], sfreq_hz=200, channels=CHANNELS)
    assert not found.judged.any()
    assert found.flags["edge"].all()
    assert "shorter than a window of 50 s" in found.notes


def test_nothing_recorded_is_not_answered_with_the_prior(of_eeg: Predictor) -> None:
    nothing = np.full((60 * 200, 20), np.nan)
    found = of_eeg.predict_recording(nothing, sfreq_hz=200, channels=CHANNELS, keep_flagged=True)
    assert not found.judged.any()


def test_the_bundle_says_what_it_looks_at(of_eeg: Predictor, of_both: Predictor) -> None:
    assert of_eeg.sources == {"eeg"}
    assert of_both.sources == {"eeg", "kaggle"}
    assert of_eeg.pairs == of_both.pairs == DIFFERENCES
    assert set(DIFFERENCES) < set(PAIRS)


def test_the_spread_is_over_the_folds(of_eeg: Predictor) -> None:
    found = of_eeg.predict_recording(UV, sfreq_hz=200, channels=CHANNELS)
    folds = []
    for model in of_eeg._models or ():
        folds.append(model.predict([Crop(None, encode_eeg(window)) for window in windows(UV)]))
    np.testing.assert_allclose(found.spread[found.judged], np.std(folds, axis=0, ddof=1), atol=SAME)
    assert np.isnan(found.spread[~found.judged]).all()
    assert found.probabilities.shape[1] == len(CLASSES)


@pytest.mark.parametrize(
    ("words", "expected"), [((), {}), (("E22=Fp1", "a=b=C3"), {"E22": "Fp1", "a=b": "C3"})]
)
def test_renaming_is_read_from_words(words: tuple[str, ...], expected: dict[str, str]) -> None:
    assert rename_of(words) == expected


@pytest.mark.parametrize("word", ["E22", "=Fp1", "E22="])
def test_other_words_rename_nothing(word: str) -> None:
    with pytest.raises(UsageError, match="does not rename a channel; write LABEL=ELECTRODE"):
        rename_of([word])
