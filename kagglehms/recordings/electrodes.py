"""Read electrodes as models expect them, 20 columns in µV at 200 Hz, from any part of a recording.

Time 0 is the recording's first sample. Values are NaN where nothing was recorded: before the recording, after it,
between two stretches, and for missing electrodes. Only the requested part is kept in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from kagglehms.data.competition import CHANNELS, SFREQ_HZ
from kagglehms.data.units import deviation, doubt
from kagglehms.recordings.channels import EKG, Montage
from kagglehms.recordings.resampling import LEAST_RATE_HZ, MOST_RATE_HZ, Resampler
from kagglehms.recordings.stored import Recording, Stretch, is_joint

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PIECE_TIMES = 60 * SFREQ_HZ
"""Number of samples that are read and resampled at a time."""
_PROBES, _PROBE_TIMES = 24, 4 * SFREQ_HZ
"""Number and length of the stretches, spread over the recording, whose amplitudes and contradictions are checked."""
_LOOP_UV, _LOOP_SHARE = 2.0, 0.1
"""Largest disagreement, root mean square, of two sums for one difference: for rounding, or as a share of its size."""


class Electrodes:
    """Electrodes of a recording at 200 Hz.

    Args:
        recording: recording that is read.
        montage: electrodes as sums of its channels.

    Attributes:
        n_times: number of samples at 200 Hz from the first to the last, interruptions included.
        joints: first sample at 200 Hz of each stretch that no time is known to part from the one before.
        notes: doubts about single channels.

    Raises:
        DataError: channels of a file are sampled too slowly or impossibly fast, its amplitudes contradict its units,
            or its channels contradict one another.
        UsageError: the same is wrong with an object in memory.
    """

    def __init__(self, recording: Recording, montage: Montage) -> None:
        self.recording = recording
        self.montage = montage
        slow = [c for c in montage.channels if recording.rate_hz(c) <= LEAST_RATE_HZ]
        if slow:
            label, rate = recording.channels[slow[0]].label, float(recording.rate_hz(slow[0]))
            reason = f"{label} has {rate:g} samples a second, but models use frequencies up to 20 Hz"
            raise recording.refusal(reason, f"give a recording of more than {LEAST_RATE_HZ} Hz")
        fast = [c for c in montage.channels if recording.rate_hz(c) > MOST_RATE_HZ]
        if fast:
            label, rate = recording.channels[fast[0]].label, float(recording.rate_hz(fast[0]))
            raise recording.refusal(f"{label} has {rate:g} samples a second", "correct the sampling rate")
        self.notes: tuple[str, ...] = ()
        self._spans = self._placed()
        self.n_times = self._spans[-1][1]
        self.joints = self._joints()
        self._check()

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """First sample at 200 Hz of each stretch, and the sample after its last."""
        return tuple(self._spans)

    def read(self, first: int, stop: int) -> NDArray[np.float32]:
        """Read a part of the recording, which may extend beyond its ends.

        Args:
            first: first sample at 200 Hz.
            stop: sample after the last one.

        Returns:
            (stop − first, 20) float32 µV, columns as in `competition.CHANNELS`; NaN where nothing was recorded.
        """
        out = np.full((stop - first, len(CHANNELS)), np.nan, np.float32)
        for stretch, (begin, end) in zip(self.recording.stretches, self._spans, strict=True):
            low, high = max(first, begin), min(stop, end)
            for start in range(low, high, _PIECE_TIMES):
                until = min(start + _PIECE_TIMES, high)
                channels = self._channels(self.montage.channels, stretch, start - begin, until - begin)
                self._mix(channels, out[start - first : until - first])
        return out

    def _mix(self, channels: dict[int, NDArray[np.float64]], out: NDArray[np.float32]) -> None:
        for column, name in enumerate(CHANNELS):
            if name == EKG and self.montage.ekg is not None:
                out[:, column] = channels[self.montage.ekg.channel]
            elif name in self.montage.paths:
                path = self.montage.paths[name]
                reference = np.zeros(len(out)) if path or not channels else _zero_where_recorded(channels)
                out[:, column] = sum((sign * channels[c] for c, sign in path), reference)

    def _channels(
        self, positions: Sequence[int], stretch: Stretch, first: int, stop: int
    ) -> dict[int, NDArray[np.float64]]:
        """Samples `first` … `stop` − 1 of a stretch for each channel, in µV at 200 Hz."""
        recording = self.recording
        resamplers = {c: self._resampler(stretch, c) for c in positions}
        bounds = {}
        for c, resampler in resamplers.items():
            bounds[c] = resampler.needs(min(first, resampler.n_out), min(stop, resampler.n_out))
        per_unit = {c: recording.channels[c].samples_per_unit for c in positions}
        unit_low = min(bounds[c][0] // per_unit[c] for c in positions)
        unit_high = max(-(-bounds[c][1] // per_unit[c]) for c in positions)
        blocks = recording.read(positions, stretch.first + unit_low, stretch.first + unit_high)
        found = {}
        for c, block in zip(positions, blocks, strict=True):
            low, high = bounds[c]
            values = block[low - unit_low * per_unit[c] : high - unit_low * per_unit[c]]
            until = min(stop, resamplers[c].n_out)
            whole = np.full(stop - first, np.nan)
            if until > first:
                whole[: until - first] = resamplers[c](values, first, until)
            found[c] = whole * (recording.channels[c].to_uv or np.nan)
        return found

    def _resampler(self, stretch: Stretch, channel: int) -> Resampler:
        n_in = (stretch.stop - stretch.first) * self.recording.channels[channel].samples_per_unit
        return Resampler.of(self.recording.rate_hz(channel), n_in)

    def _placed(self) -> list[tuple[int, int]]:
        """The spans; one whose end is rounded up ends where the next begins."""
        spans = []
        for stretch in self.recording.stretches:
            begin = round(stretch.start_s * SFREQ_HZ)
            end = begin + max(self._resampler(stretch, c).n_out for c in self.montage.channels)
            spans.append((begin, end))
        nexts = [begin for begin, _ in spans[1:]]
        return [
            (begin, min(end, most)) for (begin, end), most in zip(spans, [*nexts, spans[-1][1]], strict=True)
        ]

    def _joints(self) -> tuple[int, ...]:
        """Return `joints`."""
        parts = pairwise(zip(self.recording.stretches, self._spans, strict=True))
        unit_s = self.recording.unit_s
        return tuple(begin for (one, _), (other, (begin, _)) in parts if is_joint(one, other, unit_s))

    def _check(self) -> None:
        """Refuse units that the amplitudes contradict, and channels that contradict one another."""
        recording = self.recording
        typical: dict[int, list[float]] = {c: [] for path in self.montage.paths.values() for c, _ in path}
        recorded: set[int] = set()
        squares = {lead: [0.0, 0.0, 0] for lead, _ in self.montage.loops}
        positions = tuple(sorted({*self.montage.channels, *self.montage.confirming}))
        for stretch, first, stop in self._probes():
            channels = self._channels(positions, stretch, first, stop)
            for c, sizes in typical.items():
                sizes.append(deviation(channels[c]))
                recorded |= {c} if np.isfinite(channels[c]).any() else set()
            for lead, way in self.montage.loops:
                other = sum((sign * channels[c] for c, sign in way), np.zeros(stop - first))
                both = np.isfinite(channels[lead]) & np.isfinite(other)
                own, gap = channels[lead][both], (channels[lead] - other)[both]
                if len(own):
                    squares[lead][0] += float(((gap - np.median(gap)) ** 2).sum())
                    squares[lead][1] += float(((own - np.median(own)) ** 2).sum())
                    squares[lead][2] += len(own)
        doubtful = doubt(size for sizes in typical.values() for size in sizes)
        if doubtful:
            units = sorted({recording.channels[c].unit.strip() or "none" for c in self.montage.channels})
            reason = f"{doubtful} (the unit given: {', '.join(units)})"
            raise recording.refusal(reason, "correct the unit, or give the values in µV")
        self._check_loops(squares)
        self.notes = tuple(
            f"{recording.channels[c].label} alone is doubtful: {reason}"
            for c, sizes in typical.items()
            if (reason := doubt(sizes))
        ) + tuple(f"{recording.channels[c].label} holds no values" for c in typical if c not in recorded)

    def _check_loops(self, squares: dict[int, list[float]]) -> None:
        for lead, (gap, own, n) in squares.items():
            if n and np.sqrt(gap / n) > max(_LOOP_UV, _LOOP_SHARE * np.sqrt(own / n)):
                label = self.recording.channels[lead].label
                way = dict(self.montage.loops)[lead]
                others = ", ".join(self.recording.channels[c].label for c, _ in way)
                reason = f"{label} contradicts {others or 'its label'}, which give the same difference"
                raise self.recording.refusal(reason, "leave out or rename the channel that is wrong")

    def _probes(self) -> Iterator[tuple[Stretch, int, int]]:
        """Yield stretches of a few seconds, spread over the recorded time."""
        lengths = [end - begin for begin, end in self._spans]
        total = sum(lengths)
        for k in range(_PROBES):
            at = int((k + 0.5) / _PROBES * total)
            for stretch, length in zip(self.recording.stretches, lengths, strict=True):
                if at < length:
                    first = max(0, min(at - _PROBE_TIMES // 2, length - _PROBE_TIMES))
                    yield stretch, first, min(first + _PROBE_TIMES, length)
                    break
                at -= length


def _zero_where_recorded(channels: dict[int, NDArray[np.float64]]) -> NDArray[np.float64]:
    """The potential of a reference: zero wherever a channel has a value, NaN elsewhere."""
    recorded = np.logical_or.reduce([np.isfinite(values) for values in channels.values()])
    return np.where(recorded, 0.0, np.nan)
