"""EEG window → mel spectra of every difference, the labelled seconds finer than the rest, as an image of three planes.

What is computed
    The sixteen differences of the double banana, gaps filled and clipped as in `kagglehms.features.differences`, in
    units of 32 µV; of each of them twice

        S = librosa.feature.melspectrogram(y=x, sr=200, n_fft=n_fft, win_length=win_length, hop_length=hop,
                                           n_mels=64, fmin=0.53, fmax=30)
        L = 10 log10(max(S, 1e-10, max S / 1e10)) / 20

    once of the whole window (n_fft 512, window 128, hop 32: 313 columns), and once of the 2,400 samples in its middle
    (n_fft 2048, window 16, hop 4: 601 columns). The maximum is that of all sixteen differences, so that they stay
    comparable, in the columns of each spectrum that are kept. Beyond the ends of the window, wide frames read zeros;
    those of the centre read the samples beside it.

Columns
    The 62 columns in the middle of the wide spectrum, a fifth of it, are removed, and all 601 of the centre take their
    place: 125 + 601 + 126 = 852 columns. That is how the published numbers fit each other. 2,400 samples at a hop of 4
    are 601 columns, ten times as many as a fifth of the 313 has room for; reducing them to 62 would lose the resolution
    in time that a window of 16 samples is for, and 62 columns at a hop of 4 would be 1.2 s of the ten labelled seconds.
    So 313 is the width of the wide spectrum alone. The centre is 12 s long and replaces 10 s: a second on either side
    is shown in both resolutions.

Planes
    x; x less the mean of the other fifteen differences; x less the mean of its two neighbours. Neighbours are next to
    each other on the ring that the two chains of a hemisphere make (Fp1-F7, F7-T3, T3-T5, T5-O1, P3-O1, C3-P3, F3-C3,
    Fp1-F3, and round again). Signals are stacked in the order LL, RL, LP, RP, each with 64 rows; frequency
    rises downwards. With three planes the image is 3 × 1,024 × 852.

How
    Both spectra are computed by the low-rank transform of the mel images, see `kagglehms.features.mel`: 27 true rows of
    either parity for the 75 bins of the wide spectrum, 6 for the centre, whose bands of ten bins are sums of three
    squares (`kagglehms.features.condensed_plan`). Sixteen columns of all signals become planes while they are in the
    first-level cache.

Source: the competition's third-placed solution. It took the maximum over a whole batch of records, which here would
make one record's image depend on others, and the mel scale of HTK, which is nearly linear up to 30 Hz as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kagglehms.features import plain_signals, zoom_compiled
from kagglehms.features.arrays import Pool, for_each
from kagglehms.features.filters import NO_FILTER, causal
from kagglehms.features.jit import Compiled
from kagglehms.features.simd import LANES
from kagglehms.features.transform_compiled import FRAMES
from kagglehms.features.zoom_compiled import COLUMNS, ZoomScratch
from kagglehms.features.zoom_plan import N_PLANES, ZoomSpec, plan

__all__ = ["N_PLANES", "ZoomSpec", "zoomed_image"]


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
        threads: number of Python threads that share the windows.
        spec: the resolution; the default of `ZoomSpec` if None.
        mirror: whether left and right are exchanged.
        band_hz: edges (−3 dB) in Hz of a causal Butterworth band-pass of order 2 that the differences pass first; None
            for no filter.

    Returns:
        (B, 3, 16·n_mels, columns) float32, in units of `unit_db`; without B for one window.

    Raises:
        UsageError: a shape, a dtype or an `out` that cannot be used; a window that is too short.
    """
    given = spec or ZoomSpec()
    return for_each(eeg_uv, out, threads, given.shape_of, lambda w, o: _run(w, o, given, mirror, band_hz))


_compute = Compiled(zoom_compiled.zoom_image, plain_signals.zoom_image)
_pool = Pool(ZoomScratch)


def _run(
    window: NDArray[Any],
    image: NDArray[np.float32],
    spec: ZoomSpec,
    mirror: bool,
    band_hz: tuple[float, float] | None,
) -> None:
    p = plan(spec, len(window))
    wide, centre = p.left.mel.transform, p.centre.mel.transform
    scratch = _pool.borrow(
        lanes=(len(window) + 2 * p.pad) * LANES,
        folded=p.pad * 2 * LANES,
        kept=FRAMES * (max(wide.rank, centre.rank) + 1) * 2 * LANES,
        power=FRAMES * max(wide.n_bins, centre.n_bins) * LANES,
        bands=spec.n_mels * p.width * LANES,
        square=LANES * LANES,
    )
    narrowest = min(stretch.n_columns for stretch in (p.left, p.centre, p.right))
    compute = _compute.plain if narrowest < COLUMNS else _compute
    filter_ = NO_FILTER if band_hz is None else causal(*band_hz)
    compute(window.reshape(-1), image.reshape(-1), scratch, p, filter_, mirror)
    _pool.give_back(scratch)
