"""A front end and the image network behind it, as one network that takes signals.

Shape legend: B batch, C signals, T samples, K the six classes.
"""

from __future__ import annotations

from torch import Tensor, nn

from kagglehms.training.front_ends.fold import Fold
from kagglehms.training.front_ends.options import FoldOptions, FrontEnd, SpectrumOptions, WaveStackOptions
from kagglehms.training.front_ends.spectrum import Spectrum
from kagglehms.training.front_ends.wave_stack import WaveStack


class SignalNetwork(nn.Module):
    """Signals → image → logits.

    Args:
        front_end: turns (B, C, T) signals into (B, 1, H, W) images.
        backbone: turns the images into (B, K) logits.
    """

    def __init__(self, front_end: nn.Module, backbone: nn.Module) -> None:
        super().__init__()
        self.front_end = front_end
        self.backbone = backbone

    def forward(self, signals_BCT: Tensor) -> Tensor:
        """(B, C, T) → (B, K)."""
        logits_BK: Tensor = self.backbone(self.front_end(signals_BCT))
        return logits_BK


def make_front_end(options: FrontEnd) -> nn.Module:
    """Build the front end that a recipe asks for."""
    match options:
        case FoldOptions():
            return Fold(options)
        case SpectrumOptions():
            return Spectrum(options)
        case WaveStackOptions():
            return WaveStack(options)
