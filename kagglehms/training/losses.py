"""Losses on logits, always computed in float32, outside mixed precision.

Shape legend: B batch, K the six classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from kagglehms.errors import UsageError, closest, one_of
from kagglehms.training.options import LOSSES, WEIGHTS, LossName, WeightsName

MOST_VOTES = 10
"""Number of votes above which `capped-votes` is constant and `two-stage` changes its formula."""

VOTES_PER_UNIT = 20
"""Number of votes with a weight of 1 in `votes`."""

FEW, FEW_WEIGHT = 7, 0.25
"""`quarter-few`: largest number of votes with the lower weight, and that weight."""

GROUPS = ((2, 0.3, 0.02), (8, 0.5, 0.02))
"""`groups`: largest number of votes, first and smallest weight of each group; with more votes the weight is 1."""
GROUPS_FALL = 1.2
"""Fraction of its first weight that a group would lose during all epochs if there were no smallest weight."""


def kl_loss(logits_BK: Tensor, targets_BK: Tensor) -> Tensor:
    """Return KL(target ‖ softmax(logits)), summed over classes and averaged over the batch: a float32 scalar."""
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
    """Return the mean over the batch of each record's loss times its weight.

    As in the source's notebooks, the weights are not divided by their sum. With probabilities p = softmax(logits) and
    vote fractions t, the loss of a record is the sum over classes of

    - t · ln(t / p) for `kl` and its variants;
    - −t · ln p for `cross-entropy`, which has the same gradient;
    - −t · ln p − (1 − t) · ln(1 − p) for `binary-cross-entropy`, which treats the classes as six yes-or-no questions.
      It uses the softmax as well, so that the network is trained on what it predicts; its minimum is at p = t.

    Args:
        logits_BK: logits of any floating-point type.
        targets_BK: vote fractions.
        n_votes_B: number of votes of each record, at least 1.
        loss: name of the loss.
        weights: weighting of the records, see `vote_weights`; by default the one in the loss's name.
        elapsed: fraction of the stage's epochs that are complete.

    Returns:
        A float32 scalar.

    Raises:
        UsageError: there is no loss or weighting of that name.
    """
    usual = own_weights(loss)
    with torch.autocast(logits_BK.device.type, enabled=False):
        log_probabilities_BK = functional.log_softmax(logits_BK.float(), dim=1)
        targets_BK = targets_BK.float()
        if loss == "cross-entropy":
            loss_B = -(targets_BK * log_probabilities_BK).sum(dim=1)
        elif loss == "binary-cross-entropy":
            rest_BK = _log_of_the_others(log_probabilities_BK)
            loss_B = -(targets_BK * log_probabilities_BK + (1 - targets_BK) * rest_BK).sum(dim=1)
        elif loss == "kl" or usual != "equal":
            loss_B = functional.kl_div(log_probabilities_BK, targets_BK, reduction="none").sum(dim=1)
        else:
            raise UsageError(f"loss {loss!r} has a name, but no formula in `weighted_loss`")
        return (loss_B * vote_weights(n_votes_B, weights or usual, elapsed)).mean()


def own_weights(loss: LossName) -> WeightsName:
    """Return the weighting in the name of a loss.

    Raises:
        UsageError: there is no loss of that name.
    """
    one_of("loss", loss, LOSSES)
    name = loss.removeprefix("kl-")
    return name if name in WEIGHTS else "equal"  # type: ignore[return-value]


def vote_weights(n_votes_B: Tensor, weights: WeightsName, elapsed: float = 0.0) -> Tensor:
    """Return the weight of each record.

    With n votes it is

    - 1 for `equal`;
    - ln(n + 1) for `log-votes`;
    - ln(n + 1) / ln 3, which is 1 for two votes, for `log3-votes`;
    - n / 20 for `votes`;
    - min(n, 10) for `capped-votes`;
    - n up to ten votes, and (10 + 2m)·m with m = log10 n above, for `two-stage`: the source's modified weight for its
      second stage, 12.6 for 11 votes and 18.7 for 28;
    - 0.25 up to seven votes, and 1 above, for `quarter-few`;
    - 0.3 up to two votes and 0.5 up to eight, both times 1 − 1.2 · `elapsed` and at least 0.02, and 1 above, for
      `groups`.

    Args:
        n_votes_B: number of votes of each record, at least 1; it need not be whole if records were mixed.
        weights: name of the weighting.
        elapsed: fraction of the stage's epochs that are complete: 0 in the first one, less than 1 in the last one.

    Returns:
        (B,) float32 weights.

    Raises:
        UsageError: there is no weighting of that name.
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
    """Return ln(1 − p) of each class as the logarithm of the others' sum, which is finite where p rounds to 1."""
    own_KK = torch.eye(log_probabilities_BK.shape[1], dtype=torch.bool, device=log_probabilities_BK.device)
    return log_probabilities_BK[:, None].masked_fill(own_KK, -torch.inf).logsumexp(dim=-1)
