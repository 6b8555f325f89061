"""A one-dimensional EfficientNet that is applied to each chain, and a mixer that relates the chains.

The input is the middle 48 s, every fifth sample (40 per second, since the signals have been low-passed at 20 Hz), less
the mean of each signal. The four signals of a chain go through one network, whose layers are the inverted residuals of
EfficientNet along time: a 1 × 1 convolution to more features, a depthwise convolution, squeeze and excitation, and a
1 × 1 convolution to fewer features. A layer of an MLP mixer then relates the chains in each frame, and all frames of
all chains are pooled.

Sources: Tan & Le (2019), "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", section 4, for the
layers; Tolstikhin et al. (2021), "MLP-Mixer: An all-MLP Architecture for Vision", section 2; the fourth place of the
competition for kernels and widths. Depths and the widths in between, which it did not publish, are our own.

Shape legend: B batch, C signals, T samples, M chains of the whole batch (B · chains), L frames, D features.
"""

from __future__ import annotations

from timm.layers.drop import DropPath
from timm.models.mlp_mixer import MixerBlock
from torch import Tensor, nn

from kagglehms.errors import UsageError
from kagglehms.training.front_ends.options import EffNet1dOptions
from kagglehms.training.front_ends.pooling import make_pooling

SQUEEZED = 4
"""Ratio between a layer's input features and the features of its squeeze and excitation."""


class EffNet1d(nn.Module):
    """Turns signals into an embedding.

    Args:
        n_signals: number of signals, a multiple of the number of chains.
        options: sizes of the network; by default those of the fourth place, as far as they are known.

    Raises:
        UsageError: the signals cannot be divided into chains of equal size.
    """

    def __init__(self, n_signals: int, options: EffNet1dOptions | None = None) -> None:
        super().__init__()
        self.options = options or EffNet1dOptions()
        n_chains = self.options.n_chains
        if n_signals % n_chains:
            raise UsageError(f"EffNet1d: {n_signals} signals do not make {n_chains} chains of one size")
        stem_width = self.options.stem_width
        self.stem = nn.Sequential(*_normed(n_signals // n_chains, stem_width, 3, 2), nn.SiLU())
        self.layers = nn.Sequential(*_layers(self.options))
        self.mixers = nn.Sequential(
            *(MixerBlock(self.options.width, n_chains) for _ in range(self.options.n_mixers))
        )
        self.pool = make_pooling(self.options.pooling)

    @property
    def width(self) -> int:
        """Number of features of the embedding."""
        return self.options.width

    def forward(self, signals_BCT: Tensor) -> Tensor:
        """Compute embeddings.

        Args:
            signals_BCT: signals that have been low-passed, clipped and scaled to about 1.

        Returns:
            (B, D) embeddings.

        Raises:
            UsageError: the signals are too short.
        """
        n_batch, n_chains = signals_BCT.shape[0], self.options.n_chains
        chains_MCT = self._chains(signals_BCT)
        features_MDL = self.layers(self.stem(chains_MCT))
        by_frame = features_MDL.reshape(n_batch, n_chains, *features_MDL.shape[1:]).permute(0, 3, 1, 2)
        mixed = self.mixers(by_frame.flatten(0, 1)).reshape(by_frame.shape)  # (B, L, chains, D)
        pooled: Tensor = self.pool(mixed.permute(0, 3, 1, 2))
        return pooled

    def _chains(self, signals_BCT: Tensor) -> Tensor:
        """Return (M, signals of a chain, samples) whose means are 0."""
        options = self.options
        n_batch, n_signals, n_times = signals_BCT.shape
        if n_times < options.n_times:
            raise UsageError(f"EffNet1d: expected {options.n_times} samples or more, got {n_times}")
        start = (n_times - options.n_times) // 2
        taken = signals_BCT[..., start : start + options.n_times : options.step]
        centred = taken - taken.mean(dim=-1, keepdim=True)
        return centred.reshape(n_batch * options.n_chains, n_signals // options.n_chains, -1)


def _normed(n_in: int, n_out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Return a centred convolution and its batch normalisation."""
    padding = kernel // 2
    convolution = nn.Conv1d(n_in, n_out, kernel, stride, padding, groups=groups, bias=False)
    return [convolution, nn.BatchNorm1d(n_out)]


def _layers(options: EffNet1dOptions) -> list[nn.Module]:
    layers: list[nn.Module] = []
    n_in, n_all = options.stem_width, sum(options.layers)
    stages = zip(options.widths, options.kernels, options.layers, strict=True)
    for stage, (width, kernel, n_layers) in enumerate(stages):
        for i in range(n_layers):
            hidden = n_in * (options.expansion if stage else 1)
            drop_path = options.drop_path_rate * (len(layers) + 1) / n_all
            layers.append(_InvertedResidual(n_in, hidden, width, kernel, 2 if i == 0 else 1, drop_path))
            n_in = width
    return layers


class _InvertedResidual(nn.Module):
    """An inverted residual; its output is added to its input if they have the same shape."""

    def __init__(
        self, n_in: int, hidden: int, n_out: int, kernel: int, stride: int, drop_path: float
    ) -> None:
        super().__init__()
        expand = [*_normed(n_in, hidden), nn.SiLU()] if hidden != n_in else []
        self.layers = nn.Sequential(
            *expand,
            *_normed(hidden, hidden, kernel, stride, groups=hidden),
            nn.SiLU(),
            _SqueezeExcite(hidden, max(1, n_in // SQUEEZED)),
            *_normed(hidden, n_out),
        )
        self._added = stride == 1 and n_in == n_out
        self.drop_path = DropPath(drop_path)

    def forward(self, x_MDL: Tensor) -> Tensor:
        y_MDL: Tensor = self.layers(x_MDL)
        return x_MDL + self.drop_path(y_MDL) if self._added else y_MDL


class _SqueezeExcite(nn.Module):
    """Weights features by a function of their means."""

    def __init__(self, width: int, squeezed: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(
            nn.Conv1d(width, squeezed, 1), nn.SiLU(), nn.Conv1d(squeezed, width, 1), nn.Sigmoid()
        )

    def forward(self, x_MDL: Tensor) -> Tensor:
        weighed: Tensor = x_MDL * self.weigh(x_MDL.mean(dim=2, keepdim=True))
        return weighed
