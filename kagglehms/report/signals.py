"""The signal of a recording, packed for a page: which stretches of it, at which rate, in how many bytes.

A page holds the electrodes as they were recorded, against their common reference; montages and filters are computed in
the browser. Blocks of 30 s are rounded to whole steps, coded as differences from sample to sample and from electrode to
electrode, and deflated. What does not fit at 200 samples a second is kept at 100; of what does not fit even so, the
stretches that come first in the order given are kept.

Shape legend: T time, C the 20 channels, D the 18 derivations.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from kagglehms.data.competition import CHANNELS, CLASSES, LABEL_S, LEAD_S, SFREQ_HZ
from kagglehms.data.gaps import bridge
from kagglehms.report.montage import montage

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK_S = 30
"""Seconds of a block."""
MISSING = -32768
"""Number that marks a sample that was not recorded."""
_LARGEST = 32766
_LOW_PASS_HZ, _LOW_PASS_REACH = 42.0, 64
"""Of the filter before every second sample is dropped, and how many samples it looks at to either side."""
_PROBED = 8
"""Blocks after which it is judged whether all of them can fit."""
ENVELOPE_PER_OCTAVE = 16
"""Values of the envelope's logarithmic scale from one peak-to-peak voltage to twice as much."""
_MOST_ENVELOPE = 86_400
_BLOCKS_READ = 20


class Signal(Protocol):
    """Electrodes that can be read piece by piece, such as `recordings.electrodes.Electrodes`."""

    @property
    def n_times(self) -> int:
        """Samples at 200 Hz."""

    def read(self, first: int, stop: int) -> NDArray[np.float32]:
        """Return samples `first` … `stop` − 1, (n, 20) µV, NaN where nothing was recorded."""


@dataclass(frozen=True)
class Held:
    """An EEG in memory as a `Signal`.

    Attributes:
        eeg_uv: (n_times, 20) µV.
    """

    eeg_uv: NDArray[np.floating]

    @property
    def n_times(self) -> int:
        """Samples at 200 Hz."""
        return len(self.eeg_uv)

    def read(self, first: int, stop: int) -> NDArray[np.float32]:
        """Return samples `first` … `stop` − 1, NaN beyond the ends."""
        out = np.full((stop - first, len(CHANNELS)), np.nan, np.float32)
        low, high = max(first, 0), min(stop, self.n_times)
        if high > low:
            out[low - first : high - first] = self.eeg_uv[low:high]
        return out


class Form(NamedTuple):
    """The resolution at which samples are kept.

    Attributes:
        hz: sampling rate in Hz, 200 or 100.
        step_uv: size of a step in µV; values are rounded to the nearest step.
    """

    hz: int
    step_uv: float


FORMS = (Form(200, 0.5), Form(100, 1.0))
"""Finest first."""


@dataclass(frozen=True)
class Packed:
    """The signal of a recording, or stretches of it.

    Attributes:
        form: resolution of the samples.
        n_blocks: number of blocks of the recording.
        blocks: number → deflated samples, of the blocks that were kept; see `encoded`.
        empty: numbers of the blocks without any recorded sample, among those that were read.
    """

    form: Form
    n_blocks: int
    blocks: dict[int, bytes]
    empty: frozenset[int]

    @property
    def whole(self) -> bool:
        """Whether everything that was recorded is kept."""
        return len(self.blocks) + len(self.empty) == self.n_blocks


def pack(signal: Signal, order: Iterable[int], room: int) -> Packed:
    """Pack as much of a signal as fits, as finely as all of it fits.

    Args:
        signal: signal to pack.
        order: numbers of all its blocks, the most important first.
        room: number of bytes that may be used.

    Returns:
        The whole signal in the finest of `FORMS` that it fits in; else the first blocks of `order` in the last form.
    """
    n_blocks, order = count_blocks(signal.n_times), list(order)
    for form in FORMS[:-1]:
        packed = _filled(signal, order, form, room, n_blocks)
        if packed.whole:
            return packed
    return _filled(signal, order, FORMS[-1], room, None)


def pack_stretch(signal: Signal, span_s: tuple[float, float], room: int) -> Packed:
    """Pack all of one stretch, as finely as it fits; what does not fit is left out at its end."""
    inside = blocks_of(span_s, count_blocks(signal.n_times))
    for form in FORMS[:-1]:
        packed = _filled(signal, inside, form, room, len(inside))
        if len(packed.blocks) + len(packed.empty) == len(inside):
            return packed
    return _filled(signal, inside, FORMS[-1], room, None)


def _filled(signal: Signal, order: Sequence[int], form: Form, room: int, needed: int | None) -> Packed:
    """Keep blocks until the room is used up; end early once it is clear that `needed` blocks cannot fit."""
    n_blocks = count_blocks(signal.n_times)
    blocks: dict[int, bytes] = {}
    empty, used = set(), 0
    for number in order:
        uv_TC = _block(signal, number, form.hz)
        if not np.isfinite(uv_TC).any():
            empty.add(number)
            continue
        content = encoded(uv_TC, form.step_uv)
        used += len(content)
        hopeless = needed is not None and len(blocks) == _PROBED and used / _PROBED * needed > 1.5 * room
        if used > room or hopeless:
            break
        blocks[number] = content
    return Packed(form, n_blocks, blocks, frozenset(empty))


def count_blocks(n_times: int) -> int:
    """Return the number of blocks of a recording of so many samples at 200 Hz."""
    return -(-n_times // (BLOCK_S * SFREQ_HZ))


def blocks_of(span_s: tuple[float, float], n_blocks: int) -> list[int]:
    """Return the numbers of the blocks that a stretch touches, from its first to its last second."""
    first, last = (int(np.floor(t / BLOCK_S)) for t in (span_s[0], np.nextafter(span_s[1], 0)))
    return list(range(max(first, 0), min(last, n_blocks - 1) + 1))


def _block(signal: Signal, number: int, hz: int) -> NDArray[np.float32]:
    """(30 · hz, 20) µV; NaN behind the end of the recording."""
    first, stop = number * BLOCK_S * SFREQ_HZ, (number + 1) * BLOCK_S * SFREQ_HZ
    if hz == SFREQ_HZ:
        return signal.read(first, stop)
    return _halved(signal.read(first - _LOW_PASS_REACH, stop + _LOW_PASS_REACH))


def _halved(uv_TC: NDArray[np.float32]) -> NDArray[np.float32]:
    """Low-pass and drop every second sample, and the filter's reach at both ends."""
    from scipy.signal import firwin, oaconvolve

    bridged_TC = uv_TC.astype(np.float64)
    missing_TC = bridge(bridged_TC.T).T
    taps = firwin(2 * _LOW_PASS_REACH + 1, _LOW_PASS_HZ, fs=SFREQ_HZ)
    smooth_TC = oaconvolve(bridged_TC, taps[:, None], mode="valid", axes=0)
    smooth_TC[missing_TC[_LOW_PASS_REACH:-_LOW_PASS_REACH]] = np.nan
    return smooth_TC[:: SFREQ_HZ // FORMS[-1].hz].astype(np.float32)


def encoded(uv_TC: NDArray[np.floating], step_uv: float) -> bytes:
    """Encode a block.

    Args:
        uv_TC: (n, 20) µV, NaN where nothing was recorded.
        step_uv: size of a step; doubled for a channel as often as its range needs more than 16 bits.

    Returns:
        zlib's stream of 20 float32 offsets, 20 float32 steps, and (20, n) whole numbers of 16 bits, their lower bytes
        first, all little-endian. The numbers are steps from the offset, −32768 where nothing was recorded; coded as
        differences along time, then along channels, modulo 2¹⁶, and folded so that 0, −1, 1, −2 … are 0, 1, 2, 3 ….
    """
    n_channels = uv_TC.shape[1]
    offsets_C, steps_C = np.zeros(n_channels, "<f4"), np.full(n_channels, step_uv, "<f4")
    numbers_CT = np.full(uv_TC.T.shape, MISSING, np.int16)
    for c, uv_T in enumerate(uv_TC.T.astype(np.float64)):
        there = np.isfinite(uv_T)
        if there.any():
            offsets_C[c] = round(float(np.median(uv_T[there])) / step_uv) * step_uv
            far = float(np.abs(uv_T[there] - offsets_C[c]).max()) / _LARGEST
            while far > steps_C[c]:
                steps_C[c] *= 2
            numbers_CT[c, there] = np.round((uv_T[there] - offsets_C[c]) / steps_C[c])
    along_time = np.diff(numbers_CT, axis=1, prepend=np.int16(0))
    along_both = np.diff(along_time, axis=0, prepend=np.int16(0))
    folded = ((along_both << 1) ^ (along_both >> 15)).astype(np.uint16)
    planes = (folded & 255).astype(np.uint8), (folded >> 8).astype(np.uint8)
    return zlib.compress(
        b"".join([offsets_C.tobytes(), steps_C.tobytes(), *(p.tobytes() for p in planes)]), 9
    )


def by_salience(
    start_s: NDArray[np.float64], probabilities: NDArray[np.float64], n_blocks: int
) -> Iterator[int]:
    """Yield the numbers of all blocks, those first in which there is most to see.

    In turn: where each of the five harmful classes is most probable, where neighbouring windows differ most, and evenly
    spread stretches of everything; of each window the 50 s that models looked at.

    Args:
        start_s: (N,) first judged second of each window.
        probabilities: (N, 6) in the order of `competition.CLASSES`; NaN for a window that was not judged.
        n_blocks: blocks of the recording.
    """
    known = np.flatnonzero(np.isfinite(probabilities).all(axis=1))
    rows = probabilities[known]
    change = np.abs(np.diff(rows, axis=0, prepend=rows[:1])).sum(axis=1)
    harmful = [rows[:, CLASSES.index(name)] for name in CLASSES if name != "other"]
    lists = [start_s[known][np.argsort(-values, kind="stable")] for values in (*harmful, change)]
    seen = [
        [blocks_of((start - LEAD_S, start + LABEL_S + LEAD_S), n_blocks) for start in starts]
        for starts in lists
    ]
    spread = [[int(n)] for n in sorted(range(n_blocks), key=_scattered)]
    done: set[int] = set()
    for turn in range(max(len(known), n_blocks)):
        for groups in (*seen, spread):
            for number in groups[turn] if turn < len(groups) else ():
                if number not in done:
                    done.add(number)
                    yield number


def _scattered(number: int) -> int:
    """Return the bits of a number in reverse, which puts neighbours far apart."""
    return int(f"{number:032b}"[::-1], 2)


class Envelope(NamedTuple):
    """How large the derivations are, all along a recording.

    Attributes:
        step_s: seconds of a value.
        levels_DT: (18, n) uint8 peak-to-peak voltage: `ENVELOPE_PER_OCTAVE` · log₂(1 + µV); 255 where nothing was
            recorded.
    """

    step_s: int
    levels_DT: NDArray[np.uint8]


def envelope(signal: Signal) -> Envelope:
    """Measure the peak-to-peak voltage of the double banana's 18 derivations, second by second or a little coarser."""
    seconds = -(-signal.n_times // SFREQ_HZ)
    step_s = max(1, -(-seconds // _MOST_ENVELOPE))
    per = step_s * SFREQ_HZ
    n = -(-seconds // step_s)
    levels_DT = np.full((18, n), 255, np.uint8)
    at_once = max(1, _BLOCKS_READ * BLOCK_S // step_s)
    for first in range(0, n, at_once):
        stop = min(first + at_once, n)
        uv_DST = montage(signal.read(first * per, stop * per))[:18].reshape(18, stop - first, per)
        with np.errstate(invalid="ignore"):
            low, high = np.fmin.reduce(uv_DST, axis=2), np.fmax.reduce(uv_DST, axis=2)
        levels = np.round(ENVELOPE_PER_OCTAVE * np.log2(1 + high - low))
        levels_DT[:, first:stop] = np.where(np.isfinite(levels), np.clip(levels, 0, 254), 255).astype(
            np.uint8
        )
    return Envelope(step_s, levels_DT)
