"""The view of one EEG: the right stretch of the right recordings, as a picture and as a page that can be stepped."""

from __future__ import annotations

import base64
import io
import json
import re
import webbrowser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from browser import Chromium
from folders import copied
from PIL import Image

from kagglehms.bundle.explanation import CHAIN_NAMES, Explanation
from kagglehms.cli.commands import main
from kagglehms.data.competition import CHANNELS, CLASSES, Competition
from kagglehms.data.readers import read_eeg, read_spectrogram
from kagglehms.errors import DataError, UsageError
from kagglehms.features import mel_images
from kagglehms.report.eeg_view import EegView, Window, load_view
from kagglehms.report.explaining import Reasons
from kagglehms.report.viewer import MOST_IMAGES, view_page, view_png, write_view
from kagglehms.runs.nearest import Case


def longest_eeg(folder: Path) -> tuple[int, pl.DataFrame]:
    """The EEG with most sub-windows, and its rows of train.csv by offset."""
    table = pl.read_csv(folder / "train.csv")
    eeg_id = table.group_by("eeg_id").len().sort("len", "eeg_id")["eeg_id"][-1]
    return eeg_id, table.filter(pl.col("eeg_id") == eeg_id).sort("eeg_label_offset_seconds")


def content_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="content">(.*?)</script>', page, flags=re.DOTALL)
    assert found
    content: dict[str, Any] = json.loads(found[1])
    return content


def test_windows_are_the_rows_of_train_csv(competition_folder: Path) -> None:
    eeg_id, rows = longest_eeg(competition_folder)
    view = load_view(eeg_id, competition_folder)
    assert [w.offset_s for w in view.windows] == rows["eeg_label_offset_seconds"].to_list()
    assert [w.votes_K for w in view.windows] == rows.select(pl.col("^.*_vote$")).rows()
    assert view.patient_id == rows["patient_id"][0]
    assert view.who is None
    last = view.windows[-1]
    crop = view.crop(last)
    competition = Competition(competition_folder)
    eeg = read_eeg(competition.eeg(eeg_id))
    first = int(rows["eeg_label_offset_seconds"][-1]) * 200
    np.testing.assert_array_equal(crop.of("eeg"), eeg[first : first + 10_000])
    power = read_spectrogram(competition.spectrogram(rows["spectrogram_id"][0]))
    row = int(rows["spectrogram_label_offset_seconds"][-1]) // 2
    np.testing.assert_array_equal(crop.of("kaggle"), power[row : row + 300])
    assert view.nearest(None) == 0
    assert view.nearest(last.offset_s + 0.4) == len(view.windows) - 1


def test_a_store_gives_the_same_view_and_a_run_its_prediction(dist: Path, competition_folder: Path) -> None:
    eeg_id, _ = longest_eeg(competition_folder)
    where = dist.parent
    view = load_view(eeg_id, competition_folder, where / "store", where / "runs")
    plain = load_view(eeg_id, competition_folder)
    np.testing.assert_array_equal(view.eeg_uv, plain.eeg_uv)
    np.testing.assert_array_equal(view.log_power, plain.log_power)
    assert view.who == "baseline"
    oof = pl.read_parquet(where / "runs/baseline/oof.parquet").filter(pl.col("eeg_id") == eeg_id)
    for window in view.windows:
        match = [
            r
            for r in oof.to_dicts()
            if tuple(v for k, v in r.items() if k.endswith("_vote")) == window.votes_K
        ]
        assert window.prediction_K == tuple(v for k, v in match[0].items() if k.endswith("_probability"))


def test_a_test_recording_has_no_votes(competition_folder: Path) -> None:
    eeg_id = pl.read_csv(competition_folder / "test.csv")["eeg_id"][0]
    view = load_view(eeg_id, competition_folder)
    assert [w.votes_K for w in view.windows] == [None]
    assert content_of(view_page(view, 0))["windows"]["votes"] is None
    assert view_png(view, 0).startswith(b"\x89PNG")


def test_an_unknown_eeg_names_some_that_exist(competition_folder: Path, tmp_path: Path) -> None:
    some = str(pl.read_csv(competition_folder / "train.csv")["eeg_id"][0])
    with pytest.raises(UsageError, match=f"no EEG 12345 .* such as {some}"):
        load_view(12345, competition_folder)
    with pytest.raises(DataError, match="no such folder"):
        load_view(12345, tmp_path / "nowhere")
    with pytest.raises(UsageError, match="it has neither table"):
        load_view(12345, tmp_path)


def test_recordings_that_end_too_early_are_named(competition_folder: Path, tmp_path: Path) -> None:
    folder = copied(competition_folder, tmp_path / "competition")
    eeg_id, _ = longest_eeg(folder)
    path = folder / "train_eegs" / f"{eeg_id}.parquet"
    pl.read_parquet(path).head(10_001).write_parquet(path)
    with pytest.raises(DataError, match=f"{eeg_id}.parquet: ends before"):
        load_view(eeg_id, folder)


def test_the_page_holds_votes_and_images_of_each_window(competition_folder: Path) -> None:
    eeg_id, rows = longest_eeg(competition_folder)
    view = load_view(eeg_id, competition_folder)
    content = content_of(view_page(view, 1))
    assert content["start"]["stop"] == 1
    starts = np.frombuffer(base64.b64decode(content["windows"]["start_s"]), "<f8")
    np.testing.assert_array_equal(starts, rows["eeg_label_offset_seconds"].to_numpy() + 20)
    assert content["windows"]["votes"] == [list(row) for row in rows.select(pl.col("^.*_vote$")).rows()]
    assert content["windows"]["probabilities"] is None
    assert content["signal"]["whole"]
    for window, shown in zip(view.windows, content["images"]["windows"], strict=True):
        image = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown["mel"].partition(",")[2]))))
        mel = mel_images(view.crop(window).of("eeg")[None])[0]
        expected = np.clip((np.concatenate(list(mel[:, ::-1])) + 0.5) / 1.5, 0, 1) * 254
        assert np.abs(image - expected).max() <= 1
        assert shown["row"] == window.start[0]
    last = max(window.start[0] for window in view.windows) + 300
    spectrogram = Image.open(io.BytesIO(base64.b64decode(content["images"]["spectrogram"].partition(",")[2])))
    assert spectrogram.size == (last - content["images"]["first_row"], 400)


def test_the_timeline_shows_the_rows_of_the_spectrogram_at_their_time() -> None:
    eeg = np.zeros((60 * 200, len(CHANNELS)), np.float16)
    power = np.zeros((400, 400), np.float16)
    # The window's middle is second 25 + 3 of the EEG and second 300 + 40 of the spectrogram: row 170 is at 28 s.
    power[170, 100:200], power[170, 300:] = 8, 8  # RL and RP
    window = Window(0, 3.0, 40.0, (1, 0, 0, 0, 0, 0), "Seizure")
    shown = content_of(view_page(EegView(1, 2, eeg, power, (window,)), 0))["spectrogram"]
    left, right = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(image.partition(",")[2]))))
        for image in shown["images"]
    )
    (column,) = np.flatnonzero(right.max(axis=0) > 100)
    assert shown["first_s"] + column * shown["column_s"] == 28
    assert left.max() < 100
    assert 60 <= shown["first_s"] + shown["n"] * shown["column_s"] <= 64


def test_of_very_many_windows_the_page_has_images_of_the_nearest() -> None:
    n = MOST_IMAGES + 20
    rng = np.random.default_rng(0)
    eeg = rng.normal(0, 30, (10_000 + 200 * n, len(CHANNELS))).astype(np.float16)
    windows = tuple(Window(i, float(i), 2.0 * i, (1, 0, 0, 0, 0, 0), "Seizure") for i in range(n))
    view = EegView(1, 2, eeg, rng.normal(0, 1, (300 + n, 400)).astype(np.float16), windows)
    content = content_of(view_page(view, n - 1))
    drawn = [i for i, image in enumerate(content["images"]["windows"]) if image is not None]
    assert drawn == list(range(n - MOST_IMAGES, n))
    assert len(content["stops"]) == n


def test_the_command_writes_picture_and_page(
    competition_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    eeg_id, rows = longest_eeg(competition_folder)
    assert main(["view", str(eeg_id), "--data", str(competition_folder), "--offset", "1000"]) == 0
    assert f"sub-window {len(rows)} of {len(rows)}" in capsys.readouterr().out
    with Image.open(f"eeg-{eeg_id}.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert min(pixels.shape[:2]) > 800
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100
    assert (tmp_path / f"eeg-{eeg_id}.html").is_file()
    arguments = ["view", str(eeg_id), "--data", str(competition_folder), "--out", "one.png", "--json"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["written"] == ["one.png"]
    assert not (tmp_path / "one.html").exists()
    opened: list[str] = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(webbrowser, "open", lambda address: not opened.append(address))
    assert main([*arguments[:-3], "--open"]) == 0
    assert opened == [f"file://{tmp_path}/eeg-{eeg_id}.html"]
    with pytest.raises(UsageError, match=r"cannot be written as '\.pmg'; did you mean '\.png'"):
        write_view(load_view(eeg_id, competition_folder), None, Path("one.pmg"))


def test_hostile_strings_of_the_tables_stay_strings() -> None:
    eeg = np.zeros((10_000, len(CHANNELS)), np.float16)
    hostile = "</script><script>alert(1)</script>"
    windows = (Window(0, 0.0, 0.0, (1, 0, 0, 0, 0, 0), hostile, (1.0, 0, 0, 0, 0, 0)),)
    page = view_page(EegView(1, 2, eeg, np.zeros((300, 400), np.float16), windows, who=hostile), 0)
    assert hostile not in page
    assert hostile in content_of(page)["stops"][0]["text"]
    assert page.count("<script") == 5  # content, script, envelope, two blocks of signal


@pytest.mark.parametrize("width", [1280, 390], ids=["laptop", "phone"])
def test_a_browser_steps_through_its_sub_windows(
    chromium: Chromium, competition_folder: Path, tmp_path: Path, width: int
) -> None:
    eeg_id, rows = longest_eeg(competition_folder)
    file = tmp_path / "eeg.html"
    write_view(load_view(eeg_id, competition_folder), None, file)
    offsets = rows["eeg_label_offset_seconds"].to_list()
    votes = rows.select(pl.col("^.*_vote$")).rows()

    def middle(offset_s: float) -> str:
        return f"() => Math.abs(kagglehms.state().t + kagglehms.state().page / 2 - {offset_s + 25}) < 0.02"

    with chromium.open(file, width, 844) as shown:
        shown.page.wait_for_function(middle(offsets[0]))
        shown.page.wait_for_function("() => document.body.dataset.busy === ''")
        first = shown.pixels()
        shown.press("n")
        shown.page.wait_for_function(middle(offsets[1]))
        assert shown.page.locator("#said").inner_text().count("vote") == 6
        counts = [int(text.split()[0]) for text in shown.page.locator("#said .figures").all_inner_texts()]
        assert tuple(counts) == votes[1]
        shown.page.wait_for_function("() => document.body.dataset.busy === ''")
        second = shown.pixels()
        shown.press("p")
        shown.page.wait_for_function(middle(offsets[0]))
        shown.page.locator("#stop").select_option(str(len(offsets) - 1))
        shown.page.wait_for_function(middle(offsets[-1]))
        before = shown.page.locator("#sensitivity").text_content()
        shown.press("ArrowDown")
        assert shown.page.locator("#sensitivity").text_content() != before
        texts = shown.assert_legible(width)
        assert {"Mel images of the window", "time of the recording (labelled: dashed)"} <= set(texts)
        before_it, after = (f"{sign}0:0{minutes}:00" for sign, minutes in (("−", 4), ("", 4)))
        assert {before_it, after} <= set(texts)  # Kaggle's ten minutes lie around the 50 seconds
        assert shown.complaints == []
        assert [r for r in shown.requests if not r.startswith("data:")] == [file.resolve().as_uri()]
    assert len(np.unique(first.reshape(-1, 3), axis=0)) > 100
    assert (first != second).any(axis=2).mean() > 0.01


def lpd_by_the_left(explained_second: int) -> Reasons:
    """Reasons in which one chain and one second speak for `lpd`, and one chain against it."""
    k = CLASSES.index("lpd")
    by_chain, by_second = np.zeros((5, 6)), np.zeros((50, 6))
    by_chain[CHAIN_NAMES.index("LL"), k], by_chain[CHAIN_NAMES.index("RP"), k] = 0.3, -0.2
    by_second[explained_second, k] = 0.1
    probabilities = np.where(np.arange(6) == k, 0.75, 0.05)
    case = Case(eeg_id=77, patient_id=5, similarity=0.9, votes={"lpd": 3})
    return Reasons("baseline", 0, True, Explanation(probabilities, by_chain, by_second), (case,))


def test_what_mattered_is_drawn_behind_the_traces(
    chromium: Chromium, competition_folder: Path, tmp_path: Path
) -> None:
    eeg_id, _ = longest_eeg(competition_folder)
    view = load_view(eeg_id, competition_folder)
    window, reasons = view.windows[0], lpd_by_the_left(explained_second=22)
    content = content_of(view_page(view, 0, reasons))
    assert content["tint"]["start_s"] == window.offset_s
    assert content["tint"]["of"] == "lpd"
    assert content["tint"]["by_chain"] == {"LL": 0.3, "RL": 0, "LP": 0, "RP": -0.2, "midline": 0}
    assert np.flatnonzero(content["tint"]["by_second"]).tolist() == [22]
    assert "similar (0.900): EEG 77, votes lpd 3" in view_page(view, 0, reasons)
    assert content_of(view_page(view, 0))["tint"] is None

    def seen(name: str, reasons: Reasons | None) -> np.ndarray:
        write_view(view, window.offset_s, tmp_path / name, reasons)
        with chromium.open(tmp_path / name, 1280, 844) as shown:
            shown.page.wait_for_function("() => document.body.dataset.busy === ''")
            assert shown.complaints == []
            return shown.pixels().astype(int)

    changed = seen("with.html", reasons) - seen("without.html", None)
    assert (
        changed[..., 1] - changed[..., 2] < -4
    ).any()  # violet takes more of the green than of the blue away
    grey = (np.ptp(changed, axis=2) <= 8) & (changed.max(axis=2) < -10)  # ink takes as much of each away
    assert grey.sum() > 1000
    png = np.asarray(Image.open(io.BytesIO(view_png(view, 0, reasons))))
    assert png.shape == np.asarray(Image.open(io.BytesIO(view_png(view, 0)))).shape
    assert (png != np.asarray(Image.open(io.BytesIO(view_png(view, 0))))).any()
