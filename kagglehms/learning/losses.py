"""Losses on logits; always in float32, outside of mixed precision.

Shape legend: B batch, K the six classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def kl_loss(logits_BK: Tensor, targets_BK: Tensor) -> Tensor:
    """KL(target ‖ softmax(logits)), summed over classes, mean over the batch: a float32 scalar."""
    with torch.autocast(logits_BK.device.type, enabled=False):
        log_probabilities_BK = functional.log_softmax(logits_BK.float(), dim=1)
        return functional.kl_div(log_probabilities_BK, targets_BK.float(), reduction="batchmean")
