"""Labels of all kinds → electrodes; graphs of channels → potentials, by hand and from known ones."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest

from kagglehms.data.competition import CHANNELS, DIFFERENCES, MIDLINE_DIFFERENCES
from kagglehms.errors import UsageError
from kagglehms.recordings.channels import (
    ELECTRODES,
    PAIRS,
    UNNAMED,
    Montage,
    electrode,
    map_channels,
    parse_label,
)
from kagglehms.recordings.objects import ArrayRecording
from kagglehms.recordings.stored import NO_SCALE, Channel

BANANA = [f"{a}-{b}" for a, b in DIFFERENCES]


def recording(labels: Sequence[str]) -> ArrayRecording:
    return ArrayRecording("the array", list(labels), [np.zeros(10)] * len(labels), 200)


def mapped(labels: Sequence[str], **more: object) -> Montage:
    return map_channels(recording(labels), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("Fp1", ("Fp1", UNNAMED)),
        ("FP1", ("Fp1", UNNAMED)),
        ("fp1.", ("Fp1", UNNAMED)),
        ("Fz", ("Fz", UNNAMED)),
        ("EEG Fp1-REF", ("Fp1", "REF")),
        ("EEG FP1-LE", ("Fp1", "LE")),
        ("EEG Fp1 - Ref", ("Fp1", "REF")),
        ("EEG_T3_AVG", ("T3", "AVG")),
        ("EEGC3-REF", ("C3", "REF")),
        ("Fp1-A2", ("Fp1", "A2")),
        ("Fp1-M1", ("Fp1", "M1")),
        ("Fp1-A1A2", ("Fp1", "A1A2")),
        ("POL F3", ("F3", UNNAMED)),
        ("T7", ("T3", UNNAMED)),
        ("T8-REF", ("T4", "REF")),
        ("P7", ("T5", UNNAMED)),
        ("p8", ("T6", UNNAMED)),
        ("Fp1-F7", ("Fp1", "F7")),
        ("FP1-F7", ("Fp1", "F7")),
        ("T7-P7", ("T3", "T5")),
        ("T8-P8-1", ("T4", "T6")),
        ("Fp1–F7", ("Fp1", "F7")),
        ("EEG FP1-F7", ("Fp1", "F7")),
        ("FP1F7", ("Fp1", "F7")),
        ("T3T5", ("T3", "T5")),
        ("C3-0", ("C3", UNNAMED)),
        ("O1 (uV)", ("O1", UNNAMED)),
        ("AF3", ("AF3", UNNAMED)),
        ("Cz-Ref1", ("Cz", "REF1")),
        ("F3:CPZ", ("F3", "CPz")),
    ],
)
def test_labels_are_understood(label: str, expected: tuple[str, str]) -> None:
    assert parse_label(label) == expected


NO_ELECTRODES = (
    "", "EEG", "Photic-REF", "EKG", "ECG1-ECG2", "EMG Chin", "Status", "X1", "Resp", "E22", "DC01", "SpO2", "Fp", "-",
    "PR",
)  # fmt: skip


@pytest.mark.parametrize("label", NO_ELECTRODES)
def test_what_names_no_electrode_is_none(label: str) -> None:
    assert parse_label(label) is None


def test_names_of_electrodes_are_those_of_the_competition() -> None:
    assert [electrode(name.upper()) for name in ELECTRODES] == list(ELECTRODES)
    assert electrode("Q1") is None


@pytest.mark.parametrize(
    "form", ["{}", "EEG {}-REF", "EEG {}-LE", "{}-A1A2", "{}-Avg", "POL {}", "{}-CPz", "EEG {}:Ref"]
)
def test_referential_files_are_taken_channel_by_channel(form: str) -> None:
    labels = [form.format(name.upper()) for name in reversed(CHANNELS)]
    montage = mapped(labels)
    for name in ELECTRODES:
        assert montage.paths[name] == ((labels.index(form.format(name.upper())), 1),)
    assert montage.ekg is not None
    assert montage.ekg.label == form.format("EKG")
    assert montage.missing == montage.lost == montage.unused == ()
    assert montage.pairs == PAIRS
    assert not montage.is_bipolar


def test_more_channels_than_needed_are_listed_as_unused() -> None:
    montage = mapped([*CHANNELS, "A1", "A2", "Photic", "EMG", "SpO2"])
    assert montage.unused == ("A1", "A2", "Photic", "EMG", "SpO2")
    assert "not used: A1, A2, Photic, EMG, SpO2" in montage.lines


def test_the_ears_of_either_side_cancel_within_their_side() -> None:
    left = [name for name in ELECTRODES if name[-1] in "13579"]
    labels = [f"{name}-{'A1' if name in left else 'A2'}" for name in ELECTRODES]
    assert mapped(labels).lost == ()


def test_ears_that_change_within_a_chain_do_not_cancel() -> None:
    labels = [f"{name}-{'A1' if name == 'T3' else 'A2'}" for name in ELECTRODES]
    with pytest.raises(UsageError, match="lacks T3: 2 of the 18 differences"):
        mapped(labels)
    montage = mapped(labels, allow_missing=True)
    assert montage.missing == ("T3",)
    assert set(montage.lost) == {("F7", "T3"), ("T3", "T5")}
    assert mapped([*labels, "A1-A2"]).lost == ()  # what is between the ears is known


def test_the_reference_itself_is_zero() -> None:
    labels = [f"{name}-Cz" for name in ELECTRODES if name != "Cz"]
    montage = mapped(labels)
    assert montage.paths["Cz"] == ()
    assert "Cz  = 0, the reference of the others" in montage.lines
    assert montage.lost == ()


def potentials(montage: Montage, values_C: np.ndarray) -> dict[str, float]:
    return {name: sum(sign * values_C[c] for c, sign in path) for name, path in montage.paths.items()}


@pytest.mark.parametrize(
    "labels",
    [
        [*BANANA, "Fz-Cz", "Cz-Pz"],
        [*reversed(BANANA), "Cz-Fz", "Pz-Cz"],
        ["F7-Fp1", *BANANA[1:], "Fz-Cz", "Cz-Pz"],
        [*BANANA, "Fz-Cz", "Cz-Pz", "T3-C3", "C3-Cz", "Cz-C4", "C4-T4"],
        [label.replace("T3", "T7").replace("T5", "P7").upper() for label in BANANA] + ["FZ-CZ", "CZ-PZ"],
    ],
    ids=["banana", "reversed", "one turned", "with a transverse chain", "10-10 in capitals"],
)
def test_every_difference_of_a_bipolar_file_is_that_of_the_potentials(labels: list[str]) -> None:
    """Channels made of known potentials: all differences that models look at must come out again."""
    truth = dict(zip(ELECTRODES, np.random.default_rng(0).normal(0, 50, 19), strict=True))
    values = np.array([truth[a] - truth[b] for a, b in map(parse_label, labels)])  # type: ignore[misc]
    montage = mapped(labels)
    found = potentials(montage, values)
    assert montage.pairs == PAIRS
    for a, b in PAIRS:
        assert found[a] - found[b] == pytest.approx(truth[a] - truth[b], abs=1e-9)
    assert montage.is_bipolar
    assert any("bipolar" in line for line in montage.lines)


def test_channels_that_confirm_others_are_known_as_such() -> None:
    labels = [*BANANA, "Fz-Cz", "Cz-Pz", "T8-P8"]
    montage = mapped(labels)
    truth = dict(zip(ELECTRODES, np.random.default_rng(0).normal(0, 50, 19), strict=True))
    values = np.array([truth[a] - truth[b] for a, b in map(parse_label, labels)])  # type: ignore[misc]
    assert (
        len(montage.loops) == 3
    )  # the two chains of either side meet at both ends, and T4-T6 is there twice
    for lead, way in montage.loops:
        assert values[lead] == pytest.approx(sum(sign * values[c] for c, sign in way), abs=1e-9)


def test_a_bipolar_file_without_one_of_a_loop_lacks_nothing() -> None:
    assert mapped([*BANANA[1:], "Fz-Cz", "Cz-Pz"]).lost == ()


def test_a_torn_chain_loses_as_little_as_can_be() -> None:
    """T3 is cut off, and with C3-P3 gone nothing connects the front of the left side with its back."""
    gone = {"F7-T3", "T3-T5", "C3-P3"}
    labels = [label for label in BANANA if label not in gone] + ["Fz-Cz", "Cz-Pz"]
    with pytest.raises(UsageError, match="lacks"):
        mapped(labels)
    montage = mapped(labels, allow_missing=True)
    assert set(montage.lost) >= {("F7", "T3"), ("T3", "T5"), ("C3", "P3")}
    assert len(montage.lost) == 4
    assert "T3" in montage.missing


def test_missing_electrodes_are_named_and_refused() -> None:
    labels = [name for name in CHANNELS if name not in {"T5", "O1"}]
    with pytest.raises(
        UsageError, match=r"the array: lacks T5, O1: 3 of the 18 differences .*--allow-missing"
    ):
        mapped(labels)
    montage = mapped(labels, allow_missing=True)
    assert montage.missing == ("T5", "O1")
    assert montage.lost == (("T3", "T5"), ("T5", "O1"), ("P3", "O1"))
    assert "T5  = missing" in montage.lines


def test_what_no_model_looks_at_may_be_missing() -> None:
    labels = [name for name in ELECTRODES if name not in {"Fz", "Cz", "Pz"}]
    montage = mapped(labels, pairs=DIFFERENCES)
    assert montage.lost == ()
    assert montage.missing == ("Fz", "Cz", "Pz")
    assert "EKG = missing; no model uses it" in montage.lines
    with pytest.raises(UsageError, match="lacks Fz, Cz, Pz: 2 of the 18"):
        mapped(labels, pairs=(*DIFFERENCES, *MIDLINE_DIFFERENCES))


@pytest.mark.parametrize("labels", [["A", "B"], ["Photic", "EKG"]])
def test_recordings_of_something_else_are_refused(labels: list[str]) -> None:
    with pytest.raises(UsageError, match="no channel has the name of an electrode; its channels: "):
        mapped(labels, allow_missing=True)


def test_nothing_to_look_at_is_refused_even_where_missing_is_allowed() -> None:
    with pytest.raises(UsageError, match="no difference is left"):
        mapped(["Fp1", "O2", "EKG"], allow_missing=True)


def test_labels_can_be_given_names() -> None:
    labels = [f"E{i}" for i in range(20)]
    rename = dict(zip(labels, CHANNELS, strict=True))
    montage = mapped(labels, rename=rename)
    assert montage.paths["O2"] == ((18, 1),)
    assert "Fp1 = E0" in montage.lines
    assert montage.ekg is not None
    with pytest.raises(UsageError, match="no channel 'E99' .*to rename"):
        mapped(labels, rename=rename | {"E99": "Fp1"})
    with pytest.raises(
        UsageError,
        match=r"no channel 'e3' \(did you mean 'E3'\?\), 'X' to rename; no electrode is named 'Fq1' \(did you mean 'F",
    ):
        mapped(labels, rename=rename | {"e3": "F3", "X": "C3", "E0": "Fq1"})


def test_an_electrode_in_another_unit_is_refused_by_name() -> None:
    made = recording(CHANNELS)
    made.channels = tuple(Channel(c.label, 1, "%", None) if c.label == "C3" else c for c in made.channels)
    with pytest.raises(UsageError, match="C3 is in '%', which is no voltage; .*--allow-missing"):
        map_channels(made)
    assert map_channels(made, allow_missing=True).missing == ("C3",)


def test_the_unit_of_what_no_model_looks_at_does_not_matter() -> None:
    made = recording(CHANNELS)
    made.channels = tuple(
        Channel(c.label, 1, NO_SCALE, None) if c.label in {"Fz", "EKG"} else c for c in made.channels
    )
    montage = map_channels(made, DIFFERENCES)
    assert (montage.missing, montage.lost, montage.ekg) == (("Fz",), (), None)
    with pytest.raises(UsageError, match="Fz has no scale"):
        map_channels(made, PAIRS)


def test_a_recording_of_no_voltages_is_refused_for_that() -> None:
    made = recording(CHANNELS)
    made.channels = tuple(Channel(c.label, 1, NO_SCALE, None) for c in made.channels)
    with pytest.raises(UsageError, match="Fp1 has no scale, or none in volts"):
        map_channels(made, allow_missing=True)


def test_a_slow_electrocardiogram_is_left_out() -> None:
    made = recording(CHANNELS)
    made.channels = tuple(Channel(c.label, 1 if c.label == "EKG" else 8) for c in made.channels)
    made.unit_s = Fraction(1, 25)
    assert map_channels(made).ekg is None
