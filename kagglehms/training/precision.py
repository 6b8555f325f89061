"""Mixed precision, memory format and choice of algorithms of a network on a device."""

from __future__ import annotations

from typing import TypeVar

import torch

from kagglehms.device import Device

Network = TypeVar("Network", bound=torch.nn.Module)

TUNED_STEPS = 3000
"""Steps of a fold from which it pays to try convolution algorithms.

Trying them took 25 to 60 s for each size of a batch on an H200, where a step takes 40 to 70 ms; a fold that is shorter
than this cannot win that back.
"""


def autocast(device: Device, keep_casts: bool = True) -> torch.autocast:
    """Return a context with the mixed precision of `device`; it does nothing where the device uses float32.

    Args:
        device: device to compute on.
        keep_casts: whether a weight that is used twice is cast once.
    """
    dtype = getattr(torch, device.amp) if device.amp else None
    return torch.autocast(device.name, dtype=dtype, enabled=dtype is not None, cache_enabled=keep_casts)


def memory_format(device_type: str) -> torch.memory_format:
    """Return the memory format of images and of a network's weights: channels last.

    The convolutions of NVIDIA's GPUs and of CPUs are quicker with it. Apple's GPUs get what PyTorch has by default,
    since nothing has been measured there.

    Args:
        device_type: "cuda", "cpu" or "mps".
    """
    return torch.contiguous_format if device_type == "mps" else torch.channels_last


def placed(network: Network, device_type: str) -> Network:
    """Move a network to a device, its weights in the `memory_format` of the images there, and return it."""
    return network.to(device_type).to(memory_format=memory_format(device_type))


def laid_out(inputs: torch.Tensor) -> torch.Tensor:
    """Return images in the `memory_format` of where they lie, and signals contiguous, which have no such format."""
    return inputs.contiguous(
        memory_format=memory_format(inputs.device.type) if inputs.ndim == 4 else torch.contiguous_format
    )


def tunes_convolutions(device: Device, n_steps: int) -> bool:
    """Return whether cuDNN should try algorithms for each convolution, rather than choose one by its heuristics.

    Args:
        device: device to compute on.
        n_steps: training steps of the whole fold. Not those of a session, so that a resumed fold computes the same way.
    """
    return device.name == "cuda" and n_steps >= TUNED_STEPS
