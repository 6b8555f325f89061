"""The training loop: one fold of one recipe, in as many sessions as it takes.

The loop is a generator of pauses. Between two pauses it takes steps and touches neither disk nor device memory; at a
pause the fold is evaluated, its state saved, or the session ended. On a CPU a fold that was interrupted anywhere ends
with the same bits as one that was not.

Shape legend: N held-out records, K the six classes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from kagglehms.console import say
from kagglehms.device import Device
from kagglehms.errors import EXIT_UNFINISHED, RunError, Stopped
from kagglehms.progress import progress
from kagglehms.timing import duration
from kagglehms.training.augmentation_draws import drawn_band_pass, mirror_probability, shift_seconds
from kagglehms.training.checkpoint import plain_state, save_tensors
from kagglehms.training.evaluation import Evaluation, memory_format, predict, score
from kagglehms.training.feed import Batch, Feed, Work, on_device
from kagglehms.training.first_weights import NONE, FirstWeights
from kagglehms.training.keeping import Keeper, averaged
from kagglehms.training.logs import Journal
from kagglehms.training.models import make_model
from kagglehms.training.recipe import Recipe
from kagglehms.training.resume import STATE, State, read_state, write_state
from kagglehms.training.session import Pace, Session
from kagglehms.training.stage_plan import Plan
from kagglehms.training.step import Learner

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Fit:
    """One trained fold.

    Attributes:
        best: the evaluation whose weights were kept, see `Recipe.keep`.
        predictions_NK: (n_valid, 6) float64 probabilities at that evaluation, in the order of `valid`.
        history: all evaluations.
        seconds: of all sessions together.
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
    folder: Path,
    pretrained: str | FirstWeights = NONE,
    session: Session | None = None,
    identity: Mapping[str, str] | None = None,
) -> Fit:
    """Train one fold, stage by stage, and keep the weights of the last stage that the recipe says.

    Args:
        recipe: what to do.
        feed: draws the batches.
        train: positions of the training records in the feed.
        valid: positions of the held-out records.
        device: where to compute.
        folder: of the fold; its state and logs are kept there, and its weights in the end. Where a state is found,
            training goes on from it.
        pretrained: see `models.make_model`.
        session: time limit, stop requests, team.
        identity: what the run depends on; a state that was saved with another one is refused.

    Raises:
        RunError: losses or predictions are not finite, the memory does not suffice, a stage has no records or
            too small batches for the team, the disk is full, or the state cannot be gone on from.
        Stopped: the time is up or somebody asked for the end; the state is saved.
    """
    return _Fold(
        recipe, feed, train, valid, device, folder, pretrained, session or Session(), identity or {}
    ).train()


Pause = Literal["evaluate", "save", "stop"]


class _Fold:
    """One fold in training."""

    def __init__(
        self,
        recipe: Recipe,
        feed: Feed,
        train: NDArray[np.integer],
        valid: NDArray[np.integer],
        device: Device,
        folder: Path,
        pretrained: str | FirstWeights,
        session: Session,
        identity: Mapping[str, str],
    ) -> None:
        self.recipe, self.feed, self.valid, self.device = recipe, feed, valid, device
        self.folder, self.session, self.team, self.identity = folder, session, session.team, identity
        folder.mkdir(parents=True, exist_ok=True)
        self.state = read_state(folder / STATE, identity)
        stages = range(len(recipe.stages))
        self.plans = [Plan(recipe, number, feed, train, valid, self.team.size) for number in stages]
        self.journal = Journal(folder, self.team.leads, session.tensorboard)
        self.pace = Pace(session)
        # Image sizes never change and batches by one record at most: trying convolution algorithms pays.
        torch.backends.cudnn.benchmark = device.name == "cuda"
        torch.manual_seed(recipe.seed)
        # A state brings its own weights.
        model, where_from = make_model(recipe, NONE if self.state else pretrained)
        if not self.state:
            say(where_from)
        model = model.to(device.name).to(memory_format=memory_format(device))
        self.model, network = self.team.distributed(model, device)
        self.network: Callable[[Tensor], Tensor] = torch.compile(network) if session.compile else network
        self.history: list[Evaluation] = []
        self.keeper = Keeper(recipe)
        self.seconds_before, self.start = 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.start

    def train(self) -> Fit:
        first = int(self.state.numbers["stage"]) if self.state else 0
        for plan in self.plans[first:]:
            self._train_stage(plan)
        kept = self.keeper.best
        assert kept is not None
        if self.team.leads:
            save_tensors(dict(self.keeper.weights), self.folder / WEIGHTS, self.feed.normaliser)
        say(f"  kept: {self.recipe.kept} (step {kept.step})")
        self.journal.event("finished", score_all=kept.score_all, seconds=round(self.seconds, 1))
        return Fit(kept, self.keeper.predictions_NK, tuple(self.history), self.seconds)

    def _train_stage(self, plan: Plan) -> None:
        if plan.number and not self.state:
            self.model.load_state_dict(self.keeper.weights)
        before = sum(earlier.n_steps for earlier in self.plans[: plan.number])
        learner = Learner(
            self.recipe, self.model, self.network, plan.n_steps, before, self.device, self.team, plan.stage
        )
        if self.state:
            self._restore(learner)
        else:
            self.keeper.forget()
        for pause in self._pauses(plan, learner):
            self._refuse_bad_loss(plan, learner)
            if pause == "evaluate":
                self._evaluate(plan, learner)
            self._save(plan, learner)
            if pause == "stop":
                raise self._stopped(plan, learner)
        self._keep_mean(plan, learner)

    def _pauses(self, plan: Plan, learner: Learner) -> Iterator[Pause]:
        """Take the steps that are left of the stage, and pause where something else is due."""
        if plan.evaluates_after(learner.step) and not self._is_evaluated(learner):
            yield "evaluate"  # the last session ended between the step and its evaluation
        what = f"train {self.recipe.name}" + (f" stage {plan.number + 1}" if len(self.plans) > 1 else "")
        steps = range(learner.step, plan.n_steps)
        with contextlib.closing(self._batches(plan, learner.step)) as batches:
            self.model.train()
            for step in progress(
                steps, plan.n_steps, what, before=learner.step, status=lambda: self._status(learner)
            ):
                wish = self.pace.wish(plan.evaluates_after(step + 1))
                if wish != "go on":
                    yield wish
                start = time.monotonic()
                epoch, place = plan.epoch_of(step)
                n_all = plan.batch_sizes[place]
                learner.learn(next(batches), epoch, plan.warms_up(epoch), n_all)
                self.pace.stepped(time.monotonic() - start)
                if plan.evaluates_after(learner.step):
                    if self.team.agree(int(self.session.stop.signal is not None)):
                        yield "stop"
                    yield "evaluate"
                    self.model.train()

    def _batches(self, plan: Plan, first_step: int) -> Generator[Batch]:
        """This member's share of every batch from a step on, on the device; drawn ahead across epochs."""
        asked = self.recipe.augmentations_of(plan.stage)
        mirror, shift_s = mirror_probability(asked), shift_seconds(asked)
        band = drawn_band_pass(asked, self.recipe.layout)
        work = (
            Work(self.team.share(chunk), epoch, not plan.warms_up(epoch), mirror, shift_s, band)
            for epoch, chunk in plan.chunks_from(first_step)
        )
        drawn = self.feed.draw(work)
        try:
            yield from on_device(drawn, torch.device(self.device.name))
        finally:
            drawn.close()

    def _status(self, learner: Learner) -> str:
        loss = learner.recent_loss()
        parts = [] if loss is None else [f"loss {loss:.4f}"]
        if self.history:
            last = self.history[-1]
            parts.append(f"held out {last.score_all:.4f} (class prior {last.prior_all:.4f})")
        return ", ".join(parts)

    def _evaluate(self, plan: Plan, learner: Learner) -> None:
        train_loss = learner.mean_loss()
        predictions_NK, columns = self._scored(learner.evaluated, plan, learner)
        now = Evaluation(
            stage=plan.number,
            warm_up=learner.step <= plan.steps_per_epoch * plan.stage.mosaic_epochs,
            step=learner.steps_before + learner.step,
            epoch=plan.first_epoch + learner.step / plan.steps_per_epoch,
            train_loss=train_loss,
            seconds=self.seconds,
            **columns,
        )
        if plan.resets_best(learner.step):
            self.keeper.forget()
        improved = self.keeper.offer(now, lambda: plain_state(learner.evaluated), predictions_NK)
        self._write_down(now, learner, improved)

    def _keep_mean(self, plan: Plan, learner: Learner) -> None:
        """Let the mean of the best weights of the stage stand, where the recipe asks for it, and score it.

        No state is saved with it: whoever goes on from the stage's last evaluation makes the same mean again.
        """
        mean = self.keeper.mean()
        if mean is None:
            return
        if self.pace.wish(evaluation_follows=True) == "stop":
            raise self._stopped(plan, learner)
        self.model.load_state_dict(mean)
        predictions_NK, columns = self._scored(self.model, plan, learner)
        now = averaged(self.history[-1], len(self.keeper.kept), self.seconds, columns)
        self.keeper.stand(now, mean, predictions_NK)
        self._write_down(now, learner, improved=True)

    def _scored(
        self, model: torch.nn.Module, plan: Plan, learner: Learner
    ) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """Predictions of the held-out fold, and their scores as `Evaluation` names them."""
        with self.pace.measured("evaluation"):
            predictions_NK = predict(
                model, self.feed, self.valid, self.recipe.batch_size, self.device, self.team
            )
        self._refuse_bad_predictions(learner, predictions_NK)
        return predictions_NK, score(self.feed.records, self.valid, plan.judged, predictions_NK).columns

    def _write_down(self, now: Evaluation, learner: Learner, improved: bool) -> None:
        self.history.append(now)
        self.journal.evaluated(self.history, improved, lr=learner.schedule.get_last_lr()[0])
        say(now.line(self.recipe, improved))

    def _refuse_bad_loss(self, plan: Plan, learner: Learner) -> None:
        """Raises RunError if a loss since the start of the stage was not finite, and names its records."""
        bad = learner.first_bad_step()
        if bad is None:
            return
        epoch, place = plan.epoch_of(bad - 1)
        frame = self.feed.records.frame[self.team.share(plan.chunks(epoch)[place])]
        listed = ", ".join(map(str, frame["eeg_id"].to_list()[:40]))
        self.journal.event(
            "loss not finite", step=learner.steps_before + bad, eeg_ids=frame["eeg_id"].to_list()
        )
        raise RunError(
            f"the loss of {self.recipe.name} is not finite at step {learner.steps_before + bad} (epoch {epoch}), whose "
            f"batch has the EEGs {listed}; look at them with `kagglehms view`, or lower lr ({self.recipe.lr})"
        )

    def _refuse_bad_predictions(self, learner: Learner, predictions_NK: NDArray[np.float64]) -> None:
        """Raises RunError if a prediction is not finite."""
        bad = ~np.isfinite(predictions_NK).all(axis=1)
        if not bad.any():
            return
        step = learner.steps_before + learner.step
        eeg_id = int(self.feed.records.eeg_ids[self.valid[bad.argmax()]])
        self.journal.event("predictions not finite", step=step, n_records=int(bad.sum()), first_eeg_id=eeg_id)
        why = (
            "its weights have overflowed: lower lr"
            if bad.all()
            else f"look at EEG {eeg_id}, the first of them, with `kagglehms view`, or lower lr"
        )
        raise RunError(
            f"the predictions of {self.recipe.name} after step {step} are not finite for {bad.sum()} of {bad.size} "
            f"held-out records; {why} ({self.recipe.lr})"
        )

    # -- interruption ----------------------------------------------------------------------------------------------

    def _is_evaluated(self, learner: Learner) -> bool:
        return bool(self.history) and self.history[-1].step == learner.steps_before + learner.step

    def _save(self, plan: Plan, learner: Learner) -> None:
        """Write the state. Weights of the best evaluation are a part of it, so that both always fit together."""
        tensors = learner.tensors()  # which the whole team takes part in
        with self.pace.measured("saving"):
            if not self.team.leads:
                return
            tensors |= self.keeper.tensors()
            numbers = {
                "stage": plan.number,
                "learner": learner.numbers(),
                "history": [dataclasses.asdict(e) for e in self.history],
                "kept": self.keeper.numbers(self.history),
                "seconds": self.seconds,
            }
            write_state(self.folder / STATE, State(tensors, numbers, self.identity))
        self.journal.event("saved", step=learner.steps_before + learner.step)

    def _restore(self, learner: Learner) -> None:
        state = self.state
        assert state is not None
        learner.restore(state)
        self.history = [Evaluation(**row) for row in state.numbers["history"]]
        self.keeper.restore(state, state.numbers["kept"], self.history)
        self.seconds_before = float(state.numbers["seconds"])
        self.state = None
        step = learner.steps_before + learner.step
        self.journal.event("resumed", step=step)
        say(f"goes on after step {step} of {self._all_steps}, from {self.folder / STATE}")

    @property
    def _all_steps(self) -> int:
        return sum(plan.n_steps for plan in self.plans)

    def _stopped(self, plan: Plan, learner: Learner) -> Stopped:
        stop = self.session.stop
        why = "the time limit is near" if stop.signal is None else f"{stop.signal.name} came"
        done = learner.steps_before + learner.step
        left = self._all_steps - done
        evaluations = sum(p.stage.epochs * len(p.evaluate_after) for p in self.plans)
        evaluations -= sum(e.averaged == 1 for e in self.history)
        seconds = left * self.pace.mean("step") + evaluations * self.pace.mean("evaluation")
        reckoned = f", about {duration(seconds)}" if self.pace.mean("step") else ""
        self.journal.event("stopped", step=done, why=why, steps_left=left, seconds_left=round(seconds, 1))
        return Stopped(
            f"{self.recipe.name} stopped after step {done} of {self._all_steps}, because {why}; {left} steps and "
            f"{evaluations} evaluations of {self.folder.name} are left{reckoned}; its state is in "
            f"{self.folder / STATE}",
            EXIT_UNFINISHED if stop.signal is None else stop.exit_code,
        )
