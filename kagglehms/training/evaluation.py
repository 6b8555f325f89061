"""A network's predictions of held-out records, and what they are worth.

Shape legend: B batch, C channel, H image rows, W image columns, N held-out records, K the six classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from kagglehms.data.competition import CLASSES
from kagglehms.device import Device
from kagglehms.training.distributed import ALONE, Team
from kagglehms.training.feed import Feed
from kagglehms.training.metric import Standing, floors, kl_score, standings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kagglehms.data.records import Records
    from kagglehms.training.recipe import Recipe


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
        seconds: of training and evaluation before it, over all sessions.
        prior_stage, prior_all, prior_votes10: what the same records' class means score.
        uniform_stage, uniform_all, uniform_votes10: what a uniform guess scores.
        averaged: of how many evaluations' weights the mean was scored; 1 for weights as they were at that step.
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
    prior_stage: float
    prior_all: float
    prior_votes10: float | None
    uniform_stage: float
    uniform_all: float
    uniform_votes10: float | None
    averaged: int = 1

    @property
    def all(self) -> Standing:
        return Standing(self.score_all, self.prior_all, self.uniform_all)

    @property
    def many(self) -> Standing | None:
        """On records with at least 10 votes."""
        if self.score_votes10 is None or self.prior_votes10 is None or self.uniform_votes10 is None:
            return None
        return Standing(self.score_votes10, self.prior_votes10, self.uniform_votes10)

    def line(self, recipe: Recipe, improved: bool) -> str:
        """What a run prints of it."""
        many = "" if self.many is None else f", many (≥ 10 votes) {self.many.text}"
        records = recipe.stages[self.stage].judging
        own = Standing(self.score_stage, self.prior_stage, self.uniform_stage)
        told = "" if records in {"all", "many"} else f", {records} {own.text}"
        held_out = f"held out {self.all.text}{many}{told}, {self.seconds:.0f} s"
        if self.averaged > 1:
            return f"  mean of the weights of the {self.averaged} best evaluations: {held_out}  (kept)"
        warm_up = " (warm-up)" if self.warm_up else ""
        best = "  (the last so far, kept)" if recipe.keep == "last" else "  (best so far)" if improved else ""
        return (
            f"  epoch {self.epoch:.1f}/{recipe.epochs}{warm_up}, step {self.step}: loss {self.train_loss:.4f}, "
            f"{held_out}{best}"
        )


@dataclass(frozen=True)
class Scores:
    """What held-out predictions are worth; see `Evaluation`."""

    stage: Standing
    all: Standing
    many: Standing | None

    @property
    def columns(self) -> dict[str, Any]:
        """The same as `Evaluation` names it."""
        parts = {"stage": self.stage, "all": self.all, "votes10": self.many}
        return {
            f"{kind}_{name}": None if part is None else getattr(part, kind)
            for kind in ("score", "prior", "uniform")
            for name, part in parts.items()
        }


def score(
    records: Records,
    valid: NDArray[np.integer],
    judged: NDArray[np.bool_],
    predictions_NK: NDArray[np.float64],
) -> Scores:
    """Score the predictions of the records at `valid`; those of the stage's population are `judged`."""
    targets_NK = records.targets_NK[valid]
    stage = Standing(kl_score(targets_NK[judged], predictions_NK[judged]), *floors(targets_NK[judged]))
    return Scores(stage, *standings(targets_NK, predictions_NK, records.many[valid]))


def autocast(device: Device) -> torch.autocast:
    """Mixed precision of `device`, or a context that does nothing."""
    dtype = getattr(torch, device.amp) if device.amp else None
    return torch.autocast(device.name, dtype=dtype, enabled=dtype is not None)


def memory_format(device: Device) -> torch.memory_format:
    """Channels last on a GPU, whose convolution units want them there."""
    return torch.channels_last if device.name == "cuda" else torch.contiguous_format


_NO_MEMORY = (
    # Main memory has no error class of its own: Linux and macOS, Windows; nor has Apple's GPU.
    "can't allocate memory",
    "not enough memory",
    "MPS backend out of memory",
    # Libraries that ask the GPU themselves.
    "CUDA error: out of memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUFFT_ALLOC_FAILED",
)


def out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that memory, of whatever device, did not suffice."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _NO_MEMORY)


def laid_out(inputs: torch.Tensor, device: Device) -> torch.Tensor:
    """Images in the `memory_format` of the device; signals, which have no such format, as they are."""
    return inputs.contiguous(memory_format=memory_format(device)) if inputs.ndim == 4 else inputs


def predict(
    model: nn.Module,
    feed: Feed,
    positions: NDArray[np.integer],
    batch_size: int,
    device: Device,
    team: Team = ALONE,
) -> NDArray[np.float64]:
    """(n, 6) float64 probabilities of the records at `positions`, each predicted by one member of the team.

    Leaves the model in evaluation mode.
    """
    own = team.share(positions)
    outputs = [_probabilities(model, batch.images_BCHW, device) for batch in feed.batches(own, batch_size)]
    own_NK = torch.cat(outputs).cpu().numpy() if outputs else np.empty((0, len(CLASSES)))
    return team.gather_rows(own_NK, len(positions))


def probabilities(model: nn.Module, images_BCHW: torch.Tensor, device: Device) -> NDArray[np.float64]:
    """(B, 6) float64 class probabilities of a batch of images; softmax in float64, outside mixed precision."""
    return _probabilities(model, images_BCHW, device).cpu().numpy()


@torch.inference_mode()
def _probabilities(model: nn.Module, images_BCHW: torch.Tensor, device: Device) -> torch.Tensor:
    """The same, still on the device: the CPU need not wait."""
    model.eval()
    images_BCHW = images_BCHW.to(device.name, non_blocking=True)
    with autocast(device):
        logits_BK = model(laid_out(images_BCHW, device))
    if device.name == "mps":  # which has no float64
        logits_BK = logits_BK.cpu()
    return torch.softmax(logits_BK.double(), dim=1)
