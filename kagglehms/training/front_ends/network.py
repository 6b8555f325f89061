"""A network for signals: a front end, followed by an image network.

Shape legend: B batch, C signals, T samples, K the six classes.
"""

from __future__ import annotations

from torch import Tensor, nn

from kagglehms.training.front_ends.fold import Fold
from kagglehms.training.front_ends.options import FoldOptions, FrontEnd, SpectrumOptions, WaveStackOptions
from kagglehms.training.front_ends.spectrum import Spectrum
from kagglehms.training.front_ends.wave_stack import WaveStack


class SignalNetwork(nn.Module):
    """Turns signals into an image, and the image into logits.

    Args:
        front_end: network that turns (B, C, T) signals into (B, 1, H, W) images.
        backbone: network that turns the images into (B, K) logits.
    """

    def __init__(self, front_end: nn.Module, backbone: nn.Module) -> None:
        super().__init__()
        self.front_end = front_end
        self.backbone = backbone

    def forward(self, signals_BCT: Tensor) -> Tensor:
        """Compute (B, K) logits of (B, C, T) signals."""
        logits_BK: Tensor = self.backbone(self.front_end(signals_BCT))
        return logits_BK


def make_front_end(options: FrontEnd) -> nn.Module:
    """Build a front end."""
    match options:
        case FoldOptions():
            return Fold(options)
        case SpectrumOptions():
            return Spectrum(options)
        case WaveStackOptions():
            return WaveStack(options)
