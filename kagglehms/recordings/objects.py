"""Recordings in memory and those that MNE reads: frames, arrays with names, parquet files, MNE's `Raw`.

MNE is imported only if a file needs it: a `Raw` object is recognised by its attributes.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from math import ceil
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kagglehms.data.competition import SFREQ_HZ
from kagglehms.data.frames import as_frame, column, is_frame, numbers
from kagglehms.errors import DataError, UsageError, counted, first_line
from kagglehms.recordings.stored import NO_SCALE, Channel, Recording, Stretch, is_joint

if TYPE_CHECKING:
    from numpy.typing import NDArray

_VOLTS = 107
"""FIFF's code of the unit, `FIFF_UNIT_V`."""
_SKIPPED = "BAD_ACQ_SKIP"
"""Annotation of MNE where samples are missing."""
_JOINTS, _NEW_SEGMENT = ("EDGE BOUNDARY", "BAD BOUNDARY", "BOUNDARY"), "NEW SEGMENT/"
"""Annotations where two recordings were joined: MNE's own, EEGLAB's, and how each of BrainVision's begins, in capitals.
MNE leaves out the first of BrainVision's, which is the beginning of the file."""
_SAME_SAMPLE = 0.25
"""Share of a sample's period by which times of joints may be off; FIFF keeps them in single precision."""
_RATE_LIMIT = 1_000_000


def rate_of(sfreq_hz: float) -> Fraction:
    """Write a sampling rate as a fraction.

    Raises:
        UsageError: the rate is not a number above zero.
    """
    if not isinstance(sfreq_hz, Real) or not (np.isfinite(float(sfreq_hz)) and sfreq_hz > 0):
        raise UsageError(f"the sampling rate must be a number of Hz above zero, but got {sfreq_hz!r}")
    return Fraction(float(sfreq_hz)).limit_denominator(_RATE_LIMIT)


class ArrayRecording(Recording):
    """Channels in memory, all of one rate, in µV.

    Args:
        name: name of the recording in messages.
        labels: names of the channels.
        columns: one array of samples per channel; NaN where nothing was recorded.
        sfreq_hz: samples per second.
        path: file that the samples come from, if any.
        notes: remarks for the reader.
    """

    def __init__(
        self,
        name: str,
        labels: Sequence[str],
        columns: Sequence[NDArray[np.floating]],
        sfreq_hz: float,
        path: Path | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        n_times = len(columns[0]) if columns else 0
        self._columns = columns
        super().__init__(
            name,
            path,
            [Channel(label, 1) for label in labels],
            [Stretch(0.0, 0, n_times)],
            1 / rate_of(sfreq_hz),
            notes,
        )
        if not columns:
            raise self.refusal("none of its columns holds numbers", "give one column of numbers a channel")
        if not n_times:
            raise self.refusal("it holds no samples", "give a recording")

    def read(self, channels: Sequence[int], first: int, stop: int) -> list[NDArray[np.float64]]:
        """Read samples `first` … `stop` − 1; see `Recording.read`."""
        parts = [self._columns[channel][first:stop].astype(np.float64) for channel in channels]
        for part in parts:
            part[np.isinf(part)] = np.nan
        return parts


def read_parquet(path: Path) -> ArrayRecording:
    """Read a parquet file of the competition: µV, 200 samples a second, columns by name.

    Raises:
        DataError: the file cannot be read, or holds no numbers.
    """
    import polars as pl

    try:
        content = path.read_bytes()
        n_rows = pl.scan_parquet(io.BytesIO(content)).select(pl.len()).collect().item()
        # A few megabytes can unpack to more than there is: whether there is room is asked before anything is unpacked.
        np.empty((n_rows, len(pl.read_parquet_schema(io.BytesIO(content)))))
        frame = pl.read_parquet(io.BytesIO(content), use_statistics=False)
    except (MemoryError, ValueError) as error:  # NumPy's ValueError is of sizes that no machine has
        raise DataError(path, "does not fit into the memory that is left", "cut it into parts") from error
    except (pl.exceptions.PolarsError, OSError, pl.exceptions.PanicException) as error:
        reason = f"cannot be read ({first_line(error)})"
        raise DataError(path, reason, "it is empty, truncated or no parquet file") from error
    numeric = [values for values in frame if values.dtype.is_numeric()]
    labels = [values.name for values in numeric]
    columns = [numbers(f"{path}: column {values.name}", values.to_numpy()) for values in numeric]
    note = f"assumed to be in µV at {SFREQ_HZ} samples a second, as the competition's files are"
    return ArrayRecording(str(path), labels, columns, SFREQ_HZ, path, [note])


def from_frame(name: str, frame: Any, sfreq_hz: float | None) -> ArrayRecording:
    """Make a recording in µV from a pandas or polars frame, or from a NumPy array with named fields.

    Args:
        name: name of the frame in messages.
        frame: table with one column per channel; columns that hold no numbers are ignored.
        sfreq_hz: samples per second.

    Raises:
        UsageError: no rate was given, or no column could be a channel.
    """
    if sfreq_hz is None:
        raise UsageError(f"{name} does not say how many samples a second it has: give sfreq_hz=…")
    if is_frame(frame):
        table = as_frame(name, frame)
        wanted = [i for i, dtype in enumerate(table.schema.values()) if dtype.is_numeric()]
        labels = [str(table.columns[i]) for i in wanted]
        return ArrayRecording(name, labels, [column(name, table, i) for i in wanted], sfreq_hz)
    labels = [label for label in frame.dtype.names if frame.dtype[label].kind in "fiu"]
    columns = [numbers(f"{name}: column {label}", frame[label]) for label in labels]
    return ArrayRecording(name, labels, columns, sfreq_hz)


def from_array(name: str, values: Any, labels: Sequence[str], sfreq_hz: float | None) -> ArrayRecording:
    """Make a recording from (n_times, n_channels) µV and the names of the channels.

    Raises:
        UsageError: no rate was given, or the array has another shape.
    """
    if sfreq_hz is None:
        raise UsageError(f"{name} does not say how many samples a second it has: give sfreq_hz=…")
    array = numbers(name, values)
    if array.ndim != 2 or array.shape[1] != len(labels):
        turned = array.ndim == 2 and array.shape[0] == len(labels)
        raise UsageError(
            f"{name} must be (n_times, {len(labels)}), a column for each of its channels, but got {array.shape}"
            + ("; give its transpose" if turned else "")
        )
    return ArrayRecording(name, list(labels), list(array.T), sfreq_hz)


def is_raw(values: Any) -> bool:
    """Return whether a value is a `Raw` object of MNE, or has the same attributes."""
    return all(
        hasattr(values, name) for name in ("get_data", "ch_names", "info", "first_samp", "annotations")
    )


class RawRecording(Recording):
    """A `Raw` object of MNE, which is read in blocks and not changed.

    Stretches that are annotated as `BAD_ACQ_SKIP` hold no data, and parts that were joined (`EDGE boundary` of MNE,
    `boundary` of EEGLAB, `New Segment` of BrainVision) are kept apart. Channels in `info["bads"]` count as missing.

    Args:
        raw: object of MNE.
        name: name of the recording in messages.
        path: file that the object comes from, if any.
    """

    def __init__(self, raw: Any, name: str = "the Raw object", path: Path | None = None) -> None:
        self._raw = raw
        bads = [str(label) for label in raw.info["bads"]]
        kept = [i for i, label in enumerate(raw.ch_names) if label not in set(bads)]
        self._positions = kept
        channels = []
        for i in kept:
            volts = int(raw.info["chs"][i]["unit"]) == _VOLTS
            channels.append(
                Channel(str(raw.ch_names[i]), 1, "V" if volts else NO_SCALE, 1e6 if volts else None)
            )
        rate = rate_of(float(raw.info["sfreq"]))
        notes = [f"marked as bad and therefore missing: {', '.join(bads)}"] if bads else []
        stretches = _without_skips(raw, float(rate))
        joints = sum(is_joint(one, other, 1 / rate) for one, other in pairwise(stretches))
        interruptions = max(len(stretches) - 1, 0) - joints
        if interruptions:
            notes.append(f"it has {counted(interruptions, 'interruption')}, left as gaps")
        if joints:
            notes.append(
                f"it was joined of parts at {counted(joints, 'place')}, across which nothing is judged"
            )
        super().__init__(name, path, channels, stretches, 1 / rate, notes)
        if not stretches:
            raise self.refusal("it holds no samples", "give a recording")

    def read(self, channels: Sequence[int], first: int, stop: int) -> list[NDArray[np.float64]]:
        """Read samples `first` … `stop` − 1; see `Recording.read`."""
        if not channels or stop <= first:
            return [np.empty(0) for _ in channels]
        picks = [self._positions[channel] for channel in channels]
        data = self._raw.get_data(picks=picks, start=first, stop=stop, verbose="ERROR")
        data = np.array(data, dtype=np.float64)
        data[np.isinf(data)] = np.nan
        return list(data)


def _without_skips(raw: Any, rate_hz: float) -> list[Stretch]:
    """The parts of a `Raw` object that were recorded without interruption."""
    n_times = int(raw.n_times)
    first_time_s = raw.first_samp / rate_hz
    holes = []
    annotations = raw.annotations
    for onset, duration, text in zip(
        annotations.onset, annotations.duration, annotations.description, strict=True
    ):
        words, at = str(text).upper(), (float(onset) - first_time_s) * rate_hz
        if words.startswith(_SKIPPED):
            start, stop = round(at), round(at) + round(float(duration) * rate_hz)
        elif words in _JOINTS or words.startswith(_NEW_SEGMENT):
            start = stop = ceil(at - _SAME_SAMPLE)  # EEGLAB's stand half-way between two samples
        else:
            continue
        holes.append((min(max(start, 0), n_times), min(max(stop, 0), n_times)))
    stretches, at = [], 0
    for start, stop in [*sorted(holes), (n_times, n_times)]:
        if start > at:
            stretches.append(Stretch(at / rate_hz, at, start))
        at = max(at, stop)
    return stretches


def read_with_mne(path: Path) -> RawRecording:
    """Read a file of any format that MNE supports.

    Raises:
        DataError: MNE is not installed, or cannot read the file.
    """
    try:
        import mne
    except ModuleNotFoundError as error:
        raise DataError(
            path,
            "is not an EDF, BDF or parquet file, and MNE, which reads other formats, is not installed",
            "pip install 'kagglehms[mne]'",
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about filters and dates of files in general
            raw = mne.io.read_raw(path, preload=False, verbose="ERROR")
    except Exception as error:  # each of MNE's readers has errors of its own
        reason = f"is not a recording that MNE can read ({first_line(error)})"
        raise DataError(path, reason, "give EDF, BDF, parquet or a format of MNE") from error
    return RawRecording(raw, str(path), path)
