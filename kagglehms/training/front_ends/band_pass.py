"""A causal Butterworth band-pass on the device, as a convolution by FFT.

A recursive filter runs sample by sample, which a GPU cannot do in parallel. Since its impulse response decays (for
0.5–20 Hz at 200 Hz below 1e-7 after 5.6 s), a finite response gives the same result, and the FFT convolves all signals
at once. It is computed in float32, outside mixed precision; FFTs do not use TF32.

Shape legend: B batch, C signals, T samples, N taps.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kagglehms.errors import UsageError
from kagglehms.training.front_ends.options import BandPassOptions


class CausalBandPass(nn.Module):
    """Filters like `scipy.signal.sosfilt`, from rest, with `butter(order, band, "bandpass", output="sos")`.

    It has no parameters.

    Args:
        options: the band, and the end of the impulse response.

    Attributes:
        n_taps: number of samples of the truncated impulse response.
        error: largest error of a sample due to the truncation, for signals within ±1.
    """

    _taps: Tensor

    def __init__(self, options: BandPassOptions | None = None) -> None:
        super().__init__()
        self.options = options or BandPassOptions()
        taps, left_out = _impulse_response(self.options)
        self.n_taps = taps.size
        self.error = float(np.abs(left_out).sum())
        self.register_buffer("_taps", torch.tensor(taps, dtype=torch.float32), persistent=False)

    def forward(self, signals_BCT: Tensor) -> Tensor:
        """Filter signals.

        Args:
            signals_BCT: (…, T) signals of any floating-point type, without NaN.

        Returns:
            (…, T) float32 signals.
        """
        n_times = signals_BCT.shape[-1]
        with torch.autocast(signals_BCT.device.type, enabled=False):
            taps_N = self._taps.float()[:n_times]
            size = fast_size(n_times + taps_N.shape[0] - 1)
            response = torch.fft.rfft(taps_N, n=size)
            spectrum = torch.fft.rfft(signals_BCT.float(), n=size)
            return torch.fft.irfft(spectrum * response, n=size)[..., :n_times]


MOST_TAPS = 1 << 20
"""Longest impulse response that is considered: 87 minutes at 200 Hz."""


def _impulse_response(options: BandPassOptions) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the impulse response until it stays below the tail, and at least as many of the samples that follow.

    Raises:
        UsageError: the impulse response does not decay.
    """
    from scipy.signal import butter, sosfilt

    band = options.low_hz, options.high_hz
    sections = butter(options.order, band, "bandpass", fs=options.sfreq_hz, output="sos")
    size = 1 << 12
    while size <= MOST_TAPS:
        response = sosfilt(sections, np.eye(1, size)[0])
        n_taps = int(np.flatnonzero(np.abs(response) >= options.tail)[-1]) + 1
        if 2 * n_taps < size:
            return response[:n_taps], response[n_taps:]
        size *= 2
    raise UsageError(f"CausalBandPass: the impulse response of {options} does not decay")


def fast_size(n: int) -> int:
    """Return a length of at least n for fast FFTs: the smallest 2^a · m with m in 1, 3, 5, 9, 15.

    `scipy.fft.next_fast_len` also allows higher powers of 3 and 5, with which PyTorch takes up to twice as long.
    """
    return min(m << max(0, (-(-n // m) - 1).bit_length()) for m in (1, 3, 5, 9, 15))
