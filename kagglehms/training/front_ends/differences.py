"""Electrodes → differences of neighbours, on the device: missing samples filled, clipped, scaled.

The sixteen differences of the double banana stand chain upon chain, LL, RL, LP, RP, from front to back in each; the two
of the midline, Fz − Cz and Cz − Pz, may follow.

Missing samples are NaN; ±inf counts as NaN. A sample of a difference that is missing becomes the mean of what is
present of that difference, and 0 where nothing is.

Shape legend: B batch, E the twenty channels of a recording, C differences, T samples.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kagglehms.data.competition import CHANNELS, DIFFERENCES, MIDLINE_DIFFERENCES
from kagglehms.errors import UsageError
from kagglehms.training.front_ends.options import DifferencesOptions


class Differences(nn.Module):
    """Subtract neighbours, fill what is missing, clip and scale; no parameters.

    Args:
        options: which differences, and their limits.
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
        """(B, T, 20) µV of any float type, channels in the competition's order → (B, C, T) float32, without NaN.

        Raises:
            UsageError: not twenty channels.
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
    """Put the mean of what is present of a signal where a sample is not finite; 0 where nothing is."""
    present = signals_BCT.isfinite()
    known = torch.where(present, signals_BCT, 0.0)
    mean = known.sum(dim=-1, keepdim=True) / present.sum(dim=-1, keepdim=True).clamp(min=1)
    return torch.where(present, signals_BCT, mean)
