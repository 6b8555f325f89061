"""`kagglehms predict` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from own_recordings import simulated_uv, write_edf, write_referential

from kagglehms.cli.commands import main
from kagglehms.data.competition import CHANNELS, CLASSES

UV = simulated_uv(80)


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    folder = tmp_path / "hospital"
    folder.mkdir()
    write_referential(folder / "a.edf", UV)
    write_referential(folder / "b.bdf", UV)
    return folder


def predict(*words: object) -> int:
    return main(["predict", *map(str, words)])


def test_a_folder_is_judged_and_told(
    dist: Path, hospital: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(hospital, "--bundle", dist, "--out", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "Fp1 = EEG Fp1-REF" in said
    assert "channels as above" in said
    assert f"{hospital / 'a.edf'}: 80 s, 4 of 8 windows judged (4 edge)" in said
    assert "note: shorter than the ten minutes" in said
    assert "2 of 2 recordings" in said
    assert "not a medical device" in said
    assert (tmp_path / "out/a_summary.json").is_file()
    assert predict(hospital, "--bundle", dist / "dataset", "--out", tmp_path / "out") == 0
    assert capsys.readouterr().out.count("judged by an earlier run") == 2


def test_pages_are_written_beside_the_tables_and_of_a_stretch_without_judging_again(
    dist: Path, hospital: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (hospital / "a.edf", "--bundle", dist, "--out", tmp_path / "out")

    def pages() -> set[str]:
        return {path.name for path in (tmp_path / "out").glob("*.html")}

    assert predict(*words, "--no-timeline") == 0
    assert pages() == set()
    assert predict(*words) == 0
    assert pages() == {"a_timeline.html"}
    before = (tmp_path / "out/a_timeline.html").read_bytes()
    assert b"a.edf" in before
    capsys.readouterr()
    assert predict(*words, "--stretch", "0:10-0:00:40", "--json") == 0
    assert json.loads(capsys.readouterr().out)["done"][0]["reused"]
    assert pages() == {"a_timeline.html", "a_timeline_0.00.10-0.00.40.html"}
    assert (tmp_path / "out/a_timeline.html").read_bytes() == before
    assert predict(*words, "--stretch", "1:00:00-1:10:00") == 2
    assert (
        f"{hospital / 'a.edf'} has no stretch 1:00:00-1:10:00; it is 0:01:20 long" in capsys.readouterr().err
    )
    write_referential(hospital / "c.edf", UV[: 50 * 200])
    assert predict(hospital, *words[1:], "--stretch", "1:10-1:20") == 0
    assert "b_timeline_0.01.10-0.01.20.html" in pages()
    assert {name for name in pages() if name.startswith("c_")} == {"c_timeline.html"}
    assert predict(hospital, *words[1:], "--stretch", "1:00:00-1:10:00") == 2
    assert "has no stretch 1:00:00-1:10:00; it is 0:01:20 long" in capsys.readouterr().err


def test_a_program_reads_json(
    dist: Path, hospital: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (hospital / "c.edf").write_bytes(b"nothing of the kind")
    words = (hospital, "--bundle", dist, "--out", tmp_path / "out", "--every", "20s", "--json", "--quiet")
    assert predict(*words) == 2
    found = json.loads(capsys.readouterr().out)
    assert [Path(done["file"]).name for done in found["done"]] == ["a.edf", "b.bdf"]
    assert {done["every_s"] for done in found["done"]} == {20}
    assert [Path(failed["file"]).name for failed in found["failed"]] == ["c.edf"]
    assert "medical" in found["warning"]
    assert found["failed"][0]["reason"].startswith("is no EDF or BDF file")
    assert predict(hospital, "--bundle", dist, "--out", tmp_path / "out", "--quiet") == 2
    said = capsys.readouterr().out
    assert f"{hospital / 'c.edf'}: cannot be used: is no EDF or BDF file" in said
    assert "2 of 3 recordings" in said


def test_where_no_event_is_likely_enough_the_likeliest_window_is_told(
    dist: Path, hospital: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (hospital / "a.edf", "--bundle", dist, "--out", tmp_path / "out", "--no-timeline")
    assert predict(*words, "--threshold", "1") == 0
    said = capsys.readouterr().out
    windows = pl.read_parquet(tmp_path / "out/a_windows.parquet")
    table = windows.unpivot(list(CLASSES[:-1]), index="start_s").drop_nulls()
    highest = table.filter(pl.col("value") == table["value"].max()).row(0, named=True)
    where = f"{highest['value']:.3f}, of {highest['variable']} at {highest['start_s']:g} s"
    assert f"  events: none of at least 1; the highest probability is {where}\n" in said


def test_missing_electrodes_end_in_one_line_unless_they_are_allowed(
    dist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = [i for i in range(20) if CHANNELS[i] != "C3"]
    path = write_edf(tmp_path / "a.edf", [UV[:, i] for i in kept], [CHANNELS[i] for i in kept], [200] * 19)
    words = (path, "--bundle", dist, "--out", tmp_path / "out")
    assert predict(*words) == 2
    error = capsys.readouterr().err
    assert f"kagglehms: error: {path}: lacks C3: 2 of the 16 differences" in error
    assert "--allow-missing" in error
    assert error.count("\n") == 1
    assert predict(*words, "--allow-missing") == 0
    assert predict(*words, "--rename", "P3=C3") == 2  # then P3 is missing
    assert "lacks P3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "predict needs FILE: recordings, and folders"),
        (("a.edf", "--every", "0.5s"), "windows can begin every second or more"),
        (("a.edf", "--every", "soon"), "soon"),
        (("a.edf", "--threshold", "2"), "must be a probability"),
        (("a.edf", "--rename", "x"), "does not rename a channel"),
        (("a.edf", "--stretch", "5:00"), "'5:00' is no stretch"),
        (("a.edf", "--stretch", "5:00-4:00"), "'5:00-4:00' is no stretch"),
        (("a.edf", "--stretch", "4:00-5:00", "--no-timeline"), "leave one of them out"),
        (("missing.edf",), "no such file"),
    ],
)
def test_what_cannot_be_is_refused(
    dist: Path,
    tmp_path: Path,
    words: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert predict(*words, "--bundle", dist, "--out", "out") == 2
    assert message in capsys.readouterr().err


def test_a_bundle_is_needed(hospital: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(hospital) == 2
    assert "predict needs --bundle" in capsys.readouterr().err
    assert predict(hospital, "--bundle", tmp_path, "--out", tmp_path / "out") == 1
    assert "manifest.json" in capsys.readouterr().err
