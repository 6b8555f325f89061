"""The scored run: the test set's recordings → submission.csv, better with every model, until time is up.

`python -m kagglehms.kernel.scored_run JSON` is the worker that `supervisor` starts; `run_scored` does the same in this
process. Either way a submission of the class prior stands before anything that can fail.

Shape legend: N rows of the test set, K the six classes.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np

from kagglehms.bundle.manifest import read_manifest, verify
from kagglehms.bundle.predictor import FoldMeans, LoadedModel, Predictor
from kagglehms.console import open_streams, say
from kagglehms.data.competition import Competition
from kagglehms.device import choose_device
from kagglehms.errors import EXIT_FAILURE, EXIT_OK, HMSError, RunError
from kagglehms.files import writing
from kagglehms.inputs.kinds import Input, stack
from kagglehms.inputs.layouts import CROP_SHAPES, Crop, Normaliser, Source
from kagglehms.kernel.marker import Marker
from kagglehms.kernel.prior import SUBMISSION, Rows, read_prior, read_rows, write_prior
from kagglehms.kernel.schedule import Projection, Step, plan
from kagglehms.kernel.submission import write_submission
from kagglehms.kernel.task import EXIT_DEVICE_LOST, UNDER_WAY, Task
from kagglehms.kernel.test_set import BATCH_ROWS, CropCache, Reader, batches
from kagglehms.progress import progress

if TYPE_CHECKING:
    from numpy.typing import NDArray


def run_scored(task: Task) -> int:
    """Predict the test set: the prior first, then one pass after the other.

    Returns:
        An exit code: 0 when nothing failed (what time did not allow has not failed) and at most `marker.PRIOR_SHARE` of
        the rows keep the prior, 1 otherwise. The submission on the disk is valid either way, and the marker beside it
        says what it is made of.

    Raises:
        DataError: no competition there.
    """
    rows = read_rows(Competition(Path(task.competition)))
    prior, where_from = read_prior(Path(task.bundle))
    write_prior(Path(task.out) / SUBMISSION, rows, prior)
    say(f"{len(rows)} rows from {rows.source.name}; a submission of the class prior stands ({where_from})")
    return work(task)


def work(task: Task) -> int:
    """Do what `run_scored` does, where the submission of the prior stands already."""
    run = _Run(task)
    try:
        run.do()
    except HMSError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        run.marker.problems.append(str(error))
    run.finish()
    return EXIT_FAILURE if run.marker.problems else EXIT_OK


class _Run:
    """A scored run and how far it has come."""

    def __init__(self, task: Task, clock: Callable[[], float] = time.monotonic) -> None:
        self.task, self.clock, self.start = task, clock, clock()
        self.out = Path(task.out)
        self.scratch = None if task.scratch is None else Path(task.scratch)
        self.rows: Rows = read_rows(Competition(Path(task.competition)))
        self.prior_K = np.array(read_prior(Path(task.bundle))[0])
        self.marker = Marker(rows=len(self.rows), notes=list(self.rows.notes))
        self.reader = Reader(Competition(Path(task.competition)), self.rows, CropCache(None, 0, ()))
        self.means = FoldMeans()
        self.infinite: set[int] = set()
        self.projection = Projection()
        self.cut_short = False

    @property
    def left_s(self) -> float:
        return self.task.limit_s - (self.clock() - self.start)

    def do(self) -> None:
        predictor = self._open()
        if not len(self.rows):
            return
        steps = self._plan(predictor)
        sources = frozenset[Source]().union(*(predictor.recipe(step.model).layout.sources for step in steps))
        keep = self.scratch if len(steps) > 1 else None
        self.reader.cache = self._make_cache(keep, sources)
        for layout in {predictor.recipe(step.model).layout for step in steps}:
            self._beat()
            warm_up([layout])
        self.marker.seconds_before_first_step = round(self.clock() - self.start, 1)
        try:
            for step in steps:
                self._try(predictor, step)
        finally:
            self.reader.cache.close()

    def _make_cache(self, folder: Path | None, sources: Collection[Source]) -> CropCache:
        try:
            cache = CropCache(folder, len(self.rows), sources, self.task.cache_bytes)
        except OSError as error:
            self._note_scratch(error)
            return CropCache(None, 0, ())
        if folder is not None and cache.rows < len(self.rows):
            self.marker.notes.append(f"room for the crops of {cache.rows} rows; others are read again")
        return cache

    def _open(self) -> Predictor:
        """Check every byte of the bundle and choose the device."""
        self._say_under_way(None)
        bundle = Path(self.task.bundle)
        manifest = read_manifest(bundle)
        self.marker.bundle = manifest.digest
        verify(bundle, manifest, self.task.digest, lambda _: self._beat())
        say(f"bundle {bundle}: {len(manifest.models)} model(s), digest {manifest.digest[:12]} verified")
        predictor = Predictor(bundle, manifest, choose_device(self.task.device))
        self.marker.device = predictor.device.reason
        say(predictor.device.reason)
        self.means = FoldMeans(predictor.blend)
        return predictor

    def _plan(self, predictor: Predictor) -> list[Step]:
        recipes = {}
        for model in predictor.manifest.models:
            try:
                recipes[model.recipe] = predictor.recipe(model)
            except HMSError as error:
                self._failed(model.recipe, error)
        sizes = {name: file.size for name, file in predictor.manifest.files.items()}
        models = predictor.manifest.models
        steps = plan(models, recipes, sizes, predictor.blend, self.task.mirror)
        planned = {step.model.recipe for step in steps}
        for name in recipes.keys() - planned:
            self.marker.left_out[name] = "the blend gives it no weight"
        return steps

    def _try(self, predictor: Predictor, step: Step) -> None:
        """One step, if there is time for it; whatever goes wrong with it costs this step only."""
        needed_s, kept = self.projection.of(step), self._restored(step)
        if kept is None and (self.cut_short or self.left_s <= 0 or needed_s > self.left_s):
            reason = f"about {needed_s:.0f} s needed, {max(self.left_s, 0):.0f} s left"
            self.marker.left_out[step.name] = reason
            say(f"{step.name}: left out, {reason}")
            return
        start = self.clock()
        try:
            if kept is not None:
                probabilities_NK, seconds = kept
            elif step.name in self.task.skip:
                raise RunError("it has ended a process before")
            else:
                probabilities_NK = self._predict(predictor.load(step.model), step)
                seconds = self.clock() - start
                self._keep(step, probabilities_NK, seconds)
            if not np.isfinite(probabilities_NK).all(axis=1).any():
                self._without_a_row(step)
                return
            self.means.add(step.model.recipe, probabilities_NK)
            write_submission(self.out / SUBMISSION, self.rows.eeg_ids, self.means.blended(self.prior_K))
        except Exception as error:
            self._failed(step.name, error)
            self._leave_if_device_is_lost(predictor)
            return
        cut_short = kept is None and self.cut_short
        if kept is None and not cut_short:  # what was restored says nothing about this process's device
            self.projection.observe(step, seconds)
        self.marker.models.append(step.name)
        self.marker.steps.append({"name": step.name, "seconds": round(seconds, 2), "cut_short": cut_short})
        self._note_rows()
        self._write_marker()
        say(f"{step.name}: submission replaced, {self.clock() - self.start:.0f} s since the start")

    def _without_a_row(self, step: Step) -> None:
        """A pass that predicted nothing took no part. It has failed, unless time was up before it could."""
        row = ": ".join(next(iter(self._reasons(range(1)).items())))
        why = "time was up before a row was predicted" if self.cut_short else f"predicted no row; row {row}"
        self.marker.left_out[step.name] = why
        say(f"{step.name}: left out, {why}")
        # Each fold meets the same recordings: once is enough for a person.
        if not (self.cut_short or any(problem.endswith(why) for problem in self.marker.problems)):
            self.marker.problems.append(f"{step.name}: {why}")

    def _predict(self, model: LoadedModel, step: Step) -> NDArray[np.float64]:
        """(N, 6) probabilities; NaN where there is no usable recording, or no time."""
        self._say_under_way(step, model.device.name)
        probabilities_NK = np.full((len(self.rows), len(self.prior_K)), np.nan)
        drawn = batches(
            self.reader, range(len(self.rows)), model.recipe.layout, model.normaliser, step.mirror
        )
        n_batches = -(-len(self.rows) // BATCH_ROWS)
        for rows_B, images_BCHW in progress(drawn, n_batches, step.name):
            self._beat()
            if len(rows_B):
                probabilities_NK[rows_B] = model.predict_images(images_BCHW)
                bad_B = ~np.isfinite(probabilities_NK[rows_B]).all(axis=1)
                self.infinite.update(rows_B[bad_B].tolist())
            if self.left_s <= 0:
                self.cut_short = True
                self.marker.notes.append(f"time was up during {step.name}; rows after that do without it")
                break
        self._say_under_way(None)
        return probabilities_NK

    def _keep(self, step: Step, probabilities_NK: NDArray[np.float64], seconds: float) -> None:
        """Write down a whole pass and the time that it took, for a process after this one."""
        if self.scratch is None or self.cut_short:
            return
        try:
            with writing(self._kept(step)) as file:
                np.savez(file, probabilities_NK=probabilities_NK, seconds=np.float64(seconds))
        except HMSError as error:
            self._note_scratch(error)

    def _restored(self, step: Step) -> tuple[NDArray[np.float64], float] | None:
        """The pass that a process before this one has computed, and the seconds that it took there."""
        if self.scratch is None:
            return None
        try:
            with self._kept(step).open("rb") as file, np.load(file, allow_pickle=False) as kept:
                probabilities_NK, seconds = kept["probabilities_NK"], float(kept["seconds"])
        except (OSError, ValueError, KeyError, TypeError, EOFError, AttributeError, BadZipFile):
            return None
        if probabilities_NK.shape != (len(self.rows), len(self.prior_K)):
            return None
        return probabilities_NK.astype(np.float64), seconds

    def _kept(self, step: Step) -> Path:
        assert self.scratch is not None
        return self.scratch / f"{step.model.weights}{'.mirrored' * step.mirror}.npz"

    def _say_under_way(self, step: Step | None, device: str = "") -> None:
        if self.scratch is not None:
            content = {"step": step.name, "device": device} if step else {}
            try:
                (self.scratch / UNDER_WAY).write_text(json.dumps(content))
            except OSError as error:
                self._note_scratch(error)

    def _beat(self) -> None:
        """Tell the supervisor that this process lives."""
        if self.scratch is not None:
            with contextlib.suppress(OSError):
                os.utime(self.scratch / UNDER_WAY)

    def _note_scratch(self, error: Exception) -> None:
        """What lies in the scratch folder saves time, and costs nothing but time where it cannot be written."""
        begin = "what is finished cannot be kept for a second process"
        if not any(note.startswith(begin) for note in self.marker.notes):
            self.marker.notes.append(f"{begin} ({error})")

    def _failed(self, name: str, error: Exception) -> None:
        reason = str(error) if isinstance(error, HMSError) else f"{type(error).__name__}: {error}"
        self.marker.problems.append(f"{name}: {reason}")
        self.marker.left_out[name] = reason
        say(f"{name}: left out, {reason}")

    def _leave_if_device_is_lost(self, predictor: Predictor) -> None:
        """A GPU that has failed fails for ever in this process; the supervisor goes on with another, on the CPU."""
        if predictor.device.name == "cuda" and self.scratch is not None:
            try:
                choose_device("cuda")
            except HMSError as error:
                say(f"the GPU is lost: {error}")
                sys.stdout.flush()
                os._exit(EXIT_DEVICE_LOST)

    def _note_rows(self) -> None:
        """Write down which rows have the prior, or do without some recipes, and why."""
        known_RN = self.means.known_RB
        self.marker.rows_with_prior = self._reasons(np.flatnonzero(~known_RN.any(axis=0)))
        some_N = known_RN.any(axis=0) & ~known_RN.all(axis=0)
        self.marker.rows_with_fewer_models = self._reasons(np.flatnonzero(some_N))

    def _reasons(self, rows: Iterable[int], otherwise: str = "time was up") -> dict[str, str]:
        """Why rows were not predicted, by id."""
        found = {}
        for row in rows:
            reasons = [failed[row] for failed in self.reader.failures.values() if row in failed]
            if not reasons:
                reasons = ["the model's output is not finite" if row in self.infinite else otherwise]
            found[self.rows.eeg_ids[row]] = "; ".join(reasons)
        return found

    def finish(self) -> None:
        if not self.marker.models:
            reasons = self._reasons(range(len(self.rows)), "no model took part")
            self.marker.rows_with_prior = reasons
        self.marker.judge()
        for line in self.marker.lines():
            say(line)
        self._write_marker()

    def _write_marker(self) -> None:
        """The marker tells about the run and is no part of it."""
        try:
            self.marker.write(self.out, self.clock() - self.start)
        except HMSError as error:
            say(f"the marker cannot be written: {error}")


def warm_up(layouts: Collection[Input]) -> None:
    """Draw each layout once, of nothing, so that compilation is not taken for the time of the first rows."""
    crop = Crop(*(np.zeros(CROP_SHAPES[source], np.float16) for source in ("kaggle", "eeg")))
    nothing = Normaliser({"kaggle": (0.0, 1.0), "eeg": (0.0, 1.0)})
    for layout in layouts:
        with contextlib.suppress(
            Exception
        ):  # whoever draws a real image meets it again, and it costs that row
            stack([crop], layout, nothing)


def main(arguments: list[str]) -> int:
    """Be the worker of a supervisor: 0 says that it came to an end, which the marker describes."""
    work(Task.from_json(arguments[0]))
    return EXIT_OK


if __name__ == "__main__":
    open_streams(unfailing=True)
    sys.exit(main(sys.argv[1:]))
