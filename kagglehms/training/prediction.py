"""The probabilities that a network predicts.

Shape legend: B batch, C channel, H image rows, W image columns, N records, K the six classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from kagglehms.data.competition import CLASSES
from kagglehms.device import Device
from kagglehms.progress import progress
from kagglehms.training.batches import Batch
from kagglehms.training.distributed import ALONE, Team
from kagglehms.training.feed import Feed
from kagglehms.training.precision import autocast, laid_out

if TYPE_CHECKING:
    from numpy.typing import NDArray


def predict(
    model: nn.Module,
    feed: Feed,
    positions: NDArray[np.integer],
    batch_size: int,
    device: Device,
    team: Team = ALONE,
    what: str = "",
) -> NDArray[np.float64]:
    """Predict records, each in one process of the team. The network is left in evaluation mode.

    Args:
        model: the network, on the device.
        feed: feed that draws the records' inputs.
        positions: positions of the records in the feed.
        batch_size: largest number of records in a batch.
        device: device to compute on.
        team: the processes among which the records are divided.
        what: short description of the work, under which its progress is shown; empty shows none.

    Returns:
        (N, 6) float64 probabilities, in the order of `positions`.
    """
    own = team.share(positions)
    batches: Iterable[Batch] = feed.batches(own, batch_size)
    if what:
        batches = progress(batches, -(-len(own) // batch_size), what)
    outputs = [_probabilities(model, batch.images_BCHW, device) for batch in batches]
    own_NK = torch.cat(outputs).cpu().numpy() if outputs else np.empty((0, len(CLASSES)))
    return team.gather_rows(own_NK, len(positions))


def probabilities(model: nn.Module, images_BCHW: torch.Tensor, device: Device) -> NDArray[np.float64]:
    """Predict one batch.

    Args:
        model: the network, on the device.
        images_BCHW: float32 images, or signals (B, C, T).
        device: device to compute on.

    Returns:
        (B, 6) float64 probabilities; the softmax is computed in float64, outside mixed precision.
    """
    return _probabilities(model, images_BCHW, device).cpu().numpy()


@torch.inference_mode()
def _probabilities(model: nn.Module, images_BCHW: torch.Tensor, device: Device) -> torch.Tensor:
    """Predict one batch and leave the result on the device, so that the CPU does not wait."""
    model.eval()
    images_BCHW = images_BCHW.to(device.name, non_blocking=True)
    with autocast(device):
        logits_BK = model(laid_out(images_BCHW))
    if device.name == "mps":  # which has no float64
        logits_BK = logits_BK.cpu()
    return torch.softmax(logits_BK.double(), dim=1)
