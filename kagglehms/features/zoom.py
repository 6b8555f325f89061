"""EEG window → mel spectra of every difference, the labelled seconds finer than the rest, as an image of three planes.

What is computed
    The sixteen differences of the double banana, gaps filled and clipped as in `kagglehms.features.differences`, in
    units of 32 µV; of each of them twice

        S = librosa.feature.melspectrogram(y=x, sr=200, n_fft=n_fft, win_length=win_length, hop_length=hop,
                                           n_mels=64, fmin=0.53, fmax=30)
        L = 10 log10(max(S, 1e-10, max S / 1e10)) / 20

    once of the whole window (n_fft 512, window 128, hop 32: 313 columns), and once of the 2,400 samples in its middle
    (n_fft 2048, window 16, hop 4: 601 columns). The maximum is taken over all sixteen, so that they stay comparable, in
    the columns that are kept of each spectrum. Wide frames see zeros beyond the ends of the window, those of the centre
    what really lies there.

Columns
    The 62 columns in the middle of the wide spectrum, a fifth of it, are taken out, and all 601 of the centre stand in
    their place: 125 + 601 + 126 = 852 columns. That is how the published numbers fit each other. 2,400 samples at a hop
    of 4 are 601 columns, ten times as many as a fifth of the 313 has room for; bringing them down to 62 would take away
    the resolution in time that a window of 16 samples is for, and 62 columns at a hop of 4 would be 1.2 s of the ten
    labelled seconds. So 313 is the width of the wide spectrum by itself. The centre is 12 s long and replaces 10 s: a
    second on either side is seen in both resolutions.

Planes
    x; x less the mean of the other fifteen differences; x less the mean of its two neighbours. Neighbours are next to
    each other on the ring that the two chains of a hemisphere make (Fp1-F7, F7-T3, T3-T5, T5-O1, P3-O1, C3-P3, F3-C3,
    Fp1-F3, and round again). Signals stand one upon the other in the order LL, RL, LP, RP, each with 64 rows; frequency
    rises downwards. With three planes the image is 3 × 1,024 × 852.

How
    Both spectra go through the low-rank transform of the mel images, see `kagglehms.features.mel`: 27 true rows of
    either parity for the 75 bins of the wide spectrum, 6 for the centre, whose bands of ten bins are sums of three
    squares (`kagglehms.features.zoom_plan`). Planes are made of sixteen columns of all signals while they are in the
    first-level cache.

Source: the third of the winning solutions of the competition. It took the maximum over a whole batch of records, which
here would let one record's image depend on others, and the mel scale of HTK, which is nearly linear up to 30 Hz, too.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import DIFFERENCES, N_TIMES, SFREQ_HZ
from kagglehms.errors import UsageError
from kagglehms.features.arrays import Pool, as_window, expected, output
from kagglehms.features.differences import of_all
from kagglehms.features.filters import causal_modes
from kagglehms.features.mel import MelSpec
from kagglehms.features.mel_plan import MelPlan
from kagglehms.features.plain_zoom import zoom_image as plain_image
from kagglehms.features.simd import LANES
from kagglehms.features.transform_compiled import FRAMES
from kagglehms.features.zoom_compiled import COLUMNS
from kagglehms.features.zoom_compiled import zoom_image as compute
from kagglehms.features.zoom_plan import zoom_plan

N_PLANES = 3
"""The levels, less those of all others, less those of the neighbours."""
RINGS = (
    ("Fp1", "F7", "T3", "T5", "O1", "P3", "C3", "F3", "Fp1"),
    ("Fp2", "F8", "T4", "T6", "O2", "P4", "C4", "F4", "Fp2"),
)
"""The electrodes of each hemisphere's two chains, once round."""


@dataclass(frozen=True)
class ZoomSpec:
    """The resolution of mel spectra whose centre is finer.

    Attributes:
        wide_n_fft: length of the transform of the whole window, samples, even.
        wide_win: length of its Hann window, samples, even, at most wide_n_fft.
        wide_hop: samples between two of its columns.
        cut: columns in the middle of the wide spectrum that give way to the centre.
        centre_samples: length of the centre, in the middle of the window.
        centre_n_fft: length of the transform of the centre, samples, even.
        centre_win: length of its Hann window, samples, even, at most centre_n_fft.
        centre_hop: samples between two of its columns.
        n_mels: mel bands, rows of a signal.
        fmin: lower edge of the first band, Hz.
        fmax: upper edge of the last band, Hz.
        clip_uv: differences are clipped to plus or minus this, µV.
        scale_uv: what they are divided by, µV.
        top_db: what lies further below the loudest band of a spectrum is raised to that distance, dB.
        unit_db: decibels that are 1 in the image.
        tolerance: greatest error of a bin, relative to its own row of the transform, that a low rank may make.

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
            if not (isinstance(getattr(self, name), int) and getattr(self, name) >= 1):
                raise UsageError(f"ZoomSpec.{name}: expected a whole number, 1 or more, got {self}")
        for name in ("clip_uv", "scale_uv", "top_db", "unit_db"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"ZoomSpec.{name}: expected a finite number above 0, got {self}")
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
        """Columns of the spectrum of the whole window."""
        return 1 + n_times // self.wide_hop

    def n_left(self, n_times: int = N_TIMES) -> int:
        """Columns of it that stand left of the centre."""
        return (self.n_wide(n_times) - self.cut) // 2

    def shape_of(self, n_times: int) -> tuple[int, int, int]:
        """(3, 16 · n_mels, columns) of the image of `n_times` samples.

        Raises:
            UsageError: a window that the centre does not fit into, or that has nothing beside it.
        """
        if n_times < self.centre_samples or self.n_wide(n_times) < self.cut + 2:
            least = max(self.centre_samples, (self.cut + 1) * self.wide_hop)
            raise expected("eeg_uv", f"{least:,} samples or more", n_times)
        return N_PLANES, LANES * self.n_mels, self.n_wide(n_times) - self.cut + self.n_centre


def zoomed_image(
    eeg_uv: NDArray[Any] | Sequence[NDArray[Any]],
    out: NDArray[np.float32] | None = None,
    threads: int = 1,
    spec: ZoomSpec | None = None,
    mirror: bool = False,
    band_hz: tuple[float, float] | None = None,
) -> NDArray[np.float32]:
    """Compute the images of many windows of one length, or of one.

    Args:
        eeg_uv: (B, n_times, 20) or (n_times, 20) float32 or float16, µV, channels in the competition's order; or a
            sequence of B windows. Missing samples are NaN; ±inf counts as NaN.
        out: (B, 3, 16·n_mels, columns) float32, C-contiguous; without B for one window.
        threads: how many Python threads share the windows.
        spec: the resolution; the default of `ZoomSpec` where it is None.
        mirror: whether left and right are exchanged.
        band_hz: edges (−3 dB) of a causal Butterworth band-pass of order 2 that the differences go through first, Hz;
            None for no filter.

    Returns:
        (B, 3, 16·n_mels, columns) float32, in units of `unit_db`; without B for one window.

    Raises:
        UsageError: a shape, a dtype or an `out` that cannot be used; a window that is too short.
    """
    given = spec or ZoomSpec()
    return of_all(eeg_uv, out, threads, given.shape_of, lambda w, o: _run(w, o, given, mirror, band_hz))


def zoomed_image_into(
    eeg_uv_TC: NDArray[Any],
    out_CHW: NDArray[np.float32],
    spec: ZoomSpec,
    mirror: bool = False,
    band_hz: tuple[float, float] | None = None,
) -> NDArray[np.float32]:
    """Compute the image of one window in this thread: the feed's entry.

    Scratch memory (4.3 MB) is kept and used again, by any thread.

    Args:
        eeg_uv_TC: (n_times, 20) float32 or float16, µV, for example a slice of a memory map.
        out_CHW: (3, 16·n_mels, columns) float32, C-contiguous.
        spec: the resolution.
        mirror: whether left and right are exchanged.
        band_hz: edges of a band-pass, see `zoomed_image`.

    Returns:
        `out_CHW`.

    Raises:
        UsageError: a shape, a dtype or an `out_CHW` that cannot be used; a window that is too short.
    """
    window = as_window(eeg_uv_TC)
    _run(window, output(out_CHW, spec.shape_of(len(window))), spec, mirror, band_hz)
    return out_CHW


@functools.cache
def neighbours() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return for each of the sixteen differences the one before it and the one after it on its ring."""
    before, after = np.empty(LANES, np.int64), np.empty(LANES, np.int64)
    of_pair = {frozenset(pair): signal for signal, pair in enumerate(DIFFERENCES)}
    for ring in RINGS:
        signals = [of_pair[frozenset(pair)] for pair in pairwise(ring)]
        before[signals], after[signals] = np.roll(signals, 1), np.roll(signals, -1)
    return before, after


_pool = Pool()
_NO_FILTER = np.zeros(9, np.float32)
_DB_PER_OCTAVE = 10 * math.log10(2)


def _run(
    window: NDArray[Any],
    image: NDArray[np.float32],
    spec: ZoomSpec,
    mirror: bool,
    band_hz: tuple[float, float] | None,
) -> None:
    n_times, width = len(window), image.shape[-1]
    wide, centre = zoom_plan(spec.wide), zoom_plan(spec.centre)
    n_wide, n_left, n_centre = spec.n_wide(n_times), spec.n_left(n_times), spec.n_centre
    n_right = n_wide - spec.cut - n_left
    run: Any = plain_image if min(n_left, n_right, n_centre) < COLUMNS else compute
    pad, first = max(wide.half, centre.half), (n_times - spec.centre_samples) // 2
    scratch = _pool.borrow(
        (n_times + 2 * pad) * LANES,
        pad * 2 * LANES,
        FRAMES * (max(wide.rank, centre.rank) + 1) * 2 * LANES,
        FRAMES * max(wide.n_bins, centre.n_bins) * LANES,
        spec.n_mels * width * LANES,
        LANES * LANES,
    )
    run(
        window.reshape(-1), image.reshape(-1), *scratch, _NO_FILTER if band_hz is None else causal_modes(*band_hz),
        *_coefficients(wide), *_coefficients(centre), *neighbours(),
        n_times, pad, spec.n_mels, width, spec.wide_hop, wide.half, wide.rank, wide.n_bins, wide.n_taps,
        n_wide, n_left, n_right,
        spec.centre_hop, centre.half, centre.rank, centre.n_bins, centre.n_taps, first,
        band_hz is not None, mirror, spec.clip_uv, 1 / spec.scale_uv, 10 ** (-spec.top_db / 10),
        _DB_PER_OCTAVE / spec.unit_db,
    )  # fmt: skip
    _pool.give_back(scratch)


def _coefficients(mel: MelPlan) -> tuple[Any, ...]:
    return mel.project, mel.transform, mel.band_start, mel.band_weight
