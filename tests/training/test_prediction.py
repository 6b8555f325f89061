"""Probabilities leave the device in float64, whether or not it has such numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax

from kagglehms.device import Device, choose_device
from kagglehms.training.prediction import probabilities


class Apple(torch.Tensor):
    """A tensor that says and refuses what one on Apple's GPU does."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("mps")

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        given = (*arguments, *(options or {}).values())
        if function is torch.Tensor.double or any(value is torch.float64 for value in given):
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64"
            )
        if function is torch.Tensor.cpu:
            return arguments[0].as_subclass(torch.Tensor)
        return super().__torch_function__(function, types, arguments, options or {})


class Network(torch.nn.Module):
    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return images_BCHW.flatten(1)[:, :6] * 3


@pytest.mark.parametrize("name", ["cpu", "mps"])
def test_the_softmax_is_taken_in_float64(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images_BCHW = np.random.default_rng(0).normal(size=(4, 1, 2, 5)).astype(np.float32)
    tensor = torch.from_numpy(images_BCHW)
    device = choose_device("cpu")
    if name == "mps":
        device = Device("mps", None, "as if")
        tensor = tensor.as_subclass(Apple)  # type: ignore[assignment]
        with pytest.raises(TypeError, match="float64"):
            tensor.double()
        monkeypatch.setattr(Apple, "to", lambda self, *_, **__: self)
    predicted_BK = probabilities(Network(), tensor, device)
    assert predicted_BK.dtype == np.float64
    logits_BK = (images_BCHW.reshape(4, -1)[:, :6] * np.float32(3)).astype(np.float64)
    np.testing.assert_allclose(predicted_BK, softmax(logits_BK, axis=1), rtol=1e-12)
