"""Losses on logits; always in float32, outside of mixed precision.

Shape legend: B batch, K the six classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from kagglehms.errors import UsageError, closest
from kagglehms.learning.options import LOSSES, LossName

MOST_VOTES = 10
"""Votes from which on `kl-capped-votes` counts records alike and `kl-two-stage` weights them otherwise."""

VOTES_PER_UNIT = 20
"""Votes that count 1 in `kl-votes`."""


def kl_loss(logits_BK: Tensor, targets_BK: Tensor) -> Tensor:
    """KL(target ‖ softmax(logits)), summed over classes, mean over the batch: a float32 scalar."""
    with torch.autocast(logits_BK.device.type, enabled=False):
        log_probabilities_BK = functional.log_softmax(logits_BK.float(), dim=1)
        return functional.kl_div(log_probabilities_BK, targets_BK.float(), reduction="batchmean")


def weighted_kl_loss(
    logits_BK: Tensor, targets_BK: Tensor, n_votes_B: Tensor, kind: LossName = "kl"
) -> Tensor:
    """KL of each record × its weight, mean over the batch: a float32 scalar.

    As in the source's notebooks, the weights are not divided by their sum.

    Args:
        logits_BK: of any float type.
        targets_BK: vote fractions.
        n_votes_B: votes of each record, at least 1.
        kind: see `vote_weights`.

    Raises:
        UsageError: no loss of that name.
    """
    with torch.autocast(logits_BK.device.type, enabled=False):
        log_probabilities_BK = functional.log_softmax(logits_BK.float(), dim=1)
        kl_B = functional.kl_div(log_probabilities_BK, targets_BK.float(), reduction="none").sum(dim=1)
        return (kl_B * vote_weights(n_votes_B, kind)).mean()


def vote_weights(n_votes_B: Tensor, kind: LossName) -> Tensor:
    """Return what each record counts in the loss of that name, float32.

    With n votes: `kl` 1; `kl-log-votes` ln(n + 1); `kl-votes` n / 20; `kl-capped-votes` min(n, 10); `kl-two-stage` n up
    to ten votes, and (10 + 2m)·m beyond, where m = log10 n (the source's modified weight for its second stage: 12.6
    for 11 votes, 18.7 for 28).

    Raises:
        UsageError: no loss of that name.
    """
    n_B = n_votes_B.float()
    match kind:
        case "kl":
            return torch.ones_like(n_B)
        case "kl-log-votes":
            return torch.log1p(n_B)
        case "kl-votes":
            return n_B / VOTES_PER_UNIT
        case "kl-capped-votes":
            return n_B.clamp(max=MOST_VOTES)
        case "kl-two-stage":
            log10_B = torch.log10(n_B)
            return torch.where(n_B <= MOST_VOTES, n_B, (10 + 2 * log10_B) * log10_B)
    raise UsageError(f"unknown loss {kind!r}; {closest(kind, LOSSES)}")
