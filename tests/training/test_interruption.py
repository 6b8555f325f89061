"""Killed, stopped, out of time or out of disk: the next session ends where an uninterrupted one would have."""

from __future__ import annotations

import json
import random
import re
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import children
import numpy as np
import polars as pl
import pytest
import torch
from children import THOROUGH
from safetensors.numpy import load_file
from stand_ins import WINNERS, stand_in
from striped import CPU, RECIPE, striped_feed

from kagglehms.data.competition import Competition
from kagglehms.data.preparing import prepare, recordings_of
from kagglehms.data.records import read_records
from kagglehms.errors import RunError, Stopped
from kagglehms.features.fold import FoldSpec
from kagglehms.inputs.kinds import Folded
from kagglehms.progress import progress
from kagglehms.runs import cross_validation
from kagglehms.runs.cross_validation import cross_validate
from kagglehms.runs.identity import continue_from
from kagglehms.stop_signals import StopRequest
from kagglehms.timing import Clock
from kagglehms.training import loop, step
from kagglehms.training.feed import Feed
from kagglehms.training.loop import WEIGHTS, Fit, fit
from kagglehms.training.models import make_model
from kagglehms.training.options import (
    BandPass,
    DropDifferences,
    HorizontalFlip,
    Mirror,
    Mixup,
    Shift,
    SignFlip,
    TimeMask,
)
from kagglehms.training.precision import placed
from kagglehms.training.recipes import Recipe, Stage
from kagglehms.training.resume import STATE, read_state
from kagglehms.training.session import Session

TRAIN, VALID = np.arange(11), np.arange(11, 16)
KILLS = 20
SMALL_FOLD = Folded(FoldSpec(step=4, phases=5))
ALL_OF_A_FOLD = (
    Mirror(), Shift(), DropDifferences(), BandPass(0.5), HorizontalFlip(), SignFlip(), TimeMask(), Mixup(0.5),
)  # fmt: skip


@pytest.fixture(scope="module")
def store(competition_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    records = read_records(competition_folder / "train.csv")
    path = tmp_path_factory.mktemp("store")
    prepare(recordings_of(Competition(competition_folder), records), path)
    return path


@pytest.fixture(scope="module")
def uninterrupted(competition_folder: Path, store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("uninterrupted")
    dataset = children.open_dataset(competition_folder, store)
    cross_validate(THOROUGH, dataset, runs, CPU, only_folds=[0])
    return runs / "baseline" / "fold0"


def assert_same_fold(one: Path, other: Path) -> None:
    """Bit for bit, but for the seconds."""
    assert (one / WEIGHTS).read_bytes() == (other / WEIGHTS).read_bytes()
    assert (one / "oof.parquet").read_bytes() == (other / "oof.parquet").read_bytes()
    histories = [pl.read_csv(folder / "history.csv").drop("seconds") for folder in (one, other)]
    assert histories[0].equals(histories[1])
    assert not (one / STATE).exists()


@pytest.mark.slow
def test_killed_at_twenty_random_moments_it_ends_with_the_same_bits(
    competition_folder: Path, store: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    rng, kills = random.Random(0), 0
    fold = tmp_path / "baseline" / "fold0"
    arguments = (competition_folder, store, tmp_path, THOROUGH, 0.05)
    children.start(print).join()  # the first has to wait for the server
    begun = time.monotonic()
    children.start(children.train, competition_folder, store, tmp_path / "whole", THOROUGH, 0.05).join()
    longest = time.monotonic() - begun
    while kills < KILLS:
        process = children.start(children.train, *arguments)
        process.join(rng.uniform(0.02, longest))
        if process.is_alive():
            process.kill()
            kills += 1
        process.join()
        assert process.exitcode in (-signal.SIGKILL, 0)
        if (fold / "result.json").exists():
            for path in fold.iterdir():
                path.unlink()
    last = children.start(children.train, *arguments)
    last.join()
    assert last.exitcode == 0
    assert_same_fold(fold, uninterrupted)
    events = [
        json.loads(line)["event"] for line in (fold / "log.jsonl").read_text().splitlines() if line[:1] == "{"
    ]
    assert events[-1] == "finished"


class StopAfter:
    """A feed that asks for the end when so many batches have been handed over."""

    def __init__(self, feed: Feed, stop: StopRequest, batches: int) -> None:
        self.feed, self.stop, self.last = feed, stop, batches

    def __getattr__(self, name: str) -> Any:
        return getattr(self.feed, name)

    def draw(self, work: Any) -> Any:
        for number, batch in enumerate(self.feed.draw(work), start=1):
            if number == self.last:
                self.stop.signal = signal.SIGTERM
            yield batch


def outcome(*arguments: Any, session: Session) -> Fit | Stopped:
    """What a session comes to."""
    try:
        return fit(*arguments, session=session)
    except Stopped as stopped:
        return stopped


def in_sessions(
    recipe: Recipe, folder: Path, batches: int, train: Any = TRAIN, valid: Any = VALID
) -> tuple[Fit, int]:
    """Train with an interruption after every so many batches; returns the fit and the number of sessions."""
    for number in range(1, 100):
        stop = StopRequest()
        feed = StopAfter(striped_feed(16, recipe.layout, few=6, teachers=recipe.teachers), stop, batches)
        done = outcome(recipe, feed, train, valid, CPU, folder, session=Session(stop=stop))
        if isinstance(done, Fit):
            return done, number
        assert done.exit_code == 143
        assert "SIGTERM" in str(done)
    raise AssertionError("never ends")


@pytest.mark.parametrize("batches", [1, 3, 5])
def test_stopped_after_any_step_it_ends_with_the_same_bits(batches: int, tmp_path: Path) -> None:
    recipe = replace(THOROUGH, batch_size=4)
    whole = fit(recipe, striped_feed(16, few=6), TRAIN, VALID, CPU, tmp_path / "whole")
    parts, sessions = in_sessions(recipe, tmp_path / "parts", batches)
    assert sessions >= 12 // batches  # three steps in each of four epochs
    np.testing.assert_array_equal(parts.predictions_NK, whole.predictions_NK)
    assert (tmp_path / "parts" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()
    assert [replace(e, seconds=0) for e in parts.history] == [replace(e, seconds=0) for e in whole.history]
    assert replace(parts.best, seconds=0) == replace(whole.best, seconds=0)


@pytest.mark.parametrize(
    "settings",
    [
        {"average_best": 2, "evaluations_per_epoch": 2},
        {"keep": "last"},
        {"optimizer": "adam", "head_lr": 5e-3, "ema": None},
        {"head_lr": 5e-3, "schedule": "cosine"},
        {"layout": SMALL_FOLD, "augmentations": ALL_OF_A_FOLD, "weight_decay": 0.0},
    ],
    ids=["mean", "last", "adam", "head", "augmentations"],
)
def test_whatever_is_kept_and_however_it_is_optimised_the_bits_are_the_same(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    stages = (
        Stage(epochs=2, mosaic_epochs=int("layout" not in settings)),
        Stage(epochs=2, loss="binary-cross-entropy", weights="groups", lr=1e-4, warm_up_steps=2),
    )
    recipe = replace(THOROUGH, batch_size=4, stages=stages, **settings)
    whole = fit(recipe, striped_feed(16, recipe.layout, few=6), TRAIN, VALID, CPU, tmp_path / "whole")
    parts, sessions = in_sessions(recipe, tmp_path / "parts", batches=2)
    assert sessions >= 6
    np.testing.assert_array_equal(parts.predictions_NK, whole.predictions_NK)
    assert (tmp_path / "parts" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()
    assert [replace(e, seconds=0) for e in parts.history] == [replace(e, seconds=0) for e in whole.history]
    assert replace(parts.best, seconds=0) == replace(whole.best, seconds=0)
    # Stopped when all steps were taken: the mean is made again, of the same weights.
    state = tmp_path / "parts" / STATE
    again = fit(recipe, striped_feed(16, recipe.layout, few=6), TRAIN, VALID, CPU, tmp_path / "parts")
    assert state.exists()
    np.testing.assert_array_equal(again.predictions_NK, whole.predictions_NK)
    assert [replace(e, seconds=0) for e in again.history] == [replace(e, seconds=0) for e in whole.history]


@pytest.mark.parametrize("name", WINNERS)
def test_recipes_of_the_winners_kind_take_steps_and_go_on_with_the_same_bits(
    name: str, tmp_path: Path
) -> None:
    recipe, train, valid = stand_in(name), np.arange(3, 9), np.arange(11, 13)  # three with few votes
    feed = striped_feed(16, recipe.layout, few=6, teachers=recipe.teachers)
    before = make_model(recipe)[0].state_dict()
    whole = fit(recipe, feed, train, valid, CPU, tmp_path / "whole")
    after = load_file(tmp_path / "whole" / WEIGHTS)
    assert after.keys() == before.keys()
    assert [e.stage for e in whole.history] == list(range(len(recipe.stages)))
    assert all(np.isfinite(e.train_loss) for e in whole.history)
    parts, sessions = in_sessions(recipe, tmp_path / "parts", 1, train, valid)
    assert sessions > len(recipe.stages)
    np.testing.assert_array_equal(parts.predictions_NK, whole.predictions_NK)
    assert (tmp_path / "parts" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()


def test_channels_last_weights_go_on_with_the_same_bits(tmp_path: Path) -> None:
    """Moments come back contiguous from the file, and the fused AdamW takes them as they lie."""
    recipe = replace(THOROUGH, batch_size=4)
    model = placed(make_model(recipe)[0], CPU.name)
    assert any(p.ndim == 4 and p.shape[1] > 1 and not p.is_contiguous() for p in model.parameters())
    whole = fit(recipe, striped_feed(16, few=6), TRAIN, VALID, CPU, tmp_path / "whole")
    parts, sessions = in_sessions(recipe, tmp_path / "parts", batches=2)
    assert sessions > 2
    states = [read_state(tmp_path / name / STATE, {}) for name in ("whole", "parts")]
    assert states[0] is not None
    assert states[1] is not None
    assert set(states[0].tensors) == set(states[1].tensors)
    for name, value in states[0].tensors.items():  # the moving average and the moments among them
        assert torch.equal(states[1].tensors[name], value), name
    np.testing.assert_array_equal(parts.predictions_NK, whole.predictions_NK)


def test_progress_after_a_resume_counts_all_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loop, "progress", partial(progress, every_s=0.0))
    recipe = replace(THOROUGH, batch_size=4, stages=(Stage(epochs=3),))
    _, sessions = in_sessions(recipe, tmp_path, batches=5)
    assert sessions > 1
    seen = re.findall(r"train baseline: (\d+)/(\d+),", capsys.readouterr().out)
    assert {total for _, total in seen} == {"9"}
    assert "8" in {done for done, _ in seen}


def test_sessions_with_a_time_limit_end_before_it_and_add_up_to_one(tmp_path: Path) -> None:
    recipe = replace(RECIPE.with_epochs(12), dropout=0.5)
    start = time.monotonic()
    whole = fit(recipe, striped_feed(), np.arange(24), np.arange(24, 32), CPU, tmp_path / "whole")
    # The limit follows from what this machine needs: too short for all of it, long enough for some steps.
    time_limit_s = 0.6 * (time.monotonic() - start)
    sessions: list[Stopped] = []
    while True:
        session = Session(Clock(time_limit_s, started=time.monotonic()))
        parts = outcome(
            recipe, striped_feed(), np.arange(24), np.arange(24, 32), CPU, tmp_path / "parts", session=session
        )
        if isinstance(parts, Fit):
            break
        assert session.clock.left_s > 0
        assert parts.exit_code == 3
        assert "of 36, because the time limit is near" in str(parts)
        sessions.append(parts)
    assert sessions
    np.testing.assert_array_equal(parts.predictions_NK, whole.predictions_NK)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 143)]
)
def test_a_signal_ends_the_command_with_its_state_saved(
    competition_folder: Path, store: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip(f"{number.name} is ignored here, as under nohup, and so by the command")
    options = [*("--data", str(competition_folder)), *("--store", str(store)), *("--folds", "2")]
    options += [
        "--backbone",
        "half:test_efficientnet",
        "--batch-size",
        "2",
        "--epochs",
        "200",
        "--weights",
        "none",
    ]
    arguments = ["train", "baseline", *options, "--runs", str(tmp_path), "--device", "cpu"]
    process = children.start(children.command, arguments, tmp_path / "log.txt")
    history = tmp_path / "baseline" / "fold0" / "history.csv"
    while not history.exists():
        assert process.is_alive(), (tmp_path / "log.txt").read_text()
        time.sleep(0.02)
    assert process.pid
    import os

    os.kill(process.pid, number)
    process.join()
    log = (tmp_path / "log.txt").read_text()
    assert process.exitcode == code, log
    assert f"because {number.name} came" in log
    assert "Traceback" not in log
    assert read_state(tmp_path / "baseline" / "fold0" / STATE, {}) is not None


def test_a_full_disk_leaves_the_last_good_state(
    competition_folder: Path, store: Path, tmp_path: Path
) -> None:
    process = children.start(
        children.train_on_a_disk_that_fills, competition_folder, store, tmp_path, THOROUGH
    )
    process.join()
    assert process.exitcode == 7
    assert "cannot be written (File too large); free space" in (tmp_path / "error.txt").read_text()
    fold = tmp_path / "baseline" / "fold0"
    state = read_state(fold / STATE, {})
    assert state is not None
    assert state.numbers["learner"]["step"] >= 1
    assert not list(fold.glob(".*.partial"))


def test_other_code_is_refused_and_named(
    competition_folder: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = children.open_dataset(competition_folder, store)
    stop = StopRequest()
    stop.signal = signal.SIGTERM
    with pytest.raises(Stopped):
        cross_validate(THOROUGH, dataset, tmp_path, CPU, only_folds=[0], session=Session(stop=stop))
    here = cross_validation.code_version()
    monkeypatch.setattr(cross_validation, "code_version", lambda: "0123456789ab (9.9)")
    with pytest.raises(RunError, match=f"was saved with other code .{here[:12]} there, 0123456789ab now"):
        cross_validate(THOROUGH, dataset, tmp_path, CPU, only_folds=[0])


def test_an_earlier_sessions_output_is_gone_on_with(
    competition_folder: Path,
    store: Path,
    uninterrupted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dataset = children.open_dataset(competition_folder, store)
    first, second = tmp_path / "first", tmp_path / "second"
    stop, real = StopRequest(), loop.write_state

    def write(*arguments: Any) -> None:
        real(*arguments)
        stop.signal = signal.SIGTERM  # after the first evaluation

    monkeypatch.setattr(loop, "write_state", write)
    with pytest.raises(Stopped):
        cross_validate(THOROUGH, dataset, first, CPU, only_folds=[0], session=Session(stop=stop))
    monkeypatch.undo()
    before = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    assert continue_from(first, second, THOROUGH, dataset) == 1
    assert continue_from(first, second, THOROUGH, dataset) == 0  # what is there already is left alone
    cross_validate(THOROUGH, dataset, second, CPU, only_folds=[0])
    assert_same_fold(second / "baseline" / "fold0", uninterrupted)
    log = (second / "baseline" / "fold0" / "log.jsonl").read_text()
    events = [json.loads(line) for line in log.splitlines()]
    assert [e["event"] for e in events if e["event"] in {"stopped", "resumed", "finished"}] == [
        "stopped",
        "resumed",
        "finished",
    ]
    assert {path: path.read_bytes() for path in first.rglob("*") if path.is_file()} == before
    third = tmp_path / "third"
    assert continue_from(second, third, THOROUGH, dataset) == 1
    assert cross_validate(THOROUGH, dataset, third, CPU, only_folds=[0]).finished == (0,)


def test_memory_that_does_not_suffice_names_the_batch_that_would_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loop.make_model

    def make_model(*arguments: Any) -> tuple[torch.nn.Module, str]:
        model, where_from = real(*arguments)

        def refuse(_: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
            if len(inputs[0]) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")

        model.register_forward_pre_hook(refuse)
        return model, where_from

    monkeypatch.setattr(loop, "make_model", make_model)
    with pytest.raises(RunError, match="8 images of 400 × 300 does not fit .* 2 would: give --batch-size 2"):
        fit(RECIPE, striped_feed(), np.arange(24), np.arange(24, 32), CPU, tmp_path)


@pytest.mark.parametrize("place", ["_augmented", "_forward_backward", "step"])
def test_main_memory_that_does_not_suffice_is_recognised_anywhere_in_a_step(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def allocate_too_much(*_: object) -> None:
        torch.empty(1 << 60, dtype=torch.uint8)  # the real allocator's real error

    owner = torch.amp.GradScaler if place == "step" else step.Learner
    monkeypatch.setattr(owner, place, allocate_too_much)
    with pytest.raises(RunError, match="8 images of 400 × 300 does not fit .* 4 would: give --batch-size 4"):
        fit(RECIPE, striped_feed(), np.arange(24), np.arange(24, 32), CPU, tmp_path)


def test_weights_of_the_best_and_the_last_are_both_in_the_state(tmp_path: Path) -> None:
    whole = fit(RECIPE.with_epochs(2), striped_feed(16), np.arange(12), np.arange(12, 16), CPU, tmp_path)
    state = read_state(tmp_path / STATE, {})
    assert state is not None
    best = load_file(tmp_path / WEIGHTS)
    assert set(state.part("best")) == set(best) == set(state.part("model"))
    for name, value in state.part("best").items():
        np.testing.assert_array_equal(value.numpy(), best[name])
    assert state.numbers["kept"] == [whole.history.index(whole.best)]
