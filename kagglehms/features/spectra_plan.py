"""The resolution of an image of spectra, and the tables by which it is computed.

`kagglehms.features.spectra` explains what is computed.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

from kagglehms.data.competition import LABEL_S, MIDLINE_DIFFERENCES, SFREQ_HZ, WINDOW_S
from kagglehms.errors import UsageError
from kagglehms.features.arrays import check_spec, expected
from kagglehms.features.differences_plan import n_differences
from kagglehms.features.simd import LANES
from kagglehms.features.sliding_plan import Hops, sliding
from kagglehms.features.transform_plan import Bins, Transform, bins_within, cheapest, n_frames

N_MIDLINE = len(MIDLINE_DIFFERENCES)
N_RUNS = LANES // N_MIDLINE
"""Runs that the columns of the midline are cut into, so that both signals fill all lanes of a vector."""
MEAN_SQUARE_OF_HANN = 3 / 8


@dataclass(frozen=True)
class SpectraSpec:
    """The resolution of an image of spectra.

    Attributes:
        wide_s: length of the upper block in seconds, in the middle of the window.
        wide_hop: samples from one of its columns to the next.
        wide_trim: columns that are left out at each of its ends.
        centre_s: length of the lower block in seconds, in the middle of the window.
        centre_hop: samples from one of its columns to the next.
        centre_trim: columns that are left out at each of its ends.
        win_length: length of the Hann window in samples, even.
        n_fft: length of the transform in samples, even: bins are 200 / n_fft Hz apart.
        fmin: lowest frequency whose bin is a row, Hz, above 0.
        fmax: highest frequency whose bin is a row, Hz, below 100.
        midline: whether Fz−Cz and Cz−Pz follow the sixteen differences of the chains.
        clip_uv: limit of a difference's magnitude, µV.
        height: rows of the image.
        width: columns of the image.
        tolerance: greatest error that a low rank may cause in a bin, relative to the strongest row of the transform.

    Raises:
        UsageError: values that contradict each other.
    """

    wide_s: int = WINDOW_S
    wide_hop: int = 21
    wide_trim: int = 3
    centre_s: int = LABEL_S
    centre_hop: int = 4
    centre_trim: int = 0
    win_length: int = 144
    n_fft: int = 144
    fmin: float = 0.5
    fmax: float = 20.0
    midline: bool = True
    clip_uv: float = 1024.0
    height: int = 512
    width: int = 512
    tolerance: float = 2e-6

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012

    def __post_init__(self) -> None:
        positive = ("wide_s", "wide_hop", "centre_s", "centre_hop", "win_length", "n_fft", "height", "width")
        least = {**dict.fromkeys(positive, 1), "wide_trim": 0, "centre_trim": 0}
        values = {name: getattr(self, name) for name in least}
        check_spec(
            self,
            {
                f"{name}: expected a whole number, {least[name]} or more": isinstance(value, int)
                and value >= least[name]
                for name, value in values.items()
            },
        )
        even = self.win_length % 2 == 0 and self.n_fft % 2 == 0
        check_spec(
            self,
            {
                "win_length and n_fft: expected even numbers, win_length ≤ n_fft": even
                and self.win_length <= self.n_fft,
                "fmin and fmax: expected 0 < fmin ≤ fmax < 100": 0 < self.fmin <= self.fmax < SFREQ_HZ / 2,
                "clip_uv: expected a finite number above 0": 0 < self.clip_uv < math.inf,
                "tolerance: expected a number above 0": self.tolerance > 0,
            },
        )
        self._check_shape()

    def _check_shape(self) -> None:
        check_spec(self, {"fmin and fmax: expected a bin between them": self.n_bins >= 1})
        wide, centre = self._columns(self.wide_s, self.wide_hop, self.wide_trim), self.n_columns
        if wide != centre or centre < 1:
            raise UsageError(
                "SpectraSpec: expected as many columns in the wide block as in the centre, 1 or more, "
                f"but got {wide} and {centre} of {self}"
            )
        fits = self.n_rows <= self.height and centre <= self.width
        check_spec(self, {f"height and width: expected {self.n_rows} × {centre} or more": fits})

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the image."""
        return self.height, self.width

    @property
    def n_signals(self) -> int:
        """16, or 18 with the midline."""
        return n_differences(self.midline)

    @property
    def bins(self) -> tuple[int, int]:
        """Indices of the first and the last bin that are rows."""
        return bins_within((self.fmin, self.fmax), SFREQ_HZ / self.n_fft)

    @property
    def n_bins(self) -> int:
        """Rows of one block of one signal."""
        first, last = self.bins
        return last - first + 1

    @property
    def n_rows(self) -> int:
        """Rows of the image that are not padding."""
        return self.n_signals * 2 * self.n_bins

    @property
    def n_columns(self) -> int:
        """Columns of the image that are not padding."""
        return self._columns(self.centre_s, self.centre_hop, self.centre_trim)

    def _columns(self, seconds: int, hop: int, trim: int) -> int:
        return n_frames(seconds * SFREQ_HZ, self.win_length, hop) - 2 * trim


SPECTRA_50_10 = SpectraSpec()
"""50 s above the middle 10 s."""
SPECTRA_30_10 = SpectraSpec(wide_s=30, wide_hop=12, wide_trim=12)
"""The middle 30 s above the middle 10 s."""


class Block(NamedTuple):
    """One time scale of an image.

    Attributes:
        start: first sample of its first column.
        hops: its frames.
    """

    start: int
    hops: Hops


class SpectraPlan(NamedTuple):
    """What compiled code reads to compute an image of spectra.

    Attributes:
        transform: tables for frames that do not share their sums.
        wide: the upper block of a signal.
        centre: the lower block of a signal.
        n_bins: rows of one block of one signal.
        n_columns: columns of the image that are not padding.
        run: columns in each of the `N_RUNS` runs of the midline, the last of which may be shorter.
        n_signals: number of signals, 16 or 18.
        height: rows of the image.
        width: columns of the image.
        clip: limit of a difference's magnitude, µV.
        scale: factor from squared magnitudes to µV² per Hz.
    """

    transform: Transform
    wide: Block
    centre: Block
    n_bins: int
    n_columns: int
    run: int
    n_signals: int
    height: int
    width: int
    clip: float
    scale: float


@functools.lru_cache(maxsize=8)
def plan(spec: SpectraSpec, n_times: int) -> SpectraPlan:
    """Derive what compiled code reads for windows of `n_times` samples.

    Raises:
        UsageError: a window shorter than a block, or a `spec.tolerance` below what float32 coefficients can reach.
    """
    longest = max(spec.wide_s, spec.centre_s) * SFREQ_HZ
    if n_times < longest:
        raise expected("eeg_uv", f"{longest:,} samples or more", n_times)
    bins = Bins(spec.n_fft, spec.win_length, *spec.bins, spec.tolerance, asked_by="SpectraSpec.tolerance")

    def block(seconds: int, hop: int, trim: int) -> Block:
        return Block((n_times - seconds * SFREQ_HZ) // 2 + trim * hop, sliding(bins, hop))

    return SpectraPlan(
        transform=cheapest(bins),
        wide=block(spec.wide_s, spec.wide_hop, spec.wide_trim),
        centre=block(spec.centre_s, spec.centre_hop, spec.centre_trim),
        n_bins=spec.n_bins,
        n_columns=spec.n_columns,
        run=-(-spec.n_columns // N_RUNS),
        n_signals=spec.n_signals,
        height=spec.height,
        width=spec.width,
        clip=spec.clip_uv,
        # One-sided: positive and negative frequencies together.
        scale=2 / (SFREQ_HZ * MEAN_SQUARE_OF_HANN * spec.win_length),
    )
