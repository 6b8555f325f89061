"""A Squeezeformer for signals: convolutions turn samples into frames, which blocks of attention and convolution relate.

A block consists of attention, feed-forward, convolution and feed-forward modules. The input of each is scaled and
shifted by learned numbers, and its output is added, and normalised afterwards:

    x ← LayerNorm(x + module(γ ⊙ x + β)).

Attention depends on the distance between two frames: the score of frames i and j is q_i·k_j + q_i·r(i − j), with a
separate bias on q_i in each term, where r is a projection of sines and cosines of i − j. Swish is the only activation,
and the convolution has no gate. The temporal U-net of the paper, which halves the frames between its 7th and 16th
block, is left out, as there are three blocks.

Sources: Kim et al. (2022), "Squeezeformer: An Efficient Transformer for Automatic Speech Recognition", sections 3.1 and
3.2; Dai et al. (2019), "Transformer-XL", section 3.3 and appendix B, for the positions; the third place of the
competition for the numbers.

Shape legend: B batch, C signals, T samples, L frames, D features, h heads, P offsets (2 L − 1).
"""

from __future__ import annotations

import torch
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torch.nn import functional

from kagglehms.training.front_ends.options import SqueezeOptions
from kagglehms.training.front_ends.pooling import make_pooling


class Squeeze(nn.Module):
    """Turns signals into an embedding.

    Args:
        n_signals: number of signals.
        options: sizes of the network; by default those of the third place.
    """

    def __init__(self, n_signals: int, options: SqueezeOptions | None = None) -> None:
        super().__init__()
        self.options = options or SqueezeOptions()
        self.stem = _stem(n_signals, self.options)
        self.blocks = nn.Sequential(*(_Block(self.options) for _ in range(self.options.n_blocks)))
        self.pool = make_pooling(self.options.pooling)

    @property
    def width(self) -> int:
        """Number of features of the embedding."""
        return self.options.width

    def forward(self, signals_BCT: Tensor) -> Tensor:
        """Compute (B, D) embeddings of signals that have been filtered, clipped and scaled to about 1."""
        frames_BLD = self.blocks(self.stem(signals_BCT).transpose(1, 2))
        pooled: Tensor = self.pool(frames_BLD.transpose(1, 2))
        return pooled


def _stem(n_signals: int, options: SqueezeOptions) -> nn.Sequential:
    """Return the layers from (B, C, T) to (B, D, L): a convolution, then depthwise separable ones, with stride 2."""
    n_in = options.width // 2
    layers: list[nn.Module] = [_halving(n_signals, n_in, options), nn.BatchNorm1d(n_in), nn.SiLU()]
    for _ in range(options.n_halvings - 1):
        layers += [
            _halving(n_in, n_in, options, groups=n_in),
            nn.Conv1d(n_in, options.width, 1, bias=False),
            nn.BatchNorm1d(options.width),
            nn.SiLU(),
        ]
        n_in = options.width
    if options.n_halvings == 1:
        layers.append(nn.Conv1d(n_in, options.width, 1))
    return nn.Sequential(*layers)


def _halving(n_in: int, n_out: int, options: SqueezeOptions, groups: int = 1) -> nn.Conv1d:
    kernel = options.stem_kernel
    return nn.Conv1d(n_in, n_out, kernel, stride=2, padding=kernel // 2, groups=groups, bias=False)


class _Block(nn.Sequential):
    """A block of attention, feed-forward, convolution and feed-forward modules."""

    def __init__(self, options: SqueezeOptions) -> None:
        width, hidden, dropout = options.width, options.expansion * options.width, options.dropout
        super().__init__(
            _Added(_Attention(width, options.n_heads, dropout), width, dropout),
            _Added(Mlp(width, hidden, act_layer=nn.SiLU, drop=(dropout, 0.0)), width, dropout),
            _Added(_Convolution(width, options.kernel), width, dropout),
            _Added(Mlp(width, hidden, act_layer=nn.SiLU, drop=(dropout, 0.0)), width, dropout),
        )


class _Added(nn.Module):
    """Computes LayerNorm(x + module(γ ⊙ x + β))."""

    def __init__(self, module: nn.Module, width: int, dropout: float) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.module = module
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, x_BLD: Tensor) -> Tensor:
        found = self.module(x_BLD * self.scale + self.shift)
        normed: Tensor = self.norm(x_BLD + self.dropout(found))
        return normed


class _Convolution(nn.Module):
    """A pointwise, a depthwise and a pointwise convolution along time."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(width, width, 1),
            nn.SiLU(),
            nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width, bias=False),
            nn.BatchNorm1d(width),
            nn.SiLU(),
            nn.Conv1d(width, width, 1),
        )

    def forward(self, x_BLD: Tensor) -> Tensor:
        y_BDL: Tensor = self.layers(x_BLD.transpose(1, 2))
        return y_BDL.transpose(1, 2)


class _Attention(nn.Module):
    """Attention between all frames, by content and distance."""

    def __init__(self, width: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self._n_heads, self._dropout = n_heads, dropout
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.positions = nn.Linear(width, width, bias=False)
        self.content_bias = nn.Parameter(torch.empty(n_heads, 1, width // n_heads))
        self.position_bias = nn.Parameter(torch.empty(n_heads, 1, width // n_heads))
        self.out = nn.Linear(width, width)
        for bias in (self.content_bias, self.position_bias):
            nn.init.trunc_normal_(bias, std=0.02)

    def forward(self, x_BLD: Tensor) -> Tensor:
        n_batch, n_frames, width = x_BLD.shape
        n_heads, per_head = self._n_heads, width // self._n_heads
        projected = self.queries_keys_values(x_BLD).reshape(n_batch, n_frames, 3, n_heads, per_head)
        queries, keys, values = projected.permute(2, 0, 3, 1, 4).unbind(0)  # (B, h, L, D/h) each
        offsets_PD = _sines_and_cosines(n_frames, width, x_BLD.device)
        positions_hDP = self.positions(offsets_PD).reshape(-1, n_heads, per_head).permute(1, 2, 0)
        by_distance = _by_pair((queries + self.position_bias.to(queries.dtype)) @ positions_hDP)
        attended = functional.scaled_dot_product_attention(
            queries + self.content_bias.to(queries.dtype),
            keys,
            values,
            attn_mask=(by_distance * per_head**-0.5).to(queries.dtype),
            dropout_p=self._dropout if self.training else 0.0,
        )
        out: Tensor = self.out(attended.transpose(1, 2).reshape(n_batch, n_frames, width))
        return out


LONGEST = 10_000.0
"""Ratio between the longest and the shortest wavelength, which is 2 π frames."""


def _sines_and_cosines(n_frames: int, width: int, device: torch.device) -> Tensor:
    """Return (P, D) sines, then cosines, of the offsets L − 1 … −(L − 1)."""
    offsets = torch.arange(n_frames - 1, -n_frames, -1, device=device, dtype=torch.float32)
    exponents = torch.arange(0, width, 2, device=device, dtype=torch.float32) / width
    angles = offsets[:, None] * LONGEST**-exponents
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _by_pair(scores_BhLP: Tensor) -> Tensor:
    """Turn (…, L, P) scores of frame i at offset L − 1 − p into (…, L, L) scores of frames i and j at offset i − j.

    A column of zeros is added in front, and the rows are read with another length, so that each row is shifted by one
    more than the previous one (appendix B of Transformer-XL).
    """
    n_frames, n_offsets = scores_BhLP.shape[-2:]
    batch = scores_BhLP.shape[:-2]
    padded = functional.pad(scores_BhLP, (1, 0)).reshape(*batch, n_offsets + 1, n_frames)
    return padded[..., 1:, :].reshape(*batch, n_frames, n_offsets)[..., :n_frames]
