"""Records → batches of images, by threads.

Threads and not worker processes: drawing an image releases the GIL, the recordings are memory-mapped and need no
copying to anybody, and there is no augmentation state to be duplicated by a fork. One thread looks after a batch
and lets the others draw its images; a few batches are kept ready.

Shape legend: B batch, C channel (one), H image rows, W image columns, K the six classes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from kagglehms.data.competition import SPECTROGRAM_ROWS
from kagglehms.data.records import Records
from kagglehms.features.images import Crop, Layout, render
from kagglehms.runtime import available_cpus

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Recordings(Protocol):
    """Where decoded recordings come from; `data.store.Store` is one."""

    def spectrogram(self, spectrogram_id: int) -> NDArray[np.float16]: ...


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
        threads: images drawn at a time; all available CPUs when None.
        pin: put batches into page-locked memory, from which a GPU can copy by itself.
    """

    def __init__(
        self,
        recordings: Recordings,
        records: Records,
        layout: Layout,
        threads: int | None = None,
        pin: bool = False,
    ) -> None:
        self.recordings = recordings
        self.records = records
        self.layout = layout
        self.threads = threads or available_cpus()
        self.pin = pin
        self._targets_NK = torch.from_numpy(records.targets_NK.astype(np.float32))
        self._n_votes_N = torch.from_numpy(records.n_votes)

    def batches(self, order: NDArray[np.integer], batch_size: int, ready: int = 2) -> Iterator[Batch]:
        """Yield the records at positions `order`, `batch_size` at a time; the last batch may be smaller.

        Args:
            order: positions, each drawn once per occurrence.
            batch_size: records per batch.
            ready: batches drawn ahead of the one in use.
        """
        chunks = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        with ThreadPoolExecutor(self.threads, "draw") as pool, ThreadPoolExecutor(1, "batch") as filler:
            pending: deque[Future[Batch]] = deque()
            try:
                for chunk in chunks:
                    pending.append(filler.submit(self._fill, chunk, pool))
                    if len(pending) > ready:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()

    def _fill(self, index: NDArray[np.integer], pool: ThreadPoolExecutor) -> Batch:
        images_BCHW = torch.empty((len(index), 1, *self.layout.shape), pin_memory=self.pin)
        list(pool.map(self._draw, index.tolist(), images_BCHW.numpy()[:, 0]))
        index_B = torch.from_numpy(np.asarray(index, dtype=np.int64))
        return Batch(images_BCHW, self._targets_NK[index_B], self._n_votes_N[index_B], index_B)

    def _draw(self, position: int, out_HW: NDArray[np.float32]) -> None:
        spectrogram = self.recordings.spectrogram(int(self.records.spectrogram_ids[position]))
        row = int(self.records.spectrogram_rows[position])
        render(self.layout, Crop(spectrogram[row : row + SPECTROGRAM_ROWS]), out_HW)


def shuffled(positions: NDArray[np.integer], seed: int, epoch: int) -> NDArray[np.integer]:
    """Return `positions` in an order that depends on (seed, epoch) alone."""
    return np.random.default_rng((seed, epoch)).permutation(positions)
