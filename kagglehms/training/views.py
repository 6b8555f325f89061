"""Two image networks that see two images of a record and share a head: late fusion.

Shape legend: B batch, C planes, H and W image rows and columns, D features of an embedding, K the six classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kagglehms.data.competition import CLASSES


class TwoViews(nn.Module):
    """Embeddings of two images side by side, dropout, one linear layer.

    Args:
        first: turns the first image into an embedding.
        second: turns the second image into an embedding.
        widths: features of the two embeddings.
        shapes: (planes, height, width) of the two images.
        dropout: of the embeddings.
    """

    def __init__(
        self,
        first: nn.Module,
        second: nn.Module,
        widths: tuple[int, int],
        shapes: Sequence[tuple[int, ...]],
        dropout: float,
    ) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.shapes = [tuple(shape) for shape in shapes]
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(sum(widths), len(CLASSES))

    def forward(self, values_BN: Tensor) -> Tensor:
        """(B, N) values of both images, as `inputs.kinds.Views` lays them out → (B, K) logits."""
        first, second = (self._laid_out(image) for image in taken_apart(values_BN, self.shapes))
        embedding_BD = torch.cat([self.first(first), self.second(second)], dim=1)
        logits_BK: Tensor = self.head(self.dropout(embedding_BD))
        return logits_BK

    @staticmethod
    def _laid_out(image_BCHW: Tensor) -> Tensor:
        """Channels last on a GPU, as images come that travel by themselves."""
        layout = torch.channels_last if image_BCHW.is_cuda else torch.contiguous_format
        return image_BCHW.contiguous(memory_format=layout)


def taken_apart(values_BN: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """(B, N) values → (B, C, H, W) images, one after the other."""
    parts = torch.split(values_BN, [math.prod(shape) for shape in shapes], dim=1)
    return [part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]


def put_together(images: Sequence[Tensor]) -> Tensor:
    """(B, C, H, W) images → (B, N) values; the inverse of `taken_apart`."""
    return torch.cat([image.flatten(1) for image in images], dim=1)
