"""Mixed precision and memory format of a network on a device."""

from __future__ import annotations

import torch

from kagglehms.device import Device


def autocast(device: Device) -> torch.autocast:
    """Return a context with the mixed precision of `device`; it does nothing where the device uses float32."""
    dtype = getattr(torch, device.amp) if device.amp else None
    return torch.autocast(device.name, dtype=dtype, enabled=dtype is not None)


def memory_format(device: Device) -> torch.memory_format:
    """Return the memory format of images: channels last on a GPU, whose convolution units expect it."""
    return torch.channels_last if device.name == "cuda" else torch.contiguous_format


def laid_out(inputs: torch.Tensor, device: Device) -> torch.Tensor:
    """Return images in the `memory_format` of the device, and signals, which have no such format, unchanged."""
    return inputs.contiguous(memory_format=memory_format(device)) if inputs.ndim == 4 else inputs
