"""The optimizer and the learning-rate schedule of a stage."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from kagglehms.training.models import head_parameters
from kagglehms.training.recipe import Recipe
from kagglehms.training.stages import Stage

_FIRST_BETA1 = 0.85
"""beta1 that torch's OneCycleLR sets when it is created with its defaults and without a rising part."""


def make_optimizer(recipe: Recipe, model: nn.Module, stage: Stage) -> torch.optim.Optimizer:
    """Make the optimizer of a stage.

    Its parameters are in one group, or, where the head has its own learning rate, in two, the head's last. Heads of
    each view by itself are among the head's.
    """
    decay = recipe.weight_decay if stage.weight_decay is None else stage.weight_decay
    kind = torch.optim.Adam if (stage.optimizer or recipe.optimizer) == "adam" else torch.optim.AdamW
    rates = _rates(recipe, stage)
    parameters = list(model.parameters())
    parts: list[list[nn.Parameter]] = [parameters]
    if len(rates) > 1:
        heads = head_parameters(model, recipe)
        parts = [[p for p in parameters if p not in heads], [p for p in parameters if p in heads]]
    groups = [{"params": part, "lr": lr} for part, lr in zip(parts, rates, strict=True)]
    return kind(groups, lr=rates[0], weight_decay=decay, fused=True)


def _rates(recipe: Recipe, stage: Stage) -> list[float]:
    """Return the highest learning rate of each group of parameters."""
    head = stage.head_lr or recipe.head_lr
    return [stage.lr or recipe.lr, *([] if head is None else [head])]


def make_schedule(
    recipe: Recipe, optimizer: torch.optim.Optimizer, total_steps: int, stage: Stage | None = None
) -> LRScheduler:
    """Make the learning-rate schedule of a stage, which is stepped after every optimizer step.

    `one-cycle` has no rising part: the rate falls from lr to (lr / 25) / 0.4 = lr / 10 along half a cosine, while
    AdamW's beta1 rises from 0.85 to 0.95. `constant` is that cycle if it is created and never stepped: beta1 stays
    0.85. (The rate of its first step would be lower than lr by less than a millionth in 1,500 steps or more; here it
    is lr.) `cosine` rises linearly during the stage's `warm_up_steps`, or during half of its steps if it has fewer
    than twice as many, and then falls to `last_lr` along half a cosine. A head with its own rate is always at the
    same fraction of its highest rate.

    Args:
        recipe: recipe of the run.
        optimizer: optimizer from `make_optimizer`.
        total_steps: number of steps in the stage.
        stage: the stage; by default the recipe's first one.
    """
    stage = stage or recipe.stages[0]
    schedule, lr = stage.schedule or recipe.schedule, stage.lr or recipe.lr
    rates = _rates(recipe, stage)
    if schedule == "cosine":
        rise = min(stage.warm_up_steps, total_steps // 2)
        fraction = partial(_cosine, rise=rise, fall=total_steps - rise, last=stage.last_lr / lr)
        return torch.optim.lr_scheduler.LambdaLR(optimizer, fraction)
    if schedule == "constant":
        for group in optimizer.param_groups:
            group["betas"] = (_FIRST_BETA1, group["betas"][1])
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rates, total_steps=total_steps, pct_start=0.0, div_factor=25, final_div_factor=0.4
    )


def _cosine(step: int, rise: int, fall: int, last: float) -> float:
    """Return the fraction of the highest rate at a step: (step + 1) / rise, then half a cosine from 1 to `last`."""
    if step < rise:
        return (step + 1) / rise
    return last + (1 - last) * (1 + math.cos(math.pi * min((step - rise) / fall, 1.0))) / 2


def load_optimizer(
    optimizer: torch.optim.Optimizer,
    groups: list[dict[str, Any]],
    moments: dict[int, dict[str, torch.Tensor]],
) -> None:
    """Restore an optimizer from what was saved of it.

    Args:
        optimizer: new optimizer of the same parameters.
        groups: `param_groups` of the saved state, as JSON returns them.
        moments: saved tensors of each parameter, by its number.
    """
    restored = [
        {key: tuple(value) if key == "betas" else value for key, value in group.items()} for group in groups
    ]
    optimizer.load_state_dict({"state": moments, "param_groups": restored})
    # Files do not keep strides, and the fused AdamW expects each moment to have those of its parameter.
    for parameter, named in optimizer.state.items():
        for name, moment in named.items():
            if moment.shape == parameter.shape:
                named[name] = torch.empty_like(parameter, dtype=moment.dtype).copy_(moment)
