"""Join neighbouring windows of one class into events: BIDS `events.tsv` with HED-SCORE terms, EDF+, MNE annotations.

HED-SCORE (library schema score 2.1.0, www.hedtags.org) has terms for seizures, for lateralized and generalized periodic
discharges, and one for rhythmic delta activity, which a label of the event's own class makes lateralized or
generalized. Every event is marked as a feature that a program computed.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kagglehms.data.competition import CLASSES, LABEL_S
from kagglehms.errors import UsageError, counted
from kagglehms.recordings.optional import edfio, mne

if TYPE_CHECKING:
    from numpy.typing import NDArray

HED_VERSION = "score_2.1.0"
_SCORE_TERMS = {
    "seizure": "Electroencephalographic-seizure",
    "lpd": "Lateralized-periodic-discharges",
    "gpd": "Generalized-periodic-discharges",
    "lrda": "Rhythmic-delta-activity",
    "grda": "Rhythmic-delta-activity",
}
ARTEFACT = "artefact"
_MEANINGS = {
    "seizure": "electrographic seizure",
    "lpd": "lateralized periodic discharges",
    "gpd": "generalized periodic discharges",
    "lrda": "lateralized rhythmic delta activity",
    "grda": "generalized rhythmic delta activity",
    ARTEFACT: "a stretch that is too large, too fast or too flat to be EEG, and in which no class makes an event",
}


class Event(NamedTuple):
    """A stretch of one kind.

    Attributes:
        onset_s: seconds from the recording's first sample to the event's.
        duration_s: length in seconds.
        name: one of the five classes that are patterns, or `artefact`.
        probability: mean probability of the class over the windows of the event; NaN for an artefact.
    """

    onset_s: float
    duration_s: float
    name: str
    probability: float

    @property
    def hed(self) -> str:
        """The event in terms of HED-SCORE."""
        if self.name == ARTEFACT:
            return "Data-feature, (Computed-feature, Label/Kagglehms_artefact), Data-artifact"
        return f"Data-feature, (Computed-feature, Label/Kagglehms_{self.name}), {_SCORE_TERMS[self.name]}"


@dataclass(frozen=True)
class Windows:
    """The windows that events are made from.

    Attributes:
        start_s: (N,) first judged second of each window.
        every_s: seconds from one window to the next.
        duration_s: length of the recording in seconds.
        probabilities: (N, 6) probabilities in the order of `competition.CLASSES`; NaN for a window that was not judged.
        spoilt: (N,) whether a window shows artefacts or flat lines.
    """

    start_s: NDArray[np.float64]
    every_s: float
    duration_s: float
    probabilities: NDArray[np.float64]
    spoilt: NDArray[np.bool_]


def find_events(windows: Windows, threshold: float = 0.5) -> list[Event]:
    """Join neighbouring windows with the same likeliest class into events.

    Args:
        windows: windows of a recording.
        threshold: least probability of the likeliest class; `other` makes no event.

    Returns:
        Events in the order of their onsets. Spoilt windows without an event of a class make artefacts. An event ends
        with the judged seconds of its last window, or where those of the next window begin if that is earlier.

    Raises:
        UsageError: the threshold is not a probability.
    """
    check_threshold(threshold)
    names = []
    for row, spoilt in zip(windows.probabilities, windows.spoilt, strict=True):
        best = int(np.argmax(row)) if np.isfinite(row).all() else CLASSES.index("other")
        likely = CLASSES[best] != "other" and row[best] >= threshold
        names.append(CLASSES[best] if likely else ARTEFACT if spoilt else "")
    return _joined(windows, names)


def check_threshold(threshold: float) -> None:
    """Refuse a threshold that is not a probability.

    Raises:
        UsageError: the threshold is below 0 or above 1.
    """
    if not 0 <= threshold <= 1:
        raise UsageError(f"the threshold of events must be a probability, but got {threshold!r}")


def _joined(windows: Windows, names: Sequence[str]) -> list[Event]:
    start_s, events, first = windows.start_s, [], 0
    together_s = max(windows.every_s, LABEL_S) * 1.001
    for i in range(1, len(names) + 1):
        goes_on = i < len(names) and names[i] == names[first] and start_s[i] - start_s[i - 1] <= together_s
        if goes_on:
            continue
        if names[first]:
            end_s = min(float(start_s[i - 1]) + LABEL_S, windows.duration_s)
            if i < len(names):
                end_s = min(end_s, float(start_s[i]))
            events.append(_event(windows, names[first], first, i, end_s))
        first = i
    return events


def _event(windows: Windows, name: str, first: int, stop: int, end_s: float) -> Event:
    onset_s = float(windows.start_s[first])
    probability = np.nan
    if name != ARTEFACT:
        probability = float(windows.probabilities[first:stop, CLASSES.index(name)].mean())
    return Event(onset_s, end_s - onset_s, name, probability)


def to_tsv(events: Sequence[Event]) -> bytes:
    """Write events as BIDS specifies: onset, duration, trial_type, probability, HED; `n/a` for missing values."""
    lines = ["onset\tduration\ttrial_type\tprobability\tHED"]
    for event in events:
        probability = f"{event.probability:.3f}" if np.isfinite(event.probability) else "n/a"
        times = f"{seconds_text(event.onset_s)}\t{seconds_text(event.duration_s)}"
        lines.append(f"{times}\t{event.name}\t{probability}\t{event.hed}")
    return ("\n".join(lines) + "\n").encode()


def seconds_text(seconds: float) -> str:
    """Write a time in seconds to the millisecond, however many hours it is, without zeros that say nothing."""
    return f"{round(seconds, 3):.12g}"


def sidecar(threshold: float) -> dict[str, Any]:
    """Describe the columns of `events.tsv` for the JSON file beside it."""
    return {
        "onset": {
            "Description": "Beginning of the event from the first sample of the recording",
            "Units": "s",
        },
        "duration": {"Description": "Length of the event", "Units": "s"},
        "trial_type": {
            "Description": "The likeliest of six classes by models of kagglehms where its probability is at least "
            f"{threshold:g}; for research only, not a medical device",
            "Levels": _MEANINGS,
        },
        "probability": {"Description": "Mean probability of the class over the windows of the event"},
    }


def dataset_description(version: str) -> dict[str, Any]:
    """Return the description that BIDS requires of a folder of derived files."""
    return {
        "Name": "Predictions by kagglehms",
        "BIDSVersion": "1.10.0",
        "HEDVersion": HED_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "kagglehms", "Version": version}],
    }


def to_edf(events: Sequence[Event]) -> bytes:
    """Write events as an EDF+ file with annotations only, without a patient or a date.

    The first annotation, without a duration, explains the others, so that a recording without events has a valid file.
    """
    library = edfio()
    about = library.EdfAnnotation(0, None, f"{counted(len(events), 'event')} by kagglehms, for research only")
    annotations = [library.EdfAnnotation(event.onset_s, event.duration_s, _text(event)) for event in events]
    content = io.BytesIO()
    library.Edf([], annotations=[about, *annotations]).write(content)
    return content.getvalue()


def to_mne(events: Sequence[Event], raw: Any = None) -> Any:
    """Return events as MNE `Annotations`.

    The class is the description; the probability is among the `extras`, which MNE has from version 1.11 on.

    Args:
        events: events of a recording.
        raw: the recording as an object of MNE's, to whose annotations the events can be added; if it has a date, onsets
            count from that date, as those of its own annotations do, else from its first sample.
    """
    library = mne()
    date = None if raw is None else raw.info["meas_date"]
    first_s = 0.0 if date is None else raw.first_samp / float(raw.info["sfreq"])
    annotations = library.Annotations(
        [first_s + event.onset_s for event in events],
        [event.duration_s for event in events],
        [_text(event) for event in events],
        orig_time=date,
    )
    if hasattr(annotations, "extras"):
        annotations.extras = [
            {"probability": event.probability} if np.isfinite(event.probability) else {} for event in events
        ]
    return annotations


def _text(event: Event) -> str:
    """The class alone, by which programs group events; artefacts begin with BAD, which MNE leaves out of analyses."""
    return "BAD_artefact" if event.name == ARTEFACT else event.name
