"""Records → batches of images, by threads.

Threads and not worker processes: drawing an image releases the GIL, the recordings are memory-mapped and need no
copying to anybody, and there is no augmentation state to be duplicated by a fork. One thread looks after a batch
and lets the others draw its images; a few batches are kept ready.

Shape legend: B batch, C channel (plane or signal), H image rows, W image columns, K the six classes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from kagglehms.data.competition import N_TIMES, PANELS, SFREQ_HZ, SPECTROGRAM_ROWS, SPECTROGRAM_STEP_S
from kagglehms.data.records import Records, Windows
from kagglehms.data.workers import in_advance
from kagglehms.environment import available_cpus
from kagglehms.errors import RunError
from kagglehms.inputs.kinds import Input, draw
from kagglehms.inputs.layouts import PANEL_SHAPES, Crop, Normaliser, Source, draw_source
from kagglehms.progress import progress
from kagglehms.training.options import BandPass

if TYPE_CHECKING:
    from numpy.typing import NDArray


_WINDOWS, _MIRROR, _SHIFT = 1_000_002, 1_000_004, 1_000_005
_BAND, _LOW, _HIGH = 1_000_006, 1_000_007, 1_000_008
"""Third words of the seeds of sub-windows, mirroring, shifts and band-passes; augmentations use small ones (see
`augment`)."""

MOST_BESIDE_GPU = 4
"""Threads that draw beside a GPU at most."""

T = TypeVar("T")


class Recordings(Protocol):
    """Where decoded recordings come from; `data.store.Store` is one."""

    def spectrogram(self, spectrogram_id: int) -> NDArray[np.float16]: ...

    def eeg(self, eeg_id: int) -> NDArray[np.float16]: ...


ImageAugmenter = Callable[["NDArray[np.float32]", int, int, int], "NDArray[np.float32]"]
"""(image, seed, epoch, record) → image: what `albumentations_adapter` makes of a recipe's transforms."""


@dataclass(frozen=True)
class Batch:
    """What one step learns from.

    Attributes:
        images_BCHW: float32; (B, C, T) where the input is signals.
        targets_BK: float32 vote fractions.
        n_votes_B: int64; float32 once records have been mixed.
        index_B: which records they are (positions in the feed's records); always in main memory, since draws are
            made from it there.
    """

    images_BCHW: Tensor
    targets_BK: Tensor
    n_votes_B: Tensor
    index_B: Tensor

    def to(self, device: torch.device) -> Batch:
        """Copy all but `index_B` to `device`, asynchronously where the batch lies in pinned memory."""
        parts = (self.images_BCHW, self.targets_BK, self.n_votes_B)
        images_BCHW, targets_BK, n_votes_B = (part.to(device, non_blocking=True) for part in parts)
        return Batch(images_BCHW, targets_BK, n_votes_B, self.index_B)


@dataclass(frozen=True)
class Work:
    """One batch to be drawn.

    Attributes:
        index: positions of its records.
        epoch: of training, for augmenter and sub-windows; None for evaluation, which does without both.
        augment: whether the augmenter is applied.
        mirror: probability that left and right are swapped in a record, in training.
        shift_s: how far a record's window is moved at most along its recording, to either side, in training.
        band: the band-pass that signals go through before they are drawn, in training; None for none.
    """

    index: NDArray[np.integer]
    epoch: int | None = None
    augment: bool = True
    mirror: float = 0.0
    shift_s: float = 0.0
    band: BandPass | None = None


class _Shared(Iterator[T]):
    """An iterator that several threads take from."""

    def __init__(self, items: Iterable[T]) -> None:
        self._items, self._lock = iter(items), threading.Lock()

    def __next__(self) -> T:
        with self._lock:
            return next(self._items)


class Feed:
    """Draws batches of labelled records.

    Args:
        recordings: where the records' recordings come from.
        records: all records; batches are made of positions in them.
        layout: what to draw.
        normaliser: statistics for tiles that are normalised globally.
        augmenter: applied to every training image, by the thread that draws it.
        seed: of augmenter and sub-windows.
        threads: images drawn at a time; see `drawing_threads` when None.
        pin: put batches into page-locked memory, from which a GPU can copy by itself.
        windows: which sub-window stands for a record, see `data.records.Windows`.
    """

    def __init__(
        self,
        recordings: Recordings,
        records: Records,
        layout: Input,
        normaliser: Normaliser | None = None,
        augmenter: ImageAugmenter | None = None,
        seed: int = 0,
        threads: int | None = None,
        pin: bool = False,
        windows: Windows = "middle",
    ) -> None:
        self.recordings = recordings
        self.records = records
        self.layout = layout
        self.normaliser = normaliser
        self.augmenter = augmenter
        self.seed = seed
        self.threads = threads or drawing_threads(available_cpus(), beside_gpu=pin)
        self.pin = pin
        self.windows = windows
        self._places = records.places(windows)
        self._drawn: dict[int, tuple[int, NDArray[np.float64]]] = {}
        self._targets_NK = torch.from_numpy(records.targets_NK.astype(np.float32))
        self._n_votes_N = torch.from_numpy(records.n_votes)

    def batches(self, order: NDArray[np.integer], batch_size: int) -> Generator[Batch]:
        """Yield the records at positions `order` as `split` divides them, without augmentation."""
        return self.draw(map(Work, split(order, batch_size)))

    def draw(self, work: Iterable[Work], ready: int = 2) -> Generator[Batch]:
        """Yield one batch for each item of `work`, and draw `ready` batches ahead of the one in use."""
        with ThreadPoolExecutor(self.threads, "draw") as pool, ThreadPoolExecutor(1, "batch") as filler:
            yield from in_advance((filler.submit(self._fill, item, pool) for item in work), ready)

    def _fill(self, work: Work, pool: ThreadPoolExecutor) -> Batch:
        index = work.index
        images_BCHW = torch.empty((len(index), *self.layout.array_shape), pin_memory=self.pin)
        epoch = work.epoch if work.augment else None
        rows, samples = self._starts(work)
        mirror_B = self._mirrored(work)
        # One iterator for all threads: each takes the next image when it has finished one, and a batch costs as many
        # tasks as there are threads, not as there are images.
        images = zip(
            index.tolist(),
            rows.tolist(),
            samples.tolist(),
            mirror_B.tolist(),
            self._shifts(work).tolist(),
            self._bands(work),
            images_BCHW.numpy(),
            strict=True,
        )
        shared = _Shared(images)
        list(pool.map(self._draw_some, repeat(shared, self.threads), repeat(epoch, self.threads)))
        index_B = torch.from_numpy(np.asarray(index, dtype=np.int64))
        return Batch(images_BCHW, self._targets_NK[index_B], self._n_votes_N[index_B], index_B)

    def _starts(self, work: Work) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First spectrogram row and EEG sample of each record of a batch."""
        if self.windows != "random" or work.epoch is None:
            rows, samples = self._places
            return rows[work.index], samples[work.index]
        return self.records.starts(work.index, self._draws(_WINDOWS, work.epoch)[work.index])

    def _mirrored(self, work: Work) -> NDArray[np.bool_]:
        """(B,) whether left and right are swapped, by (seed, epoch, record)."""
        if not work.mirror or work.epoch is None:
            return np.zeros(len(work.index), dtype=np.bool_)
        return self._draws(_MIRROR, work.epoch)[work.index] < work.mirror

    def _shifts(self, work: Work) -> NDArray[np.float64]:
        """(B,) seconds by which windows are to be moved, by (seed, epoch, record)."""
        if not work.shift_s or work.epoch is None:
            return np.zeros(len(work.index))
        return (2 * self._draws(_SHIFT, work.epoch)[work.index] - 1) * work.shift_s

    def _bands(self, work: Work) -> list[tuple[float, float] | None]:
        """B band-passes in Hz, None where a record goes through none, by (seed, epoch, record)."""
        if work.band is None or work.epoch is None:
            return [None] * len(work.index)
        happens, low, high = (self._draws(word, work.epoch)[work.index] for word in (_BAND, _LOW, _HIGH))
        edges = zip(
            happens < work.band.probability,
            np.interp(low, (0, 1), work.band.low_hz),
            np.interp(high, (0, 1), work.band.high_hz),
            strict=True,
        )
        return [(float(low_hz), float(high_hz)) if filters else None for filters, low_hz, high_hz in edges]

    def _draws(self, word: int, epoch: int) -> NDArray[np.float64]:
        """Numbers of [0, 1) for all records at once: a generator for each would cost more than its number is worth."""
        drawn = self._drawn.get(word)
        if drawn is None or drawn[0] != epoch:
            rng = np.random.default_rng((self.seed, epoch, word))
            drawn = self._drawn[word] = epoch, rng.random(len(self.records))
        return drawn[1]

    def _draw_some(
        self,
        images: Iterator[tuple[int, int, int, bool, float, tuple[float, float] | None, NDArray[np.float32]]],
        epoch: int | None,
    ) -> None:
        for position, row, sample, mirror, shift_s, band_hz, out in images:
            crop = _crop(self.recordings, self.records, position, row, sample, self.layout.sources, shift_s)
            draw(self.layout, crop, out, self.normaliser, mirror, band_hz)
            if self.augmenter and epoch is not None:
                out[0] = self.augmenter(out[0], self.seed, epoch, position)


def drawing_threads(n_cpus: int, beside_gpu: bool) -> int:
    """How many threads draw images.

    Beside a GPU one CPU is left to the loop that launches its work, and no more than `MOST_BESIDE_GPU` threads draw:
    each also needs the interpreter's lock now and then, for which that loop would wait, and so few draw thousands of
    images a second.

    Args:
        n_cpus: CPUs that may be used.
        beside_gpu: whether a GPU learns from what is drawn.
    """
    return max(1, min(MOST_BESIDE_GPU, n_cpus - 1)) if beside_gpu else n_cpus


def crop_of(
    recordings: Recordings,
    records: Records,
    position: int,
    sources: Collection[Source],
    windows: Windows = "middle",
) -> Crop:
    """Cut what `sources` need of the window that stands for the record at `position`; nothing is copied."""
    rows, samples = records.places(windows)
    return _crop(recordings, records, position, int(rows[position]), int(samples[position]), sources)


def _crop(
    recordings: Recordings,
    records: Records,
    position: int,
    row: int,
    sample: int,
    sources: Collection[Source],
    shift_s: float = 0.0,
) -> Crop:
    """Cut a window that begins at `row` and `sample`, or `shift_s` later, as far as the recordings go."""
    log_power = eeg_uv = None
    if "eeg" in sources:
        eeg = recordings.eeg(int(records.eeg_ids[position]))
        start = _moved(sample, round(shift_s * SFREQ_HZ), len(eeg) - N_TIMES)
        shift_s = (start - sample) / SFREQ_HZ  # the spectrogram moves as far as the EEG could
        eeg_uv = eeg[start : start + N_TIMES]
    if "kaggle" in sources:
        rows = recordings.spectrogram(int(records.spectrogram_ids[position]))
        row = _moved(row, round(shift_s / SPECTROGRAM_STEP_S), len(rows) - SPECTROGRAM_ROWS)
        log_power = rows[row : row + SPECTROGRAM_ROWS]
    return Crop(log_power, eeg_uv)


def _moved(start: int, by: int, last: int) -> int:
    """`start` moved, no further than from 0 to `last`, and not at all where it already lies beyond."""
    return min(max(start + by, min(start, 0)), max(start, last)) if by else start


def measure(
    recordings: Recordings,
    records: Records,
    positions: NDArray[np.integer],
    sources: Collection[Source],
    windows: Windows = "middle",
) -> Normaliser:
    """Measure mean and standard deviation of the values that global normalisation will normalise.

    Both are means over records, of each record's own mean and deviation, as the source measured them: every record
    counts alike, and how much records differ from one another does not count at all.

    Args:
        recordings: where the records' recordings come from.
        records: all records.
        positions: the training records; no other may have a part in it.
        sources: whose panels to measure: log power, or mel images.
        windows: which sub-window stands for a record, see `data.records.Windows`.

    Returns:
        For each source the mean and deviation; NaN, and records without any value, are left out.

    Raises:
        RunError: no record has any value.
    """

    rows, samples = records.places(windows)

    def moments(position: int, source: Source) -> tuple[float, float]:
        panels = np.empty((len(PANELS), *PANEL_SHAPES[source]), np.float32)
        row, sample = int(rows[position]), int(samples[position])
        draw_source(source, _crop(recordings, records, position, row, sample, {source}), panels)
        values = panels[np.isfinite(panels)].astype(np.float64)
        return (float(values.mean()), float(values.std())) if len(values) else (np.nan, np.nan)

    statistics: dict[Source, tuple[float, float]] = {}
    with ThreadPoolExecutor(available_cpus(), "measure") as pool:
        for source in sorted(sources):
            measured = pool.map(moments, positions.tolist(), repeat(source))
            watched = progress(measured, len(positions), f"statistics of {source}")
            moments_N2 = np.array(list(watched))
            present = np.isfinite(moments_N2[:, 0])
            if not present.any():
                raise RunError(
                    f"none of {len(positions)} training records has a single {source} value, so there is nothing to "
                    "normalise by; look at the recordings with `kagglehms view`"
                )
            mean, std = moments_N2[present].mean(axis=0)
            statistics[source] = (float(mean), float(std))
    return Normaliser(statistics)


def split(order: NDArray[np.integer], batch_size: int) -> list[NDArray[np.integer]]:
    """Divide positions into batches of at most `batch_size`, as equal as can be.

    A last batch of one or two records would spoil the statistics of batch normalisation.
    """
    return np.array_split(order, -(-len(order) // batch_size)) if len(order) else []


def on_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Copy batches to `device`, each while the one before it is in use."""
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    ahead: tuple[Batch, torch.cuda.Event] | None = None
    for batch in batches:
        with torch.cuda.stream(stream):
            copied = batch.to(device), stream.record_event()
        if ahead:
            yield _arrived(*ahead)
        ahead = copied
    if ahead:
        yield _arrived(*ahead)


def _arrived(batch: Batch, copied: torch.cuda.Event) -> Batch:
    """Let the stream that computes, and not the CPU, wait until the batch has been copied."""
    current = torch.cuda.current_stream()
    current.wait_event(copied)
    for part in (batch.images_BCHW, batch.targets_BK, batch.n_votes_B):
        part.record_stream(current)  # or its memory might be given away while it is still in use
    return batch


def shuffled(positions: NDArray[np.integer], seed: int, epoch: int) -> NDArray[np.integer]:
    """Return `positions` in an order that depends on (seed, epoch) alone."""
    return np.random.default_rng((seed, epoch)).permutation(positions)
