"""A Squeezeformer on signals: convolutions make frames of samples, blocks of attention and convolution relate them.

A block is attention, feed-forward, convolution, feed-forward. Each of the four sees its input scaled and shifted by
what it has learned, and what it finds is added and normalised after,

    x ← LayerNorm(x + module(γ ⊙ x + β)).

Attention knows how far apart two frames are: the score of frames i and j is q_i·k_j + q_i·r(i − j), with a bias of
its own on q_i in either term, and r a projection of sines and cosines of i − j. Swish is the only activation, and the
convolution has no gate. The paper's temporal U-net, which halves the frames between its 7th and 16th block, has no
place in three.

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
    """Turn signals into an embedding.

    Args:
        n_signals: C.
        options: sizes; the default is the third place's.
    """

    def __init__(self, n_signals: int, options: SqueezeOptions | None = None) -> None:
        super().__init__()
        self.options = options or SqueezeOptions()
        self.stem = _stem(n_signals, self.options)
        self.blocks = nn.Sequential(*(_Block(self.options) for _ in range(self.options.n_blocks)))
        self.pool = make_pooling(self.options.pooling)

    @property
    def width(self) -> int:
        """D, features of the embedding."""
        return self.options.width

    def forward(self, signals_BCT: Tensor) -> Tensor:
        """(B, C, T) filtered, clipped and scaled to about 1 → (B, D)."""
        frames_BLD = self.blocks(self.stem(signals_BCT).transpose(1, 2))
        pooled: Tensor = self.pool(frames_BLD.transpose(1, 2))
        return pooled


def _stem(n_signals: int, options: SqueezeOptions) -> nn.Sequential:
    """(B, C, T) → (B, D, L): one full convolution, then depthwise separable ones, each of stride 2."""
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
    """Attention, feed-forward, convolution, feed-forward."""

    def __init__(self, options: SqueezeOptions) -> None:
        width, hidden, dropout = options.width, options.expansion * options.width, options.dropout
        super().__init__(
            _Added(_Attention(width, options.n_heads, dropout), width, dropout),
            _Added(Mlp(width, hidden, act_layer=nn.SiLU, drop=(dropout, 0.0)), width, dropout),
            _Added(_Convolution(width, options.kernel), width, dropout),
            _Added(Mlp(width, hidden, act_layer=nn.SiLU, drop=(dropout, 0.0)), width, dropout),
        )


class _Added(nn.Module):
    """LayerNorm(x + module(γ ⊙ x + β))"""

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
    """Pointwise, depthwise along time, pointwise."""

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
    """Attention of all frames to all, by content and by distance."""

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
"""Wavelengths run from 2 π to this times 2 π frames."""


def _sines_and_cosines(n_frames: int, width: int, device: torch.device) -> Tensor:
    """(P, D) sines, then cosines, of the offsets L − 1 … −(L − 1)."""
    offsets = torch.arange(n_frames - 1, -n_frames, -1, device=device, dtype=torch.float32)
    exponents = torch.arange(0, width, 2, device=device, dtype=torch.float32) / width
    angles = offsets[:, None] * LONGEST**-exponents
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _by_pair(scores_BhLP: Tensor) -> Tensor:
    """(…, L, P) scores of frame i at offset L − 1 − p → (…, L, L) scores of i with j, whose offset is i − j.

    A column of zeros before the first, and rows read at another length: each row is moved by one more than the last
    (appendix B of Transformer-XL).
    """
    n_frames, n_offsets = scores_BhLP.shape[-2:]
    batch = scores_BhLP.shape[:-2]
    padded = functional.pad(scores_BhLP, (1, 0)).reshape(*batch, n_offsets + 1, n_frames)
    return padded[..., 1:, :].reshape(*batch, n_frames, n_offsets)[..., :n_frames]
