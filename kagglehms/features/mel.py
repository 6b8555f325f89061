"""EEG window → four mel images, one per chain of the double banana, at the limit of the machine.

What is computed
    The public notebook "How to make spectrogram from EEG" (Kaggle, HMS competition) on 50 s at 200 Hz. For each of the
    four differences of neighbouring electrodes of a chain, missing samples replaced by the mean of the difference:

        S = librosa.feature.melspectrogram(y=x, sr=200, hop_length=len(x) // 256, n_fft=1024, n_mels=128,
                                           fmin=0, fmax=20, win_length=128)
        L = (librosa.power_to_db(S, ref=np.max)[:, :256] + 40) / 40

    and the image of a chain is the mean of its four L. Panels come in the order LL, RL, LP, RP.

    Computed as written, that is 16 × 257 Fourier transforms of 1,024 points, as many products with a 128 × 513 matrix,
    and half a million logarithms. Nearly all of it is spent on zeros, on bins that no band reads, and on numbers that
    follow from their neighbours. The steps below leave that out. All but one of them are exact.

1. Only the bins that count
    x(j) are the samples of a frame, j counted from its centre. librosa pads the Hann window w of 128 samples with zeros
    to 1,024, so that the bins are eight times closer together than the window can resolve; of the 513 bins only those
    below 20 Hz, k = 1 … 102, reach a mel band:

        X(k) = Σ_j w(j) x(j) exp(−2πi k j / 1024),   |j| < 64,   w(j) = ½ + ½ cos(2π j / 128),

    up to a phase, which does not affect power. That is a product of 102 × 127, not an FFT of 1,024.

2. Fold
    Cosines are even in j and sines are odd. With s(j) = x(j) + x(−j) and d(j) = x(j) − x(−j)

        Re X(k) = Σ_{j<64} w(j) cos(2πkj/1024) s(j),    Im X(k) = −Σ_{j<64} w(j) sin(2πkj/1024) d(j),

    where s(0) counts half: two real products of 102 × 64, half the work.

3. Level
    A frame's mean m is subtracted before, and its transform, m W(k) with W the transform of the window, is added after.
    Otherwise offsets of thousands of µV would cost the weak bins their last digits: float32 has seven.

4. Low rank
    The 102 rows of either product describe frames of 0.64 s below 20 Hz, and such signals have few degrees of freedom:
    a band of B Hz watched for T seconds has about 2 B T of them (Slepian and Pollak 1961), here 26, 13 even and 13 odd.
    Beyond that number singular values do not just decrease, they collapse: the 13th is 2 to 3 % of the first, the 19th
    below 5e-7. So either matrix is, to the precision of float32, a product of a tall and a wide one of rank 18,

        A ≈ W · A[rows],      64 · 36 + 18 · 204 multiply-adds a frame instead of 64 · 204.

    The factors are an interpolative decomposition (Cheng, Gimbutas, Martinsson and Rokhlin 2005), not the singular
    vectors: A[rows] are true rows of the transform, at the 18 frequencies that a pivoted QR decomposition finds most
    independent, and W are the weights that combine them into the 102 bins. A singular vector mixes all frequencies, and
    a weak bin would be the small difference of strong numbers. True rows are narrow in frequency, so a weak bin is a
    sum of weak numbers, and a slow artefact 80 dB above it stays out of it. W is fitted to the rows as they are
    rounded to float32, so that rounding them costs nothing.

    How large is the error? `MelSpec.tolerance` bounds it for the worst possible frame: no bin is off by more than 2e-6
    of the greatest value that a bin of any frame of the same energy can have. `mel_plan` raises the rank, three rows at
    a time, until that holds, and refuses a tolerance that float32 cannot reach. The fit favours signals within the
    band, where an EEG has nearly all of its power, so real frames fare far better: in the tests, no pixel is off by
    more than 2e-5 against float64, one part in 100,000 of the 80 dB that an image shows.

5. Mel
    At this resolution a band of Slaney's scale touches two bins at most: an interpolation, not a matrix product.

6. Decibels
    The mean of four logarithms is the logarithm of a product. With r = max(S / max S, 1e-8, 1e-10 / max S) for each
    difference (`top_db` = 80 and `amin` = 1e-10 of power_to_db) the product of four is at least 1e-32, safe in float32,
    and a pixel is 1 + log10(r₁ r₂ r₃ r₄) / 16: a quarter of the logarithms.

How it runs (`mel_compiled`)
    The 16 differences of the four chains are the 16 lanes of a vector, so that no step before the last needs to move
    anything between lanes. Both products run in register tiles of six rows × 16 lanes: each vector that is loaded is
    multiplied by three coefficients, and twelve registers of AVX2 hold the sums. Eight frames go through the second
    product together, so that what lies between the two stays in the first-level cache. A window is a serial job without
    the GIL or an allocation; windows are shared between threads.

Where the time goes
    Of a window's 0.65 ms on a Zen 4 core, subtracting electrodes takes 3 %, the fold 5 %, the first product 26 %, the
    second 47 %, the greatest band of each difference 5 %, decibels and writing 11 %. The products do 83 % of the
    multiply-adds per second that the core does in registers, so little is left to gain without a lower rank.
    `benchmarks/features.py` measures this beside librosa, torch.stft and others.

Any other resolution is a `MelSpec`: `mel_plan` derives rows, rank and weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kagglehms.features import mel_compiled, plain_signals
from kagglehms.features.arrays import Pool, expected, for_each
from kagglehms.features.jit import Compiled
from kagglehms.features.mel_compiled import BLOCK, MelScratch
from kagglehms.features.mel_plan import MelSpec, plan
from kagglehms.features.simd import LANES
from kagglehms.features.transform_compiled import FRAMES

__all__ = ["DEFAULT", "MelSpec", "mel_images"]

DEFAULT = MelSpec()
"""The resolution of the public notebook."""


def mel_images(
    eeg_uv: NDArray[Any] | Sequence[NDArray[Any]],
    out: NDArray[np.float32] | None = None,
    threads: int = 1,
    spec: MelSpec = DEFAULT,
) -> NDArray[np.float32]:
    """Compute the mel images of many windows of one length, or of one.

    Args:
        eeg_uv: (B, n_times, 20) or (n_times, 20) float32 or float16, µV, channels in the competition's order; or a
            sequence of B windows, which are not copied together. Missing samples are NaN; ±inf counts as NaN.
        out: (B, 4, n_mels, n_frames) float32, C-contiguous; without B for one window.
        threads: number of Python threads that share the windows.
        spec: the resolution.

    Returns:
        (B, 4, n_mels, n_frames) float32, panels LL, RL, LP, RP, without B for one window; −1 … 1, where 1 is the
        loudest of all four differences.

    Raises:
        UsageError: a shape, a dtype or an `out` that cannot be used; a window shorter than n_frames samples.
    """
    return for_each(
        eeg_uv, out, threads, lambda _: spec.image_shape, lambda window, image: _run(window, image, spec)
    )


_compute = Compiled(mel_compiled.mel_image, plain_signals.mel_image)
_pool = Pool(MelScratch)


def _run(window: NDArray[Any], image: NDArray[np.float32], spec: MelSpec) -> None:
    n_times = len(window)
    if n_times < spec.n_frames:
        raise expected("eeg_uv", f"{spec.n_frames} samples or more", n_times)
    p = plan(spec)
    t = p.transform
    n_all_frames = 1 + n_times // (n_times // spec.n_frames)
    n_bands = spec.n_mels + 1 if p.n_taps > 2 else 0
    scratch = _pool.borrow(
        differences=(n_times + 2 * t.half) * LANES,
        folded=t.half * 2 * LANES,
        kept=FRAMES * (t.rank + 1) * 2 * LANES,
        power=n_all_frames * t.n_bins * LANES,
        bands=n_all_frames * n_bands * LANES,
    )
    compute = _compute if spec.n_frames >= BLOCK else _compute.plain
    compute(window.reshape(-1), image.reshape(-1), scratch, p, spec.n_frames)
    _pool.give_back(scratch)
