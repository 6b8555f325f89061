"""Residual layers with normalisation and activation before the convolution, along time or over an image.

Source: He et al. (2016), "Identity Mappings in Deep Residual Networks", figure 4 (e).

Shape legend: B batch, D features, `…` the axes of time or space.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from timm.layers.drop import DropPath
from torch import Tensor, nn

Axes: TypeAlias = Literal[1, 2]
"""Number of axes after that of the features: time alone, or the height and width of an image."""

_NORMS: dict[Axes, type[nn.BatchNorm1d | nn.BatchNorm2d]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}
_CONVOLUTIONS: dict[Axes, type[nn.Conv1d | nn.Conv2d]] = {1: nn.Conv1d, 2: nn.Conv2d}


def convolved(
    n_in: int, n_out: int, kernel: int, axes: Axes, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    """Return a centred convolution without bias, after normalisation and activation.

    Args:
        n_in: number of features before it.
        n_out: number of features after it.
        kernel: odd number of taps along each axis.
        axes: number of axes.
        stride: distance between the positions that are computed.
        dilation: distance between taps.
    """
    padding = dilation * (kernel // 2)
    convolution = _CONVOLUTIONS[axes](n_in, n_out, kernel, stride, padding, dilation, bias=False)
    return nn.Sequential(_NORMS[axes](n_in), nn.SiLU(), convolution)


def activated(width: int, axes: Axes) -> nn.Sequential:
    """Return the normalisation and activation after the last residual layer."""
    return nn.Sequential(_NORMS[axes](width), nn.SiLU())


class Residual(nn.Module):
    """Computes x + convolution(activation(normalised x)).

    Args:
        width: number of features.
        kernel: odd number of taps along each axis.
        axes: number of axes.
        dilation: distance between taps.
        drop_path: probability in training that a record skips the layer.
    """

    def __init__(
        self, width: int, kernel: int, axes: Axes, dilation: int = 1, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.layers = convolved(width, width, kernel, axes, dilation=dilation)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Compute (B, D, …) features of the same shape."""
        y: Tensor = x + self.drop_path(self.layers(x))
        return y
