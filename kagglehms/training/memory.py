"""Errors of memory that does not suffice, and the largest batch that fits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kagglehms.device import Device
from kagglehms.training.precision import autocast

_NO_MEMORY = (
    # Allocators without an error class of their own: main memory on Linux and macOS, on Windows, and Apple's GPU.
    "can't allocate memory",
    "not enough memory",
    "MPS backend out of memory",
    # Libraries that allocate GPU memory themselves.
    "CUDA error: out of memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUFFT_ALLOC_FAILED",
)


def out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error means that the memory of some device did not suffice."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _NO_MEMORY)


def largest_fitting(
    model: nn.Module, size: int, shape: tuple[int, ...], device: Device, optimizer: torch.optim.Optimizer
) -> int:
    """Find a batch size that fits into memory, by trying `size`, half of it, and so on.

    A batch fits if the network can run forwards and backwards on it while the memory that the optimizer needs from
    its first step on is allocated.

    Args:
        model: the network, on the device.
        size: largest number of records to try.
        shape: shape of the network's input for one record.
        device: the device.
        optimizer: optimizer of the network.

    Returns:
        The first size that fits, or 0.
    """
    moments: list[Tensor] = []
    while size:
        if device.name == "cuda":
            torch.cuda.empty_cache()
        try:
            if not moments:
                new = (p for p in model.parameters() if not optimizer.state.get(p))
                moments = [torch.zeros_like(p) for p in new for _ in range(2)]
            with autocast(device):
                logits_BK = model(torch.zeros((size, *shape), device=device.name))
            logits_BK.float().sum().backward()
            return size
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            size //= 2
        finally:
            model.zero_grad(set_to_none=True)
    return 0
