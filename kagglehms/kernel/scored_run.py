"""The scored run: the test set's recordings → submission.csv, better with every model, until time is up.

`python -m kagglehms.kernel.scored_run JSON` is the worker that the supervisor starts; `run_scored` does the same in
this process. Either way a submission of the class prior is in place before anything that can fail.

Shape legend: N rows of the test set, K the six classes.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kagglehms.bundle.manifest import read_manifest, verify
from kagglehms.bundle.predictor import LoadedModel, Predictor
from kagglehms.console import open_streams, say, visible
from kagglehms.data.competition import Competition
from kagglehms.device import choose_device
from kagglehms.errors import EXIT_FAILURE, EXIT_OK, HMSError, RunError, counted
from kagglehms.inputs.drawing import stack
from kagglehms.inputs.kinds import Input
from kagglehms.inputs.layouts import CROP_SHAPES, Crop, Normaliser, Source
from kagglehms.kernel.marker import Marker
from kagglehms.kernel.prior import SUBMISSION, read_prior, read_rows, submit_prior
from kagglehms.kernel.protocol import EXIT_DEVICE_LOST, Task
from kagglehms.kernel.schedule import SAFETY, Projection, Step, Trial, make_schedule
from kagglehms.kernel.scratch import Pass, Scratch
from kagglehms.kernel.submission import write_submission
from kagglehms.kernel.tally import Tally
from kagglehms.kernel.test_set import BATCH_ROWS, Missing, Reader, batches
from kagglehms.progress import progress
from kagglehms.timing import Clock

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NOT_FINITE = "the model's output is not finite"


def run_scored(task: Task) -> int:
    """Predict the test set in this process: the prior first, then one pass of a model after the other.

    Args:
        task: what to predict, and how.

    Returns:
        An exit code: 0 when nothing failed and at most `marker.PRIOR_SHARE` of the rows keep the prior, otherwise 1.
        Passes for which there was no time have not failed. The submission on the disk is valid either way, and the
        marker beside it describes it.

    Raises:
        DataError: there is no competition in the folder.
    """
    prior = submit_prior(Path(task.competition), Path(task.bundle), Path(task.out))
    say(prior.sentence)
    return work(task)


def work(task: Task) -> int:
    """Do what `run_scored` does once the prior has been submitted."""
    run = ScoredRun(task)
    try:
        run.improve()
    except HMSError as error:
        print(f"error: {visible(str(error))}", file=sys.stderr, flush=True)
        run.marker.problems.append(str(error))
    run.finish()
    return EXIT_FAILURE if run.marker.problems else EXIT_OK


class _NoTime(Exception):
    """There is no time for the rest of a pass."""


def _no_time(needed_s: float, left_s: float) -> str:
    return f"about {needed_s:.0f} s needed, {max(left_s, 0):.0f} s left"


class ScoredRun:
    """A scored run whose prior has been submitted.

    Attributes:
        marker: what the submission on the disk is made from, so far.
    """

    def __init__(self, task: Task) -> None:
        competition = Competition(Path(task.competition))
        rows = read_rows(competition)
        self.marker = Marker(rows=len(rows), notes=list(rows.notes))
        self._task = task
        self._clock = Clock(task.time_limit_s, time.monotonic())
        self._out = Path(task.out)
        self._prior_K = np.array(read_prior(Path(task.bundle))[0])
        self._scratch = Scratch(None if task.scratch is None else Path(task.scratch), self.marker.notes)
        self._reader = Reader(competition, rows)
        self._tally = Tally(rows.eeg_ids)
        self._projection = Projection()
        self._time_is_up = False
        self._not_compiled: set[str] = set()

    def improve(self) -> None:
        """Replace the submission after each pass, as far as time allows.

        Raises:
            HMSError: the bundle cannot be used at all.
        """
        predictor = self._open_bundle()
        if not self.marker.rows:
            return
        steps = self._schedule(predictor)
        layouts: dict[Input, dict[str, None]] = {}
        for step in steps:
            layouts.setdefault(predictor.recipe(step.model).layout, {})[step.model.recipe] = None
        if len(steps) > 1:  # a single pass has no use for what it decoded
            sources = frozenset[Source]().union(*(layout.sources for layout in layouts))
            self._reader.cache = self._scratch.crops(self.marker.rows, sources, self._task.cache_bytes)
        for layout, recipes in layouts.items():
            self._compile(layout, recipes)
        self.marker.seconds_before_first_step = round(self._clock.passed_s, 1)
        try:
            for step in steps:
                self._attempt(predictor, step)
        finally:
            self._reader.cache.close()

    def finish(self) -> None:
        """Judge the run, print its result and write the marker."""
        if not self.marker.models:
            all_rows = range(self.marker.rows)
            self.marker.rows_with_prior = self._tally.reasons(all_rows, "no model took part")
        self.marker.judge()
        for line in self.marker.lines():
            say(line)
        self._write_marker()

    def _open_bundle(self) -> Predictor:
        """Check every byte of the bundle and choose the device."""
        self._scratch.end()
        bundle = Path(self._task.bundle)
        manifest = read_manifest(bundle)
        self.marker.bundle = manifest.digest
        verify(bundle, manifest, self._task.digest, lambda _: self._scratch.pulse.beat())
        say(
            f"bundle {bundle}: {counted(len(manifest.models), 'model')}, digest {manifest.digest[:12]} verified"
        )
        predictor = Predictor(bundle, manifest, choose_device(self._task.device))
        self.marker.device = predictor.device.reason
        say(predictor.device.reason)
        self._tally = Tally(self._reader.rows.eeg_ids, predictor.blend)
        return predictor

    def _schedule(self, predictor: Predictor) -> list[Step]:
        recipes = {}
        for model in predictor.manifest.models:
            try:
                recipes[model.recipe] = predictor.recipe(model)
            except HMSError as error:
                self._fail(model.recipe, error)
        sizes = {name: file.size for name, file in predictor.manifest.files.items()}
        steps = make_schedule(predictor.manifest.models, recipes, sizes, predictor.blend, self._task.mirror)
        for name in recipes.keys() - {step.model.recipe for step in steps}:
            self.marker.left_out[name] = "the blend gives it no weight"
        return steps

    def _compile(self, layout: Input, recipes: Collection[str]) -> None:
        """Compile what draws a layout; if that has ended a process before, do without the recipes that look at it."""
        name = f"compiling for {', '.join(recipes)}"
        if name in self._task.skip:
            self._not_compiled.update(recipes)
            return
        self._scratch.begin(name, "cpu")
        self._scratch.pulse.beat()
        warm_up([layout])
        self._scratch.end()

    def _attempt(self, predictor: Predictor, step: Step) -> None:
        """Do one step if there is time; if anything goes wrong, only this step is lost."""
        done = self._scratch.restore(step, (self.marker.rows, len(self._prior_K)))
        if done is None and (reason := self._no_time_for(step)):
            self._leave_out(step.name, reason)
            return
        try:
            if done is None:
                done = self._compute(predictor, step)
            else:
                self._tally.note(done.missing)
            if np.isfinite(done.probabilities_NK).all(axis=1).any():
                self._submit(step, done)
            else:
                self._leave_out_empty(step, done)
        except _NoTime as told:
            self._scratch.end()
            self._leave_out(step.name, str(told))
        except Exception as error:
            self._fail(step.name, error)
            self._leave_if_device_is_lost(predictor)
            self._scratch.end()

    def _no_time_for(self, step: Step) -> str:
        """Return why there is no time for a step; empty if there is, or if a trial is to tell."""
        needed_s, left_s = self._projection.of(step), self._clock.left_s
        trial = self._trial_of(step)
        if self._time_is_up or left_s <= 0 or needed_s * (trial.share if trial else 1) > left_s:
            return _no_time(needed_s, left_s)
        return ""

    @property
    def _n_batches(self) -> int:
        return -(-self.marker.rows // BATCH_ROWS)

    def _trial_of(self, step: Step) -> Trial | None:
        """Return the trial of a pass for which nothing but a guess leaves no time."""
        unknown = self._projection.guesses(step) and self._projection.of(step) > self._clock.left_s
        return Trial(self._n_batches) if unknown else None

    def _judge(self, trial: Trial, step: Step, number: int) -> None:
        """End the pass if its trial ends with this batch, and there is no time for the others."""
        per_batch_s = trial.after(number, self._clock.passed_s)
        if per_batch_s is None:
            return
        self._projection.expect(step, per_batch_s * trial.n_batches)
        needed_s, left_s = SAFETY * per_batch_s * (trial.n_batches - number - 1), self._clock.left_s
        if needed_s > left_s:
            raise _NoTime(_no_time(needed_s, left_s))

    def _compute(self, predictor: Predictor, step: Step) -> Pass:
        """Predict the test set with one model and keep the result for a worker that may follow."""
        # A model that has ended a process would do so again on mirrored recordings.
        plain = replace(step, mirror=False)
        ended = {plain.name, step.name} & set(self._task.skip)
        if ended or step.model.recipe in self._not_compiled:
            raise RunError("it has ended a process before")
        self._scratch.begin(step.name, predictor.device.name)  # loading can end a process as well
        start_s = self._clock.passed_s
        missing: list[Missing] = []
        try:
            probabilities_NK = self._predict(predictor.load(step.model), step, missing)
        finally:
            self._tally.note(missing)  # also of a model that fails: they tell of its recordings
        done = Pass(probabilities_NK, self._clock.passed_s - start_s, tuple(missing), self._time_is_up)
        self._scratch.keep(step, done)
        return done

    def _predict(self, model: LoadedModel, step: Step, missing: list[Missing]) -> NDArray[np.float64]:
        """Return (N, 6) probabilities; NaN in rows that `missing` then says why of, or that there is no time for."""
        n_rows = self.marker.rows
        probabilities_NK = np.full((n_rows, len(self._prior_K)), np.nan)
        layout = model.recipe.layout
        drawn = batches(self._reader, range(n_rows), layout, model.normaliser, step.mirror, missing=missing)
        trial = self._trial_of(step)
        for number, (rows_B, images_BCHW) in enumerate(progress(drawn, self._n_batches, step.name)):
            self._scratch.pulse.beat()
            if len(rows_B):
                probabilities_NK[rows_B] = model.predict_images(images_BCHW)
                finite_B = np.isfinite(probabilities_NK[rows_B]).all(axis=1)
                missing.extend((row, _NOT_FINITE) for row in rows_B[~finite_B].tolist())
            if trial:
                self._judge(trial, step, number)
            if self._clock.left_s <= 0:
                self._time_is_up = True
                self.marker.notes.append(f"time was up during {step.name}; rows after that do without it")
                break
        self._scratch.end()
        return probabilities_NK

    def _submit(self, step: Step, done: Pass) -> None:
        """Replace the submission by one that this pass is part of."""
        self._tally.add(step.model.recipe, done.probabilities_NK)
        submission_NK = self._tally.blended(self._prior_K)
        write_submission(self._out / SUBMISSION, self._reader.rows.eeg_ids, submission_NK)
        if not (done.restored or done.cut_short):  # a restored pass says nothing about this process's device
            self._projection.observe(step, done.seconds)
        self.marker.models.append(step.name)
        self.marker.steps.append(
            {"name": step.name, "seconds": round(done.seconds, 2), "cut_short": done.cut_short}
        )
        self._tally.describe_rows(self.marker)
        self._write_marker()
        say(f"{step.name}: submission replaced, {self._clock.passed_s:.0f} s since the start")

    def _leave_out_empty(self, step: Step, done: Pass) -> None:
        """Leave out a pass that predicted no row. It has failed, unless time was up before it could predict any."""
        if self._time_is_up:
            self._leave_out(step.name, "time was up before a row was predicted")
            return
        row, why = min(done.missing, default=(0, "no reason is known"))
        reason = f"predicted no row; row {self._reader.rows.eeg_ids[row]}: {why}"
        self._leave_out(step.name, reason)
        # Every fold meets the same recordings, so one problem is enough for all of them.
        if not any(problem.endswith(reason) for problem in self.marker.problems):
            self.marker.problems.append(f"{step.name}: {reason}")

    def _fail(self, name: str, error: Exception) -> None:
        reason = str(error) if isinstance(error, HMSError) else f"{type(error).__name__}: {error}"
        self.marker.problems.append(f"{name}: {reason}")
        self._leave_out(name, reason)

    def _leave_out(self, name: str, reason: str) -> None:
        self.marker.left_out[name] = reason
        say(f"{name}: left out, {reason}")

    def _leave_if_device_is_lost(self, predictor: Predictor) -> None:
        """End a process whose GPU has failed for good; the supervisor continues with another one, on the CPU."""
        if predictor.device.name == "cuda" and self._scratch.folder is not None:
            try:
                choose_device("cuda")
            except HMSError as error:
                say(f"the GPU is lost: {error}")
                sys.stdout.flush()
                os._exit(EXIT_DEVICE_LOST)

    def _write_marker(self) -> None:
        """Write the marker; the run continues if it cannot be written."""
        try:
            self.marker.write(self._out, self._clock.passed_s)
        except HMSError as error:
            say(f"the marker cannot be written: {error}")


def warm_up(layouts: Collection[Input]) -> None:
    """Draw each layout once from zeros, so that compilation does not count as time of the first rows."""
    crop = Crop(*(np.zeros(CROP_SHAPES[source], np.float16) for source in ("kaggle", "eeg")))
    normaliser = Normaliser({"kaggle": (0.0, 1.0), "eeg": (0.0, 1.0)})
    for layout in layouts:
        # If this fails, so will real images, and there it costs the row and is reported.
        with contextlib.suppress(Exception):
            stack([crop], layout, normaliser)


def main(arguments: list[str]) -> int:
    """Run as the worker of a supervisor; return 0 when the run came to its end, whatever the marker says of it."""
    work(Task.from_json(arguments[0]))
    return EXIT_OK


if __name__ == "__main__":
    open_streams(unfailing=True)
    sys.exit(main(sys.argv[1:]))
