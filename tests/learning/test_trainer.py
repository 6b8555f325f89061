"""The loop: schedule, evaluations, what is kept, and that it learns."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from kagglehms.data.competition import VOTE_COLUMNS
from kagglehms.data.records import Records
from kagglehms.errors import RunError
from kagglehms.features.images import PANELS_BY_THEMSELVES
from kagglehms.learning import trainer
from kagglehms.learning.checkpoint import load_weights
from kagglehms.learning.feed import Feed
from kagglehms.learning.metric import kl_score
from kagglehms.learning.models import make_model
from kagglehms.learning.recipes import Stage, get_recipe
from kagglehms.learning.trainer import evaluation_steps, fit, make_schedule, predict
from kagglehms.runtime import choose_device

CPU = choose_device("cpu")
RECIPE = replace(
    get_recipe("baseline"),
    backbone="test_efficientnet",
    batch_size=8,
    stages=(Stage(epochs=3),),
    lr=3e-3,
    drop_path_rate=0.0,
)


class Stripes:
    """Spectrograms in which the class shows as the panel that carries a loud stripe."""

    def spectrogram(self, spectrogram_id: int) -> np.ndarray:
        log_power = np.random.default_rng(spectrogram_id).normal(0, 0.5, (300, 400))
        low = 100 * (spectrogram_id % 4)
        log_power[:, low + 20 : low + 40] += 4
        return log_power.astype(np.float16)


def striped_feed(n: int = 32) -> Feed:
    columns = {name: [0] * n for name in ("eeg_id", "label_id", "patient_id")}
    votes = {name: [12 * (i % 4 == k) for i in range(n)] for k, name in enumerate(VOTE_COLUMNS)}
    offsets = ("eeg_offset_min_s", "eeg_offset_max_s", "spectrogram_offset_min_s", "spectrogram_offset_max_s")
    frame = pl.DataFrame(
        {**columns, **votes, **{name: [0.0] * n for name in offsets}, "spectrogram_id": list(range(n))}
    )
    return Feed(Stripes(), Records(frame), PANELS_BY_THEMSELVES)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[trainer.Fit, Path]:
    path = tmp_path_factory.mktemp("fit") / "weights.safetensors"
    recipe = RECIPE.with_epochs(10)
    return fit(recipe, striped_feed(), np.arange(24), np.arange(24, 32), CPU, path), path


def test_it_learns_what_can_be_learned(fitted: tuple[trainer.Fit, Path]) -> None:
    done, _ = fitted
    assert done.best.score_all < 0.5 * math.log(4)  # a prior that knows the four classes scores ln 4


def test_the_weights_kept_are_those_of_the_best_evaluation(fitted: tuple[trainer.Fit, Path]) -> None:
    done, path = fitted
    assert done.best == min(done.history, key=lambda e: e.score_all)
    feed, valid = striped_feed(), np.arange(24, 32)
    model, _ = make_model(RECIPE)
    load_weights(model, path)
    predictions = predict(model, feed, valid, 8, CPU)
    np.testing.assert_allclose(predictions, done.predictions_NK, atol=1e-6)
    assert kl_score(feed.records.targets_NK[valid], predictions) == pytest.approx(
        done.best.score_all, abs=1e-5
    )
    assert done.best.score_votes10 == pytest.approx(done.best.score_all)  # all have twelve votes


def test_evaluations_come_twice_an_epoch(fitted: tuple[trainer.Fit, Path]) -> None:
    done, _ = fitted
    assert [e.step for e in done.history[:4]] == [1, 3, 4, 6]  # three steps an epoch
    assert [e.epoch for e in done.history[1:4:2]] == [1.0, 2.0]
    assert len(done.history) == 20


@pytest.mark.parametrize(
    ("steps", "per_epoch", "expected"),
    [(1, 2, {1}), (2, 2, {1, 2}), (7, 2, {3, 7}), (10, 3, {3, 6, 10}), (2, 5, {1, 2}), (100, 1, {100})],
)
def test_evaluation_steps(steps: int, per_epoch: int, expected: set[int]) -> None:
    assert evaluation_steps(steps, per_epoch) == expected


def test_one_cycle_falls_along_half_a_cosine_to_a_tenth() -> None:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=123.0)
    schedule = make_schedule(replace(RECIPE, lr=1e-3), optimizer, total_steps=50)
    rates = []
    for _ in range(50):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    # torch counts the rising part, of length 0, as ending one step before the first.
    expected = [1e-4 + (1e-3 - 1e-4) * (1 + math.cos(math.pi * (i + 1) / 50)) / 2 for i in range(50)]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_a_constant_schedule_is_constant() -> None:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    schedule = make_schedule(replace(RECIPE, schedule="constant"), optimizer, total_steps=5)
    for _ in range(5):
        optimizer.step()
        schedule.step()
        assert optimizer.param_groups[0]["lr"] == 1e-3


def test_the_schedule_is_really_stepped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def spy(*arguments: object) -> object:
        made.append(make_schedule(*arguments))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(trainer, "make_schedule", spy)
    recipe = RECIPE.with_epochs(1)
    fit(recipe, striped_feed(), np.arange(16), np.arange(24, 28), CPU, tmp_path / "w.safetensors")
    assert made[0].last_epoch == 2  # once for each of the two steps


def test_the_same_seed_gives_the_same_run(tmp_path: Path) -> None:
    recipe = replace(RECIPE.with_epochs(1), dropout=0.5)
    runs = [
        fit(replace(recipe, seed=seed), striped_feed(), np.arange(16), np.arange(24, 28), CPU, tmp_path / "w")
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(runs[0].predictions_NK, runs[1].predictions_NK)
    assert not np.array_equal(runs[0].predictions_NK, runs[2].predictions_NK)


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "weighted_kl_loss", lambda logits, *_: logits.sum() * float("nan"))
    with pytest.raises(RunError, match="not finite at step 1"):
        fit(RECIPE, striped_feed(), np.arange(8), np.arange(24, 28), CPU, tmp_path / "w.safetensors")
    assert not (tmp_path / "w.safetensors").exists()
