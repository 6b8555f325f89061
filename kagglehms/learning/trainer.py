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
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from kagglehms.data.records import Records
from kagglehms.errors import RunError
from kagglehms.learning.augment import augment, device_augmentations, mosaic_batch
from kagglehms.learning.checkpoint import load_weights, save_weights
from kagglehms.learning.feed import Batch, Feed, shuffled
from kagglehms.learning.losses import weighted_kl_loss
from kagglehms.learning.metric import kl_score, mean_scores
from kagglehms.learning.models import make_model
from kagglehms.learning.options import LossName
from kagglehms.learning.recipes import Population, Recipe
from kagglehms.runtime import Device, progress, say

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch.optim.lr_scheduler import LRScheduler


@dataclass(frozen=True)
class Evaluation:
    """The held-out fold, scored once.

    Attributes:
        stage: of the recipe, from 0.
        warm_up: whether the weights had only seen mosaics of this stage.
        step: optimizer steps before it, over all stages.
        epoch: passes over the training records before it, over all stages; a fraction in mid-epoch.
        train_loss: mean since the evaluation before.
        score_stage: the competition's score on the held-out records of the stage's population, which decides what
            is best.
        score_all: the same on all held-out records.
        score_votes10: the same on those with at least 10 votes; None where there are none.
        seconds: since the fold began.
    """

    stage: int
    warm_up: bool
    step: int
    epoch: float
    train_loss: float
    score_stage: float
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
    """Train one fold, stage by stage, and keep the weights of the last stage's best evaluation.

    Args:
        recipe: what to do.
        feed: draws the batches.
        train: positions of the training records in the feed.
        valid: positions of the held-out records.
        device: where to compute.
        weights_path: the .safetensors file to keep the best weights in.
        pretrained: see `models.make_model`.

    Raises:
        RunError: the loss is not finite, or a stage has no records.
    """
    start = time.monotonic()
    torch.manual_seed(recipe.seed)
    model, where_from = make_model(recipe, pretrained)
    say(where_from)
    model = model.to(device.name).to(memory_format=memory_format(device))
    history: list[Evaluation] = []
    best, predictions_NK = None, np.empty(0)
    for number, stage in enumerate(recipe.stages):
        if number:
            load_weights(model, weights_path)
        learned = population(feed.records, train, stage.records)
        run = _StageRun(recipe, number, feed, learned, model, device, history[-1].step if history else 0)
        judged = np.isin(valid, population(feed.records, valid, stage.records))
        best = None
        for train_loss in run.until_each_evaluation():
            if not np.isfinite(train_loss):
                raise RunError(
                    f"the loss of {recipe.name} is not finite at step {run.step}; lower lr ({recipe.lr})"
                )
            now_NK = predict(run.evaluated, feed, valid, recipe.batch_size, device)
            history.append(_evaluate(run, valid, judged, now_NK, train_loss, time.monotonic() - start))
            if best is not None and best.warm_up and not history[-1].warm_up:
                best = None
            improved = best is None or history[-1].score_stage <= best.score_stage
            if improved:
                best, predictions_NK = history[-1], now_NK
                save_weights(run.evaluated, weights_path, feed.normaliser)
            say(_line(history[-1], recipe, improved))
            model.train()
    assert best is not None
    return Fit(best, predictions_NK, tuple(history), time.monotonic() - start)


def population(records: Records, positions: NDArray[np.integer], which: Population) -> NDArray[np.integer]:
    """Those of `positions` that a stage learns from or is judged by.

    Raises:
        RunError: there are none.
    """
    chosen = {"all": np.ones(len(records), bool), "settled": records.settled, "unsettled": ~records.settled}[
        which
    ]
    kept = positions[chosen[positions]]
    if not len(kept):
        raise RunError(f"none of {len(positions)} records is {which}, and a stage of the recipe needs some")
    return kept


class _StageRun:
    """The steps of one stage; evaluations happen outside."""

    def __init__(
        self,
        recipe: Recipe,
        number: int,
        feed: Feed,
        train: NDArray[np.integer],
        model: nn.Module,
        device: Device,
        steps_before: int,
    ) -> None:
        self.recipe, self.number, self.feed, self.train, self.device = recipe, number, feed, train, device
        self.stage = recipe.stages[number]
        self.first_epoch = sum(stage.epochs for stage in recipe.stages[:number])
        self.model = model
        self.average = _average(model, recipe.ema)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
        self.steps_per_epoch = -(-len(train) // recipe.batch_size)
        self.total_steps = self.steps_per_epoch * self.stage.epochs
        self.schedule = make_schedule(recipe, self.optimizer, self.total_steps)
        self.scaler = torch.amp.GradScaler(device.name, enabled=device.amp == "float16")
        self.steps_before, self.step = steps_before, 0

    @property
    def evaluated(self) -> nn.Module:
        """What is scored and kept: the network, or the moving average of its weights."""
        return self.average.module if self.average is not None else self.model

    @property
    def warm_up(self) -> bool:
        """Whether the last step was one on mosaics."""
        return self.step <= self.steps_per_epoch * self.stage.mosaic_epochs

    def until_each_evaluation(self) -> Iterator[float]:
        """Train, and pause where an evaluation is due; yields the mean loss since the one before."""
        evaluate_after = evaluation_steps(self.steps_per_epoch, self.recipe.evaluations_per_epoch)
        loss_sum, losses = torch.zeros((), device=self.device.name), 0
        what = f"train {self.recipe.name}" + (
            f" stage {self.number + 1}" if len(self.recipe.stages) > 1 else ""
        )
        self.model.train()
        for epoch, batch in progress(self._batches(), self.total_steps, what):
            # The sum stays on the device: reading it would make the CPU wait at every step.
            loss_sum, losses = loss_sum + self._learn(epoch, batch), losses + 1
            if (self.step - 1) % self.steps_per_epoch + 1 in evaluate_after:
                yield float(loss_sum) / losses
                loss_sum, losses = torch.zeros_like(loss_sum), 0

    def _batches(self) -> Iterator[tuple[int, Batch]]:
        for epoch in range(self.first_epoch, self.first_epoch + self.stage.epochs):
            order = shuffled(self.train, self.recipe.seed, epoch)
            augmented = None if self._is_warm_up(epoch) else epoch
            for batch in self.feed.batches(order, self.recipe.batch_size, epoch=augmented):
                yield epoch, batch

    def _is_warm_up(self, epoch: int) -> bool:
        return epoch - self.first_epoch < self.stage.mosaic_epochs

    def _learn(self, epoch: int, batch: Batch) -> torch.Tensor:
        """One step; returns the loss, on the device."""
        recipe, target = self.recipe, torch.device(self.device.name)
        widths = [tile.shape[1] for tile in recipe.layout.tiles]
        loss_name: LossName = "kl"
        if self._is_warm_up(epoch):
            batch = mosaic_batch(batch, recipe.seed, epoch, widths, target)
        else:
            batch = augment(
                batch, device_augmentations(recipe.augmentations), recipe.seed, epoch, widths, target
            )
            loss_name = self.stage.loss
        with autocast(self.device):
            logits_BK = self.model(batch.images_BCHW.contiguous(memory_format=memory_format(self.device)))
        loss = weighted_kl_loss(logits_BK, batch.targets_BK, batch.n_votes_B, loss_name)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.step += 1
        return loss.detach()


def _average(model: nn.Module, decay: float | None) -> AveragedModel | None:
    if decay is None:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)  # type: ignore[no-untyped-call]


def _evaluate(
    run: _StageRun,
    valid: NDArray[np.integer],
    judged: NDArray[np.bool_],
    predictions_NK: NDArray[np.float64],
    train_loss: float,
    seconds: float,
) -> Evaluation:
    records = run.feed.records
    targets_NK = records.targets_NK[valid]
    score_all, score_votes10 = mean_scores(targets_NK, predictions_NK, records.many_votes[valid])
    return Evaluation(
        stage=run.number,
        warm_up=run.warm_up,
        step=run.steps_before + run.step,
        epoch=run.first_epoch + run.step / run.steps_per_epoch,
        train_loss=train_loss,
        score_stage=kl_score(targets_NK[judged], predictions_NK[judged]),
        score_all=score_all,
        score_votes10=score_votes10,
        seconds=seconds,
    )


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


def _line(e: Evaluation, recipe: Recipe, improved: bool) -> str:
    stage = recipe.stages[e.stage]
    many = "" if e.score_votes10 is None else f", {e.score_votes10:.4f} with ≥ 10 votes"
    own = "" if stage.records == "all" else f", {e.score_stage:.4f} {stage.records}"
    warm_up = " (warm-up)" if e.warm_up else ""
    best = "  (best so far)" if improved else ""
    return (
        f"  epoch {e.epoch:.1f}/{recipe.epochs}{warm_up}, step {e.step}: loss {e.train_loss:.4f}, "
        f"held out {e.score_all:.4f}{many}{own}, {e.seconds:.0f} s{best}"
    )
