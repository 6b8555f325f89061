"""Faults that make a network learn worse and break nothing, to see whether `learning_check.py` finds them.

Each replaces a part of the package in this process, for good.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from kagglehms.training import image_networks, step
from kagglehms.training.classifiers import classifier_layers
from kagglehms.training.feed import Feed
from kagglehms.training.feed_draws import FeedDraws

HEAD_TOO_LARGE = 15
"""Once every classifier began like this: in ±1 / √6 instead of ±1 / √1280, in an EfficientNet."""
SHUFFLED = 0.25
"""Share of the records that learn from the votes of others."""


def large_head() -> None:
    """Let the layers that compute the logits start 15 times too large."""
    right = image_networks.reset_classifier

    def wrong(model: nn.Module, backbone: str) -> None:
        right(model, backbone)
        with torch.no_grad():
            for layer in classifier_layers(model, backbone):
                for parameter in layer.parameters():
                    parameter.mul_(HEAD_TOO_LARGE)

    image_networks.reset_classifier = wrong


def constant_rate() -> None:
    """Let the learning rate stay at its first value, as if the schedule were never stepped."""
    right = step.make_schedule

    def wrong(*arguments: Any) -> torch.optim.lr_scheduler.LRScheduler:
        right(*arguments)
        optimizer = arguments[1]
        for group in optimizer.param_groups:
            group.pop("initial_lr", None)
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)

    step.make_schedule = wrong


def shuffled_targets() -> None:
    """Let a quarter of the records learn from the votes of others."""
    right = Feed._targets_of

    def wrong(feed: Feed, labels: Any) -> torch.Tensor:
        targets_NK = right(feed, labels).clone()
        rng = np.random.default_rng(0)
        chosen = rng.choice(len(targets_NK), round(SHUFFLED * len(targets_NK)), replace=False)
        targets_NK[chosen] = targets_NK[rng.permutation(chosen)]
        return targets_NK

    Feed._targets_of = wrong


def ignored_offsets() -> None:
    """Cut every window at the start of its recording, whatever its offset says."""

    def wrong(draws: FeedDraws, work: Any) -> tuple[Any, Any]:
        zeros = np.zeros(len(work.index), np.int64)
        return zeros, zeros

    FeedDraws.starts = wrong


FAULTS: dict[str, Callable[[], None]] = {
    "large-head": large_head,
    "constant-rate": constant_rate,
    "shuffled-targets": shuffled_targets,
    "ignored-offsets": ignored_offsets,
}
