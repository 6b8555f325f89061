"""Spectrograms of every signal, stacked to an image: long and short stretches of time at the same width.

Each block is a spectrogram of the middle of the recording. All blocks have the same window length and number of frames,
but different hops. The bins of a frame are the power in µV² per Hz in the band, as log(1 + power). Rows go from low to
high frequencies; the blocks of a signal are stacked, and so are the signals. They are in the upper left corner of an
image that is otherwise 0, and that is normalised by its own mean and standard deviation.

By default, as in the seventh place, there are 18 differences × 2 blocks (50 s with a hop of 21, without three frames at
either end, and the middle 10 s with a hop of 4) × 14 bins = 504 rows × 464 columns, in 512 × 512.

The FFT is computed by `torch.fft` in float32, outside mixed precision; FFTs do not use TF32.

Shape legend: B batch, C signals, T samples, L samples of a window, N frames (columns), F bins, P planes, H and W image
rows and columns.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from kagglehms.errors import UsageError
from kagglehms.training.front_ends.options import SpectrumOptions

EPSILON = 1e-6
"""Number added to the standard deviation of an image, as everywhere in this project."""


class Spectrum(nn.Module):
    """Turns signals into an image of their spectrograms.

    Args:
        options: windows, blocks and band. With `trainable`, each block learns a window, which starts as a Hann window;
            as power is per Hz for any window, its scale has no effect.
    """

    windows: Tensor

    def __init__(self, options: SpectrumOptions | None = None) -> None:
        super().__init__()
        self.options = options or SpectrumOptions()
        hann_L = torch.hann_window(self.options.win_length, periodic=True, dtype=torch.float64).float()
        windows_PL = hann_L.repeat(len(self.options.blocks), 1)
        if self.options.trainable:
            self.windows = nn.Parameter(windows_PL)
        else:
            self.register_buffer("windows", windows_PL, persistent=False)

    def forward(self, signals_BCT: Tensor) -> Tensor:
        """Compute images.

        Args:
            signals_BCT: signals in units of `unit_uv` µV, without NaN.

        Returns:
            (B, 1, H, W) float32 images, or (B, P, H, W) with a plane for each block.

        Raises:
            UsageError: the signals are shorter than a block, or do not fit into the image.
        """
        options = self.options
        n_batch, n_signals, n_times = signals_BCT.shape
        n_planes, height, width = options.content_shape(n_signals)
        if n_times < max(n_block for n_block, _, _ in options.blocks):
            raise UsageError(f"Spectrum: {n_times} samples are fewer than the blocks {options.blocks} need")
        if height > options.size[0] or width > options.size[1]:
            raise UsageError(f"Spectrum: {height} × {width} pixels do not fit into {options.size}")
        with torch.autocast(signals_BCT.device.type, enabled=False):
            signals = signals_BCT.float() * options.unit_uv
            blocks = [self._log_power(signals, block) for block in range(len(options.blocks))]
            content = torch.stack(blocks, dim=1 if options.planes else 2)
            image = content.reshape(n_batch, n_planes, height, width)
            padding = (0, options.size[1] - width, 0, options.size[0] - height)
            return _normalised(functional.pad(image, padding))

    def _log_power(self, signals_BCT: Tensor, block: int) -> Tensor:
        """Return (B, C, F, N) of one block."""
        options = self.options
        n_block, hop, trim = options.blocks[block]
        start = (signals_BCT.shape[-1] - n_block) // 2 + trim * hop
        end = start + (options.n_columns - 1) * hop + options.win_length
        frames_BCNL = signals_BCT[..., start:end].unfold(-1, options.win_length, hop)
        if options.detrend:
            for _ in range(2):  # twice, because rounding would leave 1e-4 µV of an offset of 1000 µV
                frames_BCNL = frames_BCNL - frames_BCNL.mean(dim=-1, keepdim=True)
        window_L = self.windows[block].float()
        first, last = options.bins
        spectrum = torch.view_as_real(torch.fft.rfft(frames_BCNL * window_L)[..., first : last + 1])
        # Both sides of the spectrum; all bins of the band have two.
        per_hz = 2.0 / (options.sfreq_hz * window_L.square().sum())
        return torch.log1p(spectrum.square().sum(dim=-1) * per_hz).transpose(2, 3)


def _normalised(image_BPHW: Tensor) -> Tensor:
    """Normalise each image by its mean and standard deviation."""
    centred = image_BPHW - image_BPHW.mean(dim=(1, 2, 3), keepdim=True)
    return centred / (centred.square().mean(dim=(1, 2, 3), keepdim=True).sqrt() + EPSILON)
