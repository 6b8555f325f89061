"""Pool a feature map to one number per feature, over all axes after the second.

Shape legend: B batch, D features, `…` any axes of space or time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kagglehms.errors import UsageError, one_of
from kagglehms.training.front_ends.options import PoolingName


class MeanPool(nn.Module):
    """Averages each feature."""

    def forward(self, features: Tensor) -> Tensor:
        """Pool (B, D, …) features to (B, D) in the same dtype."""
        return features.flatten(2).mean(dim=2)


class MeanMaxPool(nn.Module):
    """Adds mean and maximum of each feature."""

    def forward(self, features: Tensor) -> Tensor:
        """Pool (B, D, …) features to (B, D) in the same dtype."""
        flat_BDL = features.flatten(2)
        return flat_BDL.mean(dim=2) + flat_BDL.amax(dim=2)


class GeMPool(nn.Module):
    """Computes the generalised mean of each feature, (mean of max(x, eps)^p)^(1/p), with one p for all features.

    p = 1 is the mean, and p → ∞ the maximum. It is computed in float32, whatever the dtype of the features, and
    relative to the largest of them, since the cube of 41 overflows in float16, and the seventh power of eps underflows
    in float32.

    Source: Radenović, Tolias & Chum (2018), "Fine-tuning CNN Image Retrieval with No Human Annotation", section 3.2.

    Args:
        p: exponent, or its initial value.
        trainable: whether the exponent is learned.
        eps: smallest value, to which smaller ones are raised so that roots and their derivatives are finite.
    """

    def __init__(self, p: float = 3.0, trainable: bool = False, eps: float = 1e-6) -> None:
        super().__init__()
        if not (p > 0 and eps > 0):
            raise UsageError(f"GeMPool: p and eps are above 0, got {p} and {eps}")
        self.eps = eps
        self.p: Any = nn.Parameter(torch.tensor(float(p))) if trainable else float(p)

    def forward(self, features: Tensor) -> Tensor:
        """Pool (B, D, …) features to (B, D) in float32."""
        with torch.autocast(features.device.type, enabled=False):
            p = self.p.float() if isinstance(self.p, Tensor) else self.p
            raised_BDL = features.flatten(2).float().clamp(min=self.eps)
            # The result does not depend on this divisor, which therefore needs no gradient.
            most_BD1 = raised_BDL.detach().amax(dim=2, keepdim=True)
            mean_BD = (raised_BDL / most_BD1).pow(p).mean(dim=2)
            return mean_BD.pow(1.0 / p) * most_BD1.squeeze(2)

    def extra_repr(self) -> str:
        return f"p={float(self.p):g}, trainable={isinstance(self.p, Tensor)}, eps={self.eps:g}"


def in_the_middle(features: Tensor, share: float) -> Tensor:
    """Return a share of the last axis, in its middle: at least one position."""
    n = features.shape[-1]
    n_middle = max(1, round(n * share))
    start = (n - n_middle) // 2
    return features[..., start : start + n_middle]


POOLINGS: dict[PoolingName, type[nn.Module]] = {"mean": MeanPool, "gem": GeMPool, "mean+max": MeanMaxPool}


def make_pooling(name: PoolingName) -> nn.Module:
    """Build a pooling by its name; all of them return D features.

    Raises:
        UsageError: there is no pooling of that name.
    """
    one_of("pooling", name, POOLINGS)
    return POOLINGS[name]()
