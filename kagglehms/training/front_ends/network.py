"""A network for signals or panels: a front end, followed by an image network or, if it makes embeddings, by a head.

Shape legend: B batch, C signals, T samples, K the six classes.
"""

from __future__ import annotations

from torch import Tensor, nn

from kagglehms.training.classifiers import embedding_head
from kagglehms.training.front_ends.effnet1d import EffNet1d
from kagglehms.training.front_ends.fold import Fold
from kagglehms.training.front_ends.options import (
    AnyEncoder,
    EffNet1dOptions,
    FoldOptions,
    ImageFrontEnd,
    PanelResNetOptions,
    ResNet1dOptions,
    SpectrumOptions,
    SqueezeOptions,
    WaveStackOptions,
)
from kagglehms.training.front_ends.panel_resnet import PanelResNet
from kagglehms.training.front_ends.resnet1d import ResNet1d
from kagglehms.training.front_ends.spectrum import Spectrum
from kagglehms.training.front_ends.squeeze import Squeeze
from kagglehms.training.front_ends.wave_stack import WaveStack


class SignalNetwork(nn.Module):
    """Turns signals into an image or an embedding, or panels into an embedding, and that into logits.

    Args:
        front_end: network that turns (B, C, T) signals into (B, 1, H, W) images or (B, D) embeddings, or (B, 1, H, W)
            images into embeddings.
        backbone: network that turns these into (B, K) logits.
    """

    def __init__(self, front_end: nn.Module, backbone: nn.Module) -> None:
        super().__init__()
        self.front_end = front_end
        self.backbone = backbone

    def forward(self, signals_BCT: Tensor) -> Tensor:
        """Compute (B, K) logits of (B, C, T) signals."""
        logits_BK: Tensor = self.backbone(self.front_end(signals_BCT))
        return logits_BK


def make_encoder(options: AnyEncoder, height: int) -> Squeeze | EffNet1d | ResNet1d | PanelResNet:
    """Build a network that embeds `height` signals, or an image of as many rows, in `width` features."""
    match options:
        case SqueezeOptions():
            return Squeeze(height, options)
        case EffNet1dOptions():
            return EffNet1d(height, options)
        case ResNet1dOptions():
            return ResNet1d(height, options)
        case PanelResNetOptions():
            return PanelResNet(height, options)


def encoder_with_head(options: AnyEncoder, height: int, dropout: float) -> SignalNetwork:
    """Build a network that embeds signals or an image, see `make_encoder`, followed by dropout and a linear layer."""
    encoder = make_encoder(options, height)
    return SignalNetwork(encoder, nn.Sequential(nn.Dropout(dropout), embedding_head(encoder.width)))


def make_front_end(options: ImageFrontEnd) -> nn.Module:
    """Build a front end that makes images."""
    match options:
        case FoldOptions():
            return Fold(options)
        case SpectrumOptions():
            return Spectrum(options)
        case WaveStackOptions():
            return WaveStack(options)
