"""A causal Butterworth band-pass on the device, as one convolution by FFT.

A recursion runs sample after sample, which a GPU cannot do in parallel. Its impulse response dies away (for 0.5–20 Hz
at 200 Hz below 1e-7 after 5.6 seconds), so that a finite response does the same, and the FFT convolves all signals
at once. In float32, outside of mixed precision; FFTs know no TF32.

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
    """What `scipy.signal.sosfilt` does from rest with `butter(order, band, "bandpass", output="sos")`; no parameters.

    Args:
        options: the band, and where the impulse response ends.

    Attributes:
        n_taps: samples of the impulse response that are kept.
        error: the greatest that what is left out can change of a sample, where no sample is beyond ± 1.
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
        """(…, T) of any float type, without NaN → (…, T) float32."""
        n_times = signals_BCT.shape[-1]
        with torch.autocast(signals_BCT.device.type, enabled=False):
            taps_N = self._taps.float()[:n_times]
            size = fast_size(n_times + taps_N.shape[0] - 1)
            response = torch.fft.rfft(taps_N, n=size)
            spectrum = torch.fft.rfft(signals_BCT.float(), n=size)
            return torch.fft.irfft(spectrum * response, n=size)[..., :n_times]


MOST_TAPS = 1 << 20
"""Where looking for the end of an impulse response stops: 87 minutes at 200 Hz."""


def _impulse_response(options: BandPassOptions) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the impulse response up to where it stays below the tail, and as much again of what follows.

    Raises:
        UsageError: it does not die away.
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
    raise UsageError(f"CausalBandPass: the answer of {options} does not die away")


def fast_size(n: int) -> int:
    """Return the least 2^a · m ≥ n, m in 1, 3, 5, 9, 15: a length that FFTs like."""
    return min(m << max(0, (-(-n // m) - 1).bit_length()) for m in (1, 3, 5, 9, 15))
