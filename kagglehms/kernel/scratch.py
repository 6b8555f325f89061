"""What a worker keeps on the disk for itself and for a worker that may follow: decoded crops and finished passes.

All of it only saves time. A scratch folder that cannot be used leaves a note in the marker and costs no pass.

Shape legend: N rows of the test set, K the six classes.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np

from kagglehms.errors import HMSError
from kagglehms.files import writing
from kagglehms.inputs.layouts import Source
from kagglehms.kernel.protocol import Pulse
from kagglehms.kernel.schedule import Step
from kagglehms.kernel.test_set import CropCache, Missing

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NOTE = "what is finished cannot be kept for a second process"


@dataclass(frozen=True)
class Pass:
    """The result of one pass over the test set.

    Attributes:
        probabilities_NK: (N, 6) float64; NaN in rows that were not predicted.
        seconds: seconds the pass took in the process that computed it.
        missing: why rows were not predicted, other than for want of time.
        cut_short: whether time ran out before the last row.
        restored: whether an earlier worker computed it.
    """

    probabilities_NK: NDArray[np.float64]
    seconds: float
    missing: tuple[Missing, ...] = ()
    cut_short: bool = False
    restored: bool = False


class Scratch:
    """The scratch folder of a scored run.

    Args:
        folder: folder to keep things in; None keeps nothing.
        notes: list that receives one note if the folder cannot be used.
    """

    def __init__(self, folder: Path | None, notes: list[str]) -> None:
        self.folder = folder
        self.pulse = Pulse(folder)
        self._notes = notes

    def begin(self, name: str, device: str) -> None:
        """Tell the supervisor what is computed from here on, by the name under which it can be skipped."""
        try:
            self.pulse.begin(name, device)
        except OSError as error:
            self._note(error)

    def end(self) -> None:
        """Tell the supervisor that nothing is computed that could be skipped."""
        try:
            self.pulse.end()
        except OSError as error:
            self._note(error)

    def crops(self, n_rows: int, sources: Collection[Source], budget_bytes: int | None) -> CropCache:
        """Make a cache of decoded crops; one that keeps nothing if the folder cannot be used.

        Args:
            n_rows: number of rows in the test set.
            sources: recordings whose crops are kept.
            budget_bytes: most bytes to use; None uses whatever space the disk has.
        """
        try:
            cache = CropCache(self.folder, n_rows, sources, budget_bytes)
        except OSError as error:
            self._note(error)
            return CropCache()
        if self.folder is not None and cache.rows < n_rows:
            self._notes.append(f"room for the crops of {cache.rows} rows; the others are read again")
        return cache

    def keep(self, step: Step, done: Pass) -> None:
        """Write a whole pass down for a worker that may follow."""
        if self.folder is None or done.cut_short:
            return
        try:
            with writing(self.folder / _file_name(step)) as file:
                np.savez(
                    file,
                    probabilities_NK=done.probabilities_NK,
                    seconds=np.float64(done.seconds),
                    missing=np.frombuffer(json.dumps(done.missing).encode(), np.uint8),
                )
        except HMSError as error:
            self._note(error)

    def restore(self, step: Step, shape: tuple[int, int]) -> Pass | None:
        """Return the pass that an earlier worker finished; None if there is none of this shape."""
        if self.folder is None:
            return None
        try:
            with (
                (self.folder / _file_name(step)).open("rb") as file,
                np.load(file, allow_pickle=False) as kept,
            ):
                probabilities_NK, seconds = kept["probabilities_NK"], float(kept["seconds"])
                missing = tuple((int(row), str(why)) for row, why in json.loads(kept["missing"].tobytes()))
        except (OSError, ValueError, KeyError, TypeError, EOFError, AttributeError, BadZipFile):
            return None
        if probabilities_NK.shape != shape:
            return None
        return Pass(probabilities_NK.astype(np.float64), seconds, missing, restored=True)

    def _note(self, error: Exception) -> None:
        if not any(note.startswith(_NOTE) for note in self._notes):
            self._notes.append(f"{_NOTE} ({error})")


def _file_name(step: Step) -> str:
    mirrored = ".mirrored" if step.mirror else ""
    return f"{step.model.weights}{mirrored}.npz"
