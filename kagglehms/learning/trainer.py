"""The training loop: one fold of one recipe.

Shape legend: B batch, N held-out records, K the six classes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from kagglehms.errors import RunError
from kagglehms.learning.checkpoint import save_weights
from kagglehms.learning.feed import Batch, Feed, shuffled
from kagglehms.learning.losses import kl_loss
from kagglehms.learning.metric import mean_scores
from kagglehms.learning.models import make_model
from kagglehms.learning.recipes import Recipe
from kagglehms.runtime import Device, progress, say

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch.optim.lr_scheduler import LRScheduler


@dataclass(frozen=True)
class Evaluation:
    """The held-out fold, scored once.

    Attributes:
        step: optimizer steps before it.
        epoch: passes over the training records before it, a fraction in mid-epoch.
        train_loss: mean since the evaluation before.
        score_all: the competition's score on all held-out records.
        score_votes10: the same on records with at least 10 votes; None where there are none.
        seconds: since the fold began.
    """

    step: int
    epoch: float
    train_loss: float
    score_all: float
    score_votes10: float | None
    seconds: float


@dataclass(frozen=True)
class Fit:
    """One trained fold.

    Attributes:
        best: the evaluation whose weights were kept.
        predictions_NK: (n_valid, 6) float64 probabilities at that evaluation, in the order of `valid`.
        history: all evaluations.
        seconds: wall time of the whole.
    """

    best: Evaluation
    predictions_NK: NDArray[np.float64]
    history: tuple[Evaluation, ...]
    seconds: float


def fit(
    recipe: Recipe,
    feed: Feed,
    train: NDArray[np.integer],
    valid: NDArray[np.integer],
    device: Device,
    weights_path: Path,
    pretrained: str = "none",
) -> Fit:
    """Train one fold and keep the weights of its best evaluation.

    Args:
        recipe: what to do.
        feed: draws the batches.
        train: positions of the training records in the feed.
        valid: positions of the held-out records.
        device: where to compute.
        weights_path: the .safetensors file to keep the best weights in.
        pretrained: see `models.make_model`.

    Raises:
        RunError: the loss is not finite.
    """
    start = time.monotonic()
    torch.manual_seed(recipe.seed)
    model, where_from = make_model(recipe, pretrained)
    say(where_from)
    layout = memory_format(device)
    model = model.to(device.name).to(memory_format=layout)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    steps_per_epoch = -(-len(train) // recipe.batch_size)
    schedule = make_schedule(recipe, optimizer, steps_per_epoch * recipe.epochs)
    scaler = torch.amp.GradScaler(device.name, enabled=device.amp == "float16")
    evaluate_after = evaluation_steps(steps_per_epoch, recipe.evaluations_per_epoch)

    history: list[Evaluation] = []
    best_predictions_NK = np.empty(0)
    loss_sum, losses = torch.zeros((), device=device.name), 0
    step = 0
    for batch in progress(
        _epochs(recipe, feed, train), steps_per_epoch * recipe.epochs, f"train {recipe.name}"
    ):
        batch = batch.to(torch.device(device.name))
        with autocast(device):
            logits_BK = model(batch.images_BCHW.contiguous(memory_format=layout))
        loss = kl_loss(logits_BK, batch.targets_BK)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()
        schedule.step()
        step += 1
        loss_sum, losses = loss_sum + loss.detach(), losses + 1
        if (step - 1) % steps_per_epoch + 1 not in evaluate_after:
            continue

        train_loss = float(loss_sum) / losses
        if not np.isfinite(train_loss):
            raise RunError(f"the loss of {recipe.name} is not finite at step {step}; lower lr ({recipe.lr})")
        loss_sum, losses = torch.zeros_like(loss_sum), 0
        predictions_NK = predict(model, feed, valid, recipe.batch_size, device)
        score_all, score_votes10 = scores(feed, valid, predictions_NK)
        seconds = time.monotonic() - start
        history.append(
            Evaluation(step, step / steps_per_epoch, train_loss, score_all, score_votes10, seconds)
        )
        improved = score_all <= min(e.score_all for e in history)
        if improved:
            best_predictions_NK = predictions_NK
            save_weights(model, weights_path)
        say(_line(history[-1], recipe.epochs, improved))
        model.train()
    best = min(history, key=lambda e: e.score_all)
    return Fit(best, best_predictions_NK, tuple(history), time.monotonic() - start)


def _epochs(recipe: Recipe, feed: Feed, train: NDArray[np.integer]) -> Iterator[Batch]:
    for epoch in range(recipe.epochs):
        yield from feed.batches(shuffled(train, recipe.seed, epoch), recipe.batch_size)


def evaluation_steps(steps_per_epoch: int, per_epoch: int) -> frozenset[int]:
    """Steps of an epoch (from 1) after which to evaluate: evenly spread, the last one always among them."""
    return frozenset(max(1, steps_per_epoch * i // per_epoch) for i in range(1, per_epoch + 1))


def make_schedule(recipe: Recipe, optimizer: torch.optim.Optimizer, total_steps: int) -> LRScheduler:
    """Return the learning-rate schedule, to be stepped after every optimizer step.

    `one-cycle` without a rising part: from lr down to (lr / 25) / 0.4 = lr / 10 along half a cosine.
    """
    if recipe.schedule == "constant":
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.lr, total_steps=total_steps, pct_start=0.0, div_factor=25, final_div_factor=0.4
    )


def autocast(device: Device) -> torch.autocast:
    """Mixed precision of `device`, or a context that does nothing."""
    dtype = getattr(torch, device.amp) if device.amp else None
    return torch.autocast(device.name, dtype=dtype, enabled=dtype is not None)


def memory_format(device: Device) -> torch.memory_format:
    """Channels last on a GPU, whose convolution units want them there."""
    return torch.channels_last if device.name == "cuda" else torch.contiguous_format


def predict(
    model: nn.Module, feed: Feed, positions: NDArray[np.integer], batch_size: int, device: Device
) -> NDArray[np.float64]:
    """(n, 6) float64 probabilities of the records at `positions`; leaves the model in evaluation mode."""
    outputs = [
        probabilities(model, batch.images_BCHW, device) for batch in feed.batches(positions, batch_size)
    ]
    return np.concatenate(outputs)


@torch.inference_mode()
def probabilities(model: nn.Module, images_BCHW: torch.Tensor, device: Device) -> NDArray[np.float64]:
    """(B, 6) float64 class probabilities of a batch of images; softmax in float64, outside mixed precision."""
    model.eval()
    images_BCHW = images_BCHW.to(device.name, non_blocking=True)
    with autocast(device):
        logits_BK = model(images_BCHW.contiguous(memory_format=memory_format(device)))
    return torch.softmax(logits_BK.double(), dim=1).cpu().numpy()


def scores(
    feed: Feed, positions: NDArray[np.integer], predictions_NK: NDArray[np.float64]
) -> tuple[float, float | None]:
    """Score on all of `positions`, and on those with at least 10 votes (None where there are none)."""
    return mean_scores(feed.records.targets_NK[positions], predictions_NK, feed.records.many_votes[positions])


def _line(e: Evaluation, epochs: int, improved: bool) -> str:
    many = "" if e.score_votes10 is None else f", {e.score_votes10:.4f} with ≥ 10 votes"
    best = "  (best so far)" if improved else ""
    return (
        f"  epoch {e.epoch:.1f}/{epochs}, step {e.step}: loss {e.train_loss:.4f}, "
        f"held out {e.score_all:.4f}{many}, {e.seconds:.0f} s{best}"
    )
