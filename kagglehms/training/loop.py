"""The training loop: one fold of one recipe, in as many sessions as it takes.

The loop is a generator of pauses. Between two pauses it takes steps and touches neither the disk nor, for reading,
the memory of the device. In a pause the fold is evaluated, its state saved, or the session ended. On a CPU, a fold
that was interrupted at any point ends with the same bits as one that was not.

Shape legend: N held-out records, K the six classes.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from kagglehms.caches import use_own_compile_cache
from kagglehms.console import say
from kagglehms.device import Device
from kagglehms.errors import EXIT_UNFINISHED, RunError, Stopped
from kagglehms.progress import progress
from kagglehms.timing import duration
from kagglehms.training.augmentation_draws import drawn_band_pass, mirror_probability, shift_seconds
from kagglehms.training.batches import Batch, on_device
from kagglehms.training.checkpoint import WEIGHTS, plain_state, save_tensors
from kagglehms.training.cuda_graphs import GraphedNetwork
from kagglehms.training.evaluation import Evaluation, Scores
from kagglehms.training.feed import Feed
from kagglehms.training.feed_draws import Work
from kagglehms.training.first_weights import NONE, FirstWeights
from kagglehms.training.held_out import HeldOut
from kagglehms.training.history import History
from kagglehms.training.logs import Journal
from kagglehms.training.models import make_model
from kagglehms.training.options import Albumentations
from kagglehms.training.precision import placed, tunes_convolutions
from kagglehms.training.recipe import Recipe
from kagglehms.training.resume import STATE, State, read_state, write_state
from kagglehms.training.session import Pace, Session
from kagglehms.training.stage_plan import StagePlan
from kagglehms.training.step import Learner

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class Fit:
    """One trained fold.

    Attributes:
        best: the evaluation whose weights are kept, see `Recipe.keep`.
        predictions_NK: float64 probabilities of that evaluation, in the order of the held-out records.
        history: all evaluations, in order.
        seconds: time spent on training and evaluation, over all sessions.
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
    weights: str | FirstWeights = NONE,
    session: Session | None = None,
    identity: Mapping[str, str] | None = None,
) -> Fit:
    """Train one fold, stage by stage, and keep the weights that the recipe chooses.

    Args:
        recipe: the recipe.
        feed: feed that draws the batches.
        train: positions of the training records in the feed.
        valid: positions of the held-out records in the feed.
        device: device to compute on.
        folder: folder of the fold, for its logs, its state and, at the end, its weights. If it has a state, training
            continues from there.
        weights: first weights of the network, see `models.make_model`.
        session: time limit, stop requests and team of this session; by default there is no limit, and one process.
        identity: digests of what the run depends on; a state saved with another identity is refused.

    Returns:
        The kept evaluation, its predictions and the history.

    Raises:
        RunError: losses or predictions are not finite, memory does not suffice, a stage has no records or batches
            that are too small for the team, the disk is full, or the state cannot be continued from.
        Stopped: the time is up, or a signal asked for the end; the state is saved.
    """
    session, identity = session or Session(), identity or {}
    team = session.team
    folder.mkdir(parents=True, exist_ok=True)
    state = read_state(folder / STATE, identity)
    plans = [StagePlan(recipe, number, feed, train, valid, team.size) for number in range(len(recipe.stages))]
    torch.backends.cudnn.benchmark = tunes_convolutions(device, sum(plan.n_steps for plan in plans))
    journal = Journal(folder, team.leads, session.trackers, json.loads(recipe.to_json()))
    training = _Training(
        recipe=recipe,
        plans=plans,
        networks=_networks(recipe, None if state else weights, device, session),
        held_out=HeldOut(recipe, feed, valid, device, team, journal),
        history=History(recipe, journal),
        session=session,
        pace=Pace(session),
        folder=folder,
        identity=identity,
    )
    with contextlib.closing(journal):
        return training.run(state)


Pause = Literal["evaluate", "save", "stop"]


@dataclass(frozen=True)
class _Networks:
    """The network of a fold, twice.

    Attributes:
        model: the network that is saved and evaluated.
        trained: the network that training calls: the same, compiled, distributed or replayed as a graph.
    """

    model: torch.nn.Module
    trained: Callable[[Tensor], Tensor]


def _networks(
    recipe: Recipe, weights: str | FirstWeights | None, device: Device, session: Session
) -> _Networks:
    """Build the network on its device; without `weights`, which a saved state brings, its origin is not printed."""
    torch.manual_seed(recipe.seed)
    model, where_from = make_model(recipe, NONE if weights is None else weights)
    if weights is not None:
        say(where_from)
    model, trained = session.team.distributed(placed(model, device.name), device)
    if session.compile:
        use_own_compile_cache()
        return _Networks(model, torch.compile(trained))
    if session.cuda_graphs and session.team.size == 1:
        return _Networks(model, GraphedNetwork(trained, device))
    return _Networks(model, trained)


@dataclass(frozen=True)
class _Training:
    """The training of one fold, in one session.

    Attributes:
        recipe: the recipe.
        plans: the steps of each stage.
        networks: the network.
        held_out: the held-out records; their feed and device are those of the training.
        history: evaluations and kept weights.
        session: time limit, stop requests and team.
        pace: measured durations, which decide when to save and to stop.
        folder: folder of the fold.
        identity: digests of what the run depends on.
    """

    recipe: Recipe
    plans: list[StagePlan]
    networks: _Networks
    held_out: HeldOut
    history: History
    session: Session
    pace: Pace
    folder: Path
    identity: Mapping[str, str]

    def run(self, state: State | None) -> Fit:
        """Train all stages, or those that are left after a saved state."""
        first = int(state.numbers["stage"]) if state else 0
        for plan in self.plans[first:]:
            self._train_stage(plan, state)
            state = None
        kept, history = self.history.keeper.best, self.history
        assert kept is not None
        if self.session.team.leads:
            normaliser = self.held_out.feed.normaliser
            save_tensors(dict(history.keeper.weights), self.folder / WEIGHTS, normaliser)
        say(f"  kept: {self.recipe.kept} (step {kept.step})")
        history.journal.event("finished", score_all=kept.score_all, seconds=round(history.seconds, 1))
        return Fit(kept, history.keeper.predictions_NK, tuple(history.evaluations), history.seconds)

    def _train_stage(self, plan: StagePlan, state: State | None) -> None:
        if plan.number and not state:
            self.networks.model.load_state_dict(self.history.keeper.weights)
        learner = self._learner(plan)
        if state:
            self._restore(learner, state)
        else:
            self.history.keeper.forget()
        for pause in self._pauses(plan, learner):
            self._refuse_bad_loss(plan, learner)
            if pause == "evaluate":
                self._evaluate(plan, learner)
            self._save(plan, learner)
            if pause == "stop":
                raise self._stopped(learner)
        self._keep_mean(plan, learner)

    def _learner(self, plan: StagePlan) -> Learner:
        before = sum(other.n_steps for other in self.plans[: plan.number])
        model, trained, device = self.networks.model, self.networks.trained, self.held_out.device
        return Learner(
            self.recipe, model, trained, plan.n_steps, before, device, self.session.team, plan.stage
        )

    # -- steps -----------------------------------------------------------------------------------------------------

    def _pauses(self, plan: StagePlan, learner: Learner) -> Iterator[Pause]:
        """Take the remaining steps of the stage, and pause whenever something else is due."""
        if plan.evaluates_after(learner.step) and not self._is_evaluated(learner):
            yield "evaluate"  # the previous session ended between the step and its evaluation
        what = f"train {self.recipe.name}" + (f" stage {plan.number + 1}" if len(self.plans) > 1 else "")
        steps = range(learner.step, plan.n_steps)
        model = self.networks.model
        with contextlib.closing(self._batches(plan, learner.step)) as batches:
            model.train()
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
                    if self.session.team.agree(int(self.session.stop.signal is not None)):
                        yield "stop"
                    yield "evaluate"
                    model.train()

    def _batches(self, plan: StagePlan, first_step: int) -> Generator[Batch]:
        """Yield this process's share of every batch from a step on, on the device; they are drawn ahead."""
        work = (self._work(plan, epoch, chunk) for epoch, chunk in plan.chunks_from(first_step))
        drawn = self.held_out.feed.draw(work)
        try:
            yield from on_device(drawn, torch.device(self.held_out.device.name))
        finally:
            drawn.close()

    def _work(self, plan: StagePlan, epoch: int, chunk: NDArray[np.integer]) -> Work:
        """Return what to draw for this process's share of a batch; a warm-up draws records as they are."""
        asked = () if plan.warms_up(epoch) else self.recipe.augmentations_of(plan.stage)
        return Work(
            self.session.team.share(chunk),
            epoch,
            augment=any(isinstance(augmentation, Albumentations) for augmentation in asked),
            mirror=mirror_probability(asked),
            shift_s=shift_seconds(asked),
            band=drawn_band_pass(asked, self.recipe.layout),
            labels=plan.stage.pseudo_labels,
        )

    def _status(self, learner: Learner) -> str:
        divergence, last = learner.recent_divergence(), self.history.last
        parts = [] if divergence is None else [f"training KL {divergence:.4f}"]
        if last is not None:
            parts.append(f"held out {last.score_all:.4f} (class prior {last.prior_all:.4f})")
        parts += [self._command_left(learner)] if self.session.later else []
        return ", ".join(parts)

    def _refuse_bad_loss(self, plan: StagePlan, learner: Learner) -> None:
        """Raise RunError, with the records of the batch, if a loss since the start of the stage was not finite.

        All processes raise the same: a loss that is not finite in one of them is soon not finite in all.
        """
        bad = learner.first_bad_step()
        if bad is None:
            return
        epoch, place = plan.epoch_of(bad - 1)
        step = learner.steps_before + bad
        frame = self.held_out.feed.records.frame[plan.chunks(epoch)[place]]
        eeg_ids = frame["eeg_id"].to_list()
        self.history.journal.event("loss not finite", step=step, eeg_ids=eeg_ids)
        listed = ", ".join(map(str, eeg_ids[:40]))
        raise RunError(
            f"the loss of {self.recipe.name} is not finite at step {step} (epoch {epoch}), whose batch has the EEGs "
            f"{listed}; look at them with `kagglehms view`, or lower lr ({self.recipe.lr})"
        )

    # -- evaluations -----------------------------------------------------------------------------------------------

    def _is_evaluated(self, learner: Learner) -> bool:
        last = self.history.last
        return last is not None and last.step == learner.steps_of_run

    def _evaluate(self, plan: StagePlan, learner: Learner) -> None:
        train_loss, train_kl = learner.mean_losses()
        predictions_NK, scores = self._scored(learner.evaluated, plan, learner)
        now = Evaluation(
            stage=plan.number,
            warm_up=learner.step <= plan.steps_per_epoch * plan.stage.mosaic_epochs,
            step=learner.steps_of_run,
            epoch=plan.first_epoch + learner.step / plan.steps_per_epoch,
            train_loss=train_loss,
            train_kl=train_kl,
            seconds=self.history.seconds,
            **scores.attributes,
        )
        keeper = self.history.keeper
        if plan.resets_best(learner.step):
            keeper.forget()
        improved = keeper.offer(now, lambda: plain_state(learner.evaluated), predictions_NK)
        self.history.add(now, improved, learner.lr)
        if left := self._command_left(learner):
            say(f"  {left}")

    def _keep_mean(self, plan: StagePlan, learner: Learner) -> None:
        """Keep the mean of the stage's best weights, if the recipe asks for it, and score it.

        No state is saved with it: a session that continues after the stage's last evaluation computes it again.
        """
        keeper = self.history.keeper
        mean = keeper.mean()
        if mean is None:
            return
        if self.pace.wish(evaluation_follows=True) == "stop":
            raise self._stopped(learner)
        model, last = self.networks.model, self.history.evaluations[-1]
        model.load_state_dict(mean)
        predictions_NK, scores = self._scored(model, plan, learner)
        now = replace(last, averaged=len(keeper.kept), seconds=self.history.seconds, **scores.attributes)
        keeper.stand(now, mean, predictions_NK)
        self.history.add(now, improved=True, lr=learner.lr)

    def _scored(
        self, model: torch.nn.Module, plan: StagePlan, learner: Learner
    ) -> tuple[NDArray[np.float64], Scores]:
        with self.pace.measured("evaluation"):
            return self.held_out.score(model, plan.judged, learner.steps_of_run)

    # -- interruption ----------------------------------------------------------------------------------------------

    def _save(self, plan: StagePlan, learner: Learner) -> None:
        """Write the state; the kept weights are part of it, so that the two never disagree."""
        tensors = learner.tensors()  # for which the whole team is needed
        with self.pace.measured("saving"):
            if not self.session.team.leads:
                return
            numbers = {"stage": plan.number, "learner": learner.numbers(), **self.history.numbers()}
            state = State({**tensors, **self.history.tensors()}, numbers, self.identity)
            write_state(self.folder / STATE, state)
        self.history.journal.event("saved", step=learner.steps_of_run)

    def _restore(self, learner: Learner, state: State) -> None:
        learner.restore(state)
        self.history.restore(state)
        step = learner.steps_of_run
        self.history.journal.event("resumed", step=step)
        say(f"continues after step {step} of {self._n_steps}, from {self.folder / STATE}")

    @property
    def _n_steps(self) -> int:
        """Number of steps of all stages."""
        return sum(plan.n_steps for plan in self.plans)

    @property
    def _n_evaluations(self) -> int:
        """Number of evaluations of all stages."""
        return sum(plan.stage.epochs * len(plan.evaluate_after) for plan in self.plans)

    def _left(self, learner: Learner) -> tuple[int, int, float]:
        """Return the number of steps and evaluations of the fold that are left, and the seconds that they take."""
        steps = self._n_steps - learner.steps_of_run
        evaluations = self._n_evaluations - sum(e.averaged == 1 for e in self.history.evaluations)
        return steps, evaluations, self._seconds(steps, evaluations)

    def _seconds(self, steps: int, evaluations: int) -> float:
        return steps * self.pace.mean("step") + evaluations * self.pace.mean("evaluation")

    def _command_left(self, learner: Learner) -> str:
        """Estimate in words what is left of the command, by the pace of this fold; empty before its first step."""
        if not self.pace.mean("step"):
            return ""
        fold = self._seconds(self._n_steps, self._n_evaluations)
        seconds = self._left(learner)[2] + self.session.later * fold
        return f"about {duration(seconds)} left for all that this command trains" if seconds else ""

    def _stopped(self, learner: Learner) -> Stopped:
        """Return the exception that ends this session, with an estimate of the time that is left."""
        stop, done = self.session.stop, learner.steps_of_run
        left, evaluations, seconds = self._left(learner)
        why = "the time limit is near" if stop.signal is None else f"{stop.signal.name} came"
        estimate = f", about {duration(seconds)}" if self.pace.mean("step") else ""
        self.history.journal.event(
            "stopped", step=done, why=why, steps_left=left, seconds_left=round(seconds, 1)
        )
        return Stopped(
            f"{self.recipe.name} stopped after step {done} of {self._n_steps}, because {why}; {left} steps and "
            f"{evaluations} evaluations of {self.folder.name} are left{estimate}; its state is in "
            f"{self.folder / STATE}",
            EXIT_UNFINISHED if stop.signal is None else stop.exit_code,
        )
