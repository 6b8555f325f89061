"""Batches of records: their order, their contents, and their way to a device.

Shape legend: B batch, C channel (plane or signal), H image rows, W image columns, K the six classes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PAGE_LOCKING = threading.Lock()
"""Held by whoever locks pages, and by whoever cannot have that happen now."""


@dataclass(frozen=True)
class Batch:
    """The records of one step.

    Attributes:
        images_BCHW: float32 images, or signals (B, C, T).
        targets_BK: float32 vote fractions.
        n_votes_B: number of votes of each record, int64; float32 after records have been mixed.
        index_B: int64 positions of the records. They stay in main memory, where random numbers are drawn from them.
    """

    images_BCHW: Tensor
    targets_BK: Tensor
    n_votes_B: Tensor
    index_B: Tensor

    def to(self, device: torch.device) -> Batch:
        """Copy all but `index_B` to a device, asynchronously if the batch is in page-locked memory."""
        parts = (self.images_BCHW, self.targets_BK, self.n_votes_B)
        images_BCHW, targets_BK, n_votes_B = (part.to(device, non_blocking=True) for part in parts)
        return Batch(images_BCHW, targets_BK, n_votes_B, self.index_B)


def empty_images(shape: Sequence[int], pin: bool) -> Tensor:
    """Return an array for the images of a batch, in page-locked memory if `pin`; for any thread."""
    if not pin:
        return torch.empty(*shape)
    with _PAGE_LOCKING:
        return torch.empty(*shape, pin_memory=True)


@contextmanager
def no_page_locking() -> Iterator[None]:
    """Make `empty_images` wait in other threads, since locking pages spoils what is being recorded as a CUDA graph."""
    with _PAGE_LOCKING:
        yield


def shuffled(positions: NDArray[np.integer], seed: int, epoch: int) -> NDArray[np.integer]:
    """Return positions in an order that depends on (seed, epoch) alone."""
    return np.random.default_rng((seed, epoch)).permutation(positions)


def split(order: NDArray[np.integer], batch_size: int) -> list[NDArray[np.integer]]:
    """Divide positions into batches of at most `batch_size`, of sizes that are as equal as possible.

    A last batch of one or two records would spoil the statistics of batch normalisation.
    """
    return np.array_split(order, -(-len(order) // batch_size)) if len(order) else []


def on_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Copy batches to a device, each while the previous one is in use."""
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
    """Make the stream that computes, not the CPU, wait until the batch has been copied."""
    current = torch.cuda.current_stream()
    current.wait_event(copied)
    for part in (batch.images_BCHW, batch.targets_BK, batch.n_votes_B):
        part.record_stream(current)  # otherwise its memory could be reused while the batch is in use
    return batch
