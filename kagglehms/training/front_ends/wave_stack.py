"""The wave stack: a WaveNet that all signals share, whose features, stacked chain upon chain, are an image.

A block is a 1 × 1 convolution to its width, then dilated layers with a residual connection each,

    x ← x + W · (tanh(F ∗ x) ⊙ σ(G ∗ x)),   dilations 1, 2, 4, …

and at last a convolution of stride 2 with batch normalisation and SiLU. Unlike in speech, where samples are predicted
one after the other, the recording is at hand as a whole: filters are centred, not causal, with zeros beyond both ends.
After the last block the mean over parts of equal length makes a fixed number of columns, and the mean over the signals
of a chain leaves one set of features per chain.

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
    """Turn signals into an image of learned features.

    Signals are folded into the batch, so that one 1-D convolution serves them all.

    Args:
        options: widths and depths; the default is the fifth place's.
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
        """(B, C, T) → (B, 1, H, W): rows are chains × features, columns parts of the time.

        Args:
            signals_BCT: filtered, clipped and scaled to about 1; the signals of a chain are neighbours.

        Raises:
            UsageError: C is no multiple of the number of chains.
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
    """Dilated gated layers at one width, then half as many samples."""

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
                # Nothing is drawn in a layer, so there is no random state to keep.
                x_NDT = checkpoint(layer, x_NDT, use_reentrant=False, preserve_rng_state=False)
            else:
                x_NDT = layer(x_NDT)
        return functional.silu(self.norm(self.halve(x_NDT)))


class _GatedLayer(nn.Module):
    """x + W · (tanh(F ∗ x) ⊙ σ(G ∗ x)); both filters in one convolution."""

    def __init__(self, width: int, kernel: int, dilation: int) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.filter_and_gate = nn.Conv1d(width, 2 * width, kernel, dilation=dilation, padding=padding)
        self.mix = nn.Conv1d(width, width, 1)

    def forward(self, x_NDT: Tensor) -> Tensor:
        filtered, gate = self.filter_and_gate(x_NDT).chunk(2, dim=1)
        return x_NDT + self.mix(torch.tanh(filtered) * torch.sigmoid(gate))
