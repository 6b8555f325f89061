"""Whatever somebody has of a recording is opened by its content, or refused with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from own_recordings import duration_s, simulated_uv, write_referential

from kagglehms.data.competition import CHANNELS
from kagglehms.errors import DataError, UsageError
from kagglehms.recordings.edf import EdfRecording
from kagglehms.recordings.folders import ENDINGS
from kagglehms.recordings.objects import ArrayRecording, RawRecording
from kagglehms.recordings.reading import find_recordings, open_recording

UV = simulated_uv(20)
FRAME = pl.DataFrame(UV, schema=list(CHANNELS))


def test_files_are_known_by_their_content(tmp_path: Path) -> None:
    edf = write_referential(tmp_path / "a.rec", UV)
    assert isinstance(open_recording(edf), EdfRecording)
    assert isinstance(open_recording(str(edf)), EdfRecording)
    parquet = tmp_path / "b.data"
    FRAME.write_parquet(parquet)
    recording = open_recording(parquet)
    assert isinstance(recording, ArrayRecording)
    assert float(recording.rate_hz(0)) == 200
    assert "as the competition's files are" in recording.notes[0]
    np.testing.assert_array_equal(recording.read([3], 100, 200)[0], UV[100:200, 3])
    assert open_recording(recording) is recording


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.edf", b"", "is empty"),
        ("a.edf", b"no such thing as a header", "is no EDF or BDF file"),
        ("a.parquet", b"PAR1 and then nothing", "cannot be read"),
        ("a.fif", b"neither", "is not a recording that MNE can read"),
        ("a.txt", b"neither", "is not a recording that MNE can read"),
    ],
)
def test_files_of_nothing_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    pytest.importorskip("mne", reason="what it does not understand either is refused")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_recording(tmp_path / name)
    with pytest.raises(DataError, match="no such file"):
        open_recording(tmp_path / "missing.edf")


def test_without_mne_other_formats_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mne", None)
    (tmp_path / "a.vhdr").write_bytes(b"Brain Vision Data Exchange Header File Version 1.0")
    with pytest.raises(
        DataError, match=r"MNE, which reads other formats, is not installed; pip install 'kagglehms\[mne\]'"
    ):
        open_recording(tmp_path / "a.vhdr")


def as_pandas(frame: pl.DataFrame) -> Any:
    return pd.DataFrame({name: frame[name].to_numpy() for name in frame.columns})


def as_structured(frame: pl.DataFrame) -> Any:
    out = np.empty(len(frame), dtype=[(name, "f4") for name in frame.columns])
    for name in frame.columns:
        out[name] = frame[name].to_numpy()
    return out


@pytest.mark.parametrize(
    "make", [lambda frame: frame, as_pandas, as_structured], ids=["polars", "pandas", "numpy"]
)
def test_frames_go_by_the_names_of_their_columns(make: Any) -> None:
    frame = make(FRAME.select(reversed(FRAME.columns)))
    recording = open_recording(frame, sfreq_hz=256)
    assert [channel.label for channel in recording.channels] == list(reversed(CHANNELS))
    assert duration_s(recording) == pytest.approx(4000 / 256)
    np.testing.assert_array_equal(recording.read([0, 19], 5, 9), UV[5:9, [19, 0]].T)
    with pytest.raises(UsageError, match="does not say how many samples a second it has: give sfreq_hz"):
        open_recording(frame)
    with pytest.raises(UsageError, match="a frame's columns have names"):
        open_recording(frame, sfreq_hz=200, channels=list(CHANNELS))


def test_columns_of_text_are_left_aside_and_nulls_are_missing() -> None:
    frame = FRAME.with_columns(
        pl.lit("x").alias("who"), pl.when(pl.col("F3") > 0).then(pl.col("F3")).alias("F3")
    )
    recording = open_recording(frame, sfreq_hz=200)
    assert "who" not in [channel.label for channel in recording.channels]
    found = recording.read([1], 0, 4000)[0]
    np.testing.assert_array_equal(np.isnan(found), UV[:, 1] <= 0)


def test_a_frame_without_numbers_says_so() -> None:
    for frame in (FRAME.cast(pl.String), FRAME.select(pl.lit(None).alias("Fp1"))):
        with pytest.raises(UsageError, match="none of its columns holds numbers"):
            open_recording(frame, sfreq_hz=200)


def test_arrays_need_names_and_a_rate() -> None:
    recording = open_recording(UV, sfreq_hz=200, channels=CHANNELS)
    np.testing.assert_array_equal(recording.read([2], 0, 10)[0], UV[:10, 2])
    with pytest.raises(UsageError, match="has no names of channels: give channels"):
        open_recording(UV, sfreq_hz=200)
    with pytest.raises(UsageError, match="give sfreq_hz"):
        open_recording(UV, channels=CHANNELS)
    with pytest.raises(
        UsageError, match=r"must be \(n_times, 20\).* but got \(20, 4000\); give its transpose"
    ):
        open_recording(UV.T, sfreq_hz=200, channels=CHANNELS)
    with pytest.raises(UsageError, match="holds no samples"):
        open_recording(UV[:0], sfreq_hz=200, channels=CHANNELS)
    for rate in (0, -1, float("nan"), "200"):
        with pytest.raises(UsageError, match="the sampling rate must be a number of Hz above zero"):
            open_recording(UV, sfreq_hz=rate, channels=CHANNELS)


def make_raw(**more: Any) -> Any:
    mne = pytest.importorskip("mne", reason="MNE is an extra")
    info = mne.create_info(list(CHANNELS), 200, ["eeg"] * 19 + ["ecg"])
    return mne.io.RawArray(UV.T.astype(float) * 1e-6, info, verbose="ERROR", **more)


def test_a_raw_object_of_mne_is_taken_as_it_is() -> None:
    raw = make_raw()
    recording = open_recording(raw)
    assert isinstance(recording, RawRecording)
    to_uv = [recording.channels[c].to_uv or 0 for c in range(20)]
    for c, found in enumerate(recording.read(range(20), 50, 70)):
        np.testing.assert_allclose(found * to_uv[c], UV[50:70, c], atol=1e-3)
    with pytest.raises(UsageError, match="has its own rate and names"):
        open_recording(raw, sfreq_hz=200)


def test_channels_that_are_marked_as_bad_are_missing() -> None:
    raw = make_raw()
    raw.info["bads"] = ["T3", "Fp1"]
    recording = open_recording(raw)
    labels = [channel.label for channel in recording.channels]
    assert labels == [name for name in CHANNELS if name not in {"T3", "Fp1"}]
    np.testing.assert_allclose(recording.read([0], 0, 9)[0] * 1e6, UV[:9, 1], atol=1e-3)
    assert recording.notes == ("marked as bad and therefore missing: T3, Fp1",)


@pytest.mark.parametrize("first_samp", [0, 500])
@pytest.mark.parametrize("dated", [False, True])
def test_skipped_and_joined_stretches_are_kept_apart(first_samp: int, dated: bool) -> None:
    mne = pytest.importorskip("mne", reason="MNE is an extra")
    raw = make_raw(first_samp=first_samp)
    if dated:
        raw.set_meas_date(1_000_000)
    orig = raw.info["meas_date"]
    # With a date, onsets of annotations count from it; without, from the first sample.
    shift = first_samp / 200 if dated else 0
    raw.set_annotations(
        mne.Annotations(
            [4 + shift, 10 + shift, 12 + shift],
            [2, 0, 1],
            ["BAD_ACQ_SKIP", "EDGE boundary", "BAD_move"],
            orig,
        )
    )
    stretches = [(s.start_s, s.first, s.stop) for s in open_recording(raw).stretches]
    assert stretches == [(0, 0, 800), (6, 1200, 2000), (10, 2000, 4000)]


@pytest.mark.parametrize("ending", ["fif", "vhdr", "set"])
def test_formats_of_mne_are_read(tmp_path: Path, ending: str) -> None:
    mne = pytest.importorskip("mne", reason="MNE is an extra")
    raw = make_raw()
    if ending == "fif":
        path = tmp_path / "a_raw.fif"
        raw.save(path, verbose="ERROR")
    elif ending == "vhdr":
        path = write_brainvision(tmp_path)
    else:
        path = write_eeglab(tmp_path)
    recording = open_recording(path)
    assert isinstance(recording, RawRecording)
    labels = [channel.label for channel in recording.channels]
    c = labels.index("C3")
    found = recording.read([c], 100, 300)[0] * (recording.channels[c].to_uv or 0)
    np.testing.assert_allclose(found, UV[100:300, CHANNELS.index("C3")], atol=0.06)
    assert mne.__version__


@pytest.mark.parametrize(
    ("ending", "marks"),
    [
        ("vhdr", "Mk2=New Segment,,1601,1,0,20200101000100000000\nMk3=Stimulus,S  1,1000,1,0\n"),
        ("vhdr", "Mk2=Stimulus,S  1,1000,1,0\nMk3=New Segment,LostSamples: 5,1601,1,0\n"),
        ("set", "boundary"),
    ],
)
def test_joints_of_other_programs_part_a_recording(tmp_path: Path, ending: str, marks: str) -> None:
    """Counted from 1, the joint stands at sample 1,601 of BrainVision and between 1,600 and 1,601 of EEGLAB."""
    pytest.importorskip("mne", reason="MNE is an extra")
    path = (
        write_brainvision(tmp_path, marks) if ending == "vhdr" else write_eeglab(tmp_path, [(1600.5, marks)])
    )
    recording = open_recording(path)
    assert [(s.start_s, s.first, s.stop) for s in recording.stretches] == [(0, 0, 1600), (8, 1600, 4000)]
    assert recording.notes == ("it was joined of parts at 1 place, across which nothing is judged",)


@pytest.mark.parametrize("off", [-0.03, 0.03])
def test_a_joint_whose_time_was_rounded_parts_at_its_sample(off: float) -> None:
    """As those of long recordings are after they were saved as FIFF."""
    mne = pytest.importorskip("mne", reason="MNE is an extra")
    raw = mne.io.RawArray(UV.T * 1e-6, mne.create_info(list(CHANNELS), 200, "eeg"), verbose="ERROR")
    raw.set_annotations(mne.Annotations([(1600 + off) / 200], [0], ["EDGE boundary"]))
    assert [(s.first, s.stop) for s in RawRecording(raw).stretches] == [(0, 1600), (1600, 4000)]


def test_other_marks_and_the_beginning_of_a_file_part_nothing(tmp_path: Path) -> None:
    pytest.importorskip("mne", reason="MNE is an extra")
    for path in (
        write_brainvision(tmp_path, "Mk2=Stimulus,S  1,1000,1,0\nMk3=Comment,New Segment,1200,1,0\n"),
        write_eeglab(tmp_path, [(0.5, "boundary"), (1200.0, "over the boundary")]),
    ):
        recording = open_recording(path)
        assert [(s.first, s.stop) for s in recording.stretches] == [(0, 4000)]
        assert recording.notes == ()


def write_brainvision(folder: Path, marks: str = "") -> Path:
    """A BrainVision recording, its three files by hand, with further marks than that of its beginning."""
    (UV * 10).round().astype("<i2").tofile(folder / "a.eeg")
    (folder / "a.vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\n[Common Infos]\nCodepage=UTF-8\nDataFile=a.eeg\n"
        "[Marker Infos]\nMk1=New Segment,,1,1,0,20200101000000000000\n" + marks
    )
    channels = "\n".join(f"Ch{i + 1}={name},,0.1,µV" for i, name in enumerate(CHANNELS))
    (folder / "a.vhdr").write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\nCodepage=UTF-8\nDataFile=a.eeg\n"
        "MarkerFile=a.vmrk\nDataFormat=BINARY\nDataOrientation=MULTIPLEXED\nNumberOfChannels=20\n"
        f"SamplingInterval=5000\n[Binary Infos]\nBinaryFormat=INT_16\n[Channel Infos]\n{channels}\n",
        encoding="utf-8",
    )
    return folder / "a.vhdr"


def write_eeglab(folder: Path, marks: Sequence[tuple[float, str]] = ()) -> Path:
    """An EEGLAB recording, its structure by SciPy; its events by sample, counted from 1, and type."""
    from scipy.io import savemat

    places = np.array([(name,) for name in CHANNELS], dtype=[("labels", "O")])
    events = np.array(
        [(at, 20.0, kind) for at, kind in marks], [(k, "O") for k in ("latency", "duration", "type")]
    )
    eeg = {
        "setname": "a", "nbchan": 20, "trials": 1, "pnts": len(UV), "srate": 200.0, "xmin": 0.0,
        "xmax": (len(UV) - 1) / 200, "data": UV.T.astype(np.float32), "chanlocs": places, "event": events, "epoch": [],
        "icawinv": [], "icaweights": [], "icasphere": [], "ref": "common", "chaninfo": {"nosedir": "+X"},
    }  # fmt: skip
    savemat(folder / "a.set", {"EEG": eeg}, appendmat=False)
    return folder / "a.set"


def test_epochs_are_no_recording() -> None:
    mne = pytest.importorskip("mne", reason="MNE is an extra")
    epochs = mne.make_fixed_length_epochs(make_raw(), duration=2, verbose="ERROR")
    with pytest.raises(
        UsageError, match="is not a whole recording: give the Raw object that it was cut from"
    ):
        open_recording(epochs)


def test_folders_are_searched_and_results_are_not_taken_for_recordings(tmp_path: Path) -> None:
    (tmp_path / "sub" / "out").mkdir(parents=True)
    recordings = ["b.edf", "my_annotations.edf", "sub/a.BDF", "sub/night_raw.fif", "sub/out/c.edf"]
    results = [f"sub/out/x{ending}" for ending in ENDINGS]
    for name in (*recordings, *results, "sub/night_raw-1.fif", "notes.txt", ".hidden.edf"):
        (tmp_path / name).touch()
    (tmp_path / "circle.edf").symlink_to("circle.edf")
    found = find_recordings([tmp_path, tmp_path / "notes.txt", tmp_path / "b.edf"])
    assert found == [tmp_path / name for name in ("b.edf", "circle.edf", *recordings[1:], "notes.txt")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no file in it ends in .edf"):
        find_recordings([tmp_path / "empty"])


def test_a_recording_is_listed_once_however_it_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "rec"
    folder.mkdir()
    for name in ("a.edf", "b.edf"):
        (folder / name).touch()
    (folder / "c.edf").symlink_to("b.edf")
    (tmp_path / "link").symlink_to("rec")
    monkeypatch.chdir(tmp_path)
    spelled = [
        Path("rec/b.edf"),
        Path("rec"),
        folder / "a.edf",
        Path(f"../{tmp_path.name}/rec/a.edf"),
        Path("link"),
    ]
    assert find_recordings(spelled) == [Path(f"rec/{name}.edf") for name in "bac"]
    monkeypatch.chdir(folder)
    assert find_recordings([Path("a.edf"), Path(), folder]) == [Path(f"{name}.edf") for name in "abc"]


def test_a_parquet_file_that_unpacks_to_more_than_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, asked = tmp_path / "a.parquet", []
    FRAME.write_parquet(path)

    def full(shape: Any, *_: Any, **__: Any) -> Any:
        asked.append(shape)
        raise MemoryError

    monkeypatch.setattr("kagglehms.recordings.objects.np.empty", full)
    with pytest.raises(DataError, match=r"a.parquet: does not fit into the memory that is left"):
        open_recording(path)
    assert asked == [FRAME.shape]
