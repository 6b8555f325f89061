"""The random numbers of one augmentation for one batch.

They are drawn on the CPU, from (seed, epoch, record) where a draw concerns one record, and from (seed, epoch, the
batch's records) where it concerns the whole batch. A run is therefore the same for any number of threads, and can be
resumed exactly.

Shape legend: B batch, C signal, M bands per record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kagglehms.data.competition import CHAINS
from kagglehms.features.simd import LANES

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Draws:
    """Random numbers for one augmentation of one batch.

    Args:
        seed: seed of the run, at least 0.
        epoch: epoch, counted from 0.
        step: third word of the seeds, different for each augmentation. Never 0: NumPy pads short seeds with zeros,
            and (seed, epoch) already decides the order of the records.
        records: numbers of the batch's records.
        device: the device that the numbers are copied to.
    """

    def __init__(
        self, seed: int, epoch: int, step: int, records: NDArray[np.integer], device: torch.device
    ) -> None:
        self.seeds = (seed, epoch, step)
        self.records: list[int] = records.tolist()
        self.device = device

    def of_batch(self) -> np.random.Generator:
        """Return a generator that depends on the batch's records and their order."""
        return np.random.default_rng((*self.seeds, *self.records))

    def of_records(self) -> list[np.random.Generator]:
        """Return one generator per record, independent of the rest of the batch."""
        return [np.random.default_rng((*self.seeds, record)) for record in self.records]

    def tensor(self, drawn: NDArray[Any]) -> Tensor:
        """Copy an array to the device without waiting for it."""
        tensor = torch.from_numpy(drawn)
        if self.device.type == "cuda":  # asynchronous copies need page-locked memory
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def happens(self, probability: float) -> Tensor:
        """Draw which records are changed: (B,) bool."""
        return self.tensor(np.array([draw.random() < probability for draw in self.of_records()]))

    def bands(self, probability: float, longest: int, count: int, size: int) -> tuple[Tensor, Tensor]:
        """Draw bands along an axis.

        Args:
            probability: probability that a record gets bands.
            longest: largest length of a band; lengths are drawn from 1 to this, or to `size` if that is smaller.
            count: number of bands per record, M.
            size: length of the axis.

        Returns:
            (B, M) starts and (B, M) lengths, int64. Records without bands have lengths of 0.
        """
        drawn = np.zeros((2, len(self.records), count), dtype=np.int64)
        for draw, start_M, length_M in zip(self.of_records(), *drawn, strict=True):
            if draw.random() < probability:
                length_M[:] = draw.integers(1, min(longest, size), size=count, endpoint=True)
                start_M[:] = draw.integers(0, size - length_M, endpoint=True)
        return self.tensor(drawn[0]), self.tensor(drawn[1])

    def chains(self, probability: float, n_signals: int) -> Tensor:
        """Draw an order of the chains for each record.

        Args:
            probability: probability that a record's chains are permuted.
            n_signals: number of signals; those after the four chains, the midline, stay in place.

        Returns:
            (B, C) int64, the signal that moves to each place.
        """
        order_BC = np.tile(np.arange(n_signals), (len(self.records), 1))
        by_chain = np.arange(LANES).reshape(len(CHAINS), -1)
        for draw, order_C in zip(self.of_records(), order_BC, strict=True):
            if draw.random() < probability:
                order_C[:LANES] = draw.permutation(by_chain).ravel()
        return self.tensor(order_BC)

    def dropped(self, probability: float, least: int, most: int, n_signals: int) -> NDArray[np.bool_]:
        """Draw signals to drop: (B, C) bool, `least` to `most` of them in each changed record."""
        dropped_BC = np.zeros((len(self.records), n_signals), dtype=np.bool_)
        for draw, dropped_C in zip(self.of_records(), dropped_BC, strict=True):
            if draw.random() < probability:
                n_dropped = draw.integers(least, most, endpoint=True)
                dropped_C[draw.choice(n_signals, n_dropped, replace=False)] = True
        return dropped_BC

    def edges(
        self, probability: float, low_hz: tuple[float, float], high_hz: tuple[float, float]
    ) -> tuple[list[int], NDArray[np.float32]]:
        """Draw the cut-off frequencies of band-pass filters.

        Returns:
            Positions of the changed records in the batch, and their (2, n) lower and upper frequencies in Hz.
        """
        chosen, edges = [], []
        for place, draw in enumerate(self.of_records()):
            if draw.random() < probability:
                chosen.append(place)
                edges.append((draw.uniform(*low_hz), draw.uniform(*high_hz)))
        return chosen, np.array(edges, np.float32).reshape(-1, 2).T.copy()
