"""Windows → events → BIDS, EDF+ and MNE, read back by other programs."""

from __future__ import annotations

import io
import json

import edfio
import numpy as np
import polars as pl
import pytest

from kagglehms.data.competition import CLASSES
from kagglehms.errors import UsageError
from kagglehms.recordings.events import (
    HED_VERSION,
    Event,
    dataset_description,
    sidecar,
    to_edf,
    to_tsv,
)
from kagglehms.recordings.results import RecordingPrediction
from kagglehms.recordings.sliding import FLAGS

CODES = dict(zip("slgLGo", range(6), strict=True))
"""s, l, g, o, and capitals for the rhythmic ones."""


def predicted(
    text: str, every_s: float = 10.0, certain: float = 0.8, starts_s: list[float] | None = None
) -> RecordingPrediction:
    """A recording whose windows are of these classes; `.` is one that was not judged, `a` an artefact."""
    n = len(text)
    probabilities = np.full((n, 6), (1 - certain) / 5)
    for i, letter in enumerate(text):
        if letter in CODES:
            probabilities[i, CODES[letter]] = certain
        else:
            probabilities[i] = np.nan
    flags = {name: np.zeros(n, bool) for name in FLAGS}
    flags["artefact"] |= np.array([letter == "a" for letter in text])
    flags["edge"] |= np.array([letter == "." for letter in text])
    at = np.arange(n) * every_s if starts_s is None else np.array(starts_s)
    return RecordingPrediction(
        "x.edf", float(at[-1]) + 10, every_s, at, probabilities, np.full((n, 6), np.nan), flags,
        np.zeros(n, bool), np.full(n, np.nan),
    )  # fmt: skip


def spans(prediction: RecordingPrediction, threshold: float = 0.5) -> list[tuple[float, float, str]]:
    return [(e.onset_s, e.duration_s, e.name) for e in prediction.events(threshold)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("oossso", [(20, 30, "seizure")]),
        ("sslls", [(0, 20, "seizure"), (20, 20, "lpd"), (40, 10, "seizure")]),
        (".LL.GG", [(10, 20, "lrda"), (40, 20, "grda")]),
        ("sas", [(0, 10, "seizure"), (10, 10, "artefact"), (20, 10, "seizure")]),
        ("oooo", []),
        ("....", []),
        ("g", [(0, 10, "gpd")]),
    ],
)
def test_neighbours_of_one_class_are_one_event(text: str, expected: list[tuple[float, float, str]]) -> None:
    assert spans(predicted(text)) == expected


def test_overlapping_windows_end_where_the_next_kind_begins() -> None:
    assert spans(predicted("sssooo", every_s=2)) == [(0, 6, "seizure")]
    assert spans(predicted("ssssss", every_s=2)) == [(0, 20, "seizure")]


def test_windows_far_apart_are_not_joined() -> None:
    assert spans(predicted("ss", every_s=60)) == [
        (0, 70, "seizure")
    ]  # neighbours, if nobody looked in between
    assert spans(predicted("ss", starts_s=[0, 4000])) == [(0, 10, "seizure"), (4000, 10, "seizure")]


def test_the_threshold_decides() -> None:
    assert spans(predicted("ss", certain=0.6), 0.7) == []
    assert spans(predicted("ss", certain=0.6), 0.6) == [(0, 20, "seizure")]
    for threshold in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match="must be a probability"):
            predicted("s").events(threshold)


def test_bids_reads_its_columns() -> None:
    events = predicted("sslaoG").events()
    table = pl.read_csv(io.BytesIO(to_tsv(events)), separator="\t", null_values="n/a")
    assert table.columns == ["onset", "duration", "trial_type", "probability", "HED"]
    assert table["onset"].to_list() == [0, 20, 30, 50]
    assert table["trial_type"].to_list() == ["seizure", "lpd", "artefact", "grda"]
    assert table["probability"].to_list() == [0.8, 0.8, None, 0.8]
    levels = sidecar(0.5)["trial_type"]["Levels"]
    assert set(table["trial_type"]) <= set(levels)
    assert to_tsv([]).decode().splitlines() == ["onset\tduration\ttrial_type\tprobability\tHED"]


@pytest.mark.parametrize(
    "onset_s", [0.0, 0.005, 99999.5, 123457.5, 654321.125, 1234567.005, 86400.0, 1e5 / 3]
)
def test_times_of_long_recordings_keep_their_milliseconds(onset_s: float) -> None:
    """Ten days at steps of 5 ms, written as plain decimal numbers."""
    line = to_tsv([Event(onset_s, onset_s + 10.25, "lpd", 0.5)]).decode().splitlines()[1]
    onset, duration, *_ = line.split("\t")
    assert float(onset) == pytest.approx(onset_s, abs=5e-4, rel=0)
    assert float(duration) == pytest.approx(onset_s + 10.25, abs=5e-4, rel=0)
    assert not set(onset + duration) - set("0123456789.")
    assert not onset.endswith(".0")


def test_an_artefact_is_not_called_unjudged_where_it_was_judged() -> None:
    """Flagged windows are judged if the user asks; one whose likeliest class is `other` stays an artefact."""
    prediction = predicted("oso")
    prediction.flags["artefact"][:] = True
    assert spans(prediction) == [(0, 10, "artefact"), (10, 10, "seizure"), (20, 10, "artefact")]
    assert prediction.judged.all()
    meaning = sidecar(0.5)["trial_type"]["Levels"]["artefact"]
    assert "judged" not in meaning
    assert "no class makes an event" in meaning


def test_every_kind_has_its_term_of_hed_score() -> None:
    """Names as HED-SCORE 2.1.0 lists them below Episode, Interictal-activity and Critically-ill-patient-patterns."""
    terms = {
        "seizure": "Electroencephalographic-seizure",
        "lpd": "Lateralized-periodic-discharges",
        "gpd": "Generalized-periodic-discharges",
        "lrda": "Rhythmic-delta-activity",
        "grda": "Rhythmic-delta-activity",
        "artefact": "Data-artifact",
    }
    for name, term in terms.items():
        hed = Event(0, 10, name, 0.5).hed
        assert hed == f"Data-feature, (Computed-feature, Label/Kagglehms_{name}), {term}"
    assert dataset_description("1.0")["HEDVersion"] == HED_VERSION == "score_2.1.0"
    json.dumps(dataset_description("1.0"))


@pytest.mark.parametrize("n_events", [0, 3, 5000])
def test_annotations_are_read_back_by_edfio(n_events: int) -> None:
    events = [Event(10.0 * i + 0.5, 10.0, CLASSES[i % 5], 0.75) for i in range(n_events)]
    read = edfio.read_edf(to_edf(events))
    assert read.local_patient_identification == "X X X X"
    assert read.local_recording_identification == "Startdate X X X X"
    about, *annotations = read.annotations
    assert about == (0, None, f"{n_events:,} events by kagglehms, for research only")
    assert [(a.onset, a.duration) for a in annotations] == [(e.onset_s, e.duration_s) for e in events]
    assert [a.text for a in annotations] == [e.name for e in events]


@pytest.mark.parametrize("dated", [False, True])
@pytest.mark.parametrize("cropped_s", [0, 7.5])
def test_events_join_the_annotations_of_a_raw_object(dated: bool, cropped_s: float) -> None:
    """Where MNE itself then sees them, counted in samples of the data."""
    mne = pytest.importorskip("mne", reason="MNE is an extra")
    raw = mne.io.RawArray(np.zeros((1, 100 * 200)), mne.create_info(["C3"], 200, "eeg"), verbose="ERROR")
    if dated:
        raw.set_meas_date(1_600_000_000)
        raw.set_annotations(mne.Annotations([50], [1], ["eyes closed"], raw.info["meas_date"]))
    raw.crop(cropped_s)
    prediction = predicted("osslaG")
    raw.set_annotations(raw.annotations + prediction.to_mne_annotations(0.5, raw=raw))
    at, names = mne.events_from_annotations(raw, regexp=None, verbose="ERROR")
    texts = {number: text for text, number in names.items()}
    found = {texts[number]: (sample - raw.first_samp) / 200 for sample, _, number in at}
    own = {"eyes closed": 50 - cropped_s} if dated else {}
    assert found == pytest.approx({"seizure": 10, "lpd": 30, "BAD_artefact": 40, "grda": 50, **own})
    assert sorted(raw.annotations.duration) == [*[1] * dated, 10, 10, 10, 20]


def test_annotations_are_read_back_by_mne(tmp_path_factory: pytest.TempPathFactory) -> None:
    mne = pytest.importorskip("mne", reason="MNE is an extra")
    prediction = predicted("osslaG")
    path = tmp_path_factory.mktemp("mne") / "a.edf"
    path.write_bytes(to_edf(prediction.events()))
    read = mne.read_annotations(path)
    made = prediction.to_mne_annotations()
    assert isinstance(made, mne.Annotations)
    assert made.description.tolist() == ["seizure", "lpd", "BAD_artefact", "grda"]
    if hasattr(made, "extras"):  # from MNE 1.11 on
        assert [extra.get("probability") for extra in made.extras] == [0.8, 0.8, None, 0.8]
    assert made.onset.tolist() == [10, 30, 40, 50]
    assert read.description.tolist()[1:] == made.description.tolist()
    np.testing.assert_allclose(read.onset[1:], made.onset)
    np.testing.assert_allclose(read.duration[1:], made.duration)
