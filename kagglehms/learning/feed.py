"""Records → batches of images, by threads.

Threads and not worker processes: drawing an image releases the GIL, the recordings are memory-mapped and need no
copying to anybody, and there is no augmentation state to be duplicated by a fork. One thread looks after a batch
and lets the others draw its images; a few batches are kept ready.

Shape legend: B batch, C channel (one), H image rows, W image columns, K the six classes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from kagglehms.data.competition import N_TIMES, PANELS, SPECTROGRAM_ROWS
from kagglehms.data.records import Records
from kagglehms.features.images import (
    PANEL_SHAPES,
    Crop,
    Layout,
    Normaliser,
    Source,
    draw_source,
    render,
)
from kagglehms.runtime import available_cpus

if TYPE_CHECKING:
    from numpy.typing import NDArray


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
        images_BCHW: float32.
        targets_BK: float32 vote fractions.
        n_votes_B: int64.
        index_B: which records they are (positions in the feed's records).
    """

    images_BCHW: Tensor
    targets_BK: Tensor
    n_votes_B: Tensor
    index_B: Tensor

    def to(self, device: torch.device) -> Batch:
        """Copy to `device`, asynchronously where the batch lies in pinned memory."""
        parts = (self.images_BCHW, self.targets_BK, self.n_votes_B, self.index_B)
        return Batch(*(part.to(device, non_blocking=True) for part in parts))


class Feed:
    """Draws batches of labelled records.

    Args:
        recordings: where the records' recordings come from.
        records: all records; batches are made of positions in them.
        layout: what to draw.
        normaliser: statistics for tiles that are normalised globally.
        augmenter: applied to every training image, by the thread that draws it.
        seed: of the augmenter.
        threads: images drawn at a time; all available CPUs when None.
        pin: put batches into page-locked memory, from which a GPU can copy by itself.
    """

    def __init__(
        self,
        recordings: Recordings,
        records: Records,
        layout: Layout,
        normaliser: Normaliser | None = None,
        augmenter: ImageAugmenter | None = None,
        seed: int = 0,
        threads: int | None = None,
        pin: bool = False,
    ) -> None:
        self.recordings = recordings
        self.records = records
        self.layout = layout
        self.normaliser = normaliser
        self.augmenter = augmenter
        self.seed = seed
        self.threads = threads or available_cpus()
        self.pin = pin
        self._targets_NK = torch.from_numpy(records.targets_NK.astype(np.float32))
        self._n_votes_N = torch.from_numpy(records.n_votes)

    def batches(
        self, order: NDArray[np.integer], batch_size: int, ready: int = 2, epoch: int | None = None
    ) -> Iterator[Batch]:
        """Yield the records at positions `order`, `batch_size` at a time; the last batch may be smaller.

        Args:
            order: positions, each drawn once per occurrence.
            batch_size: records per batch.
            ready: batches drawn ahead of the one in use.
            epoch: of training, for the augmenter; None for evaluation, which does without.
        """
        chunks = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        with ThreadPoolExecutor(self.threads, "draw") as pool, ThreadPoolExecutor(1, "batch") as filler:
            pending: deque[Future[Batch]] = deque()
            try:
                for chunk in chunks:
                    pending.append(filler.submit(self._fill, chunk, epoch, pool))
                    if len(pending) > ready:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()

    def _fill(self, index: NDArray[np.integer], epoch: int | None, pool: ThreadPoolExecutor) -> Batch:
        images_BCHW = torch.empty((len(index), 1, *self.layout.shape), pin_memory=self.pin)
        list(pool.map(self._draw, index.tolist(), images_BCHW.numpy()[:, 0], repeat(epoch)))
        index_B = torch.from_numpy(np.asarray(index, dtype=np.int64))
        return Batch(images_BCHW, self._targets_NK[index_B], self._n_votes_N[index_B], index_B)

    def _draw(self, position: int, out_HW: NDArray[np.float32], epoch: int | None) -> None:
        crop = crop_of(self.recordings, self.records, position, self.layout.sources)
        render(self.layout, crop, out_HW, self.normaliser)
        if self.augmenter and epoch is not None:
            out_HW[:] = self.augmenter(out_HW, self.seed, epoch, position)


def crop_of(recordings: Recordings, records: Records, position: int, sources: Collection[Source]) -> Crop:
    """Cut what `sources` need of the record at `position` out of its recordings; nothing is copied."""
    log_power = eeg_uv = None
    if "kaggle" in sources:
        row = int(records.spectrogram_rows[position])
        rows = recordings.spectrogram(int(records.spectrogram_ids[position]))
        log_power = rows[row : row + SPECTROGRAM_ROWS]
    if "eeg" in sources:
        sample = int(records.eeg_samples[position])
        eeg_uv = recordings.eeg(int(records.eeg_ids[position]))[sample : sample + N_TIMES]
    return Crop(log_power, eeg_uv)


def measure(
    recordings: Recordings, records: Records, positions: NDArray[np.integer], sources: Collection[Source]
) -> Normaliser:
    """Measure mean and standard deviation of the values that global normalisation will normalise.

    Args:
        recordings: where the records' recordings come from.
        records: all records.
        positions: the training records; no other may have a part in it.
        sources: whose panels to measure: log power, or mel images.

    Returns:
        For each source the mean and deviation over all pixels of all records; NaN are left out.
    """

    def sums(position: int, source: Source) -> tuple[int, float, float]:
        panels = np.empty((len(PANELS), *PANEL_SHAPES[source]), np.float32)
        draw_source(source, crop_of(recordings, records, position, {source}), panels)
        values = panels[np.isfinite(panels)].astype(np.float64)
        return len(values), float(values.sum()), float(values @ values)

    statistics: dict[Source, tuple[float, float]] = {}
    with ThreadPoolExecutor(available_cpus(), "measure") as pool:
        for source in sorted(sources):
            n, total, squares = np.sum(list(pool.map(sums, positions.tolist(), repeat(source))), axis=0)
            mean = total / n
            statistics[source] = (float(mean), float(np.sqrt(squares / n - mean**2)))
    return Normaliser(statistics)


def shuffled(positions: NDArray[np.integer], seed: int, epoch: int) -> NDArray[np.integer]:
    """Return `positions` in an order that depends on (seed, epoch) alone."""
    return np.random.default_rng((seed, epoch)).permutation(positions)
