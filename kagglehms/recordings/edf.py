"""EDF, EDF+ and BDF files, decoded by edfio a block of data records at a time.

edfio maps an EDF file into memory, which counts towards the memory of the process, and reads a BDF file as a whole.
Here it receives the header followed by a few megabytes of data records, so that all files take the same memory.

Only those fields of the header are used that describe the signals. The fields about the patient and the recording are
blanked before anything else reads the header, so that they cannot appear in a result or a message.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kagglehms.data.units import microvolts
from kagglehms.errors import DataError, counted, first_line
from kagglehms.recordings.optional import edfio
from kagglehms.recordings.stored import NO_SCALE, Channel, Recording, Stretch

if TYPE_CHECKING:
    from numpy.typing import NDArray

EDF_MAGIC = b"0       "
BDF_MAGIC = b"\xffBIOSEMI"

_BLOCK_BYTES = 4 << 20
"""Size of the data records that edfio decodes at a time; it makes several copies of BDF's, four bytes per sample."""
_SAME_TIME_S = 0.005
"""How near to the end of a data record the next one must begin to continue it: one sample at 200 Hz."""
_LEAST_RECORD_S, _MOST_RECORD_S = Fraction(1, 1_000_000), 1_000_000
"""Limits beyond which the duration of a data record can only be an error in the header."""
_BROKEN = "copy or export it again"

_FIXED = {
    "header": (184, 8),
    "reserved": (192, 44),
    "records": (236, 8),
    "duration": (244, 8),
    "signals": (252, 4),
}
"""Offsets and lengths of those fields of the first 256 bytes that are used."""
_PRIVATE = slice(8, 184)
"""Bytes of the header about the patient, the recording, the date and the time."""
_OF_SIGNALS = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)
"""Lengths of the fields of a signal; fields of one kind stand together for all signals."""
_LABEL, _UNIT, _SAMPLES = 0, 2, 8
_NUMBERS = {
    3: "physical minimum",
    4: "physical maximum",
    5: "digital minimum",
    6: "digital maximum",
    8: "samples",
}
_ONSET = re.compile(rb"\s*([+-]\d+(?:\.\d*)?)[\x14\x15]")


class EdfRecording(Recording):
    """An EDF, EDF+ or BDF file.

    Args:
        path: path of the file.

    Raises:
        DataError: the file has another format, holds no signals, or has interruptions at times that it does not give.
    """

    def __init__(self, path: Path) -> None:
        header = _Header(path)
        self._header = header
        notes = list(header.notes)
        channels = []
        for position, label in enumerate(header.labels):
            if position in header.annotation_signals:
                continue
            unit = header.text(_UNIT, position)
            to_uv = microvolts(unit)
            step_uv = header.steps[position] * (to_uv or 0.0)
            channels.append(Channel(label, header.samples[position], unit, to_uv, step_uv))
        if not channels:
            raise DataError(path, "holds annotations and no signals", "give the file with the signals")
        super().__init__(str(path), path, channels, _stretches(header, notes), header.duration_s, notes)

    def read(self, channels: Sequence[int], first: int, stop: int) -> list[NDArray[np.float64]]:
        """Read data records `first` … `stop` − 1; see `Recording.read`."""
        parts: list[list[NDArray[np.float64]]] = [[] for _ in channels]
        step = max(1, _BLOCK_BYTES // self._header.record_bytes)
        for start in range(first, stop, step):
            signals = self._decode(start, min(start + step, stop))
            for part, channel in zip(parts, channels, strict=True):
                part.append(signals[channel].data)
        return [np.concatenate(part) if part else np.empty(0) for part in parts]

    def _decode(self, first: int, stop: int) -> Sequence[Any]:
        header = self._header
        try:
            with header.path.open("rb") as file:
                file.seek(header.data_at + first * header.record_bytes)
                data = file.read((stop - first) * header.record_bytes)
        except OSError as error:
            raise DataError(header.path, f"cannot be read ({error.strerror})", _BROKEN) from error
        if len(data) != (stop - first) * header.record_bytes:
            raise DataError(header.path, "became shorter while it was read", _BROKEN)
        return _decoded(header, data, stop - first)


def _decoded(header: _Header, data: bytes, n_records: int) -> Sequence[Any]:
    """The ordinary signals of some data records, decoded by edfio."""
    content = io.BytesIO(header.with_records(n_records) + data)
    read = edfio().read_bdf if header.is_bdf else edfio().read_edf
    return read(content, header_encoding=header.encoding).signals


class _Header:
    """The checked header of a file, without its fields about the patient.

    Raises:
        DataError: the header is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        try:
            with path.open("rb") as file:
                fixed = file.read(256)
                self.is_bdf = fixed.startswith(BDF_MAGIC)
                if len(fixed) < 256 or not (self.is_bdf or fixed.startswith(EDF_MAGIC)):
                    raise DataError(path, "is no EDF or BDF file, or broken in its first line", _BROKEN)
                self._fixed = bytearray(fixed)
                self._fixed[_PRIVATE] = b" " * (_PRIVATE.stop - _PRIVATE.start)
                self.n_signals = self._whole("signals", "the number of signals", least=1)
                self._signals = bytearray(file.read(256 * self.n_signals))
                size = file.seek(0, io.SEEK_END)
        except OSError as error:
            raise DataError(path, f"cannot be read ({error.strerror})", _BROKEN) from error
        if len(self._signals) < 256 * self.n_signals:
            raise DataError(path, "ends within its header", _BROKEN)
        self.encoding = _encoding(bytes(self._signals))
        self._mend_numbers()
        self.labels = [self.text(_LABEL, i) for i in range(self.n_signals)]
        self.samples = [self._samples(i) for i in range(self.n_signals)]
        self.annotation_signals = [
            i for i, label in enumerate(self.labels) if label in {"EDF Annotations", "BDF Annotations"}
        ]
        self.sample_bytes = 3 if self.is_bdf else 2
        self.steps = [0.0] * self.n_signals
        self._check_scales()
        self._name_for_edfio()
        self.record_bytes = self.sample_bytes * sum(self.samples)
        self.data_at = self._whole("header", "the length of the header", least=256)
        if self.data_at != 256 * (self.n_signals + 1):
            raise DataError(path, "its header is not as long as it says", _BROKEN)
        self.duration_s = self._duration()
        self.n_records = self._n_records(size - self.data_at)

    @property
    def discontinuous(self) -> bool:
        """Whether the file says that it has interruptions."""
        return self._field("reserved")[:5] in {b"EDF+D", b"BDF+D"}

    def text(self, kind: int, signal: int) -> str:
        """Return a signal's field of one kind, without the spaces around it."""
        text = self._signal_field(kind, signal).decode(self.encoding, errors="replace")
        return text.replace("\0", " ").strip()

    def with_records(self, n_records: int) -> bytes:
        """Return the header that edfio needs for a file of so many data records."""
        fixed = bytearray(self._fixed)
        fixed[236:244] = str(n_records).encode().ljust(8)
        return bytes(fixed + self._signals)

    def _field(self, name: str) -> bytes:
        at, length = _FIXED[name]
        return bytes(self._fixed[at : at + length])

    def _slot(self, kind: int, signal: int) -> slice:
        length = _OF_SIGNALS[kind]
        at = sum(_OF_SIGNALS[:kind]) * self.n_signals + length * signal
        return slice(at, at + length)

    def _signal_field(self, kind: int, signal: int) -> bytes:
        return bytes(self._signals[self._slot(kind, signal)])

    def _whole(self, name: str, what: str, least: int) -> int:
        try:
            value = int(self._field(name).strip(b" \0"))
        except ValueError as error:
            raise DataError(self.path, f"{what} in its header is no whole number", _BROKEN) from error
        if value < least:
            raise DataError(self.path, f"{what} in its header is {value}", _BROKEN)
        return value

    def _duration(self) -> Fraction:
        text = self._field("duration").strip(b" \0").replace(b",", b".").decode("latin-1")
        try:
            duration = Fraction(Decimal(text))
        except (InvalidOperation, ValueError, OverflowError) as error:
            raise DataError(
                self.path, "the duration of a data record in its header is no number", _BROKEN
            ) from error
        if not _LEAST_RECORD_S <= duration <= _MOST_RECORD_S:
            raise DataError(self.path, f"its data records last {text} s", "give the file with the signals")
        self._fixed[244:252] = text.encode().ljust(8)
        return duration

    def _mend_numbers(self) -> None:
        """Rewrite numbers for edfio: some programs write decimal commas, or 32767.0 for a whole number."""
        for kind, what in _NUMBERS.items():
            for signal in range(self.n_signals):
                slot = self._slot(kind, signal)
                text = bytes(self._signals[slot]).strip(b" \0").replace(b",", b".").decode("latin-1")
                try:
                    value = float(text)
                except ValueError as error:
                    reason = f"the {what} of signal {signal + 1} in its header is no number"
                    raise DataError(self.path, reason, _BROKEN) from error
                if kind in {5, 6, 8} and value.is_integer() and len(str(int(value))) <= _OF_SIGNALS[kind]:
                    text = str(int(value))
                self._signals[slot] = text.encode("latin-1").ljust(_OF_SIGNALS[kind])

    def _samples(self, signal: int) -> int:
        text = self.text(_SAMPLES, signal)
        if not text.isdigit() or int(text) < 1:
            raise DataError(self.path, f"signal {signal + 1} has {text} samples a data record", _BROKEN)
        return int(text)

    def _check_scales(self) -> None:
        """Exclude signals without a usable scale from the voltages.

        A scale is unusable if a range is empty or not finite, or if the limits of the digital range are not whole
        numbers that fit into a sample. One above the largest sample is a common slip, and allowed.
        """
        most = 1 << 8 * self.sample_bytes - 1
        for signal in range(self.n_signals):
            if signal in self.annotation_signals:
                continue
            low, high = (float(self.text(kind, signal)) for kind in (3, 4))
            digital = [float(self.text(kind, signal)) for kind in (5, 6)]
            ranges = np.isfinite([low, high, *digital]).all() and low != high and digital[0] != digital[1]
            if ranges and all(abs(value) <= most and value.is_integer() for value in digital):
                self.steps[signal] = abs((high - low) / (digital[1] - digital[0]))
                continue
            self.notes.append(
                f"{self.labels[signal]} has no scale (a range in its header is empty or impossible)"
            )
            self._signals[self._slot(_UNIT, signal)] = NO_SCALE.encode().ljust(8)
            for kind, value in ((3, b"-1"), (4, b"1"), (5, b"-1"), (6, b"1")):
                self._signals[self._slot(kind, signal)] = value.ljust(8)

    def _name_for_edfio(self) -> None:
        """Give annotations the label that edfio expects, and blank all others, so that edfio sees the same signals."""
        own = b"BDF Annotations" if self.is_bdf else b"EDF Annotations"
        for signal in range(self.n_signals):
            label = own if signal in self.annotation_signals else b""
            self._signals[self._slot(_LABEL, signal)] = label.ljust(_OF_SIGNALS[_LABEL])

    def _n_records(self, data_bytes: int) -> int:
        """Count the complete data records of the file, whatever the header says."""
        said = self._whole("records", "the number of data records", least=-1)
        there, rest = divmod(data_bytes, self.record_bytes)
        if there < 1:
            raise DataError(self.path, "holds no complete data record", _BROKEN)
        if said not in {-1, there}:
            self.notes.append(f"its header announces {said} data records, but it holds {there}")
        if rest:
            self.notes.append("its last data record is incomplete and was left out")
        return there


def _encoding(header: bytes) -> str:
    try:
        header.decode("utf-8")
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8"


def _stretches(header: _Header, notes: list[str]) -> list[Stretch]:
    """Split a file where its data records do not continue one another, judged by their times."""
    if not header.annotation_signals:
        if header.discontinuous:
            reason = "has interruptions, but does not say when"
            raise DataError(header.path, reason, "export it as EDF+ with its times, or its parts one by one")
        return [Stretch(0.0, 0, header.n_records)]
    onsets_s = _onsets(header)
    unknown = np.isnan(onsets_s)
    if unknown.any():
        if header.discontinuous:
            reason = f"has interruptions, and its data record {int(unknown.argmax()) + 1} does not say when it begins"
            raise DataError(header.path, reason, "export it again, or its parts one by one")
        if unknown.all():
            return [Stretch(0.0, 0, header.n_records)]
        onsets_s = _continued(onsets_s, float(header.duration_s))
    lag_s = np.diff(onsets_s) - float(header.duration_s)
    if (lag_s < -_SAME_TIME_S).any():
        record = int((lag_s < -_SAME_TIME_S).argmax()) + 2
        raise DataError(
            header.path, f"data record {record} begins before the previous one has ended", _BROKEN
        )
    firsts = [0, *(np.flatnonzero(lag_s > _SAME_TIME_S) + 1).tolist()]
    if len(firsts) > 1:
        told = "" if header.discontinuous else ", although its header calls it continuous"
        notes.append(f"it has {counted(len(firsts) - 1, 'interruption')}{told}, left as gaps")
    stops = [*firsts[1:], header.n_records]
    return [Stretch(float(onsets_s[a] - onsets_s[0]), a, b) for a, b in zip(firsts, stops, strict=True)]


def _continued(onsets_s: NDArray[np.float64], duration_s: float) -> NDArray[np.float64]:
    """Let data records without a time continue the previous one; those before the first time lead up to it."""
    position = np.arange(len(onsets_s))
    known = np.isfinite(onsets_s)
    last_known = np.maximum.accumulate(np.where(known, position, int(known.argmax())))
    return onsets_s[last_known] + (position - last_known) * duration_s


def _onsets(header: _Header) -> NDArray[np.float64]:
    """The times in seconds at which data records begin; NaN where a record gives none."""
    signal = header.annotation_signals[0]
    at = header.sample_bytes * sum(header.samples[:signal])
    length = header.sample_bytes * header.samples[signal]
    onsets_s = np.full(header.n_records, np.nan)
    try:
        with header.path.open("rb", buffering=0) as file:
            for record in range(header.n_records):
                file.seek(header.data_at + record * header.record_bytes + at)
                found = _ONSET.match(file.read(length))
                if found:
                    onsets_s[record] = float(found[1])
    except OSError as error:
        raise DataError(header.path, f"cannot be read ({first_line(error)})", _BROKEN) from error
    return onsets_s
