"""Differences between neighbouring electrodes, on the device: with gaps filled, clipped and scaled.

The sixteen differences of the double banana are ordered by chain, LL, RL, LP and RP, each from front to back; the two
of the midline, Fz − Cz and Cz − Pz, may follow.

Missing samples are NaN or ±inf. A missing sample of a difference becomes the mean of the difference's other samples, or
0 if there are none.

Shape legend: B batch, E the twenty channels of a recording, C differences, T samples.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kagglehms.data.competition import CHANNELS, DIFFERENCES, MIDLINE_DIFFERENCES
from kagglehms.errors import UsageError
from kagglehms.training.front_ends.options import DifferencesOptions


class Differences(nn.Module):
    """Subtracts neighbours, fills gaps, clips and scales; has no parameters.

    Args:
        options: number, limit and unit of the differences.
    """

    _first: Tensor
    _second: Tensor

    def __init__(self, options: DifferencesOptions | None = None) -> None:
        super().__init__()
        self.options = options or DifferencesOptions()
        pairs = DIFFERENCES + MIDLINE_DIFFERENCES if self.options.midline else DIFFERENCES
        for name, which in (("_first", 0), ("_second", 1)):
            index = torch.tensor([CHANNELS.index(pair[which]) for pair in pairs])
            self.register_buffer(name, index, persistent=False)

    def forward(self, eeg_BTE: Tensor) -> Tensor:
        """Compute differences.

        Args:
            eeg_BTE: EEG in µV of any floating-point type, with the channels in the competition's order.

        Returns:
            (B, C, T) float32 differences without NaN.

        Raises:
            UsageError: there are not twenty channels.
        """
        if eeg_BTE.ndim != 3 or eeg_BTE.shape[2] != len(CHANNELS):
            raise UsageError(f"Differences: expected (B, T, {len(CHANNELS)}), got {tuple(eeg_BTE.shape)}")
        eeg_BET = eeg_BTE.float().transpose(1, 2)
        differences_BCT = fill_missing(
            eeg_BET.index_select(1, self._first) - eeg_BET.index_select(1, self._second)
        )
        limit_uv = self.options.clip_uv
        if limit_uv is not None:
            differences_BCT = differences_BCT.clamp(-limit_uv, limit_uv)
        return differences_BCT * (1.0 / self.options.unit_uv)


def fill_missing(signals_BCT: Tensor) -> Tensor:
    """Replace samples that are not finite by the mean of the signal's other samples, or by 0 if there are none."""
    present = signals_BCT.isfinite()
    known = torch.where(present, signals_BCT, 0.0)
    mean = known.sum(dim=-1, keepdim=True) / present.sum(dim=-1, keepdim=True).clamp(min=1)
    return torch.where(present, signals_BCT, mean)
