"""The four mel images on the device: the computation of `kagglehms.features.mel` for batches.

Frames are folded about their centres and their level is subtracted; cosines and sines are computed by the low-rank
transform whose coefficients `kagglehms.features.mel_plan` derives; and a mel band is a weighted sum of a few bins. The
result agrees with `kagglehms.features.mel_images` to 1e-4.

The two matrix products are computed in float64, and everything else in float32, outside mixed precision. If TF32 is
enabled for speed, products of float32 use 11 of 24 bits, which is not enough for 80 dB. Because of the low rank there
are only 6,000 multiply-adds per frame, which is little even for a GPU with one float64 unit in 32.

Shape legend: B batch, E the twenty channels of a recording, C the sixteen differences, T samples, N frames, H half a
window, R rank, K bins, M mel bands.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from kagglehms.data.competition import DIFFERENCES, PANELS
from kagglehms.errors import UsageError
from kagglehms.features.mel import MelSpec
from kagglehms.features.mel_compiled import AMIN, FLOOR
from kagglehms.features.mel_plan import plan
from kagglehms.features.transform_plan import untile
from kagglehms.training.front_ends.differences import Differences
from kagglehms.training.front_ends.options import DifferencesOptions

DECIBELS = 40.0
"""Decibels that correspond to 1 in an image."""


class MelImages(nn.Module):
    """Computes mel images of EEG, one per chain; has no parameters.

    Args:
        spec: resolution of the images.
    """

    _even_HR: Tensor
    _odd_HR: Tensor
    _real_RK: Tensor
    _imag_RK: Tensor
    _band_start_M: Tensor
    _band_weight_MT: Tensor

    def __init__(self, spec: MelSpec | None = None) -> None:
        super().__init__()
        self.spec = spec or MelSpec()
        self._differences = Differences(DifferencesOptions(clip_uv=None, unit_uv=1.0))
        p = plan(self.spec)
        self._half = p.transform.half
        even, odd = untile(p.transform.project, self._half)
        real, imag = untile(p.transform.combine, p.transform.rank + 1)
        tables = {
            "_even_HR": torch.tensor(even.T, dtype=torch.float32),
            "_odd_HR": torch.tensor(odd.T, dtype=torch.float32),
            "_real_RK": torch.tensor(real.T, dtype=torch.float32),
            "_imag_RK": torch.tensor(imag.T, dtype=torch.float32),
            "_band_start_M": torch.tensor(p.band_start),
            "_band_weight_MT": torch.tensor(p.band_weight.reshape(self.spec.n_mels, p.n_taps)),
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

    def forward(self, eeg_BTE: Tensor) -> Tensor:
        """Compute mel images of EEG.

        Args:
            eeg_BTE: EEG in µV of any floating-point type; missing samples are NaN or ±inf.

        Returns:
            (B, 4, n_mels, n_frames) float32 images of the panels LL, RL, LP and RP.

        Raises:
            UsageError: there are not twenty channels, or fewer samples than frames.
        """
        return self.of_differences(self._differences(eeg_BTE))

    def of_differences(self, differences_BCT: Tensor) -> Tensor:
        """Compute mel images of differences.

        Args:
            differences_BCT: sixteen differences in µV, ordered by chain, without NaN.

        Returns:
            (B, 4, n_mels, n_frames) float32 images of the panels LL, RL, LP and RP.

        Raises:
            UsageError: there are not sixteen differences, or fewer samples than frames.
        """
        _, n_signals, n_times = differences_BCT.shape
        if n_signals != len(DIFFERENCES) or n_times < self.spec.n_frames:
            expected = f"(B, {len(DIFFERENCES)}, {self.spec.n_frames} or more)"
            raise UsageError(f"MelImages: expected {expected}, got {tuple(differences_BCT.shape)}")
        with torch.autocast(differences_BCT.device.type, enabled=False):
            bands_BCNM = self._bands(self._power(differences_BCT.float()))
            loudest = bands_BCNM.amax(dim=(2, 3), keepdim=True).clamp(min=AMIN)
            ratios = torch.maximum(bands_BCNM / loudest, (AMIN / loudest).clamp(min=FLOOR))
            in_image = ratios[:, :, : self.spec.n_frames]
            ratios = in_image.reshape(len(in_image), len(PANELS), -1, *in_image.shape[2:])
            # The mean of four logarithms is the logarithm of a product, which is at least 1e-32.
            product = ratios[:, :, 0] * ratios[:, :, 1] * ratios[:, :, 2] * ratios[:, :, 3]
            scale = 10.0 / DECIBELS / ratios.shape[2]
            return (1.0 + scale * product.log10()).transpose(2, 3).contiguous()

    def _power(self, signals_BCT: Tensor) -> Tensor:
        """Return (B, C, N, K) µV² of all frames, also those after the image's last one, which may be the loudest."""
        half, hop = self._half, signals_BCT.shape[-1] // self.spec.n_frames
        padded = functional.pad(signals_BCT, (half - 1, half))
        frames = padded.unfold(-1, 2 * half - 1, hop)
        after, before = frames[..., half - 1 :], frames[..., :half].flip(-1)
        even, odd = after + before, after - before
        twice_level = (
            even.sum(dim=-1, keepdim=True) / half
        )  # the centre is counted twice, as in the folded frames
        level = 0.5 * twice_level
        cosines = _product(
            torch.cat([_product(even - twice_level, self._even_HR), level], dim=-1), self._real_RK
        )
        sines = _product(torch.cat([_product(odd, self._odd_HR), level], dim=-1), self._imag_RK)
        return cosines.square() + sines.square()

    def _bands(self, power_BCNK: Tensor) -> Tensor:
        """Return (B, C, N, M) µV² in each mel band."""
        weights_TM = self._band_weight_MT.float().unbind(dim=1)
        bands = weights_TM[0] * power_BCNK.index_select(-1, self._band_start_M)
        for tap in range(1, len(weights_TM)):
            bands = bands + weights_TM[tap] * power_BCNK.index_select(-1, self._band_start_M + tap)
        return bands


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Return the float32 product of (…, I, J) and (J, K), computed in float64."""
    return (left.double() @ right.double()).float()
