"""What the page on which EEGs are paged through is made of."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from kagglehms.data.competition import CHANNELS, DIFFERENCES, MIDLINE_DIFFERENCES
from kagglehms.report import paging
from kagglehms.report.paging import MOST_WINDOWS, Spectrogram, Windows, hemispheres, montages
from kagglehms.report.templating import visible


def test_a_hemisphere_is_the_mean_of_its_two_panels() -> None:
    rows = np.random.default_rng(0).normal(0, 2, (7, 400)).astype(np.float16)
    rows[3, :100] = np.nan  # LL
    rows[4, 100:200] = rows[4, 300:] = np.nan  # RL, RP
    found = hemispheres(rows)
    assert found.shape == (7, 2, 50)
    panels = rows.astype(float).reshape(7, 4, 100)
    assert found[0, 0, 20] == pytest.approx(panels[0, [0, 2], 40:42].mean(), abs=1e-5)
    assert found[0, 1, 49] == pytest.approx(panels[0, [1, 3], 98:].mean(), abs=1e-5)
    assert found[3, 0, 0] == pytest.approx(panels[3, 2, :2].mean(), abs=1e-5)
    assert np.isnan(found[4, 1]).all()
    assert np.isfinite(found[4, 0]).all()


def test_montages_have_the_traces_that_can_be_made() -> None:
    whole = montages()
    assert list(whole) == ["bipolar", "average", "referential"]
    pairs = {(CHANNELS[t["plus"]], CHANNELS[t["minus"]]) for t in whole["bipolar"][:-1]}
    assert pairs == {*DIFFERENCES, *MIDLINE_DIFFERENCES}
    assert [t["label"] for t in whole["referential"]] == [
        *("Fp1", "F3", "C3", "P3", "F7", "T3", "T5", "O1"), *("Fp2", "F4", "C4", "P4", "F8", "T4", "T6", "O2"),
        *("Fz", "Cz", "Pz", "EKG"),
    ]  # fmt: skip
    assert {t["minus"] for t in whole["average"][:-1]} == {"average"}
    few = montages(["Fp1", "F3", "Cz", "Pz"], has_ekg=False)
    assert [t["label"] for t in few["bipolar"]] == ["Fp1–F3", "Cz–Pz"]
    assert [t["label"] for t in few["average"]] == ["Fp1–av", "F3–av", "Cz–av", "Pz–av"]


def test_long_spectrograms_are_drawn_with_fewer_columns() -> None:
    power = np.zeros((10_000, 2, 50), np.float32)
    power[:, 0, 7] = 5  # a line a little below the fourth Hz, on the left
    power[9000:, 1] = np.nan
    shown = paging._spectrogram(Spectrogram(3.0, 2.0, power))
    assert (shown["n"], shown["column_s"], shown["first_s"]) == (3334, 6, 3)
    left, right = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(image.partition(",")[2]))))
        for image in shown["images"]
    )
    assert left.shape == right.shape == (50, 3334)
    assert (left[50 - 1 - 7] > 200).all()
    assert (left[50 - 1 - 8] < 50).all()
    assert (right[:, 3000:] == 255).all()  # grey
    assert (right[:, :3000] < 255).all()


def test_of_very_many_windows_some_are_shown() -> None:
    n = 2 * MOST_WINDOWS + 10
    shown = paging._windows(Windows(np.arange(n, dtype=float), 1.0, np.full((n, 6), 1 / 6)))
    assert shown["shown_of"] == 3
    assert shown["every_s"] == 3
    assert np.frombuffer(base64.b64decode(shown["start_s"]), "<f8")[:3].tolist() == [0, 3, 6]
    assert len(base64.b64decode(shown["probabilities"])) == 12 * shown["n"]


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("Fp1–F7 µV, Müller, 脳波", "Fp1–F7 µV, Müller, 脳波"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("\u202egnp", "\\u202egnp"),
        ("x\u2066y\u200e", "x\\u2066y\\u200e"),
        ("1\n2\u20283", "1\n2\\u20283"),
        ("\udcff", "\\udcff"),
        ("<b>&", "<b>&"),
    ],
)
def test_what_cannot_be_seen_is_spelt_out(text: str, seen: str) -> None:
    assert visible(text) == seen
