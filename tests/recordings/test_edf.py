"""EDF and BDF files, whole and odd, against what edfio and MNE read of them and what was written into them."""

from __future__ import annotations

import warnings
from pathlib import Path

import edfio
import numpy as np
import pytest
from own_recordings import (
    REFERENTIAL,
    SECRET,
    TIMED,
    discontinuous,
    duration_s,
    patched,
    signal_field,
    simulated_uv,
    write_edf,
    write_referential,
)

from kagglehms.errors import DataError
from kagglehms.recordings.edf import EdfRecording


@pytest.fixture(scope="module")
def uv_TC() -> np.ndarray:
    return simulated_uv(30)


@pytest.mark.parametrize("ending", ["edf", "bdf"])
@pytest.mark.parametrize("annotated", [False, True])
def test_samples_are_those_that_edfio_reads(
    uv_TC: np.ndarray, tmp_path: Path, ending: str, annotated: bool
) -> None:
    annotations = [edfio.EdfAnnotation(3.5, 1, "eyes closed")] if annotated else None
    path = write_referential(tmp_path / f"a.{ending}", uv_TC, annotations=annotations)
    reference = edfio.read_bdf(path) if ending == "bdf" else edfio.read_edf(path)
    recording = EdfRecording(path)
    assert [channel.label for channel in recording.channels] == REFERENTIAL
    assert {float(recording.rate_hz(c)) for c in range(20)} == {200.0}
    assert duration_s(recording) == 30
    assert recording.notes == ()
    picks = [19, 0, 7]
    for found, position in zip(recording.read(picks, 3, 17), picks, strict=True):
        np.testing.assert_array_equal(found, reference.signals[position].data[600:3400])
        np.testing.assert_allclose(found, uv_TC[600:3400, position], atol=0.051 if ending == "edf" else 1e-3)


def test_blocks_are_small_and_join(
    uv_TC: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_referential(tmp_path / "a.edf", uv_TC)
    expected = EdfRecording(path).read([4], 0, 30)[0]
    monkeypatch.setattr("kagglehms.recordings.edf._BLOCK_BYTES", 1)
    np.testing.assert_array_equal(EdfRecording(path).read([4], 0, 30)[0], expected)


def test_rates_may_differ_within_a_file(uv_TC: np.ndarray, tmp_path: Path) -> None:
    columns = [uv_TC[:, 0], uv_TC[::2, 1], uv_TC[: 30 * 25, 2]]
    path = write_edf(tmp_path / "a.edf", columns, ["Fp1", "F3", "C3"], [200, 100, 25])
    recording = EdfRecording(path)
    assert [float(recording.rate_hz(c)) for c in range(3)] == [200, 100, 25]
    for found, values, rate in zip(recording.read([0, 1, 2], 5, 9), columns, (200, 100, 25), strict=True):
        np.testing.assert_allclose(found, values[5 * rate : 9 * rate], atol=0.051)


@pytest.mark.parametrize(
    ("unit", "factor"), [("uV", 1), ("µV", 1), ("μV", 1), ("mV", 1e3), ("V", 1e6), ("nV", 1e-3), ("", 1)]
)
def test_units_are_those_of_the_header(uv_TC: np.ndarray, tmp_path: Path, unit: str, factor: float) -> None:
    path = write_edf(tmp_path / "a.edf", [uv_TC[:, 0]], ["Fp1"], [200])
    n_signals, at = 1, 16 + 80
    encoded = unit.encode("utf-8").ljust(8)
    patched(path, 256 + at * n_signals, encoded)
    assert EdfRecording(path).channels[0].to_uv == factor
    if unit == "µV":
        patched(path, 256 + at * n_signals, unit.encode("latin-1").ljust(8))
        assert EdfRecording(path).channels[0].to_uv == factor


def test_mne_reads_the_same(uv_TC: np.ndarray, tmp_path: Path) -> None:
    mne = pytest.importorskip("mne", reason="the independent reader")
    path = write_referential(tmp_path / "a.edf", uv_TC)
    raw = mne.io.read_raw_edf(path, verbose="ERROR")
    expected_uv = raw.get_data(picks=list(range(20)), verbose="ERROR") * 1e6
    for found, values in zip(EdfRecording(path).read(range(20), 0, 30), expected_uv, strict=True):
        np.testing.assert_allclose(found, values, atol=1e-6)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_what_the_header_says_of_the_patient_is_seen_by_nobody(
    uv_TC: np.ndarray, tmp_path: Path, encoding: str
) -> None:
    path = write_referential(tmp_path / "a.edf", uv_TC, annotations=[])
    patched(path, 8, f"{SECRET} F 01-JAN-1950".encode(encoding).ljust(80))
    recording = EdfRecording(path)
    np.testing.assert_allclose(recording.read([0], 0, 30)[0], uv_TC[:, 0], atol=0.051)
    known = recording._header.with_records(1).decode("latin-1")
    assert "ller" not in known
    assert "1950" not in known
    assert "ller" not in repr(vars(recording))


@pytest.mark.parametrize(
    ("fields", "factor"),
    [
        ({3: "3276.7", 4: "-3276.8"}, -1.0),  # a file whose polarity is turned
        ({3: "-3276,8", 4: "3276,7"}, 1.0),  # decimal commas
        ({5: "-32768.0", 6: "32767.0"}, 1.0),
    ],
)
def test_odd_ranges_are_understood(
    uv_TC: np.ndarray, tmp_path: Path, fields: dict[int, str], factor: float
) -> None:
    path = write_referential(tmp_path / "a.edf", uv_TC)
    for field, text in fields.items():
        signal_field(path, field, 0, text)
    found = EdfRecording(path).read([0, 1], 0, 30)
    np.testing.assert_allclose(found[0], factor * uv_TC[:, 0], atol=0.16)
    np.testing.assert_allclose(found[1], uv_TC[:, 1], atol=0.051)


@pytest.mark.parametrize(
    "fields",
    [
        {3: "0", 4: "0"}, {5: "5", 6: "5"}, {3: "nan"}, {4: "inf"}, {5: "0.5"}, {5: "0", 6: "65535"}, {6: "1e8"},
        {6: "1e300"}, {5: "-1e7"},
    ],
)  # fmt: skip
def test_a_channel_without_a_scale_is_no_voltage(
    uv_TC: np.ndarray, tmp_path: Path, fields: dict[int, str]
) -> None:
    path = write_referential(tmp_path / "a.edf", uv_TC)
    for field, text in fields.items():
        signal_field(path, field, 3, text)
    recording = EdfRecording(path)
    assert recording.channels[3].to_uv is None
    assert recording.channels[2].to_uv == 1
    assert recording.notes == ("EEG P3-REF has no scale (a range in its header is empty or impossible)",)
    others = recording.read([2, 4, 19], 0, 30)
    np.testing.assert_allclose(others, uv_TC[:, [2, 4, 19]].T, atol=0.051)


def test_an_incomplete_last_record_is_left_out(uv_TC: np.ndarray, tmp_path: Path) -> None:
    path = write_referential(tmp_path / "a.edf", uv_TC)
    content = path.read_bytes()
    path.write_bytes(content[:-1000])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recording = EdfRecording(path)
        found = recording.read([0], 0, 29)[0]
    assert duration_s(recording) == 29
    assert "its header announces 30 data records, but it holds 29" in recording.notes
    assert "its last data record is incomplete and was left out" in recording.notes
    np.testing.assert_allclose(found, uv_TC[: 29 * 200, 0], atol=0.051)


def test_a_file_that_was_never_closed_is_as_long_as_it_is(uv_TC: np.ndarray, tmp_path: Path) -> None:
    path = patched(write_referential(tmp_path / "a.edf", uv_TC), 236, b"-1      ")
    recording = EdfRecording(path)
    assert duration_s(recording) == 30
    assert recording.notes == ()


@pytest.mark.parametrize("kind", [b"EDF+D", b"EDF+C"])
def test_interruptions_cut_a_file_whatever_its_header_says(
    uv_TC: np.ndarray, tmp_path: Path, kind: bytes
) -> None:
    path = discontinuous(
        write_referential(tmp_path / "a.edf", uv_TC, annotations=TIMED), {10: 7.5, 20: 3600}, kind
    )
    recording = EdfRecording(path)
    parts = [(s.start_s, s.first, s.stop) for s in recording.stretches]
    assert parts == [(0, 0, 10), (17.5, 10, 20), (3627.5, 20, 30)]
    assert duration_s(recording) == 3637.5
    assert "2 interruptions" in recording.notes[0]


def test_a_start_between_two_seconds_is_no_interruption(uv_TC: np.ndarray, tmp_path: Path) -> None:
    path = discontinuous(write_referential(tmp_path / "a.edf", uv_TC, annotations=TIMED), {0: 0.25}, b"EDF+C")
    assert [(s.start_s, s.first, s.stop) for s in EdfRecording(path).stretches] == [(0, 0, 30)]


def test_a_discontinuous_file_without_times_is_refused(uv_TC: np.ndarray, tmp_path: Path) -> None:
    bare = patched(write_referential(tmp_path / "a.edf", uv_TC), 192, b"EDF+D")
    with pytest.raises(DataError, match="has interruptions, but does not say when"):
        EdfRecording(bare)
    timed = discontinuous(write_referential(tmp_path / "b.edf", uv_TC, annotations=TIMED), {10: 5})
    content = timed.read_bytes()
    timed.write_bytes(content.replace(b"+12\x14", b"?12\x14").replace(b"+17\x14", b"?17\x14"))
    with pytest.raises(DataError, match="its data record 13 does not say when it begins"):
        EdfRecording(timed)


def test_records_out_of_order_are_refused(uv_TC: np.ndarray, tmp_path: Path) -> None:
    path = discontinuous(write_referential(tmp_path / "a.edf", uv_TC, annotations=TIMED), {10: -5})
    with pytest.raises(DataError, match="data record 11 begins before the previous one has ended"):
        EdfRecording(path)


@pytest.mark.parametrize(
    ("at", "content", "message"),
    [
        (0, b"garbage!", "is no EDF or BDF file"),
        (252, b"none", "the number of signals in its header is no whole number"),
        (252, b"0   ", "the number of signals in its header is 0"),
        (184, b"999     ", "its header is not as long as it says"),
        (236, b"many    ", "the number of data records in its header is no whole number"),
        (244, b"soon    ", "the duration of a data record in its header is no number"),
        (244, b"0       ", "its data records last 0 s"),
        (244, b"1e-99999", "its data records last 1e-99999 s"),
        (244, b"1e99999 ", "its data records last 1e99999 s"),
    ],
)
def test_broken_headers_are_refused_in_one_line(
    uv_TC: np.ndarray, tmp_path: Path, at: int, content: bytes, message: str
) -> None:
    path = patched(write_referential(tmp_path / "a.edf", uv_TC), at, content)
    with pytest.raises(DataError, match=message) as refused:
        EdfRecording(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)


def test_a_broken_number_of_a_signal_is_named_without_its_text(uv_TC: np.ndarray, tmp_path: Path) -> None:
    path = signal_field(write_referential(tmp_path / "a.edf", uv_TC), 3, 4, SECRET[:8])
    with pytest.raises(
        DataError, match="the physical minimum of signal 5 in its header is no number"
    ) as refused:
        EdfRecording(path)
    assert "ller" not in str(refused.value)


def with_annotations_first(path: Path, label: bytes) -> Path:
    """Move a file's last signal, its annotations, before all others, and spell its label so."""
    content = path.read_bytes()
    n_signals, at, fields = int(content[252:256]), 256, []
    for length in (16, 80, 8, 8, 8, 8, 8, 80, 8, 32):
        fields.append([content[at + length * i : at + length * (i + 1)] for i in range(n_signals)])
        at += length * n_signals
    counts = [int(count) for count in fields[8]]
    fields[0][-1] = label.ljust(16)
    header = content[:256] + b"".join(b"".join([column[-1], *column[:-1]]) for column in fields)
    records = np.frombuffer(content[at:], "<i2").reshape(-1, sum(counts))
    path.write_bytes(header + np.roll(records, counts[-1], axis=1).tobytes())
    return path


@pytest.mark.parametrize(
    "label", [b"EDF Annotations", b" EDF Annotations", b"EDF Annotations\0", b"BDF Annotations"]
)
@pytest.mark.parametrize("as_long", [False, True])
def test_annotations_move_no_channel(uv_TC: np.ndarray, tmp_path: Path, label: bytes, as_long: bool) -> None:
    """Whatever another reader takes for annotations: as long as a channel, they would pass for one."""
    text = [edfio.EdfAnnotation(0, None, "x" * 385)] if as_long else TIMED
    path = with_annotations_first(write_referential(tmp_path / "a.edf", uv_TC, annotations=text), label)
    recording = EdfRecording(path)
    assert [channel.label for channel in recording.channels] == REFERENTIAL
    np.testing.assert_allclose(recording.read(range(20), 0, 30), uv_TC.T, atol=0.051)


@pytest.mark.parametrize("kind", [b"EDF+C", b"EDF+D"])
def test_a_lost_time_hides_no_interruption(uv_TC: np.ndarray, tmp_path: Path, kind: bytes) -> None:
    path = discontinuous(
        write_referential(tmp_path / "a.edf", uv_TC, annotations=TIMED), {0: 3, 20: 600}, kind
    )
    content = path.read_bytes()
    for second in (3, 4, 15, 624):
        content = content.replace(f"+{second}\x14".encode(), f"?{second}\x14".encode())
    path.write_bytes(content)
    if kind == b"EDF+D":
        with pytest.raises(DataError, match="its data record 1 does not say when it begins"):
            EdfRecording(path)
    else:
        parts = [(s.start_s, s.first, s.stop) for s in EdfRecording(path).stretches]
        assert parts == [(0, 0, 20), (620, 20, 30)]


def test_bytes_that_are_no_text_disturb_nothing(uv_TC: np.ndarray, tmp_path: Path) -> None:
    path = patched(write_referential(tmp_path / "a.edf", uv_TC), 8, b"\xff" * 176)
    patched(path, 192, b"\xff" * 44)
    for field, length in ((1, 80), (7, 80), (9, 32)):
        signal_field(path, field, 3, "\xff" * length)
    signal_field(path, 0, 5, "EEG\0T3-REF")
    recording = EdfRecording(path)
    assert [channel.label for channel in recording.channels] == REFERENTIAL
    np.testing.assert_allclose(recording.read(range(20), 0, 30), uv_TC.T, atol=0.051)


def test_long_annotations_with_names_are_passed_over(uv_TC: np.ndarray, tmp_path: Path) -> None:
    texts = [edfio.EdfAnnotation(second, 1, f"{SECRET} " * 3000) for second in range(0, 30, 5)]
    path = write_referential(tmp_path / "a.edf", uv_TC, annotations=texts)
    assert path.stat().st_size > 30 * 30_000
    recording = EdfRecording(path)
    np.testing.assert_allclose(recording.read(range(20), 0, 30), uv_TC.T, atol=0.051)
    assert "ller" not in repr(vars(recording))


@pytest.mark.parametrize(("low", "high", "step_uv"), [(-3276.8, 3276.7, 0.1), (-500_000, 500_000, 15.26)])
def test_the_step_of_stored_samples_is_known(
    uv_TC: np.ndarray, tmp_path: Path, low: float, high: float, step_uv: float
) -> None:
    recording = EdfRecording(write_referential(tmp_path / "a.edf", uv_TC, span=(low, high)))
    assert recording.channels[0].step_uv == pytest.approx(step_uv, rel=1e-3)


@pytest.mark.parametrize("length", [100, 300, 256 * 21])
def test_files_that_end_too_early_are_refused(uv_TC: np.ndarray, tmp_path: Path, length: int) -> None:
    path = write_referential(tmp_path / "a.edf", uv_TC)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DataError, match="broken|ends within its header|no complete data record"):
        EdfRecording(path)


def test_annotations_alone_are_no_recording(tmp_path: Path) -> None:
    edfio.Edf([], annotations=[edfio.EdfAnnotation(0, None, "x")]).write(tmp_path / "a.edf")
    with pytest.raises(DataError, match="its data records last 0 s; give the file with the signals"):
        EdfRecording(tmp_path / "a.edf")
