"""A network in training: what one stage of a recipe changes at every step, and can be saved and restored.

Shape legend: B batch, K the six classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
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
from kagglehms.training.distributed import Team
from kagglehms.training.evaluation import autocast, laid_out, out_of_memory
from kagglehms.training.feed import Batch
from kagglehms.training.losses import weighted_loss
from kagglehms.training.models import head_layers
from kagglehms.training.recipe import Recipe
from kagglehms.training.resume import State
from kagglehms.training.stages import Stage

_FIRST_BETA1 = 0.85
"""What torch's OneCycleLR sets beta1 to when it is made, with its defaults and no rising part."""
_DROPOUT = 1_000_003
"""Third word of the seed of a step's dropout; augmentations use small ones (see `augment`)."""


class Learner:
    """Optimizer, schedule, moving average and losses of one stage.

    Args:
        recipe: what to do.
        model: the network that is saved and evaluated, on its device.
        network: the same as training calls it: compiled, or shared with the team.
        total_steps: of the stage.
        steps_before: of the stages before.
        device: where to compute.
        team: the processes that train together.
        stage: whose steps these are; the recipe's first when None.
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
        self.average = _average(model, recipe.ema)
        self.optimizer = make_optimizer(recipe, model, self.stage)
        self.schedule = make_schedule(recipe, self.optimizer, total_steps, self.stage)
        self.total_steps = total_steps
        self.scaler = torch.amp.GradScaler(device.name, enabled=device.amp == "float16")
        self.step = 0
        self.loss_sum = torch.zeros((), device=device.name)
        self.n_losses = 0
        self._first_bad = torch.full((), -1, dtype=torch.int64, device=device.name)
        self._asked: tuple[Tensor, Callable[[], bool]] | None = None

    @property
    def evaluated(self) -> nn.Module:
        """What is scored and kept: the network, or the moving average of its weights."""
        return self.average.module if self.average is not None else self.model

    @property
    def elapsed(self) -> float:
        """Epochs of the stage before the one under way, over all of them."""
        return self.step * self.stage.epochs // self.total_steps / self.stage.epochs

    def learn(self, batch: Batch, epoch: int, warm_up: bool, n_all: int) -> None:
        """Take one step.

        The loss stays on the device: reading it would make the CPU wait at every step.

        Args:
            batch: this member's share.
            epoch: from 0, over all stages.
            warm_up: learn from mosaics, with the plain loss.
            n_all: records in the shares of all members.
        """
        # A seed for each step, and not a state carried along: so a resumed run drops what the first one dropped.
        torch.manual_seed(_seed(self.recipe.seed, self.steps_before + self.step, _DROPOUT, self.team.rank))
        loss = None
        try:
            batch = self._augmented(batch, epoch, warm_up, n_all)
            loss = self._forward_backward(batch, warm_up, n_all)
            self._clip()
            self.scaler.step(self.optimizer)  # whose first call makes room for the moments
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            loss = None
        if loss is None:  # and not in the handler above, where the error still holds the memory
            raise self._too_large(batch)
        self.scaler.update()
        self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.step += 1
        self.loss_sum += loss
        self.n_losses += 1
        first = (self._first_bad < 0) & ~torch.isfinite(loss)
        self._first_bad = torch.where(first, self.step, self._first_bad)

    def _augmented(self, batch: Batch, epoch: int, warm_up: bool, n_all: int) -> Batch:
        recipe, target = self.recipe, torch.device(self.device.name)
        heights, widths = zip(*recipe.layout.time_tiles, strict=True)
        augmentations = recipe.augmentations_of(self.stage)
        batch = batch.to(target)
        mixes = warm_up or mixes_records(augmentations)
        if mixes:  # then a record's image depends on the others of the batch, whoever drew them
            batch = self.team.gather_batch(batch, n_all)
        if warm_up:
            batch = mosaic_batch(batch, recipe.seed, epoch, widths)
        else:
            if self.stage.smoothing:
                targets_BK = smooth(batch.targets_BK, batch.n_votes_B, self.stage.smoothing)
                batch = replace(batch, targets_BK=targets_BK)
            steps = device_augmentations(augmentations, recipe.layout)
            batch = augment(
                batch, steps, recipe.seed, epoch, widths, tile_heights=heights, layout=recipe.layout
            )
        return self.team.part_of(batch) if mixes else batch

    def _forward_backward(self, batch: Batch, warm_up: bool, n_all: int) -> Tensor:
        """Gradients of one batch; returns this member's part of its mean loss."""
        images_BCHW = laid_out(batch.images_BCHW, self.device)
        with autocast(self.device):
            logits_BK = self.network(images_BCHW)
        # Mosaics, whose loss is plain, have no votes of their own.
        weights = None if warm_up else self.stage.weights
        loss = weighted_loss(
            logits_BK,
            batch.targets_BK,
            batch.n_votes_B,
            "kl" if warm_up else self.stage.loss,
            weights,
            self.elapsed,
        )
        loss = loss * self.team.weight(n_all, len(images_BCHW))
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach() / self.team.size

    def _clip(self) -> None:
        """Shorten the gradients, all together, to the norm that the stage allows."""
        if self.stage.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.stage.clip_norm)

    def mean_loss(self) -> float:
        """Mean loss since the last call; waits for the device."""
        mean = float(self.team.total(self.loss_sum)) / self.n_losses
        self.loss_sum, self.n_losses = torch.zeros_like(self.loss_sum), 0
        return mean

    def first_bad_step(self) -> int | None:
        """The first step of the stage, from 1, whose loss was not finite; waits for the device."""
        step = int(self._first_bad)
        return step if step > 0 else None

    def recent_loss(self) -> float | None:
        """Mean loss since the last evaluation, as it was when this was last asked: nothing is waited for.

        In a team it is reckoned from this member's share alone.
        """
        answer = None
        if self._asked is not None and self._asked[1]():
            answer = float(self._asked[0])
        if self.n_losses:
            mean = self.loss_sum * (self.team.size / self.n_losses)
            if mean.device.type == "cuda":
                host = torch.empty((), pin_memory=True).copy_(mean, non_blocking=True)
                self._asked = host, torch.cuda.current_stream().record_event().query
            else:
                self._asked = mean, lambda: True
        return answer

    def _too_large(self, batch: Batch) -> RunError:
        """What to say when memory did not suffice: the largest batch that really fits, tried out."""
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

    # -- what is saved ---------------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """Everything that steps change, by name."""
        parts: dict[str, Mapping[str, Tensor]] = {
            "model": self.model.state_dict(),
            "average": {} if self.average is None else self.average.state_dict(),
            "loss": {"sum": self.team.total(self.loss_sum)},
        }
        for number, values in self.optimizer.state_dict()["state"].items():
            parts[f"optimizer/{number}"] = values
        return {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}

    def numbers(self) -> dict[str, Any]:
        """The rest, for JSON."""
        return {
            "step": self.step,
            "n_losses": self.n_losses,
            "groups": self.optimizer.state_dict()["param_groups"],
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, state: State) -> None:
        """Go on from a saved state."""
        numbers = state.numbers["learner"]
        self.model.load_state_dict(state.part("model"))
        if self.average is not None:
            self.average.load_state_dict(state.part("average"))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in state.part("optimizer").items():
            number, _, moment = name.partition("/")
            moments.setdefault(int(number), {})[moment] = value
        groups = [
            {key: tuple(value) if key == "betas" else value for key, value in group.items()}
            for group in numbers["groups"]
        ]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        _lay_out_like_parameters(self.optimizer)
        if self.scaler.is_enabled() and numbers["scaler"]:
            self.scaler.load_state_dict(numbers["scaler"])
        self.step, self.n_losses = numbers["step"], numbers["n_losses"]
        # Rates and momenta are functions of the step and lie in the groups.
        LRScheduler.load_state_dict(self.schedule, {"last_epoch": self.step, "_step_count": self.step + 1})
        # The saved sum is that of all members.
        self.loss_sum += state.tensors["loss/sum"].to(self.loss_sum.device) / self.team.size


def make_optimizer(recipe: Recipe, model: nn.Module, stage: Stage) -> torch.optim.Optimizer:
    """Return the optimizer of a stage: one group of parameters, or those of the head in a second one."""
    decay = recipe.weight_decay if stage.weight_decay is None else stage.weight_decay
    kind = torch.optim.Adam if (stage.optimizer or recipe.optimizer) == "adam" else torch.optim.AdamW
    rates = _rates(recipe, stage)
    parts: list[dict[str, Any]] = [{"params": list(model.parameters())}]
    if len(rates) > 1:
        heads = {p for layer in head_layers(model, recipe) for p in layer.parameters()}
        everything = parts[0]["params"]
        parts = [{"params": [p for p in everything if (p in heads) == of_head]} for of_head in (False, True)]
    groups = [part | {"lr": lr} for part, lr in zip(parts, rates, strict=True)]
    return kind(groups, lr=rates[0], weight_decay=decay, fused=True)


def _rates(recipe: Recipe, stage: Stage) -> list[float]:
    """The highest rate of each group of parameters."""
    head = stage.head_lr or recipe.head_lr
    return [stage.lr or recipe.lr, *([] if head is None else [head])]


def make_schedule(
    recipe: Recipe, optimizer: torch.optim.Optimizer, total_steps: int, stage: Stage | None = None
) -> LRScheduler:
    """Return the learning-rate schedule of a stage, to be stepped after every optimizer step.

    `one-cycle` without a rising part: from lr down to (lr / 25) / 0.4 = lr / 10 along half a cosine, while AdamW's
    beta1 rises from 0.85 to 0.95. `constant` is that cycle as it is made and never stepped: beta1 stays at 0.85.
    (The rate of its first step is below lr, by less than a millionth part in 1,500 steps or more; here it is lr.)
    `cosine` rises linearly along the stage's `warm_up_steps`, or half of its steps where it has fewer than twice as
    many, and falls along half a cosine to `last_lr`. A head with a rate of its own is at every step at the same part
    of its highest rate.
    """
    stage = stage or recipe.stages[0]
    schedule, lr = stage.schedule or recipe.schedule, stage.lr or recipe.lr
    rates = _rates(recipe, stage)
    if schedule == "cosine":
        rise = min(stage.warm_up_steps, total_steps // 2)
        part = partial(_cosine, rise=rise, fall=total_steps - rise, last=stage.last_lr / lr)
        return torch.optim.lr_scheduler.LambdaLR(optimizer, part)
    if schedule == "constant":
        for group in optimizer.param_groups:
            group["betas"] = (_FIRST_BETA1, group["betas"][1])
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rates, total_steps=total_steps, pct_start=0.0, div_factor=25, final_div_factor=0.4
    )


def _cosine(step: int, rise: int, fall: int, last: float) -> float:
    """Part of the highest rate at a step: (step + 1) / rise, then half a cosine from 1 down to `last`."""
    if step < rise:
        return (step + 1) / rise
    return last + (1 - last) * (1 + math.cos(math.pi * min((step - rise) / fall, 1.0))) / 2


def largest_fitting(
    model: nn.Module, size: int, shape: tuple[int, ...], device: Device, optimizer: torch.optim.Optimizer
) -> int:
    """Try batches of `size`, half of it and so on; return the first that goes forth and back, or 0.

    What the optimizer will need at its first step is kept free meanwhile.
    """
    moments: list[Tensor] = []
    while size:
        if device.name == "cuda":
            torch.cuda.empty_cache()
        try:
            if not moments:
                new = (p for p in model.parameters() if not optimizer.state.get(p))
                moments = [torch.zeros_like(p) for p in new for _ in range(2)]
            with autocast(device):
                logits_BK = model(torch.zeros((size, *shape), device=device.name))
            logits_BK.float().sum().backward()
            return size
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            size //= 2
        finally:
            model.zero_grad(set_to_none=True)
    return 0


def _lay_out_like_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Give each moment its parameter's strides, which the file does not keep and the fused AdamW relies on."""
    for parameter, moments in optimizer.state.items():
        for name, moment in moments.items():
            if moment.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter, dtype=moment.dtype).copy_(moment)


def _average(model: nn.Module, decay: float | None) -> AveragedModel | None:
    if decay is None:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)  # type: ignore[no-untyped-call]


def _seed(*words: int) -> int:
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))
