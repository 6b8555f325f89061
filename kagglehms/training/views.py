"""Late fusion: two networks, for two images of a record or for its signals and an image, with a common head.

Shape legend: B batch, C planes, H and W image rows and columns, D features of an embedding, K the six classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kagglehms.training.classifiers import embedding_head
from kagglehms.training.precision import laid_out


class TwoViews(nn.Module):
    """Two networks whose embeddings are concatenated, followed by dropout and a linear layer.

    Args:
        first: network that embeds the first view.
        second: network that embeds the second view.
        widths: number of features in each embedding.
        shapes: (planes, height, width) of each image, (signals, samples) of signals.
        dropout: dropout rate of the concatenated embeddings.
        own_heads: whether further layers compute, in training, the logits of each view by itself.
    """

    def __init__(
        self,
        first: nn.Module,
        second: nn.Module,
        widths: tuple[int, int],
        shapes: Sequence[tuple[int, ...]],
        dropout: float,
        own_heads: bool = False,
    ) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.shapes = [tuple(shape) for shape in shapes]
        self.dropout = nn.Dropout(dropout)
        self.head = embedding_head(sum(widths))
        self.own_heads = nn.ModuleList(map(embedding_head, widths if own_heads else ()))

    def forward(self, values_BN: Tensor) -> Tensor:
        """Compute (B, K) logits from the (B, N) values of both views, in the order of `inputs.kinds.Views`.

        A network with heads of its own for each view returns (3, B, K) in training: the logits of both views together,
        of the first, and of the second.
        """
        first, second = map(laid_out, taken_apart(values_BN, self.shapes))
        embeddings_BD = self.first(first), self.second(second)
        logits_BK: Tensor = self.head(self.dropout(torch.cat(embeddings_BD, dim=1)))
        if not (self.training and len(self.own_heads)):
            return logits_BK
        own = (head(self.dropout(one)) for head, one in zip(self.own_heads, embeddings_BD, strict=True))
        return torch.stack([logits_BK, *own])


def taken_apart(values_BN: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Separate (B, N) values into (B, C, H, W) images or (B, C, T) signals of the given shapes."""
    parts = torch.split(values_BN, [math.prod(shape) for shape in shapes], dim=1)
    return [part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]


def put_together(images: Sequence[Tensor]) -> Tensor:
    """Join images and signals to (B, N) values, which inverts `taken_apart`."""
    return torch.cat([image.flatten(1) for image in images], dim=1)
