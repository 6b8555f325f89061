"""The wave stack: a WaveNet that is applied to each signal, and whose stacked features are an image.

A block consists of a 1 × 1 convolution to its width, dilated layers with residual connections,

    x ← x + W · (tanh(F ∗ x) ⊙ σ(G ∗ x))   with dilations 1, 2, 4, …,

and a convolution with stride 2, batch normalisation and SiLU. Unlike in speech synthesis, where samples are predicted
one by one, the whole recording is available, so filters are centred instead of causal, with zeros beyond both ends.
After the last block, features are averaged over parts of equal length, which become the columns, and over the signals
of each chain.

Sources: van den Oord et al. (2016), "WaveNet: A Generative Model for Raw Audio", sections 2.3 and 2.4, for the layers;
the fifth place of the competition for the numbers.

Shape legend: B batch, C signals, T samples, N signals of the whole batch (B·C), D features, H and W image rows and
columns.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from kagglehms.errors import UsageError
from kagglehms.training.front_ends.options import WaveStackOptions


class WaveStack(nn.Module):
    """Turns signals into an image of learned features.

    Signals are moved to the batch axis, so that the same one-dimensional convolution is applied to all of them.

    Args:
        options: widths and depths; by default those of the fifth place.
    """

    def __init__(self, options: WaveStackOptions | None = None) -> None:
        super().__init__()
        self.options = options or WaveStackOptions()
        sizes = zip(self.options.widths, self.options.layers, strict=True)
        blocks, n_in = [], 1
        for width, n_layers in sizes:
            blocks.append(_Block(n_in, width, n_layers, self.options.kernel, self.options.recompute))
            n_in = width
        self.blocks = nn.Sequential(*blocks)

    def forward(self, signals_BCT: Tensor) -> Tensor:
        """Compute images.

        Args:
            signals_BCT: signals that have been filtered, clipped and scaled to about 1; those of a chain are
                neighbours.

        Returns:
            (B, 1, H, W) images, whose rows are chains × features, and whose columns are parts of the time.

        Raises:
            UsageError: the signals cannot be divided into chains of equal size.
        """
        n_batch, n_signals, n_times = signals_BCT.shape
        n_chains = self.options.n_chains
        if n_signals % n_chains:
            raise UsageError(f"WaveStack: {n_signals} signals do not make {n_chains} chains of one size")
        features_NDW = functional.adaptive_avg_pool1d(
            self.blocks(signals_BCT.reshape(n_batch * n_signals, 1, n_times)), self.options.n_columns
        )
        by_chain = features_NDW.reshape(n_batch, n_chains, n_signals // n_chains, *features_NDW.shape[1:])
        return by_chain.mean(dim=2).flatten(1, 2).unsqueeze(1)


class _Block(nn.Module):
    """A block of dilated gated layers, which halves the number of samples at its end."""

    def __init__(self, n_in: int, width: int, n_layers: int, kernel: int, recompute: bool) -> None:
        super().__init__()
        self._recompute = recompute
        self.widen = nn.Conv1d(n_in, width, 1)
        self.layers = nn.ModuleList(_GatedLayer(width, kernel, 2**i) for i in range(n_layers))
        self.halve = nn.Conv1d(width, width, kernel, stride=2, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x_NDT: Tensor) -> Tensor:
        x_NDT = self.widen(x_NDT)
        for layer in self.layers:
            if self._recompute and self.training and torch.is_grad_enabled():
                # Layers do not draw random numbers, so no random state needs to be stored.
                x_NDT = checkpoint(layer, x_NDT, use_reentrant=False, preserve_rng_state=False)
            else:
                x_NDT = layer(x_NDT)
        return functional.silu(self.norm(self.halve(x_NDT)))


class _GatedLayer(nn.Module):
    """Computes x + W · (tanh(F ∗ x) ⊙ σ(G ∗ x)), with both filters in one convolution."""

    def __init__(self, width: int, kernel: int, dilation: int) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.filter_and_gate = nn.Conv1d(width, 2 * width, kernel, dilation=dilation, padding=padding)
        self.mix = nn.Conv1d(width, width, 1)

    def forward(self, x_NDT: Tensor) -> Tensor:
        filtered, gate = self.filter_and_gate(x_NDT).chunk(2, dim=1)
        return x_NDT + self.mix(torch.tanh(filtered) * torch.sigmoid(gate))
