"""Many files: resumed, and no bad one ends the run; nothing about the patient is in any result."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from own_recordings import SECRET, TIMED, Loudness, patched, simulated_uv, write_edf, write_referential

from kagglehms.data.competition import CHANNELS, CLASSES
from kagglehms.errors import RunError, UsageError
from kagglehms.inputs.layouts import Crop
from kagglehms.recordings.folders import (
    ENDINGS,
    TIMELINE,
    Outcome,
    Pages,
    output_stems,
    predict_files,
)
from kagglehms.recordings.prediction import Options
from kagglehms.recordings.reading import find_recordings, open_recording
from kagglehms.recordings.results import Prediction, RecordingPrediction
from kagglehms.recordings.stored import Span
from kagglehms.report.timeline import timeline_page

UV = simulated_uv(90)


def run(judge: Loudness, paths: list[Path], out: Path, threshold: float = 0.4, digest: str = "a") -> Outcome:
    return predict_files(judge, paths, out, Options(), threshold, digest)


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    folder = tmp_path / "hospital"
    folder.mkdir()
    write_referential(folder / "sub-01_eeg.edf", UV, annotations=TIMED)
    write_referential(folder / "b.bdf", UV)
    return folder


def test_results_stand_beside_each_other(hospital: Path, tmp_path: Path) -> None:
    paths = [hospital / "sub-01_eeg.edf", hospital / "b.bdf"]
    before = {path: path.read_bytes() for path in paths}
    outcome = run(Loudness(), paths, tmp_path / "out")
    assert outcome.exit_code == 0
    assert {path: path.read_bytes() for path in paths} == before
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"dataset_description.json", *(s + e for s in ("sub-01", "b") for e in ENDINGS)}
    table = pl.read_csv(tmp_path / "out/b_windows.csv")
    assert table.columns[:7] == ["start_s", *CLASSES]
    assert table["start_s"].to_list() == list(range(0, 90, 10))
    again = pl.read_parquet(tmp_path / "out/b_windows.parquet")
    np.testing.assert_allclose(table["seizure"].drop_nulls(), again["seizure"].drop_nulls(), atol=1e-6)
    summary = json.loads((tmp_path / "out/b_summary.json").read_text())
    assert summary["windows"] == 9
    events = pl.read_csv(tmp_path / "out/b_events.tsv", separator="\t", null_values="n/a")
    assert events.height == sum(summary["events"].values())
    assert [done.path for done in outcome.done] == paths
    json.dumps(outcome.as_json())


def test_pages_are_drawn_of_what_was_found_and_again_only_where_they_lack(
    hospital: Path, tmp_path: Path
) -> None:
    path, out = hospital / "b.bdf", tmp_path / "out"
    drawn: list[tuple[RecordingPrediction, Span | None]] = []

    def draw(found: RecordingPrediction, stretch: Span | None) -> str:
        drawn.append((found, stretch))
        return f"page of {stretch}"

    def go(stretches: dict[str, Span], digest: str = "a") -> Outcome:
        return predict_files(Loudness(), [path], out, Options(), 0.4, digest, pages=Pages(draw, stretches))

    first = go({})
    assert first.done[0].written[-1] == out / ("b" + TIMELINE)
    go({"x": (10.0, 20.0)})
    assert [stretch for _, stretch in drawn] == [None, (10.0, 20.0)]
    assert (out / "b_timeline_x.html").read_text() == "page of (10.0, 20.0)"
    judged, restored = drawn[0][0], drawn[1][0]
    for name, column in judged.columns().items():
        np.testing.assert_array_equal(restored.columns()[name], column)
    assert restored.summary(0.4) == judged.summary(0.4)
    assert restored.electrodes is not None
    np.testing.assert_allclose(restored.electrodes.read(0, 400)[:, :19], UV[:400, :19], atol=0.06)
    (out / ("b" + TIMELINE)).unlink()
    go({})
    go({}, "another bundle")
    assert [stretch for _, stretch in drawn[2:]] == [None, None]


def judged_with_pages(paths: list[Path], out: Path, stretches: dict[str, Span], digest: str = "a") -> Outcome:
    pages = Pages(lambda _, stretch: f"{digest} {stretch}", stretches)
    return predict_files(Loudness(), paths, out, Options(), 0.4, digest, pages=pages)


def test_no_page_of_an_earlier_judgement_is_left(hospital: Path, tmp_path: Path) -> None:
    """Those of another recording, whose name begins in the same way, and files of other kinds are."""
    out, old, new = tmp_path / "out", "0.00.10-0.00.20", "0.00.30-0.00.40"
    other = hospital / "b_timeline_x.bdf"
    other.write_bytes((hospital / "b.bdf").read_bytes())
    judged_with_pages([hospital / "b.bdf", other], out, {old: (10, 20)})
    (out / "b_timeline_notes.html").write_text("mine")
    judged_with_pages([hospital / "b.bdf"], out, {new: (30, 40)}, "another bundle")
    pages = {path.name: path.read_text() for path in out.glob("*.html")}
    assert pages == {
        "b_timeline.html": "another bundle None",
        f"b_timeline_{new}.html": "another bundle (30, 40)",
        "b_timeline_x_timeline.html": "a None",
        f"b_timeline_x_timeline_{old}.html": "a (10, 20)",
        "b_timeline_notes.html": "mine",
    }
    run(Loudness(), [hospital / "b.bdf"], out, 0.9)
    assert {path.name for path in out.glob("b_timeline*.html")} == set(pages) - {
        "b_timeline.html",
        f"b_timeline_{new}.html",
    }


def test_a_stretch_beyond_the_end_is_no_reason_to_call_a_file_unusable(
    hospital: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = write_referential(hospital / "short.edf", UV[: 60 * 200])
    stretches = {"0.01.00-0.01.10": (60.0, 70.0), "0.00.59-0.01.10": (59.0, 70.0)}
    outcome = judged_with_pages([short, hospital / "b.bdf"], tmp_path / "out", stretches)
    assert not outcome.failed
    for done, n_pages in zip(outcome.done, (2, 3), strict=True):
        pages = [path for path in done.written if path.suffix == ".html"]
        assert len(pages) == n_pages
        assert all(path.is_file() for path in done.written)
    said = capsys.readouterr().out
    assert f"{short}: ends after 60 s, before the stretch 0.01.00-0.01.10 begins, which gets no page" in said
    assert said.count("gets no page") == 1


def test_results_are_read_again_whatever_their_names(hospital: Path, tmp_path: Path) -> None:
    """Characters that shells and polars expand: each name also stands for the other's."""
    paths = [hospital / "night [1].bdf", hospital / "night 1.bdf", hospital / "night_?*{a}.bdf"]
    for path, gain in zip(paths, (1.0, 0.2, 0.5), strict=True):
        write_referential(path, gain * UV)
    found = []
    for stretches in ({}, {"0.00.10-0.00.20": (10.0, 20.0)}):
        pages = Pages(lambda judged, _: found.append(judged) or "", stretches)
        outcome = predict_files(Loudness(), paths, tmp_path / "o[u]t", Options(), 0.4, "a", pages=pages)
        assert not outcome.failed
    assert all(done.reused for done in outcome.done)
    for judged, again in zip(found[:3], found[3:], strict=True):
        np.testing.assert_array_equal(again.probabilities, judged.probabilities)


def test_nothing_about_the_patient_is_in_any_result(hospital: Path, tmp_path: Path) -> None:
    path = hospital / "sub-01_eeg.edf"
    patched(path, 8, f"4711 F 01-JAN-1950 {SECRET}".encode("latin-1").ljust(80))
    patched(path, 88, b"Startdate 03-MAR-2019 EEG-77 Dr_House Nihon".ljust(80))
    patched(path, 168, b"03.03.19")
    predict_files(
        Loudness(), [path], tmp_path / "out", Options(), pages=Pages(timeline_page, {"all": (0.0, 90.0)})
    )
    assert len(list((tmp_path / "out").glob("*.html"))) == 2
    for result in (tmp_path / "out").iterdir():
        content = result.read_bytes()
        for word in (
            SECRET.encode("latin-1"),
            SECRET.encode(),
            b"4711",
            b"1950",
            b"House",
            b"2019",
            b"03.03",
            b"EEG-77",
        ):
            assert word not in content, (result, word)


def test_an_earlier_run_is_gone_on_with(
    hospital: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, out = [hospital / "sub-01_eeg.edf", hospital / "b.bdf"], tmp_path / "out"
    run(Loudness(), paths[:1], out)
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    judge = Loudness()
    outcome = run(judge, paths, out)
    assert [done.reused for done in outcome.done] == [True, False]
    assert judge.judged == 5  # of the second file alone
    assert {name: (out / name).read_bytes() for name in first} == first
    assert "judged by an earlier run" in capsys.readouterr().out


@pytest.mark.parametrize("change", ["file", "bundle", "threshold", "damage", "lost"])
def test_what_was_judged_otherwise_is_judged_again(hospital: Path, tmp_path: Path, change: str) -> None:
    path, out = hospital / "b.bdf", tmp_path / "out"
    run(Loudness(), [path], out)
    if change == "file":
        os.utime(path, (1, 1))
    elif change == "damage":
        (out / "b_summary.json").write_text("{")
    elif change == "lost":
        (out / "b_windows.csv").unlink()
    threshold, digest = (0.5 if change == "threshold" else 0.4), ("b" if change == "bundle" else "a")
    outcome = run(Loudness(), [path], out, threshold, digest)
    assert [done.reused for done in outcome.done] == [False]
    assert (out / "b_windows.csv").is_file()


@pytest.mark.parametrize(
    ("named", "parts", "alien"),
    [
        ("a.vhdr", ["a.eeg", "a.vmrk"], "ab.eeg"),
        ("b.vhdr", ["data of b.bin", "b.vmrk"], "data.bin"),
        ("a.set", ["a.fdt"], "b.fdt"),
        ("a_raw.fif", ["a_raw-1.fif", "a_raw-2.fif"], "a_raw_2.fif"),
        ("a.cdt", ["a.cdt.dpo"], "A.x"),
        ("a.mff", ["a.mff/signal1.bin", "a.mff/inside/info.xml"], "b.mff"),
        ("a.edf", [], "a.txt"),
    ],
)
def test_a_change_of_any_file_of_a_recording_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, parts: list[str], alien: str
) -> None:
    """Formats of several files, by their names alone; what is in them does not matter to who compares times."""
    opened = open_recording(UV, sfreq_hz=200, channels=CHANNELS)
    monkeypatch.setattr("kagglehms.recordings.prediction.open_recording", lambda *_: opened)
    for name in (*parts, alien, named):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix != ".mff":
            path.write_text("[Common Infos]\r\nDataFile=data of b.bin\r\nMarkerFile=$b.vmrk\r\n")

    def reused() -> bool:
        return run(Loudness(), [tmp_path / named], tmp_path).done[0].reused  # results beside it are no change

    assert [reused(), reused()] == [False, True]
    (tmp_path / alien).touch()
    os.utime(tmp_path / alien, (1, 1))
    assert reused()
    for name in parts if named.endswith(".mff") else (*parts, named):
        os.utime(tmp_path / name, (1, 1))
        assert [reused(), reused()] == [False, True]
        (tmp_path / name).write_text(
            "longer than it was, and other in every way; but of the same time as it was before"
        )
        os.utime(tmp_path / name, (1, 1))
        assert not reused()


def test_a_bad_file_ends_no_run(hospital: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = hospital / "a.edf"
    bad.write_bytes(b"0       " + b"?" * 300)
    few = write_edf(hospital / "c.edf", list(UV[:, :3].T), ["Fp1", "F3", "C3"], [200] * 3)
    paths = [bad, few, hospital / "missing.edf", hospital / "b.bdf"]
    outcome = run(Loudness(), paths, tmp_path / "out")
    assert [done.path.name for done in outcome.done] == ["b.bdf"]
    assert [failed.path for failed in outcome.failed] == paths[:3]
    reasons = [failed.reason for failed in outcome.failed]
    assert "the number of signals in its header is no whole number" in reasons[0]
    assert "lacks" in reasons[1]
    assert reasons[2].startswith("no such file")
    assert not any(reason.startswith(str(hospital)) for reason in reasons)
    assert outcome.exit_code == 2
    said = capsys.readouterr().out
    assert "[4/4]" in said
    assert said.count("cannot be used") == 3
    assert not list((tmp_path / "out").glob("a_*"))


def test_what_nobody_foresaw_ends_no_run_either(hospital: Path, tmp_path: Path) -> None:
    class Falls(Loudness):
        def judge(self, crops: Sequence[Crop]) -> Prediction:
            if not self.judged:
                self.judged = 1
                raise ZeroDivisionError("of all things")
            return super().judge(crops)

    outcome = run(Falls(), [hospital / "sub-01_eeg.edf", hospital / "b.bdf"], tmp_path / "out")
    assert [failed.reason for failed in outcome.failed] == ["ZeroDivisionError: of all things"]
    assert [done.path.name for done in outcome.done] == ["b.bdf"]
    assert outcome.exit_code == 1


def test_a_reader_that_has_gone_ends_the_run(hospital: Path, tmp_path: Path) -> None:
    class Gone(Loudness):
        def judge(self, crops: Sequence[Crop]) -> Prediction:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run(Gone(), [hospital / "b.bdf"], tmp_path / "out")
    assert not (tmp_path / "out/b_summary.json").exists()


def test_a_run_that_is_interrupted_keeps_what_was_finished(hospital: Path, tmp_path: Path) -> None:
    class Interrupted(Loudness):
        def judge(self, crops: Sequence[Crop]) -> Prediction:
            if self.judged >= 5:
                raise KeyboardInterrupt
            return super().judge(crops)

    paths, out = [hospital / "sub-01_eeg.edf", hospital / "b.bdf"], tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(), paths, out)
    assert [done.reused for done in run(Loudness(), paths, out).done] == [True, False]


def test_a_full_disk_ends_the_run(hospital: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every further file would be judged for nothing."""

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    paths, out = [hospital / "sub-01_eeg.edf", hospital / "b.bdf"], tmp_path / "out"
    run(Loudness(), paths[:1], out)
    judge = Loudness()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match=r"cannot be written \(No space left on device\)"):
            run(judge, paths, out)
    assert [done.reused for done in run(Loudness(), paths, out).done] == [True, False]
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written"):
        run(judge, paths, tmp_path / "file" / "out")
    assert judge.judged == 0


def test_no_recording_is_overwritten_by_results(hospital: Path) -> None:
    recording = hospital / "b_windows.parquet"
    pl.DataFrame(UV, schema=list(CHANNELS)).write_parquet(recording)
    before = recording.read_bytes()
    outcome = run(Loudness(), [hospital / "b.bdf", recording], hospital)
    assert recording.read_bytes() == before
    assert [done.path for done in outcome.done] == [recording]
    assert "its results would overwrite the recording" in outcome.failed[0].reason


def test_results_may_stand_beside_the_recordings(hospital: Path) -> None:
    first = run(Loudness(), find_recordings([hospital]), hospital)
    again = run(Loudness(), find_recordings([hospital]), hospital)
    assert [done.path.name for done in first.done] == ["b.bdf", "sub-01_eeg.edf"]
    assert [done.reused for done in again.done] == [True, True]
    assert not first.failed
    assert not again.failed


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
def test_names_that_are_no_text_are_kept(hospital: Path, tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(hospital) + b"/\xff\n.bdf"))
    (hospital / "b.bdf").rename(odd)
    outcome = run(Loudness(), [odd], tmp_path / "out")
    assert not outcome.failed
    summary = json.loads((tmp_path / "out" / (odd.stem + "_summary.json")).read_bytes())
    assert summary["made_from"]["file"] == "?\n.bdf"
    assert [done.reused for done in run(Loudness(), [odd], tmp_path / "out").done] == [True]


def test_links_that_lead_nowhere_end_no_run(hospital: Path, tmp_path: Path) -> None:
    (hospital / "circle.edf").symlink_to("circle.edf")
    (hospital / "dead.edf").symlink_to("gone.edf")
    (hospital / "folder.edf").mkdir()
    (hospital / "link.bdf").symlink_to("b.bdf")
    outcome = run(Loudness(), find_recordings([hospital]), tmp_path / "out")
    assert [done.path.name for done in outcome.done] == ["b.bdf", "link.bdf", "sub-01_eeg.edf"]
    assert [failed.path.name for failed in outcome.failed] == ["circle.edf", "dead.edf", "folder.edf"]
    assert outcome.exit_code == 2


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["a/x.edf"], ["x"]),
        (["a/x.edf", "b/y.bdf"], ["x", "y"]),
        (["a/x.edf", "a/x.bdf"], ["x_edf", "x_bdf"]),
        (["a/x.edf", "b/x.edf", "c/z.set"], ["a_x_edf", "b_x_edf", "z"]),
        (["a/c/x.edf", "b/c/x.edf"], ["a_c_x_edf", "b_c_x_edf"]),
        (["a/x.edf", "b/X.EDF"], ["a_x_edf", "b_X_EDF"]),
        (["s/sub-01_task-rest_eeg.edf", "s/sub-02_raw.fif.gz"], ["sub-01_task-rest", "sub-02_raw"]),
        (["b/sub-01/eeg/sub-01_task-rest_eeg.edf"], ["sub-01/eeg/sub-01_task-rest"]),
        (["b/sub-1/ses-a/eeg/sub-1_ses-a_run-2_eeg.bdf"], ["sub-1/ses-a/eeg/sub-1_ses-a_run-2"]),
        (["b/sub-1/eeg/sub-1_ses-a_eeg.bdf", "b/sub-2/eeg/sub-1_eeg.edf"], ["sub-1_ses-a", "sub-1"]),
        ([], []),
    ],
)
def test_results_are_named_after_files(paths: list[str], expected: list[str]) -> None:
    assert output_stems([Path("/data") / path for path in paths]) == expected


def test_results_of_a_bids_dataset_make_a_derivative_dataset(tmp_path: Path) -> None:
    path = tmp_path / "set/sub-01/eeg/sub-01_task-rest_eeg.edf"
    path.parent.mkdir(parents=True)
    write_referential(path, UV)
    out = tmp_path / "set/derivatives/kagglehms"
    (done,) = run(Loudness(), [path], out).done
    assert {p.parent for p in done.written} == {out / "sub-01/eeg"}
    assert (out / "sub-01/eeg/sub-01_task-rest_events.tsv").is_file()
    assert json.loads((out / "dataset_description.json").read_text())["DatasetType"] == "derivative"
    patterns = (out / ".bidsignore").read_text().split()
    left = [p.name for p in done.written if not any(fnmatch(p.name, pattern) for pattern in patterns)]
    assert sorted(left) == ["sub-01_task-rest_events.json", "sub-01_task-rest_events.tsv"]
    assert find_recordings([tmp_path / "set"]) == [path]


def test_tables_are_whole_where_nothing_was_judged(tmp_path: Path) -> None:
    path = write_referential(tmp_path / "short.edf", UV[: 30 * 200])
    outcome = run(Loudness(), [path], tmp_path / "out")
    assert outcome.done[0].summary["judged"] == 0
    table = pl.read_csv(io.BytesIO((tmp_path / "out/short_windows.csv").read_bytes()))
    assert table.height == 3
    assert table["seizure"].null_count() == 3
    assert len(CHANNELS) == 20
    with pytest.raises(UsageError, match="probability"):
        run(Loudness(), [path], tmp_path / "out2", 2.0)
