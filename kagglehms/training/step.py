"""The training step: everything that one stage changes at every step, and that can be saved and restored.

Shape legend: B batch, K the six classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from kagglehms.device import Device
from kagglehms.errors import RunError
from kagglehms.training.augmentation_draws import augment, device_augmentations, mixes_records, mosaic_batch
from kagglehms.training.augmentations import smooth
from kagglehms.training.batches import Batch
from kagglehms.training.distributed import Team
from kagglehms.training.losses import kl_loss, weighted_loss
from kagglehms.training.memory import largest_fitting, out_of_memory
from kagglehms.training.optimization import load_optimizer, make_optimizer, make_schedule
from kagglehms.training.precision import autocast, laid_out
from kagglehms.training.recipe import Recipe
from kagglehms.training.resume import State
from kagglehms.training.stages import Stage

_NO_STEP = 1 << 62
"""Larger than any number of a step."""
_DROPOUT = 1_000_003
"""Third word of the seed of a step's dropout; augmentations use small ones, see `augmentation_draws`."""


class Learner:
    """A network with the optimizer, schedule, moving average and losses of one stage.

    Args:
        recipe: recipe of the run.
        model: the network that is saved and evaluated, on its device.
        network: the network that training calls: the same, compiled or distributed.
        total_steps: number of steps in the stage.
        steps_before: number of steps in the stages before.
        device: device to compute on.
        team: the processes that train together.
        stage: the stage; by default the recipe's first one.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: nn.Module,
        network: Callable[[Tensor], Tensor],
        total_steps: int,
        steps_before: int,
        device: Device,
        team: Team,
        stage: Stage | None = None,
    ) -> None:
        self.recipe, self.model, self.network = recipe, model, network
        self.stage = stage or recipe.stages[0]
        self.device, self.team, self.steps_before = device, team, steps_before
        self.average = None if recipe.ema is None else AveragedModel(model, use_buffers=True)
        self.optimizer = make_optimizer(recipe, model, self.stage)
        self.schedule = make_schedule(recipe, self.optimizer, total_steps, self.stage)
        self.total_steps = total_steps
        self.scaler = torch.amp.GradScaler(device.name, enabled=device.amp == "float16")
        self.step = 0
        self.loss_sums = torch.zeros(2, device=device.name)  # the loss, and the unweighted KL divergence
        self.n_losses = 0
        self._first_bad = torch.full((), -1, dtype=torch.int64, device=device.name)
        self._asked: tuple[Tensor, Callable[[], bool]] | None = None

    @property
    def evaluated(self) -> nn.Module:
        """The network that is scored and kept: the network itself, or the moving average of its weights."""
        return self.average.module if self.average is not None else self.model

    @property
    def steps_of_run(self) -> int:
        """Number of steps taken so far, over all stages."""
        return self.steps_before + self.step

    @property
    def lr(self) -> float:
        """Current learning rate of the first group of parameters."""
        return float(self.optimizer.param_groups[0]["lr"])  # the schedule does not know it after a resume

    @property
    def elapsed(self) -> float:
        """Fraction of the stage's epochs that are complete."""
        return self.step * self.stage.epochs // self.total_steps / self.stage.epochs

    def learn(self, batch: Batch, epoch: int, warm_up: bool, n_all: int) -> None:
        """Take one step.

        The loss stays on the device: reading it would make the CPU wait at every step.

        Args:
            batch: this process's share of the batch.
            epoch: epoch, counted from 0 over all stages.
            warm_up: whether to train on mosaics, with the loss `kl` and equal weights.
            n_all: number of records in the shares of all processes together.

        Raises:
            RunError: the batch does not fit into memory; the message names a size that does.
        """
        # Every step has a seed of its own, and no random state is saved: a resumed run drops the same units.
        torch.manual_seed(_seed(self.recipe.seed, self.steps_of_run, _DROPOUT, self.team.rank))
        losses = None
        try:
            batch = self._augmented(batch, epoch, warm_up, n_all)
            losses = self._forward_backward(batch, warm_up, n_all)
            self._clip()
            self.scaler.step(self.optimizer)  # the first call allocates the moments
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            losses = None
        if losses is None:  # not inside the handler, where the error still holds on to the memory
            raise self._too_large(batch)
        self.scaler.update()
        self.schedule.step()
        self._update_average()
        self.step += 1
        self.loss_sums += losses
        self.n_losses += 1
        first = (self._first_bad < 0) & ~torch.isfinite(losses[0])
        self._first_bad = torch.where(first, self.step, self._first_bad)

    def _update_average(self) -> None:
        """Let the network's weights into their moving average, if there is one.

        At first a constant decay would keep weights that no step has changed for hundreds of steps.
        """
        if self.average is not None and self.recipe.ema is not None:
            decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
            self.average.multi_avg_fn = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
            self.average.update_parameters(self.model)

    def _augmented(self, batch: Batch, epoch: int, warm_up: bool, n_all: int) -> Batch:
        """Return this process's share of the augmented batch, on the device."""
        augmentations = self.recipe.augmentations_of(self.stage)
        batch = batch.to(torch.device(self.device.name))
        if not (warm_up or mixes_records(augmentations)):
            return self._changed(batch, epoch, warm_up)
        # An image then depends on others of the batch, which other processes may have drawn.
        whole = self.team.gather_batch(batch, n_all)
        return self.team.part_of(self._changed(whole, epoch, warm_up))

    def _changed(self, batch: Batch, epoch: int, warm_up: bool) -> Batch:
        """Return the batch with smoothed targets and augmented inputs, or a batch of mosaics."""
        recipe = self.recipe
        heights, widths = zip(*recipe.layout.time_tiles, strict=True)
        if warm_up:
            return mosaic_batch(batch, recipe.seed, epoch, widths)
        if self.stage.smoothing:
            targets_BK = smooth(batch.targets_BK, batch.n_votes_B, self.stage.smoothing)
            batch = replace(batch, targets_BK=targets_BK)
        asked = device_augmentations(recipe.augmentations_of(self.stage), recipe.layout)
        return augment(batch, asked, recipe.seed, epoch, widths, tile_heights=heights, layout=recipe.layout)

    def _forward_backward(self, batch: Batch, warm_up: bool, n_all: int) -> Tensor:
        """Compute the gradients of one batch, and return this process's parts of its mean loss and KL divergence."""
        images_BCHW = laid_out(batch.images_BCHW)
        with autocast(self.device):
            logits = self.network(images_BCHW)
        # In training, a network with heads for its views returns the logits of each after those of both.
        logits_BK, *of_views = logits if logits.ndim == 3 else (logits,)
        loss = self._loss(logits_BK, batch, warm_up)
        for own_BK in of_views:
            loss = loss + self.recipe.view_loss * self._loss(own_BK, batch, warm_up)
        share = self.team.weight(n_all, len(images_BCHW))
        loss = loss * share
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        divergence = kl_loss(logits_BK.detach(), batch.targets_BK) * share
        return torch.stack([loss.detach(), divergence]) / self.team.size

    def _loss(self, logits_BK: Tensor, batch: Batch, warm_up: bool) -> Tensor:
        """Return the stage's loss of one batch, or that of a warm-up."""
        return weighted_loss(
            logits_BK,
            batch.targets_BK,
            batch.n_votes_B,
            "kl" if warm_up else self.stage.loss,
            None if warm_up else self.stage.weights,  # a mosaic has no number of votes
            self.elapsed,
        )

    def _clip(self) -> None:
        """Scale the gradients of all parameters together down to the norm that the stage allows."""
        if self.stage.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.stage.clip_norm)

    def mean_losses(self) -> tuple[float, float]:
        """Return the mean loss and the mean unweighted KL divergence since the previous call; waits for the device.

        Only the divergence can be compared with held-out scores. It is that of the targets and inputs as augmented.
        """
        loss, divergence = (self.team.total(self.loss_sums) / self.n_losses).tolist()
        self.loss_sums, self.n_losses = torch.zeros_like(self.loss_sums), 0
        return loss, divergence

    def first_bad_step(self) -> int | None:
        """Return the first step of the stage, counted from 1, whose loss was not finite in any process of the team.

        All of them have to ask. Waits for the device.
        """
        step = int(self._first_bad)
        first = -self.team.agree(-(step if step > 0 else _NO_STEP))
        return first if first < _NO_STEP else None

    def recent_divergence(self) -> float | None:
        """Return the mean unweighted KL divergence since the last evaluation, as of the previous call.

        It does not wait for the device. In a team it is estimated from this process's share alone.
        """
        answer = None
        if self._asked is not None and self._asked[1]():
            answer = float(self._asked[0])
        if self.n_losses:
            mean = self.loss_sums[1] * (self.team.size / self.n_losses)
            if mean.device.type == "cuda":
                host = torch.empty((), pin_memory=True).copy_(mean, non_blocking=True)
                self._asked = host, torch.cuda.current_stream().record_event().query
            else:
                self._asked = mean, lambda: True
        return answer

    def _too_large(self, batch: Batch) -> RunError:
        """Return the error for a batch that does not fit, with the largest size that was found to fit."""
        size, shape = len(batch.images_BCHW), batch.images_BCHW.shape[1:]
        self.optimizer.zero_grad(set_to_none=True)
        fitting = largest_fitting(self.model, size // 2, tuple(shape), self.device, self.optimizer)
        kind = "images" if len(shape) == 3 else "recordings"
        what = f"a batch of {size} {kind} of {' × '.join(map(str, shape[-2:]))} does not fit into memory"
        hint = (
            f"{fitting * self.team.size} would: give --batch-size {fitting * self.team.size}"
            if fitting
            else "not even one image would: choose a smaller backbone or layout"
        )
        return RunError(f"{self.recipe.name}: {what} of {self.device.name}; {hint}")

    # -- saving and restoring --------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor that steps change, by name."""
        parts: dict[str, Mapping[str, Tensor]] = {
            "model": self.model.state_dict(),
            "average": {} if self.average is None else self.average.state_dict(),
            "loss": {"sum": self.team.total(self.loss_sums)},
        }
        for number, values in self.optimizer.state_dict()["state"].items():
            parts[f"optimizer/{number}"] = values
        return {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}

    def numbers(self) -> dict[str, Any]:
        """Return everything else that steps change, for JSON."""
        return {
            "step": self.step,
            "n_losses": self.n_losses,
            "groups": self.optimizer.state_dict()["param_groups"],
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, state: State) -> None:
        """Continue from a saved state."""
        numbers = state.numbers["learner"]
        self.model.load_state_dict(state.part("model"))
        if self.average is not None:
            self.average.load_state_dict(state.part("average"))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in state.part("optimizer").items():
            number, _, moment = name.partition("/")
            moments.setdefault(int(number), {})[moment] = value
        load_optimizer(self.optimizer, numbers["groups"], moments)
        if self.scaler.is_enabled() and numbers["scaler"]:
            self.scaler.load_state_dict(numbers["scaler"])
        self.step, self.n_losses = numbers["step"], numbers["n_losses"]
        # Learning rates and momenta are functions of the step, and part of the saved groups.
        LRScheduler.load_state_dict(self.schedule, {"last_epoch": self.step, "_step_count": self.step + 1})
        # The saved sums are those of all processes.
        self.loss_sums += state.tensors["loss/sum"].to(self.loss_sums.device) / self.team.size


def _seed(*words: int) -> int:
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))
