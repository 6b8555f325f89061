"""EEG window → power spectra of every difference over time, two resolutions one above the other, as one image.

What is computed
    The sixteen differences of the double banana and the two of the midline, gaps filled and clipped as in
    `kagglehms.features.differences`, each as in

        f, t, p = scipy.signal.spectrogram(x, 200, window="hann", nperseg=144, noverlap=144 - hop, detrend="constant")
        rows = log(1 + p[(f >= 0.5) & (f <= 20)])

    that is power in µV² per Hz (one-sided) of frames of 144 samples less their mean, in bins 200 / 144 = 1.39 Hz apart,
    fourteen of which lie between 0.5 and 20 Hz. Every signal has 28 rows: fourteen of a wide window, with few columns a
    second, above fourteen of the ten labelled seconds in the middle, with many. Frequency rises downwards. 18 · 28 =
    504 rows of 464 columns stand in the upper left corner of 512 × 512 zeros, and all of it is normalised by its one
    mean and deviation. (Zeros beside an image that is normalised already stay zeros through a convolution that has no
    bias yet, and a layer normalisation would divide them by nothing: gradients of 1e8, which half precision cannot
    hold.)
    Signals come in the order LL, RL, LP, RP, midline.

Columns
    A Hann window of 144 samples has a zero at its beginning; with the zero that follows it, a frame spans 145. 50 s
    hold ⌊(10,000 − 145) / 21⌋ + 1 = 470 such frames at a hop of 21, and without three on either side 464. 10 s hold
    ⌊(2,000 − 145) / 4⌋ + 1 = 464 at a hop of 4. 30 s hold 488 at a hop of 12, and without twelve on either side 464.
    All published numbers follow from this (frames of 144 would make 465 columns of the 10 s).

How
    Sixteen differences go side by side through the lanes of a vector; the two of the midline follow, eight columns of
    both at once. With n_fft = win_length, as here, neighbouring frames share most of their sums, see
    `kagglehms.features.sliding_compiled`. Otherwise (closer bins, long hops) a frame is folded and multiplied with the
    rows of the transform, as for the mel images, in two stages of low rank if that takes fewer products.

Source: the competition's seventh-placed solution, which used a Tukey window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kagglehms.features import plain_signals, spectra_compiled
from kagglehms.features.arrays import Pool, for_each
from kagglehms.features.jit import Compiled
from kagglehms.features.simd import LANES
from kagglehms.features.sliding_plan import COLUMNS
from kagglehms.features.spectra_compiled import SpectraScratch
from kagglehms.features.spectra_plan import N_MIDLINE, SPECTRA_30_10, SPECTRA_50_10, SpectraSpec, plan
from kagglehms.features.transform_compiled import FRAMES

__all__ = ["SPECTRA_30_10", "SPECTRA_50_10", "SpectraSpec", "difference_spectra"]


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
        threads: number of Python threads that share the windows.
        spec: the resolution.
        mirror: whether left and right are exchanged.

    Returns:
        (B, height, width) float32, of mean 0 and deviation 1, padding included; without B for one window.

    Raises:
        UsageError: a shape, a dtype or an `out` that cannot be used; a window shorter than the wide block.
    """
    return for_each(
        eeg_uv, out, threads, lambda _: spec.shape, lambda window, image: _run(window, image, spec, mirror)
    )


_compute = Compiled(spectra_compiled.difference_spectra, plain_signals.difference_spectra)
_pool = Pool(SpectraScratch)


def _run(window: NDArray[Any], image: NDArray[np.float32], spec: SpectraSpec, mirror: bool) -> None:
    n_times, longest_hop = len(window), max(spec.wide_hop, spec.centre_hop)
    p = plan(spec, n_times)
    scratch = _pool.borrow(
        lanes=(n_times + longest_hop) * LANES,
        pair=n_times * N_MIDLINE + 8,
        runs=(p.run * longest_hop + spec.win_length) * LANES,
        folded=spec.win_length * LANES,
        kept=FRAMES * (p.transform.rank + 1) * 2 * LANES,
        sums=max(p.wide.hops.n_tiles, p.centre.hops.n_tiles) * 6 * LANES,
        power=COLUMNS * p.transform.n_bins * LANES,
        square=LANES * LANES,
    )
    narrowest = p.run if spec.midline else p.n_columns
    compute = _compute.plain if narrowest < COLUMNS else _compute
    compute(window.reshape(-1), image.reshape(-1), scratch, p, mirror)
    _pool.give_back(scratch)
