"""The feed: batches of records, drawn by threads.

Threads, not worker processes: drawing an input releases the GIL, the recordings are memory-mapped and need not be
copied to other processes, and there is no state that a fork would duplicate. One thread prepares a batch and lets
the others draw its inputs; a few batches are kept ready.

Shape legend: B batch, C channel (plane or signal), H image rows, W image columns.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from kagglehms.data.records import Records, Windows
from kagglehms.data.workers import in_advance
from kagglehms.environment import available_cpus
from kagglehms.inputs.crops import Recordings, Window, cut
from kagglehms.inputs.drawing import draw
from kagglehms.inputs.kinds import Input
from kagglehms.inputs.layouts import Normaliser
from kagglehms.training.batches import Batch, empty_images, split
from kagglehms.training.feed_draws import FeedDraws, Work
from kagglehms.training.options import PseudoLabels
from kagglehms.training.pseudo_labels import Predictions, pseudo_targets

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_BESIDE_GPU = 4
"""Largest number of threads that draw beside a GPU."""

T = TypeVar("T")

ImageAugmenter = Callable[["NDArray[np.float32]", int, int, int], "NDArray[np.float32]"]
"""(image, seed, epoch, record) → image, such as `albumentations_adapter.AlbumentationsAdapter`."""


@dataclass(frozen=True, slots=True)
class _Drawing:
    """One input to draw: the window, whether to mirror it, its band-pass in Hz, and the array to fill."""

    window: Window
    mirror: bool
    band_hz: tuple[float, float] | None
    out: NDArray[np.float32]


class Feed:
    """Draws batches of labelled records.

    Args:
        recordings: source of the recordings.
        records: all records; a batch consists of positions in them.
        layout: input to draw.
        normaliser: statistics for tiles that are normalised globally.
        augmenter: function that is applied to every training image, in the thread that draws it.
        seed: seed of everything random in the feed.
        threads: number of inputs drawn at a time; by default that of `drawing_threads`.
        pin: whether to put batches into page-locked memory, from which a GPU copies without the CPU.
        windows: which window represents a record, see `data.records.Windows`.
        teachers: predictions that pseudo labels are made from.
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
        teachers: Predictions | None = None,
    ) -> None:
        self.recordings = recordings
        self.records = records
        self.layout = layout
        self.normaliser = normaliser
        self.augmenter = augmenter
        self.seed = seed
        self.threads = threads or drawing_threads(available_cpus(), beside_gpu=pin)
        self.pin = pin
        self._draws = FeedDraws(records, seed, windows)
        self._teachers = teachers or {}
        self._targets: dict[PseudoLabels | None, Tensor] = {}
        self._n_votes_N = torch.from_numpy(records.n_votes)

    def batches(self, order: NDArray[np.integer], batch_size: int) -> Generator[Batch]:
        """Yield records without augmentation, divided into batches by `batches.split`.

        Args:
            order: positions of the records.
            batch_size: largest number of records in a batch.
        """
        return self.draw(map(Work, split(order, batch_size)))

    def draw(self, work: Iterable[Work], ready: int = 2) -> Generator[Batch]:
        """Yield one batch for each item of `work`.

        Args:
            work: the batches to draw.
            ready: number of batches that are drawn ahead of the one in use.
        """
        with ThreadPoolExecutor(self.threads, "draw") as pool, ThreadPoolExecutor(1, "batch") as filler:
            yield from in_advance((filler.submit(self._fill, item, pool) for item in work), ready)

    def _fill(self, work: Work, pool: ThreadPoolExecutor) -> Batch:
        index, draws = work.index, self._draws
        images_BCHW = empty_images((len(index), *self.layout.array_shape), self.pin)
        epoch = work.epoch if work.augment else None
        places = zip(index, *draws.starts(work), draws.shifts_s(work), strict=True)
        windows = (Window(int(at), int(row), int(sample), float(s)) for at, row, sample, s in places)
        mirrored = draws.mirrored(work).tolist()
        drawings = map(_Drawing, windows, mirrored, draws.bands_hz(work), images_BCHW.numpy())
        # All threads share one iterator and take the next input when they have finished one, so that a batch costs as
        # many tasks as there are threads, not as there are inputs.
        shared = _Shared(drawings)
        list(pool.map(self._draw_some, repeat(shared, self.threads), repeat(epoch, self.threads)))
        index_B = torch.from_numpy(np.asarray(index, dtype=np.int64))
        targets_NK = self._targets_of(work.labels)
        return Batch(images_BCHW, targets_NK[index_B], self._n_votes_N[index_B], index_B)

    def _targets_of(self, labels: PseudoLabels | None) -> Tensor:
        """Return the (N, 6) float32 targets of all records: vote fractions or pseudo labels."""
        if labels not in self._targets:
            targets_NK = (
                self.records.targets_NK
                if labels is None
                else pseudo_targets(self.records, labels, self._teachers)
            )
            self._targets[labels] = torch.from_numpy(targets_NK.astype(np.float32))
        return self._targets[labels]

    def _draw_some(self, drawings: Iterator[_Drawing], epoch: int | None) -> None:
        """Draw inputs until none are left."""
        for drawing in drawings:
            window, out = drawing.window, drawing.out
            crop = cut(self.recordings, self.records, window, self.layout.sources)
            draw(self.layout, crop, out, self.normaliser, drawing.mirror, drawing.band_hz)
            if self.augmenter and epoch is not None:
                out[0] = self.augmenter(out[0], self.seed, epoch, window.position)


class _Shared(Iterator[T]):
    """An iterator that several threads can take from."""

    def __init__(self, items: Iterable[T]) -> None:
        self._items, self._lock = iter(items), threading.Lock()

    def __next__(self) -> T:
        with self._lock:
            return next(self._items)


def drawing_threads(n_cpus: int, beside_gpu: bool) -> int:
    """Return the number of threads that draw inputs.

    Beside a GPU, one CPU is left to the loop that launches the GPU's work. Not more than `MOST_BESIDE_GPU` threads
    draw, since each sometimes holds the interpreter's lock, for which that loop would have to wait; as few as these
    draw thousands of images per second.

    Args:
        n_cpus: number of CPUs that this process may use.
        beside_gpu: whether a GPU trains on the inputs.
    """
    return max(1, min(MOST_BESIDE_GPU, n_cpus - 1)) if beside_gpu else n_cpus
