"""Losses on logits; always in float32, outside of mixed precision.

Shape legend: B batch, K the six classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from kagglehms.errors import UsageError, closest
from kagglehms.training.options import LOSSES, WEIGHTS, LossName, WeightsName

MOST_VOTES = 10
"""Votes from which on `capped-votes` counts records alike and `two-stage` weights them otherwise."""

VOTES_PER_UNIT = 20
"""Votes that count 1 in `votes`."""

FEW, FEW_WEIGHT = 7, 0.25
"""`quarter-few`: what records of so many votes or less count."""

GROUPS = ((2, 0.3, 0.02), (8, 0.5, 0.02))
"""`groups`: for records of at most so many votes, the weight at first and the least weight; 1 for more votes."""
GROUPS_FALL = 1.2
"""Part of its first weight that a group would lose along all epochs, if there were no least one."""


def kl_loss(logits_BK: Tensor, targets_BK: Tensor) -> Tensor:
    """KL(target ‖ softmax(logits)), summed over classes, mean over the batch: a float32 scalar."""
    with torch.autocast(logits_BK.device.type, enabled=False):
        log_probabilities_BK = functional.log_softmax(logits_BK.float(), dim=1)
        return functional.kl_div(log_probabilities_BK, targets_BK.float(), reduction="batchmean")


def weighted_loss(
    logits_BK: Tensor,
    targets_BK: Tensor,
    n_votes_B: Tensor,
    loss: LossName = "kl",
    weights: WeightsName | None = None,
    elapsed: float = 0.0,
) -> Tensor:
    """Loss of each record × its weight, mean over the batch: a float32 scalar.

    As in the source's notebooks, the weights are not divided by their sum. With probabilities p = softmax(logits) and
    vote fractions t, summed over classes, a record's loss is

    - `kl` and those of its kind: t · ln(t / p);
    - `cross-entropy`: −t · ln p, which has the same gradient;
    - `binary-cross-entropy`: −t · ln p − (1 − t) · ln(1 − p), six questions of yes or no. Of the softmax, so that what
      is learned is what predictions are made of: it is least where p = t.

    Args:
        logits_BK: of any float type.
        targets_BK: vote fractions.
        n_votes_B: votes of each record, at least 1.
        loss: its name.
        weights: in place of those in the loss's name, see `vote_weights`.
        elapsed: epochs of the stage before this one, over all of them.

    Raises:
        UsageError: no loss or weights of that name.
    """
    with torch.autocast(logits_BK.device.type, enabled=False):
        log_probabilities_BK = functional.log_softmax(logits_BK.float(), dim=1)
        targets_BK = targets_BK.float()
        if loss == "cross-entropy":
            loss_B = -(targets_BK * log_probabilities_BK).sum(dim=1)
        elif loss == "binary-cross-entropy":
            rest_BK = _log_of_the_others(log_probabilities_BK)
            loss_B = -(targets_BK * log_probabilities_BK + (1 - targets_BK) * rest_BK).sum(dim=1)
        else:
            loss_B = functional.kl_div(log_probabilities_BK, targets_BK, reduction="none").sum(dim=1)
        return (loss_B * vote_weights(n_votes_B, weights or own_weights(loss), elapsed)).mean()


def own_weights(loss: LossName) -> WeightsName:
    """Return the weights that a loss has in its name.

    Raises:
        UsageError: no loss of that name.
    """
    if loss not in LOSSES:
        raise UsageError(f"unknown loss {loss!r}; {closest(loss, LOSSES)}")
    name = loss.removeprefix("kl-")
    return name if name in WEIGHTS else "equal"  # type: ignore[return-value]


def vote_weights(n_votes_B: Tensor, weights: WeightsName, elapsed: float = 0.0) -> Tensor:
    """Return what each record counts, float32.

    With n votes: `equal` 1; `log-votes` ln(n + 1); `log3-votes` ln(n + 1) / ln 3, which is 1 for two votes; `votes`
    n / 20; `capped-votes` min(n, 10); `two-stage` n up to ten votes, and (10 + 2m)·m beyond, where m = log10 n (the
    source's modified weight for its second stage: 12.6 for 11 votes, 18.7 for 28); `quarter-few` 0.25 up to seven
    votes, 1 beyond; `groups` 0.3 up to two votes, 0.5 up to eight, both times 1 − 1.2 · `elapsed` and at least 0.02,
    and 1 beyond. (Records that were mixed can have fractions of votes.)

    Args:
        n_votes_B: votes of each record, at least 1.
        weights: their name.
        elapsed: epochs of the stage before this one, over all of them: 0 in the first, less than 1 in the last.

    Raises:
        UsageError: no weights of that name.
    """
    n_B = n_votes_B.float()
    match weights:
        case "equal":
            return torch.ones_like(n_B)
        case "log-votes":
            return torch.log1p(n_B)
        case "log3-votes":
            return torch.log1p(n_B) / math.log(3)
        case "votes":
            return n_B / VOTES_PER_UNIT
        case "capped-votes":
            return n_B.clamp(max=MOST_VOTES)
        case "two-stage":
            log10_B = torch.log10(n_B)
            return torch.where(n_B <= MOST_VOTES, n_B, (10 + 2 * log10_B) * log10_B)
        case "quarter-few":
            return torch.where(n_B <= FEW, FEW_WEIGHT, 1.0)
        case "groups":
            weight_B = torch.ones_like(n_B)
            for most_votes, first, least in reversed(GROUPS):
                weight = max(first * (1 - GROUPS_FALL * elapsed), least)
                weight_B = torch.where(n_B <= most_votes, weight, weight_B)
            return weight_B
    raise UsageError(f"unknown weights {weights!r}; {closest(weights, WEIGHTS)}")


def _log_of_the_others(log_probabilities_BK: Tensor) -> Tensor:
    """ln(1 − p) of each class, as the sum of the others' p, so that it stays finite where p rounds to 1."""
    own_KK = torch.eye(log_probabilities_BK.shape[1], dtype=torch.bool, device=log_probabilities_BK.device)
    return log_probabilities_BK[:, None].masked_fill(own_KK, -torch.inf).logsumexp(dim=-1)
