"""Predict every window of a recording of any kind and length with the models of a bundle.

Shape legend: B windows of a batch, N all windows, K the six classes, T time, C the 20 channels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from kagglehms.data.competition import CLASSES, LABEL_S, LEAD_S, N_TIMES, SFREQ_HZ, SPECTROGRAM_S, WINDOW_S
from kagglehms.data.readers import encode_eeg
from kagglehms.data.workers import in_advance
from kagglehms.errors import UsageError, counted
from kagglehms.inputs.layouts import Crop, Source
from kagglehms.progress import Watch
from kagglehms.recordings.channels import ELECTRODES, Montage, Pair, map_channels
from kagglehms.recordings.electrodes import Electrodes
from kagglehms.recordings.reading import open_recording
from kagglehms.recordings.results import Prediction, RecordingPrediction
from kagglehms.recordings.sliding import FLAGS, Flags, inspect_window, near_zero, window_starts
from kagglehms.recordings.spectrograms import Spectrograms

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK = 32
"""Number of windows that are read together, as neighbours share most of their samples."""
COARSE_UV = 2.0
"""Steps between stored values that are noted; usual ones are 0.02 to 0.5 µV, and an EEG has tens of µV."""
_BATCHES_AHEAD = 1
"""Number of batches that are read while models compute."""


class Judge(Protocol):
    """A judge of windows, such as the `Predictor` of a bundle."""

    @property
    def sources(self) -> frozenset[Source]:
        """Sources of the inputs of its models."""

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Differences of electrodes that its models use."""

    @property
    def at_once(self) -> int:
        """Number of windows that it judges best at a time."""

    @property
    def caveat(self) -> str:
        """Why its models are not fit to judge patients; empty if nothing shows it."""

    def judge(self, crops: Sequence[Crop]) -> Prediction:
        """Predict the classes of every crop."""


@dataclass(frozen=True)
class Options:
    """The options for judging a recording.

    Attributes:
        every_s: seconds from one window to the next.
        allow_missing: whether electrodes may be missing; their differences are then missing too.
        keep_flagged: whether flagged windows are judged as well, unless they are empty.
        rename: replacements for labels of the recording.
    """

    every_s: float = 10.0
    allow_missing: bool = False
    keep_flagged: bool = False
    rename: Mapping[str, str] | None = None


def predict_recording(
    judge: Judge,
    recording: Any,
    options: Options | None = None,
    *,
    sfreq_hz: float | None = None,
    channels: Sequence[str] | None = None,
    watch: Watch | None = None,
    told: Callable[[Montage], object] | None = None,
) -> RecordingPrediction:
    """Judge every window of a recording.

    Args:
        judge: judge of windows, such as the predictor of a bundle.
        recording: file or object; see `recordings.reading.open_recording`.
        options: options for the recording; None for the defaults.
        sfreq_hz: samples per second of a frame or an array.
        channels: names of an array's columns.
        watch: wrapper of the batches, such as a progress bar.
        told: function that is called with the mapping of the channels before anything is judged.

    Raises:
        DataError: a file cannot be used.
        UsageError: an object or an option cannot be used.
    """
    options = options or Options()
    electrodes = electrodes_of(judge, recording, options, sfreq_hz=sfreq_hz, channels=channels, told=told)
    starts = window_starts(electrodes.spans, options.every_s)
    walk = _Walk(electrodes, judge.sources, starts)
    batches = [starts[i : i + BLOCK] for i in range(0, len(starts), BLOCK)]
    judged = _Rows(len(starts))
    with ThreadPoolExecutor(1, "read") as reader:
        windows = in_advance((reader.submit(walk.batch, batch) for batch in batches), _BATCHES_AHEAD)
        for batch in windows if watch is None else watch(windows, len(batches)):
            judged.add(judge, batch, options.keep_flagged)
    return _result(electrodes, judge, options, starts, judged)


def electrodes_of(
    judge: Judge,
    recording: Any,
    options: Options,
    *,
    sfreq_hz: float | None = None,
    channels: Sequence[str] | None = None,
    told: Callable[[Montage], object] | None = None,
) -> Electrodes:
    """Open a recording and find its electrodes; see `predict_recording`."""
    opened = open_recording(recording, sfreq_hz, channels)
    montage = map_channels(opened, judge.pairs, options.allow_missing, options.rename)
    if told is not None:
        told(montage)
    return Electrodes(opened, montage)


@dataclass(frozen=True)
class _Window:
    """A window before it is judged."""

    crop: Crop
    flags: Flags
    spectrogram_share: float
    offset: bool


class _Walk:
    """The windows of a recording, read batch by batch."""

    def __init__(
        self, electrodes: Electrodes, sources: Collection[Source], starts: NDArray[np.int64]
    ) -> None:
        self._electrodes = electrodes
        self._sources = sources
        centre = int(starts[0]) + LABEL_S * SFREQ_HZ // 2 if len(starts) else 0
        self._spectrograms = Spectrograms(electrodes, centre)
        paths = electrodes.montage.paths
        self._measured = [name for name in ELECTRODES if len(paths.get(name, ())) == 1]

    def batch(self, starts: NDArray[np.int64]) -> list[_Window]:
        """Return the windows with these first judged samples; neighbours are read together."""
        low = int(starts[0]) - LEAD_S * SFREQ_HZ
        high = int(starts[-1]) - LEAD_S * SFREQ_HZ + N_TIMES
        if high - low > 2 * len(starts) * N_TIMES:  # an interruption of hours lies between them
            return [window for start in starts for window in self.batch(np.array([start]))]
        signal = self._electrodes.read(low, high)
        return [
            self._window(int(start), signal[int(start) - LEAD_S * SFREQ_HZ - low :][:N_TIMES])
            for start in starts
        ]

    def _window(self, start: int, uv_TC: NDArray[np.float32]) -> _Window:
        begin = start - LEAD_S * SFREQ_HZ
        inside = max(0, -begin), min(N_TIMES, self._electrodes.n_times - begin)
        joined = any(begin < joint < begin + N_TIMES for joint in self._electrodes.joints)
        flags = inspect_window(uv_TC, self._electrodes.montage.pairs, inside, self._measured, joined)
        near, offset = near_zero(uv_TC)
        log_power, share = None, np.nan
        if "kaggle" in self._sources:
            log_power, share = self._spectrograms.crop(start + LABEL_S * SFREQ_HZ // 2)
        eeg = encode_eeg(near) if "eeg" in self._sources else None
        return _Window(Crop(log_power, eeg), flags, share, offset)


class _Rows:
    """The rows of the result, filled batch by batch."""

    def __init__(self, n_windows: int) -> None:
        self.probabilities = np.full((n_windows, len(CLASSES)), np.nan)
        self.spread = np.full((n_windows, len(CLASSES)), np.nan)
        self.flags = {name: np.zeros(n_windows, bool) for name in FLAGS}
        self.from_fewer_models = np.zeros(n_windows, bool)
        self.spectrogram_share = np.full(n_windows, np.nan)
        self.offsets = 0
        self._at = 0

    def add(self, judge: Judge, windows: Sequence[_Window], keep_flagged: bool) -> None:
        rows = np.arange(self._at, self._at + len(windows))
        self._at += len(windows)
        for row, window in zip(rows, windows, strict=True):
            for name in FLAGS:
                self.flags[name][row] = getattr(window.flags, name)
            self.spectrogram_share[row] = window.spectrogram_share
            self.offsets += window.offset
        shown = [i for i, window in enumerate(windows) if keep_flagged or window.flags.clean]
        for i in range(0, len(shown), judge.at_once):
            some = shown[i : i + judge.at_once]
            self._add_judged(rows[some], judge.judge([windows[k].crop for k in some]))

    def _add_judged(self, rows: NDArray[np.int64], found: Prediction) -> None:
        good = ~found.from_prior  # an empty window has the prior, which would be a guess
        self.probabilities[rows[good]] = found.probabilities[good]
        self.spread[rows[good]] = found.spread[good]
        self.from_fewer_models[rows[good]] = found.from_fewer_models[good]


def _result(
    electrodes: Electrodes,
    judge: Judge,
    options: Options,
    starts: NDArray[np.int64],
    rows: _Rows,
) -> RecordingPrediction:
    recording, montage = electrodes.recording, electrodes.montage
    duration_s = electrodes.n_times / SFREQ_HZ
    notes = list(recording.notes)
    if any(not recording.channels[c].unit.strip() for c in montage.channels):
        notes.append("channels without a unit were assumed to be in µV, as their amplitudes suggest")
    notes += electrodes.notes
    summed = sorted({c for path in montage.paths.values() for c, _ in path})
    coarse = {c.label: c.step_uv for i in summed if (c := recording.channels[i]).step_uv > COARSE_UV}
    if coarse:
        notes.append(
            f"stored in steps of up to {max(coarse.values()):.3g} µV, which is coarse for an EEG: {', '.join(coarse)}"
        )
    if montage.lost:
        notes.append(
            f"{counted(len(montage.lost), 'difference')} of electrodes that the models use are missing"
        )
    if duration_s < WINDOW_S:
        notes.append(f"shorter than a window of {WINDOW_S} s")
    if "kaggle" in judge.sources and duration_s < SPECTROGRAM_S:
        notes.append("shorter than the ten minutes of spectrograms, which are therefore incomplete")
    if rows.offsets:
        notes.append(f"electrodes far from zero were moved to it in {counted(rows.offsets, 'window')}")
    return RecordingPrediction(
        recording.name,
        duration_s,
        options.every_s,
        starts / SFREQ_HZ,
        rows.probabilities,
        rows.spread,
        rows.flags,
        rows.from_fewer_models,
        rows.spectrogram_share,
        montage.lines,
        montage.missing,
        tuple(notes),
        electrodes,
        judge.caveat,
    )


def rename_of(words: Sequence[str]) -> dict[str, str]:
    """Read words of the form `LABEL=ELECTRODE`.

    Raises:
        UsageError: a word lacks its `=`, its label or its electrode.
    """
    found = {}
    for word in words:
        label, equals, name = word.rpartition("=")
        if not (equals and label and name):
            raise UsageError(f"{word!r} does not rename a channel; write LABEL=ELECTRODE, such as E22=Fp1")
        found[label] = name
    return found
