"""The random numbers that decide how records are drawn: their windows, mirroring, shifts and band-passes.

They depend on (seed, epoch, record) alone. Those of all records are drawn at once, since a random generator for each
record would cost more than the numbers are worth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kagglehms.data.records import Records, Windows
from kagglehms.training.options import BandPass, PseudoLabels

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WINDOWS, _MIRROR, _SHIFT = 1_000_002, 1_000_004, 1_000_005
_BAND, _LOW, _HIGH = 1_000_006, 1_000_007, 1_000_008
"""Third words of the seeds; augmentations of batches use small ones, see `augmentation_draws`."""


@dataclass(frozen=True)
class Work:
    """A batch to draw.

    Attributes:
        index: positions of the batch's records.
        epoch: epoch of the training; None for an evaluation, in which nothing is random.
        augment: whether to apply the augmenter of images.
        mirror: probability that left and right are swapped in a record.
        shift_s: largest shift of a record's window along its recording in seconds, to either side.
        band: band-pass that the signals are filtered with before they are drawn; None for no filter.
        labels: pseudo labels that replace targets; None for targets as the experts voted.
    """

    index: NDArray[np.integer]
    epoch: int | None = None
    augment: bool = True
    mirror: float = 0.0
    shift_s: float = 0.0
    band: BandPass | None = None
    labels: PseudoLabels | None = None


class FeedDraws:
    """Random numbers for the records of a feed.

    Args:
        records: all records.
        seed: seed of the run.
        windows: which window represents a record, see `data.records.Windows`.
    """

    def __init__(self, records: Records, seed: int, windows: Windows) -> None:
        self.records, self.seed, self.windows = records, seed, windows
        self._places = records.places(windows)
        self._drawn: dict[int, tuple[int, NDArray[np.float64]]] = {}

    def starts(self, work: Work) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (B,) first spectrogram rows and (B,) first EEG samples."""
        if self.windows != "random" or work.epoch is None:
            rows, samples = self._places
            return rows[work.index], samples[work.index]
        return self.records.starts(work.index, self._uniform(_WINDOWS, work.epoch)[work.index])

    def mirrored(self, work: Work) -> NDArray[np.bool_]:
        """Return (B,) whether left and right are swapped."""
        if not work.mirror or work.epoch is None:
            return np.zeros(len(work.index), dtype=np.bool_)
        return self._uniform(_MIRROR, work.epoch)[work.index] < work.mirror

    def shifts_s(self, work: Work) -> NDArray[np.float64]:
        """Return (B,) seconds by which windows are shifted."""
        if not work.shift_s or work.epoch is None:
            return np.zeros(len(work.index))
        return (2 * self._uniform(_SHIFT, work.epoch)[work.index] - 1) * work.shift_s

    def bands_hz(self, work: Work) -> list[tuple[float, float] | None]:
        """Return B pairs of cut-off frequencies in Hz; None for records that are not filtered."""
        if work.band is None or work.epoch is None:
            return [None] * len(work.index)
        happens, low, high = (self._uniform(word, work.epoch)[work.index] for word in (_BAND, _LOW, _HIGH))
        edges = zip(
            happens < work.band.probability,
            np.interp(low, (0, 1), work.band.low_hz),
            np.interp(high, (0, 1), work.band.high_hz),
            strict=True,
        )
        return [(float(low_hz), float(high_hz)) if filters else None for filters, low_hz, high_hz in edges]

    def _uniform(self, word: int, epoch: int) -> NDArray[np.float64]:
        """Return numbers in [0, 1), one for each record."""
        drawn = self._drawn.get(word)
        if drawn is None or drawn[0] != epoch:
            rng = np.random.default_rng((self.seed, epoch, word))
            drawn = self._drawn[word] = epoch, rng.random(len(self.records))
        return drawn[1]
