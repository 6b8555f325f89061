"""The page of a judged recording: what the models say all along it, and the EEG that they say it of."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np

from kagglehms.data.competition import SFREQ_HZ, SPECTROGRAM_ROWS, SPECTROGRAM_STEP_S
from kagglehms.errors import UsageError
from kagglehms.files import write_bytes
from kagglehms.recordings.channels import EKG, ELECTRODES, Montage
from kagglehms.recordings.electrodes import Electrodes
from kagglehms.recordings.results import RecordingPrediction
from kagglehms.recordings.spectrograms import Spectrograms
from kagglehms.recordings.stored import Span
from kagglehms.report.drawing import CLASS_NAMES
from kagglehms.report.paging import Paged, Spectrogram, Stop, Windows, hemispheres, montages, page
from kagglehms.report.signals import by_salience, count_blocks, pack, pack_stretch


def write_timeline(
    found: RecordingPrediction, path: Path | str, stretch_s: Span | None = None, threshold: float = 0.5
) -> None:
    """Write the timeline page of a recording: one HTML file of at most 15 MB that fetches nothing.

    Args:
        found: what a bundle says of the recording, as `predictor.predict_recording` returns it.
        path: file to write.
        stretch_s: first and last second of a stretch whose signal the page holds; None keeps the whole signal if it
            fits, else the stretches in which there is most to see.
        threshold: least probability of an event.

    Raises:
        UsageError: the stretch is not within the recording, or the recording is no longer at hand.
        RunError: the file cannot be written.
    """
    write_bytes(Path(path), timeline_page(found, stretch_s, threshold).encode())


def timeline_page(found: RecordingPrediction, stretch_s: Span | None = None, threshold: float = 0.5) -> str:
    """Return the timeline page of a recording; see `write_timeline`."""
    if found.electrodes is None:
        raise UsageError(f"{found.name}: without its signal there is no page; predict the recording again")
    electrodes = found.electrodes
    if stretch_s is not None and not 0 <= stretch_s[0] < min(stretch_s[1], found.duration_s):
        raise UsageError(
            f"{found.name} has no stretch {stretch_text(stretch_s)}; it is {clock(found.duration_s)} long"
        )
    windows = Windows(
        found.start_s, found.every_s, found.probabilities, found.spread, found.flags, who="probability"
    )
    stops = [
        Stop(
            event.onset_s + event.duration_s / 2,
            f"{clock(event.onset_s)} {_named(event.name, event.probability)}",
        )
        for event in found.events(threshold)
    ]
    paged = Paged(
        name=Path(found.name).name,
        about=f"{clock(found.duration_s)} long, judged every {found.every_s:g} s",
        signal=electrodes,
        montages=_montages(electrodes.montage),
        windows=windows,
        spectrogram=_spectrogram(electrodes),
        stops=stops,
        stop=0 if stops and stretch_s is None else None,
        start_s=stretch_s[0] if stretch_s else 0.0,
        remedy="repeat the command with --stretch {from}-{to}"
        if electrodes.recording.path
        else "call write_timeline with stretch_s=({from_s}, {to_s})",
        caveat=found.caveat[:1].upper() + found.caveat[1:],
        details=[("Channels", found.mapping), ("Notes", found.notes)],
    )
    if stretch_s is not None:
        return page(paged, partial(pack_stretch, electrodes, stretch_s))
    order = by_salience(found.start_s, found.probabilities, count_blocks(electrodes.n_times))
    return page(paged, partial(pack, electrodes, list(order)))


def _named(name: str, probability: float) -> str:
    shown = CLASS_NAMES.get(name, name)
    return f"{shown} {probability:.2f}" if np.isfinite(probability) else shown


def _montages(montage: Montage) -> dict[str, list[dict[str, object]]]:
    """Return the montages whose differences the recording knows."""
    references = {name: _reference(montage, name) for name in montage.paths if name != EKG}

    def comparable(plus: str, minus: str) -> bool:
        return (plus, minus) in montage.pairs or (
            references[plus] is not None and references[plus] == references[minus]
        )

    one_reference = len(set(references.values())) == 1 and None not in references.values()
    electrodes = [name for name in ELECTRODES if name in references]
    return montages(electrodes, comparable, one_reference, montage.ekg is not None)


def _reference(montage: Montage, name: str) -> str | None:
    """Return what an electrode was measured against; None if it is a sum of several channels."""
    path = montage.paths[name]
    if not path:
        return name
    return montage.leads[path[0][0]].minus if len(path) == 1 and path[0][1] > 0 else None


def _spectrogram(electrodes: Electrodes) -> Spectrogram:
    """Compute the spectrogram of the whole recording, ten minutes at a time."""
    spectrograms, step = Spectrograms(electrodes), SPECTROGRAM_STEP_S * SFREQ_HZ
    n_rows = -(-electrodes.n_times // step)
    rows = np.empty((n_rows, 2, 50), np.float32)
    for first in range(0, n_rows, SPECTROGRAM_ROWS):
        centre = (first + SPECTROGRAM_ROWS // 2) * step
        part = hemispheres(spectrograms.crop(centre)[0])[: n_rows - first]
        rows[first : first + len(part)] = part
    return Spectrogram(0.0, SPECTROGRAM_STEP_S, rows)


def clock(seconds: float) -> str:
    """Write a time of a recording as h:mm:ss."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def stretch_text(stretch_s: Span) -> str:
    """Write a stretch as it is typed, such as `3:20:00-3:40:00`."""
    return f"{clock(stretch_s[0])}-{clock(stretch_s[1])}"


def stretch_of(text: str) -> Span:
    """Read a stretch such as `3:20:00-3:40:00`, `20:00-21:30` or `600-660` (seconds).

    Raises:
        UsageError: the text is no stretch, or ends before it begins.
    """
    found = re.fullmatch(r"\s*([\d:.]+)\s*[-–]\s*([\d:.]+)\s*", text)
    times = [_seconds(part) for part in found.groups()] if found else [None]
    if None in times or times[0] >= times[1]:  # type: ignore[operator]
        raise UsageError(f"{text!r} is no stretch; write its first and last time, such as 3:20:00-3:40:00")
    return times[0], times[1]  # type: ignore[return-value]


def _seconds(text: str) -> float | None:
    parts = re.fullmatch(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?)", text)
    if not parts:
        return None
    hours, minutes, seconds = (float(part or 0) for part in parts.groups())
    return 3600 * hours + 60 * minutes + seconds
