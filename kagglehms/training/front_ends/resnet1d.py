"""A one-dimensional residual network that is applied to each chain, and another that sees all chains together.

The four signals of a chain are compressed, as a loud electrode says little more than a quiet one, and one convolution
with a long kernel turns them into frames. Residual layers with rising dilations follow, the same ones for every chain,
so that a network learns four times as often what a discharge looks like. Then the chains of a recording are put side by
side, and further layers see which of them have what. What is pooled is the whole recording and its middle, which is
what the experts voted on: the mean and the maximum of each.

Convolutions are dense, not depthwise, and activations few: so that a CPU without any GPU spends its time multiplying
matrices, which it is good at, in half precision most of all.

Sources: `residual` for the layers; the fourth place of the competition for a network that chains share, see
`effnet1d`. Sizes, compression and pooling are our own.

Shape legend: B batch, C signals, T samples, M chains of the whole batch (B · chains), L frames, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kagglehms.errors import UsageError
from kagglehms.training.front_ends.options import ResNet1dOptions
from kagglehms.training.front_ends.pooling import in_the_middle
from kagglehms.training.front_ends.residual import Residual, activated, convolved

HALVING_KERNEL = 5
"""Number of taps of a convolution that halves the frames."""


class ResNet1d(nn.Module):
    """Turns signals into an embedding.

    Args:
        n_signals: number of signals, a multiple of the number of chains.
        options: sizes of the network.

    Raises:
        UsageError: the signals cannot be divided into chains of equal size.
    """

    def __init__(self, n_signals: int, options: ResNet1dOptions | None = None) -> None:
        super().__init__()
        self.options = options or ResNet1dOptions()
        options = self.options
        if n_signals % options.n_chains:
            raise UsageError(
                f"ResNet1d: {n_signals} signals do not make {options.n_chains} chains of one size"
            )
        kernel, n_in = options.stem_kernel, n_signals // options.n_chains
        self.stem = nn.Conv1d(n_in, options.widths[0], kernel, options.stem_stride, kernel // 2, bias=False)
        stages = [_stage(options, stage) for stage in range(len(options.widths))]
        self.of_chains = nn.Sequential(*stages[: options.n_shared])
        self.of_recordings = nn.Sequential(
            *stages[options.n_shared :], *activated(options.widths[-1], axes=1)
        )

    @property
    def width(self) -> int:
        """Number of features of the embedding."""
        return self.options.width

    def forward(self, signals_BCT: Tensor) -> Tensor:
        """Compute (B, D) embeddings of signals that have been low-passed, clipped and scaled to about 1."""
        n_batch, _, n_times = signals_BCT.shape
        compressed_BCT = torch.asinh(signals_BCT / self.options.knee)
        chains_MCT = compressed_BCT.reshape(n_batch * self.options.n_chains, -1, n_times)
        by_chain_MDL = self.of_chains(self.stem(chains_MCT))
        frames_BDL = self.of_recordings(by_chain_MDL.reshape(n_batch, -1, by_chain_MDL.shape[-1]))
        return _pooled(frames_BDL, self.options.middle)


def _stage(options: ResNet1dOptions, stage: int) -> nn.Sequential:
    """Return the layers of a stage; after the first stage, a convolution that halves the frames is before them."""
    width, kernel = options.widths[stage], options.kernels[stage]
    layers: list[nn.Module] = []
    if stage:
        n_in = options.widths[stage - 1] * (options.n_chains if stage == options.n_shared else 1)
        layers += convolved(n_in, width, HALVING_KERNEL, axes=1, stride=2)
    rate = options.drop_path_rate if stage else 0.0
    layers += [Residual(width, kernel, 1, 2**layer, rate) for layer in range(options.layers[stage])]
    return nn.Sequential(*layers)


def _pooled(frames_BDL: Tensor, middle: float) -> Tensor:
    """Return (B, 4 D) means and maxima of all frames, and of a share of them in the middle."""
    parts = frames_BDL, in_the_middle(frames_BDL, middle)
    return torch.cat([pooled for part in parts for pooled in (part.mean(dim=-1), part.amax(dim=-1))], dim=1)
