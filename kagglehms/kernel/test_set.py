"""Recordings of the test set → batches of images, in memory that does not grow with the number of rows.

Every recording is read and decoded once: the first model to need it leaves its crop, in half precision, in a file of
fixed slots that later models read. The file is read and written rather than mapped, because mapped pages count as the
process's memory. Rows for which the disk has no room are decoded again.

Reading, drawing and predicting overlap: threads read and draw a few batches ahead of the model.

Shape legend: B recordings, C channel (one), H image rows, W image columns.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from kagglehms.data.competition import N_TIMES, SPECTROGRAM_ROWS, Competition
from kagglehms.data.readers import eeg_is_blank, read_eeg, read_spectrogram, spectrogram_is_blank
from kagglehms.data.workers import in_advance
from kagglehms.environment import available_cpus
from kagglehms.inputs.drawing import draw
from kagglehms.inputs.kinds import Input
from kagglehms.inputs.layouts import CROP_SHAPES, Crop, Normaliser, Source
from kagglehms.kernel.prior import Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH_ROWS = 32
BATCHES_AHEAD = 2
_SPARE_BYTES = 1 << 30
"""Free space that the cache leaves on the disk."""
Missing: TypeAlias = tuple[int, str]
"""A row that a pass does not predict, and why not; a row with several reasons has several of these."""


class CropCache:
    """Decoded crops on the disk, one slot per row and source.

    Args:
        folder: folder for the files, which `close` deletes. With None, or on Windows, nothing is kept.
        n_rows: number of rows in the test set.
        sources: recordings whose crops are kept.
        budget_bytes: most bytes to use; rows beyond that are not kept. None uses the free space of the disk, less
            1 GiB.

    Attributes:
        rows: how many rows there is room for.

    Raises:
        OSError: the files cannot be made in that folder.
    """

    def __init__(
        self,
        folder: Path | None = None,
        n_rows: int = 0,
        sources: Collection[Source] = (),
        budget_bytes: int | None = None,
    ) -> None:
        self._files: dict[Source, int] = {}
        self._paths: list[Path] = []
        self._held = {source: np.zeros(n_rows, bool) for source in sources}
        self.rows = 0
        if folder is None or not sources or not hasattr(os, "preadv"):  # Windows: threads cannot share a file
            return
        if budget_bytes is None:
            budget_bytes = shutil.disk_usage(folder).free - _SPARE_BYTES
        self.rows = int(np.clip(budget_bytes // sum(map(slot_bytes, sources)), 0, n_rows))
        for source in sources if self.rows else ():
            path = folder / f"crops-{source}.f16"
            try:
                self._files[source] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
            except OSError:
                self.close()
                raise
            self._paths.append(path)

    def get(self, source: Source, row: int) -> NDArray[np.float16] | None:
        """Return the crop of a row; None if it was not kept or can no longer be read."""
        if source not in self._held or not self._held[source][row]:
            return None
        values = np.empty(CROP_SHAPES[source], np.float16)
        try:
            n_read = os.preadv(self._files[source], [values.data.cast("B")], row * values.nbytes)
        except OSError:
            return None
        return values if n_read == values.nbytes else None

    def put(self, source: Source, row: int, values: NDArray[np.float16]) -> None:
        """Keep a crop if there is room. When the disk turns out to be full, nothing more is kept."""
        if row >= self.rows:
            return
        content = np.ascontiguousarray(values).tobytes()
        try:
            whole = os.pwrite(self._files[source], content, row * values.nbytes) == values.nbytes
        except OSError:
            whole = False
        if whole:
            self._held[source][row] = True
        else:
            self.rows = 0

    def close(self) -> None:
        """Delete the files and forget all crops."""
        for descriptor in self._files.values():
            os.close(descriptor)
        for path in self._paths:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        self._files, self._paths, self.rows = {}, [], 0
        for held in self._held.values():
            held[:] = False


def slot_bytes(source: Source) -> int:
    """Return the bytes of one decoded crop."""
    return 2 * int(np.prod(CROP_SHAPES[source]))


@dataclass
class Reader:
    """Reads the recordings of a row, from the cache or from its files.

    Attributes:
        competition: folder of the competition.
        rows: rows of the test set.
        cache: cache of decoded crops; by default one that keeps nothing.
        failures: for each source, the rows without a usable recording and the reason. They are not read again.
        files_read: number of parquet files opened so far.
    """

    competition: Competition
    rows: Rows
    cache: CropCache = field(default_factory=CropCache)
    failures: dict[Source, dict[int, str]] = field(default_factory=lambda: {"kaggle": {}, "eeg": {}})
    files_read: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def crop(self, row: int, sources: Collection[Source]) -> Crop | None:
        """Return a row's crop of all `sources`; None if one of these recordings cannot be used."""
        parts = {source: self._part(source, row) for source in sorted(sources)}
        if any(values is None for values in parts.values()):
            return None
        return Crop(parts.get("kaggle"), parts.get("eeg"))

    def reasons(self, row: int, sources: Collection[Source]) -> list[str]:
        """Return why recordings of a row cannot be used, one reason for each of `sources` that cannot."""
        return [self.failures[source][row] for source in sorted(sources) if row in self.failures[source]]

    def _part(self, source: Source, row: int) -> NDArray[np.float16] | None:
        if row in self.failures[source]:
            return None
        values = self.cache.get(source, row)
        if values is not None:
            return values
        try:
            values = self._decode(source, row)
        except Exception as error:  # files can be broken in ways that nobody foresaw
            self.failures[source][row] = str(error) or type(error).__name__
            return None
        self.cache.put(source, row, values)
        return values

    def _decode(self, source: Source, row: int) -> NDArray[np.float16]:
        """Decode the middle of a recording; in the real test set, recordings are exactly as long as a crop."""
        id_ = self.rows.spectrogram_ids[row] if source == "kaggle" else self.rows.eeg_id(row)
        if id_ is None:
            raise ValueError(f"{self.rows.source.name} names no {source} recording of it")
        with self._lock:
            self.files_read += 1
        if source == "kaggle":
            path = self.competition.spectrogram(id_, "test")
            values = _middle(read_spectrogram(path, SPECTROGRAM_ROWS), SPECTROGRAM_ROWS)
        else:
            path = self.competition.eeg(id_, "test")
            values = _middle(read_eeg(path, N_TIMES), N_TIMES)
        if (spectrogram_is_blank if source == "kaggle" else eeg_is_blank)(values):
            raise ValueError(f"{path}: holds nothing but NaN in the part that models look at")
        return values


def _middle(values: NDArray[np.float16], length: int) -> NDArray[np.float16]:
    first = (len(values) - length) // 2
    return np.ascontiguousarray(values[first : first + length])


def batches(
    reader: Reader,
    rows: Sequence[int],
    layout: Input,
    normaliser: Normaliser | None = None,
    mirror: bool = False,
    threads: int | None = None,
    batch_rows: int = BATCH_ROWS,
    missing: list[Missing] | None = None,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield the images of `rows` in order, a batch at a time.

    Args:
        reader: reader of the test set; rows that it cannot read or whose image cannot be drawn are left out.
        rows: positions in the test set.
        layout: the input to draw.
        normaliser: statistics for tiles that are normalised globally.
        mirror: whether to swap the hemispheres.
        threads: how many rows are read and drawn at a time; None for two per CPU, because some of them wait for the
            disk.
        batch_rows: rows per batch.
        missing: list that receives why rows are left out.

    Yields:
        (n,) positions of rows, and their (n, 1, H, W) images or (n, C, T) signals in a buffer that is overwritten
        when the next batch is requested.
    """
    chunks = [rows[start : start + batch_rows] for start in range(0, len(rows), batch_rows)]
    shape = (min(batch_rows, len(rows)), *layout.array_shape)
    missing = [] if missing is None else missing
    buffers = [np.empty(shape, np.float32) for _ in range(min(BATCHES_AHEAD + 1, len(chunks)))]

    def draw_row(row: int, out: NDArray[np.float32]) -> bool:
        crop = reader.crop(row, layout.sources)
        if crop is None:
            missing.extend((row, reason) for reason in reader.reasons(row, layout.sources))
            return False
        try:
            draw(layout, crop, out, normaliser, mirror)
        except Exception as error:  # its recordings are fine, and other layouts may be
            missing.append((row, f"cannot be drawn ({str(error) or type(error).__name__})"))
            return False
        return True

    def fill(
        chunk: Sequence[int], images_BCHW: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        images_BCHW = images_BCHW[: len(chunk)]
        good = np.fromiter(pool.map(draw_row, chunk, images_BCHW), bool, len(chunk))
        return np.asarray(chunk, np.int64)[good], images_BCHW if good.all() else images_BCHW[good]

    with (
        ThreadPoolExecutor(threads or 2 * available_cpus(), "draw") as pool,
        ThreadPoolExecutor(1, "batch") as filler,
    ):
        futures = (filler.submit(fill, *work) for work in zip(chunks, cycle(buffers), strict=False))
        yield from in_advance(futures, BATCHES_AHEAD)
