"""A recording of any kind and length → what a bundle's models say of every window.

Shape legend: B windows of a batch, N all windows, K the six classes, T time, C the 20 channels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from kagglehms.data.competition import CLASSES, LABEL_S, N_TIMES, SFREQ_HZ, WINDOW_S
from kagglehms.data.readers import encode_eeg
from kagglehms.errors import UsageError
from kagglehms.inputs.layouts import Crop, Source
from kagglehms.recordings.channels import ELECTRODES, Montage, Pair, map_channels
from kagglehms.recordings.electrodes import Electrodes
from kagglehms.recordings.reading import open_recording
from kagglehms.recordings.results import Prediction, RecordingPrediction
from kagglehms.recordings.sliding import FLAGS, LEAD_S, Flags, inspect_window, near_zero, window_starts
from kagglehms.recordings.spectrograms import Spectrograms
from kagglehms.recordings.stored import Recording

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK = 32
"""Windows that are read together, as neighbours share most of their samples."""
COARSE_UV = 2.0
"""Steps of stored samples that are noted; the usual ones are 0.02 to 0.5 µV, and an EEG has tens of µV."""
_BATCHES_AHEAD = 1
"""Batches that are read while models compute."""
Watch = Callable[[Iterable[Any], int], Iterable[Any]]
"""What is told of every batch and how many there are, such as a bar of progress."""


class Judge(Protocol):
    """Whoever judges windows: a bundle's `Predictor`."""

    @property
    def sources(self) -> frozenset[Source]:
        """Which recordings its models look at."""

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The differences of electrodes that its models look at."""

    @property
    def at_once(self) -> int:
        """How many windows it is best shown together."""

    def judge(self, crops: Sequence[Crop]) -> Prediction:
        """Say of each crop what the models see in it."""


@dataclass(frozen=True)
class Options:
    """How a recording is gone through.

    Attributes:
        every_s: seconds from one window to the next.
        allow_missing: whether to go on where electrodes are missing; their differences are then missing too.
        keep_flagged: whether flagged windows are judged as well, if there is anything to look at.
        rename: the recording's label → the name to read it by.
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
        judge: whoever judges, such as a bundle's predictor.
        recording: see `recordings.reading.open_recording`.
        options: how to go through it; the defaults of `Options` when None.
        sfreq_hz: samples per second of a frame or an array.
        channels: the names of an array's columns.
        watch: told of every batch.
        told: called with the mapping of the channels before anything is judged.

    Raises:
        DataError: a file that cannot be understood.
        UsageError: an object or an option that cannot be understood.
    """
    options = options or Options()
    opened = open_recording(recording, sfreq_hz, channels)
    montage = map_channels(opened, judge.pairs, options.allow_missing, options.rename)
    if told is not None:
        told(montage)
    electrodes = Electrodes(opened, montage)
    starts = window_starts(electrodes.spans, options.every_s)
    walk = _Walk(electrodes, judge.sources, starts)
    batches = [starts[i : i + BLOCK] for i in range(0, len(starts), BLOCK)]
    judged = _Rows(len(starts))
    with ThreadPoolExecutor(1, "read") as reader:
        windows = _ahead(reader, walk.batch, batches)
        for batch in windows if watch is None else watch(windows, len(batches)):
            judged.add(judge, batch, options.keep_flagged)
    return _result(opened, electrodes, judge.sources, options, starts, judged)


@dataclass(frozen=True)
class _Window:
    """A window before it is judged."""

    crop: Crop
    flags: Flags
    spectrogram_share: float
    offset: bool


class _Walk:
    """Cuts windows out of a recording."""

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
        """Return the windows whose first judged samples are these; neighbours are read in one go."""
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
        flags = inspect_window(uv_TC, self._electrodes.montage.pairs, inside, self._measured)
        near, offset = near_zero(uv_TC)
        log_power, share = None, np.nan
        if "kaggle" in self._sources:
            log_power, share = self._spectrograms.crop(start + LABEL_S * SFREQ_HZ // 2)
        eeg = encode_eeg(near) if "eeg" in self._sources else None
        return _Window(Crop(log_power, eeg), flags, share, offset)


class _Rows:
    """What has been said so far."""

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
        good = ~found.from_prior  # nothing was seen there, and the prior would be a guess
        self.probabilities[rows[good]] = found.probabilities[good]
        self.spread[rows[good]] = found.spread[good]
        self.from_fewer_models[rows[good]] = found.from_fewer_models[good]


def _ahead(
    reader: ThreadPoolExecutor,
    cut: Callable[[NDArray[np.int64]], list[_Window]],
    batches: Sequence[NDArray[np.int64]],
) -> Iterator[list[_Window]]:
    """Windows batch by batch, the next one read while this one is judged."""
    pending = [reader.submit(cut, batch) for batch in batches[:_BATCHES_AHEAD]]
    for i in range(len(batches)):
        if i + _BATCHES_AHEAD < len(batches):
            pending.append(reader.submit(cut, batches[i + _BATCHES_AHEAD]))
        yield pending.pop(0).result()


def _result(
    recording: Recording,
    electrodes: Electrodes,
    sources: Collection[Source],
    options: Options,
    starts: NDArray[np.int64],
    rows: _Rows,
) -> RecordingPrediction:
    montage = electrodes.montage
    duration_s = electrodes.n_times / SFREQ_HZ
    notes = list(recording.notes)
    if any(not recording.channels[c].unit.strip() for c in montage.channels):
        notes.append("channels without a unit were taken for µV, which their amplitudes do not contradict")
    notes += electrodes.notes
    summed = sorted({c for path in montage.paths.values() for c, _ in path})
    coarse = {c.label: c.step_uv for i in summed if (c := recording.channels[i]).step_uv > COARSE_UV}
    if coarse:
        notes.append(
            f"stored in steps of up to {max(coarse.values()):.3g} µV, large beside an EEG: {', '.join(coarse)}"
        )
    if montage.lost:
        notes.append(f"{len(montage.lost)} differences of electrodes that the models look at are missing")
    if duration_s < WINDOW_S:
        notes.append(f"shorter than the {WINDOW_S} s of a window")
    if "kaggle" in sources and duration_s < 600:
        notes.append("shorter than the ten minutes that spectrograms show: what is there was used")
    if rows.offsets:
        notes.append(f"electrodes far from zero were moved to it in {rows.offsets} window(s)")
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
    )


def rename_of(words: Sequence[str]) -> dict[str, str]:
    """Read `LABEL=ELECTRODE` words.

    Raises:
        UsageError: a word without `=`.
    """
    found = {}
    for word in words:
        label, equals, name = word.rpartition("=")
        if not (equals and label and name):
            raise UsageError(f"{word!r} renames nothing; write LABEL=ELECTRODE such as E22=Fp1")
        found[label] = name
    return found
