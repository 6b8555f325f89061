"""Training on a GPU: interrupted, short of memory, overflowing, and fed from page-locked memory."""

from __future__ import annotations

import gc
import itertools
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from children import THOROUGH
from devices import ROOM, device_at
from striped import RECIPE, striped_feed

from kagglehms.device import Device
from kagglehms.errors import RunError, Stopped
from kagglehms.stop_signals import StopRequest
from kagglehms.training import step
from kagglehms.training.batches import Batch, on_device, shuffled
from kagglehms.training.distributed import ALONE
from kagglehms.training.feed import Feed
from kagglehms.training.feed_draws import Work
from kagglehms.training.loop import Fit, fit
from kagglehms.training.models import make_model
from kagglehms.training.recipes import Recipe
from kagglehms.training.resume import STATE, read_state
from kagglehms.training.session import Session
from kagglehms.training.step import Learner

Limited = Callable[[Callable[[int], None]], None]
TRAIN, VALID = np.arange(11), np.arange(11, 16)
TOLERANCE = {None: 5e-3, "bfloat16": 5e-2, "float16": 5e-2}
"""Of a probability after 16 steps. A GPU adds in another order each time, and the first steps of Adam make a full step
of a gradient that is nothing but rounding."""


def learner_of(recipe: Recipe, device: Device) -> Learner:
    torch.manual_seed(0)
    model = make_model(recipe)[0].to(device.name).train()
    return Learner(recipe, model, model, 1000, 0, device, ALONE)


def take_step(own: Learner, batch: Batch) -> None:
    own.learn(batch, 0, False, len(batch.index_B))


class StopAfter:
    """A feed that asks for the end when so many batches have been handed over."""

    def __init__(self, feed: Feed, stop: StopRequest, batches: int) -> None:
        self.feed, self.stop, self.last = feed, stop, batches

    def __getattr__(self, name: str) -> Any:
        return getattr(self.feed, name)

    def draw(self, work: Any) -> Iterator[Batch]:
        for number, batch in enumerate(self.feed.draw(work), start=1):
            if number == self.last:
                self.stop.signal = signal.SIGTERM
            yield batch


@pytest.mark.parametrize("amp", TOLERANCE)
def test_sessions_that_resume_end_where_one_does(place: str, amp: str | None, tmp_path: Path) -> None:
    device = device_at(place, amp)
    whole = fit(THOROUGH, striped_feed(16, few=4), TRAIN, VALID, device, tmp_path / "whole")
    done: Fit | None = None
    sessions = 0
    while done is None:
        sessions += 1
        stop = StopRequest()
        feed: Any = StopAfter(striped_feed(16, few=4), stop, 5)
        try:
            done = fit(THOROUGH, feed, TRAIN, VALID, device, tmp_path / "parts", session=Session(stop=stop))
        except Stopped:
            assert sessions < 9
    assert sessions > 2
    assert [(e.stage, e.step) for e in done.history] == [(e.stage, e.step) for e in whole.history]
    tolerance = 0.0 if place == "cpu" else TOLERANCE[amp]
    losses = [[e.train_loss for e in f.history] for f in (done, whole)]
    np.testing.assert_allclose(losses[0], losses[1], atol=10 * tolerance, rtol=0)
    if done.best.step == whole.best.step:  # two evaluations may be as good as equal
        np.testing.assert_allclose(done.predictions_NK, whole.predictions_NK, atol=tolerance, rtol=0)
    states = [read_state(tmp_path / name / STATE, {}) for name in ("parts", "whole")]
    numbers = [state.numbers["learner"] for state in states if state is not None]
    assert numbers[0]["step"] == numbers[1]["step"]
    assert bool(numbers[0]["scaler"]) == (amp == "float16")
    assert numbers[0]["scaler"] == numbers[1]["scaler"]


def test_the_batch_advised_when_memory_does_not_suffice_really_fits(
    place: str, limited: Limited, tmp_path: Path
) -> None:
    device = device_at(place, "bfloat16" if place == "cuda" else None)
    backbone = "efficientnet_b0" if place == "cuda" else "half:test_efficientnet"
    recipe = replace(RECIPE.with_epochs(1), backbone=backbone, batch_size=8 * ROOM, evaluations_per_epoch=1)
    feed, train, valid = striped_feed(8 * ROOM + 8), np.arange(8 * ROOM), np.arange(8 * ROOM, 8 * ROOM + 8)

    def step(n: int) -> None:
        own = learner_of(recipe, device)
        for _ in range(2):
            take_step(own, next(feed.batches(np.arange(n), n)))

    limited(step)
    advised = _advised(lambda: fit(recipe, feed, train, valid, device, tmp_path / "first"))
    gc.collect()  # what the refused run held, which a process of its own would have given back by ending
    assert ROOM // 2 <= advised <= 2 * ROOM
    done = fit(
        recipe.changed(batch_size=advised), feed, train[: 3 * advised], valid, device, tmp_path / "second"
    )
    assert np.isfinite(done.predictions_NK).all()


def _advised(train_with_a_batch_too_large: Callable[[], Fit]) -> int:
    what = r"a batch of 256 \w+ of 400 × 300 does not fit into memory"
    with pytest.raises(RunError, match=what) as caught:
        train_with_a_batch_too_large()
    found = re.search(r"--batch-size (\d+)", str(caught.value))
    assert found is not None, str(caught.value)
    return int(found[1])


def test_a_step_that_overflows_in_float16_is_left_out(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scaled loss of the fourth step is too large for its gradient: no weight moves, and the scale is halved."""
    real, steps = step.weighted_loss, itertools.count(1)

    def loss(*arguments: Any) -> torch.Tensor:
        return real(*arguments) * (1e36 if next(steps) == 4 else 1)

    monkeypatch.setattr(step, "weighted_loss", loss)
    own = learner_of(replace(RECIPE, backbone="half:test_efficientnet"), device_at(place, "float16"))
    batch = next(striped_feed(8).batches(np.arange(2), 2)).to(torch.device(place))
    weights, scales = [], []
    for _ in range(6):
        take_step(own, batch)
        weights.append(torch.cat([p.detach().flatten().clone() for p in own.model.parameters()]))
        scales.append(own.scaler.get_scale())
    assert torch.equal(weights[3], weights[2])
    assert scales[3] == scales[2] / 2
    assert not torch.equal(weights[5], weights[3])
    assert torch.isfinite(weights[5]).all()
    assert own.first_bad_step() is None


@pytest.mark.parametrize("amp", [None, "bfloat16", "float16"])
def test_a_loss_that_is_not_finite_is_named_with_its_records(
    place: str, amp: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, steps = step.weighted_loss, itertools.count(1)

    def loss(*arguments: Any) -> torch.Tensor:
        return real(*arguments) * (float("nan") if next(steps) == 5 else 1)

    monkeypatch.setattr(step, "weighted_loss", loss)
    recipe, feed = replace(RECIPE, backbone="half:test_efficientnet", batch_size=2), striped_feed()
    with pytest.raises(
        RunError, match=r"is not finite at step 5 \(epoch 1\), whose batch has the EEGs"
    ) as caught:
        fit(recipe, feed, np.arange(6), np.arange(6, 8), device_at(place, amp), tmp_path)
    named = [int(i) for i in re.findall(r"\d+", str(caught.value).split("EEGs")[1].split(";")[0])]
    assert named == feed.records.eeg_ids[shuffled(np.arange(6), recipe.seed, 1)[2:4]].tolist()


def test_batches_arrive_whole_while_the_device_is_busy(place: str) -> None:
    """From page-locked memory on a GPU, on a stream of their own, each while the one before it is in use."""
    plain = striped_feed()
    pinned = Feed(plain.recordings, plain.records, plain.layout, pin=place == "cuda")
    work = [Work(shuffled(np.arange(32), 0, epoch)[:16], epoch) for epoch in range(12)]
    expected = [batch.images_BCHW for batch in plain.draw(iter(work))]
    factor = torch.randn(2048, 2048, device=place) if place == "cuda" else torch.randn(64, 64)
    drawn: list[Batch] = []

    def watched() -> Iterator[Batch]:
        for batch in pinned.draw(iter(work)):
            drawn.append(batch)
            yield batch

    sums, kept = [], []
    for batch in on_device(watched(), torch.device(place)):
        assert batch.images_BCHW.device.type == place
        for _ in range(20):  # what reads the batch waits behind this, and the next batch is copied meanwhile
            factor = torch.tanh(factor @ factor)
        sums.append(batch.images_BCHW.double().sum())
        kept.append(batch.images_BCHW.clone())
    assert all(batch.images_BCHW.is_pinned() == (place == "cuda") for batch in drawn)
    assert len(kept) == len(expected)
    for images_BCHW, total, wanted_BCHW in zip(kept, sums, expected, strict=True):
        torch.testing.assert_close(images_BCHW.cpu(), wanted_BCHW, rtol=0, atol=0)
        # In another order of adding; images of mean 0 add up to hardly anything.
        rounding = 1e-9 * float(wanted_BCHW.double().abs().sum())
        assert float(total) == pytest.approx(float(wanted_BCHW.double().sum()), abs=rounding)
