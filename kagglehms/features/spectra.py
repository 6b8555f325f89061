"""EEG window → power spectra of every difference over time, two resolutions one upon the other, as one image.

What is computed
    The sixteen differences of the double banana and the two of the midline, gaps filled and clipped as in
    `kagglehms.features.differences`, each as in

        f, t, p = scipy.signal.spectrogram(x, 200, window="hann", nperseg=144, noverlap=144 - hop, detrend="constant")
        rows = log(1 + p[(f >= 0.5) & (f <= 20)])

    that is power in µV² per Hz (one-sided) of frames of 144 samples less their mean, in bins 200 / 144 = 1.39 Hz apart,
    fourteen of which lie between 0.5 and 20 Hz. Every signal has 28 rows: fourteen of a wide window, with few columns a
    second, above fourteen of the ten labelled seconds in the middle, with many. Frequency rises downwards. 18 · 28 =
    504 rows of 464 columns stand in the upper left corner of 512 × 512 zeros, and all of it is normalised by its one
    mean and deviation. (Zeros beside an image that is normalised already would, through a convolution that has no bias
    yet and a layer normalisation, become a division by nothing: gradients of 1e8, which half precision cannot hold.)
    Signals come in the order LL, RL, LP, RP, midline.

Columns
    A Hann window of 144 samples has a zero at its beginning; with the zero that follows it, a frame spans 145. 50 s
    hold ⌊(10,000 − 145) / 21⌋ + 1 = 470 such frames at a hop of 21, and without three on either side 464. 10 s hold
    ⌊(2,000 − 145) / 4⌋ + 1 = 464 at a hop of 4. 30 s hold 488 at a hop of 12, and without twelve on either side 464.
    All published numbers follow from this (frames of 144 would make 465 columns of the 10 s).

How
    Sixteen differences go side by side through the lanes of a vector; the two of the midline follow, eight columns of
    both at once. Where bins are as far apart as the window is long, as here, neighbouring frames share most of their
    sums, see `kagglehms.features.sliding_compiled`. Otherwise (closer bins, long hops) a frame is folded and multiplied
    out as for the mel images, in two stages of low rank if that takes fewer products, within `tolerance`.

Source: the seventh of the winning solutions of the competition, which used a Tukey window.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import LABEL_S, SFREQ_HZ, WINDOW_S
from kagglehms.errors import UsageError
from kagglehms.features import plain_signals
from kagglehms.features.arrays import Pool, as_window, expected, output
from kagglehms.features.differences import of_all
from kagglehms.features.simd import LANES
from kagglehms.features.sliding_compiled import COLUMNS
from kagglehms.features.spectra_compiled import N_MIDLINE, N_RUNS
from kagglehms.features.spectra_compiled import difference_spectra as compute
from kagglehms.features.transform_compiled import FRAMES
from kagglehms.features.transform_plan import NOT_SLIDING, Bins, Sliding, Transform, cheapest, sliding


@dataclass(frozen=True)
class SpectraSpec:
    """The resolution of an image of spectra.

    Attributes:
        wide_s: length of the upper block in seconds, in the middle of the window.
        wide_hop: samples between two of its columns.
        wide_trim: columns that are left out at each of its ends.
        centre_s: length of the lower block in seconds, in the middle of the window.
        centre_hop: samples between two of its columns.
        centre_trim: columns that are left out at each of its ends.
        win_length: length of the Hann window in samples, even.
        n_fft: length of the transform in samples, even: bins are 200 / n_fft Hz apart.
        fmin: bins from here on are rows, Hz, above 0.
        fmax: bins up to here are rows, Hz, below 100.
        midline: whether Fz−Cz and Cz−Pz follow the sixteen differences of the chains.
        clip_uv: differences are clipped to plus or minus this, µV.
        height: rows of the image.
        width: columns of the image.
        tolerance: greatest error of a bin, relative to its own row of the transform, that a low rank may make.

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
        for name in (*positive, "wide_trim", "centre_trim"):
            least = int(name in positive)
            if not (isinstance(getattr(self, name), int) and getattr(self, name) >= least):
                raise UsageError(f"SpectraSpec.{name}: expected a whole number, {least} or more, got {self}")
        checks: dict[str, bool] = {
            "win_length and n_fft: expected even numbers, win_length ≤ n_fft": self.win_length % 2 == 0
            and self.n_fft % 2 == 0
            and self.win_length <= self.n_fft,
            "fmin and fmax: expected 0 < fmin ≤ fmax < 100": 0 < self.fmin <= self.fmax < SFREQ_HZ / 2,
            "clip_uv: expected a finite number above 0": 0 < self.clip_uv < math.inf,
            "tolerance: expected a number above 0": self.tolerance > 0,
        }
        for what, holds in checks.items():
            if not holds:
                raise UsageError(f"SpectraSpec.{what}, got {self}")
        self._check_shape()

    def _check_shape(self) -> None:
        if self.n_bins < 1:
            raise UsageError(f"SpectraSpec.fmin and fmax: expected a bin between them, got {self}")
        wide, centre = self._columns(self.wide_s, self.wide_hop, self.wide_trim), self.n_columns
        if wide != centre or centre < 1:
            raise UsageError(
                "SpectraSpec: expected as many columns in the wide block as in the centre, 1 or more, "
                f"but got {wide} and {centre} of {self}"
            )
        if self.n_rows > self.height or centre > self.width:
            raise UsageError(
                f"SpectraSpec.height and width: expected {self.n_rows} × {centre} or more, got {self}"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the image."""
        return self.height, self.width

    @property
    def n_signals(self) -> int:
        """16, or 18 with the midline."""
        return LANES + N_MIDLINE * self.midline

    @property
    def bins(self) -> tuple[int, int]:
        """The first and the last bin that is a row."""
        hz = SFREQ_HZ / self.n_fft
        return math.ceil(self.fmin / hz - 1e-9), math.floor(self.fmax / hz + 1e-9)

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
        return (seconds * SFREQ_HZ - self.win_length - 1) // hop + 1 - 2 * trim


SPECTRA_50_10 = SpectraSpec()
"""50 s above the middle 10 s."""
SPECTRA_30_10 = SpectraSpec(wide_s=30, wide_hop=12, wide_trim=12)
"""The middle 30 s above the middle 10 s."""


def difference_spectra(
    eeg_uv: NDArray[Any] | Sequence[NDArray[Any]],
    out: NDArray[np.float32] | None = None,
    threads: int = 1,
    spec: SpectraSpec = SPECTRA_50_10,
    mirror: bool = False,
) -> NDArray[np.float32]:
    """Compute the spectra of many windows of one length, or of one.

    Args:
        eeg_uv: (B, n_times, 20) or (n_times, 20) float32 or float16, µV, channels in the competition's order; or a
            sequence of B windows. Missing samples are NaN; ±inf counts as NaN.
        out: (B, height, width) float32, C-contiguous; without B for one window.
        threads: how many Python threads share the windows.
        spec: the resolution.
        mirror: whether left and right are exchanged.

    Returns:
        (B, height, width) float32, of mean 0 and deviation 1, padding included; without B for one window.

    Raises:
        UsageError: a shape, a dtype or an `out` that cannot be used; a window shorter than the wide block.
    """

    def run(window: NDArray[Any], image: NDArray[np.float32]) -> None:
        _run(window, image, spec, mirror)

    return of_all(eeg_uv, out, threads, lambda _: spec.shape, run)


def difference_spectra_into(
    eeg_uv_TC: NDArray[Any], out_HW: NDArray[np.float32], spec: SpectraSpec, mirror: bool = False
) -> NDArray[np.float32]:
    """Compute the spectra of one window in this thread: the feed's entry.

    Scratch memory (1 MB) is kept and used again, by any thread.

    Args:
        eeg_uv_TC: (n_times, 20) float32 or float16, µV, for example a slice of a memory map.
        out_HW: (height, width) float32, C-contiguous.
        spec: the resolution.
        mirror: whether left and right are exchanged.

    Returns:
        `out_HW`.

    Raises:
        UsageError: a shape, a dtype or an `out_HW` that cannot be used; a window shorter than the wide block.
    """
    _run(as_window(eeg_uv_TC), output(out_HW, spec.shape), spec, mirror)
    return out_HW


@functools.lru_cache(maxsize=8)
def plan(spec: SpectraSpec) -> Transform:
    """Derive the coefficients by which frames of `spec` are multiplied out.

    Raises:
        UsageError: `spec.tolerance` is below what float32 coefficients can reach.
    """
    return cheapest(_bins(spec))


def _bins(spec: SpectraSpec) -> Bins:
    return Bins(spec.n_fft, spec.win_length, *spec.bins, spec.tolerance, asked_by="SpectraSpec.tolerance")


@functools.lru_cache(maxsize=8)
def _sliding(spec: SpectraSpec) -> tuple[Sliding, Sliding]:
    """Derive how the frames of both blocks are summed hop by hop, or that they are not: no tiles."""
    slide = [
        sliding(_bins(spec), hop)
        if spec.n_fft == spec.win_length and 2 * hop <= spec.win_length
        else NOT_SLIDING
        for hop in (spec.wide_hop, spec.centre_hop)
    ]
    return slide[0], slide[1]


_pool = Pool()


def _run(window: NDArray[Any], image: NDArray[np.float32], spec: SpectraSpec, mirror: bool) -> None:
    n_times, longest = len(window), max(spec.wide_s, spec.centre_s) * SFREQ_HZ
    if n_times < longest:
        raise expected("eeg_uv", f"{longest:,} samples or more", n_times)
    transform, (wide, centre), n_columns = plan(spec), _sliding(spec), spec.n_columns
    run = -(-n_columns // N_RUNS)
    narrow = (run if spec.midline else n_columns) < COLUMNS
    run_it: Any = plain_signals.difference_spectra if narrow else compute
    starts = [
        (n_times - seconds * SFREQ_HZ) // 2 + trim * hop
        for seconds, hop, trim in (
            (spec.wide_s, spec.wide_hop, spec.wide_trim),
            (spec.centre_s, spec.centre_hop, spec.centre_trim),
        )
    ]
    n_tiles, hop = max(wide.n_tiles, centre.n_tiles), max(spec.wide_hop, spec.centre_hop)
    scratch = _pool.borrow(
        (n_times + hop) * LANES,
        n_times * N_MIDLINE + 8,
        (run * hop + spec.win_length) * LANES,
        spec.win_length * LANES,
        FRAMES * (transform.rank + 1) * 2 * LANES,
        (spec.win_length // min(spec.wide_hop, spec.centre_hop) + 2 * COLUMNS) * n_tiles * 6 * LANES,
        n_tiles * 6 * LANES,
        n_tiles * 6 * LANES,
        COLUMNS * transform.n_bins * LANES,
        LANES * LANES,
    )
    scale = 2 / (
        SFREQ_HZ * 0.375 * spec.win_length
    )  # one-sided; the squares of a Hann window are 3/8 in the mean
    run_it(
        window.reshape(-1), image.reshape(-1), *scratch, transform.project, transform.transform,
        wide.turns, wide.angle, centre.turns, centre.angle,
        n_times, transform.half, transform.rank, transform.n_bins, max(wide.below, centre.below), spec.n_bins,
        n_columns, run, spec.width, spec.height, starts[0], spec.wide_hop, wide.n_tiles,
        starts[1], spec.centre_hop, centre.n_tiles, spec.n_signals, spec.midline, mirror, spec.clip_uv, scale,
    )  # fmt: skip
    _pool.give_back(scratch)
