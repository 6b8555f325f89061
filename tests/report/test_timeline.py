"""The page of a judged recording, in a browser: what it shows, what it keeps, how it is gone through."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Chromium, Opened
from numpy.typing import NDArray
from own_recordings import simulated_uv, write_edf
from scipy.signal import butter, freqz, iirnotch, sosfreqz

from kagglehms.data.competition import CHANNELS
from kagglehms.errors import UsageError
from kagglehms.recordings.channels import map_channels
from kagglehms.recordings.electrodes import Electrodes
from kagglehms.recordings.reading import open_recording
from kagglehms.recordings.results import RecordingPrediction
from kagglehms.recordings.sliding import FLAGS
from kagglehms.recordings.stored import Channel, Recording, Stretch
from kagglehms.report.montage import DERIVATIONS
from kagglehms.report.paging import MOST_BYTES
from kagglehms.report.timeline import stretch_of, stretch_text, timeline_page, write_timeline

UV = simulated_uv(180)
IDLE = "() => document.body.dataset.busy === ''"


class Steady(Recording):
    """A recording of any length that repeats some seconds with noise of its own, made block by block."""

    def __init__(self, uv_TC: NDArray[np.floating], seconds: int) -> None:
        channels = [Channel(f"EEG {name}-REF", 1) for name in CHANNELS[:19]] + [Channel("ECG", 1)]
        super().__init__("steady.edf", None, channels, [Stretch(0, 0, seconds * 200)], Fraction(1, 200))
        self._uv_TC = uv_TC.astype(np.float64)
        self._noise = np.random.default_rng(0).normal(0, 2, 2**16)

    def read(self, channels: Any, first: int, stop: int) -> list[NDArray[np.float64]]:
        at = np.arange(first, stop)
        rows, noise = at % len(self._uv_TC), self._noise[at * 9973 % len(self._noise)]
        return [self._uv_TC[rows, c] + np.roll(noise, 1000 * c) for c in channels]


def judged(
    recording: Any, name: str = "night.edf", probabilities: Any = None, **more: Any
) -> RecordingPrediction:
    """A recording with probabilities that were drawn, one window every 10 s; the first was not judged."""
    opened = recording if isinstance(recording, Recording) else open_recording(recording, **more)
    electrodes = Electrodes(opened, map_channels(opened))
    n = electrodes.n_times // 2000
    rng = np.random.default_rng(0)
    drawn = rng.dirichlet([0.3, 0.3, 0.2, 0.3, 0.2, 4], n) if probabilities is None else probabilities
    drawn[0] = np.nan
    flags = {flag: rng.random(n) < 0.1 for flag in FLAGS}
    flags["edge"][0] = True
    return RecordingPrediction(
        name, electrodes.n_times / 200, 10.0, 10.0 * np.arange(n), drawn, drawn / 10, flags, np.zeros(n, bool),
        np.full(n, np.nan), electrodes.montage.lines, (), ("a note",), electrodes,
    )  # fmt: skip


def of_array(uv_TC: NDArray[np.floating], **more: Any) -> RecordingPrediction:
    return judged(uv_TC, sfreq_hz=200, channels=CHANNELS, **more)


def content_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="content">(.*?)</script>', page, flags=re.DOTALL)
    assert found
    content: dict[str, Any] = json.loads(found[1])
    return content


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three minutes, an event of LPD in the middle of the second."""
    probabilities = np.tile([0.02, 0.02, 0.02, 0.02, 0.02, 0.9], (18, 1))
    probabilities[8:11] = [0.03, 0.8, 0.03, 0.02, 0.02, 0.1]
    path = tmp_path_factory.mktemp("page") / "night.html"
    found = of_array(UV, probabilities=probabilities)
    found.flags["artefact"][:] = found.flags["flat"][:] = False  # they would be events as well
    write_timeline(found, path)
    return path


@contextmanager
def opened(
    chromium: Chromium, path: Path, fragment: str = "", width: int = 1280, height: int = 900, before: str = ""
) -> Iterator[Opened]:
    """The page with its traces drawn, which asks for nothing and complains of nothing."""
    with chromium.open(path, width, height, before=before, fragment=fragment) as shown:
        shown.page.wait_for_function(IDLE)
        yield shown
        assert shown.complaints == []
        wanted = {request.partition("#")[0] for request in shown.requests if not request.startswith("data:")}
        assert wanted == {path.resolve().as_uri()}


def drawn(shown: Opened) -> tuple[float, list[str], NDArray[np.float64]]:
    """First second, labels and (traces, samples) µV of what is on the canvas; NaN where there is nothing."""
    found = shown.page.evaluate(
        "async () => { const p = await kagglehms.page(); return [p.t, p.labels.map((l) => l.label),"
        " p.uv.map((row) => Array.from(row, (v) => Number.isNaN(v) ? null : v))]; }"
    )
    return found[0], found[1], np.array(found[2], dtype=float)


def state(shown: Opened) -> dict[str, Any]:
    found: dict[str, Any] = shown.value("kagglehms.state()")
    return found


def test_it_says_when_it_was_written(page: Path) -> None:
    assert re.search(r"judged every 10 s, written on \d{1,2} [A-Z][a-z]+ 20\d\d\.", page.read_text())


def test_it_begins_with_the_first_event_and_says_what_models_say(chromium: Chromium, page: Path) -> None:
    with opened(chromium, page) as shown:
        assert state(shown)["t"] == pytest.approx(85)  # the event lasts from 80 to 110 s, and a page 20 s
        figures = shown.page.locator("#said .figures").all_inner_texts()
        assert figures == [
            "0.03 ± 0.00",
            "0.80 ± 0.08",
            "0.03 ± 0.00",
            "0.02 ± 0.00",
            "0.02 ± 0.00",
            "0.10 ± 0.01",
        ]
        assert shown.page.locator("#which").inner_text().startswith("probability for 0:01:30–0:01:40")
        assert shown.page.locator("#stop option").nth(1).inner_text() == "0:01:20 LPD 0.80"
        assert "not a medical device" in shown.page.locator("header").inner_text()


def test_keys_turn_pages_and_change_the_sensitivity(chromium: Chromium, page: Path) -> None:
    with opened(chromium, page, "#t=40&page=15&uv=7") as shown:
        for key, t in [
            ("ArrowRight", 55), ("ArrowRight", 70), ("ArrowLeft", 55), ("Shift+ArrowRight", 56), ("End", 165),
            ("ArrowRight", 165), ("Home", 0), ("ArrowLeft", 0), ("n", 87.5), ("PageDown", 102.5),
        ]:  # fmt: skip
            shown.press(key)
            assert state(shown)["t"] == pytest.approx(t), key
        for key, uv in [("+", 5), ("-", 7), ("-", 10), ("ArrowUp", 7), ("ArrowDown", 10)]:
            shown.press(key)
            assert state(shown)["uv"] == uv, key
        assert shown.page.locator("#sensitivity").inner_text() == "10 µV/mm"
        shown.page.wait_for_function(IDLE)
        scale = shown.value("kagglehms.scale()")
        assert scale["px"] == pytest.approx(scale["uv"] / 10 * 96 / 25.4)


def test_reloading_keeps_place_montage_filters_and_sensitivity(chromium: Chromium, page: Path) -> None:
    with opened(chromium, page) as shown:
        shown.press("Home")
        shown.press("ArrowRight")
        shown.press("-")
        for name, choice in [
            ("montage", "average"),
            ("page", "10"),
            ("high", "1"),
            ("low", "15"),
            ("notch", "60"),
        ]:
            shown.page.locator(f"#{name}").select_option(choice)
        before = state(shown)
        assert (before["montage"], before["page"], before["high"]) == ("average", 10, 1)
        assert before["t"] == 25  # a shorter page keeps its middle
        shown.page.reload()
        shown.page.wait_for_function(IDLE)
        assert state(shown) == before
        assert shown.page.locator("#montage").input_value() == "average"
        shown.page.goto(page.resolve().as_uri() + "#t=60&page=15&montage=referential")
        shown.page.wait_for_function("() => kagglehms.state().t === 60")
        assert state(shown) == before | {"t": 60, "page": 15, "montage": "referential"}


def test_an_address_that_makes_no_sense_is_passed_over(chromium: Chromium, page: Path) -> None:
    with opened(chromium, page, "#t=1e9&page=7&montage=<b>&uv=-3&high=NaN&t&low=Infinity&=&x=1") as shown:
        found = state(shown)
    assert found["t"] == 160
    assert (found["montage"], found["page"], found["high"], found["low"]) == ("bipolar", 20, 0.5, 40)


RAW = "high=0&low=0&notch=0"


def test_montages_are_those_of_the_electrodes(chromium: Chromium, page: Path) -> None:
    part = UV[40 * 200 : 60 * 200].T.astype(float)
    of = dict(zip(CHANNELS, part, strict=True))
    average = part[:19].mean(axis=0)
    for montage in ("bipolar", "average", "referential"):
        with opened(chromium, page, f"#t=40&page=20&montage={montage}&{RAW}") as shown:
            t, labels, uv = drawn(shown)
        assert t == 40
        assert len(labels) == (19 if montage == "bipolar" else 20)
        for label, row in zip(labels, uv, strict=True):
            plus, _, minus = label.partition("–")
            expected = of[plus] - (average if minus == "av" else of[minus] if minus else 0)
            np.testing.assert_allclose(row, expected, atol=0.51, err_msg=label)
    assert set(labels) == set(CHANNELS)


def test_the_cursor_reads_the_value_of_the_recording(chromium: Chromium, page: Path) -> None:
    with opened(chromium, page, f"#t=40&page=20&montage=referential&uv=10&{RAW}") as shown:
        box = shown.page.locator("#traces").bounding_box()
        assert box
        for x, y in [(0.3, 0.1), (0.55, 0.47), (0.9, 0.8)]:
            shown.page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
            said = shown.page.locator("#readout").inner_text()
            found = re.fullmatch(r"0:00:(\d\d\.\d{3})\s+(\w+): (−?)([\d.]+) µV", said)
            assert found, said
            value = float(found[4]) * (-1 if found[3] else 1)
            assert value == pytest.approx(
                UV[round(float(found[1]) * 200), CHANNELS.index(found[2])], abs=0.31
            )
            assert shown.page.locator("#cursor").is_visible()
        shown.page.locator("#high").select_option("0.5")
        shown.page.wait_for_function(IDLE)
        shown.page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
        assert "unfiltered" in shown.page.locator("#readout").inner_text()


@pytest.mark.parametrize(
    ("filters", "design"),
    [
        ("high=1.6&low=0&notch=0", ("highpass", 1.6)),
        ("high=0.1&low=0&notch=0", ("highpass", 0.1)),
        ("high=0&low=15&notch=0", ("lowpass", 15)),
        ("high=0&low=70&notch=0", ("lowpass", 70)),
        ("high=0&low=0&notch=50", ("notch", 50)),
        ("high=0&low=0&notch=60", ("notch", 60)),
    ],
)
def test_filters_pass_sines_as_scipy_says(
    chromium: Chromium, tmp_path: Path, filters: str, design: tuple[str, float]
) -> None:
    """A sine on each electrode: what is left of it, and where its zeros are, in the middle of three minutes."""
    hz = np.array([0.2, 0.5, 1, 1.6, 2, 4, 8, 12, 15, 20, 30, 40, 45, 49, 50, 55, 60, 70, 80])
    t = np.arange(len(UV)) / 200
    uv = np.zeros_like(UV)
    uv[:, :19] = 1000 * np.sin(2 * np.pi * t[:, None] * hz)
    write_timeline(of_array(uv), tmp_path / "sines.html")
    with opened(chromium, tmp_path / "sines.html", f"#t=80&page=20&montage=referential&{filters}") as shown:
        _, labels, found = drawn(shown)
    kind, at = design
    if kind == "notch":
        _, response = freqz(*iirnotch(at, 10, fs=200), worN=hz, fs=200)
    else:
        _, response = sosfreqz(butter(2, at, kind, fs=200, output="sos"), worN=hz, fs=200)
    gains = np.abs(response) ** 2  # forwards and backwards
    for name, gain in zip(CHANNELS[:19], gains, strict=True):
        expected = gain * uv[80 * 200 : 100 * 200, CHANNELS.index(name)]
        np.testing.assert_allclose(found[labels.index(name)], expected, atol=6, err_msg=name)


def test_gaps_stay_gaps_and_do_not_spread(chromium: Chromium, tmp_path: Path) -> None:
    uv = UV.copy()
    uv[45 * 200 : 47 * 200, 0] = np.nan
    write_timeline(of_array(uv), tmp_path / "gap.html")
    with opened(chromium, tmp_path / "gap.html", "#t=40&page=20&montage=bipolar") as shown:
        _, labels, found = drawn(shown)
    for label, row in zip(labels, found, strict=True):
        missing = np.isnan(row)
        assert missing[1000:1400].all() == missing.any() == ("Fp1" in label), label
        assert not missing[:1000].any()
        assert not missing[1400:].any()


def touch(shown: Opened, *points: tuple[float, float]) -> None:
    """Put a finger down on the first point, move it over the others, lift it."""
    client = shown.page.context.new_cdp_session(shown.page)
    kinds = ["touchStart", *["touchMove"] * (len(points) - 1)]
    for kind, (x, y) in zip(kinds, points, strict=True):
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    client.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def test_a_finger_goes_through_it(chromium: Chromium, page: Path) -> None:
    with opened(chromium, page, "#t=40&page=10&uv=10", width=390, height=844) as shown:
        traces, timeline = (shown.page.locator(name).bounding_box() for name in ("#traces", "#timeline"))
        assert traces
        assert timeline
        middle = traces["y"] + traces["height"] / 2
        touch(shown, (300, middle), (240, middle), (150, middle + 4))
        shown.page.wait_for_function("() => kagglehms.state().t === 50")
        touch(shown, (100, middle), (180, middle), (260, middle))
        shown.page.wait_for_function("() => kagglehms.state().t === 40")
        touch(shown, (200, middle))
        shown.page.wait_for_function("() => document.querySelector('#readout').textContent.includes('µV')")
        assert state(shown)["t"] == 40
        touch(shown, (timeline["x"] + 46 + (timeline["width"] - 54) * 0.75, timeline["y"] + 30))
        shown.page.wait_for_function("() => Math.abs(kagglehms.state().t - 130) < 1.5")
        shown.page.locator("#set").tap()
        shown.page.locator("#montage").select_option("average")
        assert state(shown)["montage"] == "average"


def test_on_a_phone_all_is_in_view_and_large_enough_to_read(chromium: Chromium, page: Path) -> None:
    with opened(chromium, page, width=390, height=844) as shown:
        for name in ("#timeline", "#said", "#traces", "#previous", "#sensitivity"):
            box = shown.page.locator(name).bounding_box()
            assert box, name
            assert box["y"] >= 0, name
            assert box["y"] + box["height"] <= 844, name  # and the scale bar is on the canvas of the traces
        assert shown.value("kagglehms.scale().px") > 10
        texts = shown.assert_legible(390)
    assert {"Fp1–F7", "1 s", "models", "left", "seizure"} <= set(texts)
    assert len(texts) > 60


HOSTILE = (
    "</script><script>window.hurt=1</script>\x1b[31m\u202egnp.eeg\udcff<img src=x onerror='window.hurt=1'>"
)


def test_hostile_names_are_shown_and_do_nothing(chromium: Chromium, tmp_path: Path) -> None:
    name = HOSTILE.replace("/", "∕")  # what a file can be called
    found = of_array(UV[: 60 * 200], name=f"folder of a patient/{name}")
    hostile = RecordingPrediction(*(
        (HOSTILE,) if field in ("mapping", "notes") else getattr(found, field)
        for field in RecordingPrediction.__dataclass_fields__
    ))  # fmt: skip
    text = timeline_page(hostile)
    assert "folder of a patient" not in text
    assert not set("\x1b\u202e\udcff") & set(text)
    (tmp_path / "hostile.html").write_text(text)
    with opened(chromium, tmp_path / "hostile.html") as shown:
        heading = shown.page.locator("h1").inner_text()
        assert heading.startswith("<∕script><script>window.hurt=1<∕script>\\x1b[31m\\u202egnp.eeg\\udcff<img")
        assert shown.value("window.hurt === undefined")
        assert shown.page.locator("pre").count() == 2


def test_what_has_no_common_reference_is_only_shown_bipolar(tmp_path: Path) -> None:
    pairs = [d for d in DERIVATIONS if d.minus]
    rows = [UV[:, CHANNELS.index(d.plus)] - UV[:, CHANNELS.index(str(d.minus))] for d in pairs]
    path = write_edf(tmp_path / "b.edf", rows, [f"{d.plus}-{d.minus}" for d in pairs], [200] * 18)
    content = content_of(timeline_page(judged(path)))
    assert content["remedy"] == "repeat the command with --stretch {from}-{to}"
    assert content["montage_names"] == ["bipolar"]
    assert [trace["label"] for trace in content["montages"]["bipolar"]] == [d.label for d in pairs]
    labels = [f"{name}-{'A1' if name[-1] in '1357z' else 'A2'}" for name in CHANNELS[:19]]
    ears = write_edf(tmp_path / "e.edf", list(UV[:, :19].T), labels, [200] * 19)
    content = content_of(timeline_page(judged(ears)))
    assert content["montage_names"] == ["bipolar"]
    assert len(content["montages"]["bipolar"]) == 18
    one = content_of(timeline_page(of_array(UV)))
    assert one["montage_names"] == ["bipolar", "average", "referential"]


def test_windows_of_the_page_are_those_of_the_table(page: Path) -> None:
    windows = content_of(page.read_text())["windows"]
    probabilities = np.frombuffer(base64.b64decode(windows["probabilities"]), "<u2").reshape(-1, 6)
    assert (probabilities[0] == 65_535).all()
    assert probabilities[9].tolist() == [300, 8000, 300, 200, 200, 1000]
    starts = np.frombuffer(base64.b64decode(windows["start_s"]), "<f8")
    np.testing.assert_array_equal(starts, 10.0 * np.arange(18))
    assert base64.b64decode(windows["flags"]["edge"])[0] == 1


@pytest.mark.slow(20)
def test_a_page_of_hours_fits_and_says_what_it_lacks(chromium: Chromium, tmp_path: Path) -> None:
    day = judged(Steady(UV, 18_000))
    day.probabilities[500] = [0.0, 0.0, 0.99, 0.0, 0.0, 0.01]
    write_timeline(day, tmp_path / "day.html")
    assert (tmp_path / "day.html").stat().st_size <= MOST_BYTES
    content = content_of((tmp_path / "day.html").read_text())
    kept = set(content["signal"]["kept"])
    assert len(kept) * 30 > 3600  # an hour at the least
    assert {4_980 // 30, 5_029 // 30} <= kept
    lacking = next(n for n in range(60, 600) if not {n - 1, n, n + 1} & kept)
    with opened(chromium, tmp_path / "day.html", f"#t={30 * lacking + 5}&page=20") as shown:
        words = shown.page.locator("#words").inner_text()
        stretch = re.search(
            r"write_timeline with stretch_s=\((\d+), (\d+)\)", words
        )  # no file, so no command
        assert stretch
        first, last = map(float, stretch.groups())
        assert first <= 30 * lacking < last
        assert np.isnan(drawn(shown)[2]).all()
        shown.page.get_by_role("button", name="signal after").click()
        shown.page.wait_for_function(IDLE)
        assert int((state(shown)["t"] + 10) // 30) in kept
        assert np.isfinite(drawn(shown)[2]).all()
        assert not shown.page.locator("#words").is_visible()
    write_timeline(day, tmp_path / "part.html", (first, last))
    content = content_of((tmp_path / "part.html").read_text())
    assert content["signal"]["kept"] == list(range(int(first) // 30, int(last) // 30))
    assert content["signal"]["hz"] == 200
    assert content["start"] == {"stop": None, "t": first}


def test_stretches_are_read_and_refused() -> None:
    assert stretch_of("3:20:00-3:40:00") == (12_000, 13_200)
    assert stretch_of("20:00-21:30.5") == (1200, 1290.5)
    assert stretch_of("600-660") == (600, 660)
    assert stretch_text((12_000, 13_200)) == "3:20:00-3:40:00"
    for text in ("", "3:20", "5-4", "a-b", "1:2:3:4-5:0:0:0", "-5-10"):
        with pytest.raises(UsageError, match="is no stretch"):
            stretch_of(text)
    with pytest.raises(UsageError, match="has no stretch 1:00:00-2:00:00"):
        timeline_page(of_array(UV), (3600, 7200))
    lost = replace(of_array(UV), electrodes=None)
    with pytest.raises(UsageError, match="without its signal"):
        timeline_page(lost)
