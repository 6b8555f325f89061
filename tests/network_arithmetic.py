"""Layers of networks in plain NumPy float64, one signal at a time, for comparison."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import correlate2d
from scipy.special import erf

F64 = NDArray[np.float64]


class Weights:
    """A network's weights by name, of which the first part may be left out: `weights.of("stem")["0.weight"]`."""

    def __init__(self, values: dict[str, F64], prefix: str = "") -> None:
        self._values, self._prefix = values, prefix

    @classmethod
    def of_network(cls, network: torch.nn.Module) -> Weights:
        return cls({name: value.double().numpy() for name, value in network.state_dict().items()})

    def of(self, part: str) -> Weights:
        return Weights(self._values, f"{self._prefix}{part}.")

    def __getitem__(self, name: str) -> F64:
        return self._values[self._prefix + name]

    def get(self, name: str) -> F64 | None:
        return self._values.get(self._prefix + name)


def convolution(x_CT: F64, w: Weights, stride: int = 1, dilation: int = 1) -> F64:
    """Centred cross-correlation with zeros beyond both ends; depthwise where each feature has one input."""
    weight, bias = w["weight"], w.get("bias")
    n_out, n_in, n_taps = weight.shape
    reach = dilation * (n_taps // 2)
    padded = np.pad(x_CT, ((0, 0), (reach, reach)))
    out = np.zeros((n_out, x_CT.shape[1]))
    for k in range(n_taps):
        shifted = padded[:, k * dilation : k * dilation + x_CT.shape[1]]
        out += weight[:, 0, k, None] * shifted if n_in < len(x_CT) else weight[:, :, k] @ shifted
    if bias is not None:
        out += bias[:, None]
    return out[:, ::stride]


def image_convolution(x_CHW: F64, w: Weights, stride: int = 1) -> F64:
    """Centred cross-correlation without a bias, with zeros beyond all edges."""
    planes = [sum(map(correlate2d, x_CHW, taps, ["same"] * len(x_CHW))) for taps in w["weight"]]
    return np.stack(planes)[:, ::stride, ::stride]


def batch_norm(x: F64, w: Weights) -> F64:
    """As in evaluation; features are on the first axis."""
    scale = w["weight"] / np.sqrt(w["running_var"] + 1e-5)
    mean, scale, bias = (v.reshape(-1, *[1] * (x.ndim - 1)) for v in (w["running_mean"], scale, w["bias"]))
    return (x - mean) * scale + bias


def layer_norm(x: F64, w: Weights, eps: float = 1e-5) -> F64:
    """Over the last axis."""
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps) * w["weight"] + w["bias"]


def linear(x: F64, w: Weights) -> F64:
    bias = w.get("bias")
    return x @ w["weight"].T + (0 if bias is None else bias)


def sigmoid(x: F64) -> F64:
    return 1 / (1 + np.exp(-x))


def silu(x: F64) -> F64:
    return x * sigmoid(x)


def gelu(x: F64) -> F64:
    return x * (1 + erf(x / np.sqrt(2))) / 2


def softmax(x: F64) -> F64:
    raised = np.exp(x - x.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def gem(x: F64) -> F64:
    """Over all axes behind the first."""
    return np.cbrt((np.maximum(x, 1e-6) ** 3).mean(axis=tuple(range(1, x.ndim))))


def shake(network: torch.nn.Module) -> None:
    """Give every weight that starts as an identity, and every running statistic, a value of its own."""
    for name, value in (*network.named_parameters(), *network.named_buffers()):
        if "running_var" in name:
            value.uniform_(0.5, 2.0)
        elif value.ndim == 1 and value.is_floating_point():
            with torch.no_grad():
                value.add_(0.2 * torch.randn_like(value))
