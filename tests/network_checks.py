"""What must hold for every network of signals."""

from __future__ import annotations

import torch


def check_gradients(network: torch.nn.Module) -> None:
    """After a backward pass: every parameter has a gradient that is finite and not 0 throughout."""
    for name, p in network.named_parameters():
        assert p.grad is not None, name
        assert torch.isfinite(p.grad).all(), name
        assert p.grad.count_nonzero(), name


def check_half_precision(network: torch.nn.Module, x: torch.Tensor, dtype: torch.dtype) -> None:
    """Embeddings in half precision are finite, and within a twentieth of the largest of those in float32."""
    with torch.inference_mode():
        exact = network(x)
        with torch.autocast("cpu", dtype=dtype):
            half = network(x)
    assert torch.isfinite(half).all()
    assert float((half - exact).abs().max() / exact.abs().max()) < 0.05


def check_compiles_whole(network: torch.nn.Module, x: torch.Tensor) -> None:
    """The network compiles without a break in its graph, and computes the same."""
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), network(x))
