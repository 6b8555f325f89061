"""The resolution of mel spectra whose centre is finer, and the tables by which they are computed.

`kagglehms.features.zoom` explains what is computed.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import DIFFERENCES, N_TIMES, SFREQ_HZ
from kagglehms.errors import UsageError
from kagglehms.features.arrays import check_spec, expected
from kagglehms.features.condensed_plan import condensed
from kagglehms.features.jit import Indices
from kagglehms.features.mel_plan import MelPlan, MelSpec
from kagglehms.features.simd import LANES

N_PLANES = 3
"""The levels, less those of all others, less those of the neighbours."""
RINGS = (
    ("Fp1", "F7", "T3", "T5", "O1", "P3", "C3", "F3", "Fp1"),
    ("Fp2", "F8", "T4", "T6", "O2", "P4", "C4", "F4", "Fp2"),
)
"""The electrodes of each hemisphere's two chains, once round."""
_DB_PER_OCTAVE = 10 * math.log10(2)


@dataclass(frozen=True)
class ZoomSpec:
    """The resolution of mel spectra whose centre is finer.

    Attributes:
        wide_n_fft: length of the transform of the whole window, samples, even.
        wide_win: length of its Hann window, samples, even, at most wide_n_fft.
        wide_hop: samples from one of its columns to the next.
        cut: columns in the middle of the wide spectrum that are replaced by the centre.
        centre_samples: length of the centre, in the middle of the window.
        centre_n_fft: length of the transform of the centre, samples, even.
        centre_win: length of its Hann window, samples, even, at most centre_n_fft.
        centre_hop: samples from one of its columns to the next.
        n_mels: number of mel bands, rows of a signal.
        fmin: lower edge of the first band, Hz.
        fmax: upper edge of the last band, Hz.
        clip_uv: limit of a difference's magnitude, µV.
        scale_uv: divisor of a clipped difference, µV.
        top_db: greatest distance of a band below the loudest of its spectrum, dB; quieter ones are raised to it.
        unit_db: decibels that a 1 in the image stands for.
        tolerance: greatest error that a low rank may cause in a bin, relative to the strongest row of the transform.

    Raises:
        UsageError: values that contradict each other.
    """

    wide_n_fft: int = 512
    wide_win: int = 128
    wide_hop: int = 32
    cut: int = 62
    centre_samples: int = 2400
    centre_n_fft: int = 2048
    centre_win: int = 16
    centre_hop: int = 4
    n_mels: int = 64
    fmin: float = 0.53
    fmax: float = 30.0
    clip_uv: float = 1024.0
    scale_uv: float = 32.0
    top_db: float = 100.0
    unit_db: float = 20.0
    tolerance: float = 2e-6

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012

    def __post_init__(self) -> None:
        for name in ("wide_hop", "centre_hop", "centre_samples", "cut"):
            whole = isinstance(getattr(self, name), int) and getattr(self, name) >= 1
            check_spec(self, {f"{name}: expected a whole number, 1 or more": whole})
        for name in ("clip_uv", "scale_uv", "top_db", "unit_db"):
            finite = 0 < getattr(self, name) < math.inf
            check_spec(self, {f"{name}: expected a finite number above 0": finite})
        try:
            _ = self.wide, self.centre
        except UsageError as error:
            raise UsageError(f"ZoomSpec: {str(error).removeprefix('MelSpec.')}") from error
        self.shape_of(N_TIMES)

    @property
    def wide(self) -> MelSpec:
        """The resolution of the whole window."""
        return self._resolution(self.wide_n_fft, self.wide_win)

    @property
    def centre(self) -> MelSpec:
        """The resolution of the centre."""
        return self._resolution(self.centre_n_fft, self.centre_win)

    def _resolution(self, n_fft: int, win_length: int) -> MelSpec:
        return MelSpec(
            n_fft, win_length, self.n_mels, self.fmin, self.fmax, SFREQ_HZ, tolerance=self.tolerance
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(3, 16 · n_mels, columns) of the image of 50 s."""
        return self.shape_of(N_TIMES)

    @property
    def n_centre(self) -> int:
        """Columns of the centre."""
        return 1 + self.centre_samples // self.centre_hop

    def n_wide(self, n_times: int = N_TIMES) -> int:
        """Return the number of columns of the spectrum of the whole window."""
        return 1 + n_times // self.wide_hop

    def n_left(self, n_times: int = N_TIMES) -> int:
        """Return the number of its columns to the left of the centre."""
        return (self.n_wide(n_times) - self.cut) // 2

    def shape_of(self, n_times: int) -> tuple[int, int, int]:
        """Return (3, 16 · n_mels, columns) of the image of `n_times` samples.

        Raises:
            UsageError: a window that the centre does not fit into, or that has nothing beside it.
        """
        if n_times < self.centre_samples or self.n_wide(n_times) < self.cut + 2:
            least = max(self.centre_samples, (self.cut + 1) * self.wide_hop)
            raise expected("eeg_uv", f"{least:,} samples or more", n_times)
        return N_PLANES, LANES * self.n_mels, self.n_wide(n_times) - self.cut + self.n_centre


class Stretch(NamedTuple):
    """Columns of the image that come from one spectrum.

    Attributes:
        mel: transform and mel bands of the spectrum.
        first_centre: sample of the window on which the first frame is centred.
        hop: samples from one frame to the next.
        column: index of the first column.
        n_columns: number of columns.
    """

    mel: MelPlan
    first_centre: int
    hop: int
    column: int
    n_columns: int


class ZoomPlan(NamedTuple):
    """What compiled code reads to compute the image.

    Attributes:
        left: columns of the wide spectrum to the left of the centre.
        centre: columns of the finer spectrum.
        right: columns of the wide spectrum to the right of the centre.
        width: number of columns.
        pad: samples that frames read beyond either end of the window.
        before: (16,) index of each signal's neighbour on one side.
        after: (16,) index of each signal's neighbour on the other side.
        clip: limit of a difference's magnitude, µV.
        factor: factor by which the clipped difference is multiplied.
        least: least power of a band relative to the loudest of its spectrum; lower power is raised to it.
        per_octave: value in the image of a doubling of power.
    """

    left: Stretch
    centre: Stretch
    right: Stretch
    width: int
    pad: int
    before: Indices
    after: Indices
    clip: float
    factor: float
    least: float
    per_octave: float


@functools.lru_cache(maxsize=8)
def plan(spec: ZoomSpec, n_times: int) -> ZoomPlan:
    """Derive what compiled code reads for windows of `n_times` samples.

    Raises:
        UsageError: `spec.tolerance` is below what float32 coefficients can reach.
    """
    wide, centre = condensed(spec.wide), condensed(spec.centre)
    n_wide, n_left, n_centre = spec.n_wide(n_times), spec.n_left(n_times), spec.n_centre
    n_right, right = n_wide - spec.cut - n_left, n_left + n_centre
    before, after = neighbours()
    return ZoomPlan(
        left=Stretch(wide, 0, spec.wide_hop, 0, n_left),
        centre=Stretch(centre, (n_times - spec.centre_samples) // 2, spec.centre_hop, n_left, n_centre),
        right=Stretch(wide, (n_wide - n_right) * spec.wide_hop, spec.wide_hop, right, n_right),
        width=right + n_right,
        pad=max(wide.transform.half, centre.transform.half),
        before=before,
        after=after,
        clip=spec.clip_uv,
        factor=1 / spec.scale_uv,
        least=10 ** (-spec.top_db / 10),
        per_octave=_DB_PER_OCTAVE / spec.unit_db,
    )


def neighbours() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return, for each of the sixteen differences, the one before it and the one after it on its ring."""
    before, after = np.empty(LANES, np.int64), np.empty(LANES, np.int64)
    of_pair = {frozenset(pair): signal for signal, pair in enumerate(DIFFERENCES)}
    for ring in RINGS:
        signals = [of_pair[frozenset(pair)] for pair in pairwise(ring)]
        before[signals], after[signals] = np.roll(signals, 1), np.roll(signals, -1)
    return before, after
