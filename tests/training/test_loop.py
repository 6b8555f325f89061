"""The loop: schedule, evaluations, what is kept, and that it learns."""

from __future__ import annotations

import copy
import itertools
import math
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.special import rel_entr, softmax
from stand_ins import small, stand_in
from striped import CPU, RECIPE, striped_feed

from kagglehms.data.records import Records
from kagglehms.errors import RunError
from kagglehms.training import evaluation, held_out, loop, step
from kagglehms.training.batches import Batch, shuffled
from kagglehms.training.checkpoint import load_weights
from kagglehms.training.distributed import Team
from kagglehms.training.feed import Feed
from kagglehms.training.feed_draws import Work
from kagglehms.training.loop import WEIGHTS, fit
from kagglehms.training.metric import kl_score
from kagglehms.training.models import make_model
from kagglehms.training.optimization import make_schedule
from kagglehms.training.options import Albumentations, FrequencyMask, Mirror, Shift, Transform
from kagglehms.training.prediction import predict
from kagglehms.training.recipes import RECIPES, Stage, get_recipe
from kagglehms.training.resume import STATE, State, read_state
from kagglehms.training.session import Session


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[loop.Fit, Path]:
    path = tmp_path_factory.mktemp("fit")
    # At the recipe's own rate the averages of batch normalisation would need more than 24 steps.
    recipe = replace(RECIPE.with_epochs(8), lr=1e-2)
    return fit(recipe, striped_feed(), np.arange(24), np.arange(24, 32), CPU, path), path / WEIGHTS


def test_it_learns_what_can_be_learned(fitted: tuple[loop.Fit, Path]) -> None:
    done, _ = fitted
    assert done.best.score_all < 0.5 * math.log(4)  # a prior that knows the four classes scores ln 4


def test_the_weights_kept_are_those_of_the_best_evaluation(fitted: tuple[loop.Fit, Path]) -> None:
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
    assert done.best.score_many == pytest.approx(done.best.score_all)  # all have twelve votes


def test_evaluations_come_twice_an_epoch(fitted: tuple[loop.Fit, Path]) -> None:
    done, _ = fitted
    assert [e.step for e in done.history[:4]] == [1, 3, 4, 6]  # three steps an epoch
    assert [e.epoch for e in done.history[1:4:2]] == [1.0, 2.0]
    assert len(done.history) == 16


def test_a_stage_has_settings_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[tuple[float, float]] = []
    norms: list[float] = []
    real = torch.nn.utils.clip_grad_norm_

    class Spy(loop.Learner):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            group = self.optimizer.param_groups[0]
            seen.append((group["lr"], group["weight_decay"]))

    def clip(parameters: Any, limit: float) -> torch.Tensor:
        kept = list(parameters)
        before = real(kept, limit)
        norms.append(float(torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in kept]))))
        return before

    monkeypatch.setattr(loop, "Learner", Spy)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
    stages = (Stage(epochs=1, schedule="constant"),
              Stage(epochs=1, schedule="constant", lr=3e-5, weight_decay=0.5, clip_norm=0.01))  # fmt: skip
    recipe = replace(RECIPE, stages=stages, evaluations_per_epoch=1)
    fit(recipe, striped_feed(12), np.arange(8), np.arange(8, 12), CPU, tmp_path)
    assert seen == [(RECIPE.lr, RECIPE.weight_decay), (3e-5, 0.5)]
    assert norms  # in the second stage alone
    assert max(norms) <= 0.01 * (1 + 1e-4)


def test_weights_are_given_the_epoch_of_their_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three steps an epoch; a warm-up and a plain stage before the one that is weighted."""
    seen: list[tuple[Any, ...]] = []
    real = step.weighted_loss

    def loss(*arguments: Any) -> torch.Tensor:
        seen.append(arguments[3:])
        return real(*arguments)

    monkeypatch.setattr(step, "weighted_loss", loss)
    stages = (
        Stage(epochs=1),
        Stage(epochs=4, mosaic_epochs=1, loss="binary-cross-entropy", weights="groups"),
    )
    fit(replace(RECIPE, stages=stages), striped_feed(), np.arange(24), np.arange(24, 28), CPU, tmp_path)
    assert seen[:3] == [("kl", None, 0.0)] * 3
    assert seen[3:6] == [("kl", None, 0.0)] * 3
    assert seen[6:] == [("binary-cross-entropy", "groups", e / 4) for e in (1, 1, 1, 2, 2, 2, 3, 3, 3)]


def test_frequencies_are_masked_per_tile_in_training() -> None:
    """Kaggle panels have 100 rows and mel panels 128, side by side."""
    recipe = replace(
        get_recipe("kaggle+eeg"),
        backbone="half:test_efficientnet",
        augmentations=(FrequencyMask(1.0, max_height=50),),
    )
    model, _ = make_model(recipe)
    own = step.Learner(recipe, model, model, 10, 0, CPU, Team())
    batch = next(striped_feed(8, recipe.layout).batches(np.arange(4), 4))
    batch = replace(batch, images_BCHW=torch.ones_like(batch.images_BCHW))
    masked = own._augmented(batch, 0, False, 4).images_BCHW[:, 0] == 0
    kaggle, eeg = masked[:, :400, :300].reshape(4, 4, 100, 300), masked[:, :, 300:].reshape(4, 4, 128, 256)
    assert not masked[:, 400:, :300].any()
    for panels in (kaggle, eeg):
        assert panels.any(dim=2).all()
        assert (panels == panels[:, :1]).all()
    heights = [panels[:, 0, :, 0].sum(dim=1) for panels in (kaggle, eeg)]
    assert (heights[1] - heights[0] * 1.28).abs().max() < 2


def test_records_are_drawn_as_they_are_in_a_warm_up_and_where_a_stage_asks_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The augmentations of a stage replace the recipe's, those of albumentations among them."""
    seen: list[torch.Tensor] = []
    shifts: list[float] = []
    feed, plain = striped_feed(12), striped_feed(12)
    feed.augmenter = lambda image_HW, *_: image_HW + 100
    real = feed.draw

    def draw(work: Iterable[Work]) -> Any:
        return real(shifts.append(each.shift_s) or each for each in work)

    class Spy(loop.Learner):
        def learn(self, batch: Batch, *arguments: Any) -> None:
            seen.append(batch.images_BCHW.clone())
            super().learn(batch, *arguments)

    monkeypatch.setattr(loop, "Learner", Spy)
    monkeypatch.setattr(feed, "draw", draw)
    named = Albumentations((Transform("HorizontalFlip", {}),))
    stages = (Stage(epochs=2, mosaic_epochs=1), Stage(epochs=1, augmentations=(Mirror(1.0),)))
    recipe = replace(RECIPE, stages=(*stages, Stage(epochs=1, augmentations=())), evaluations_per_epoch=1)
    recipe = replace(recipe, augmentations=(named, Mirror(1.0), Shift(2.0)))
    fit(recipe, feed, np.arange(8), np.arange(8, 12), CPU, tmp_path)
    orders = [shuffled(np.arange(8), recipe.seed, epoch) for epoch in range(4)]
    still, mirrored = (
        [next(plain.draw([Work(order, 0, mirror=share)])).images_BCHW for order in orders] for share in (0, 1)
    )
    for found, wanted in zip(seen, (still[0], mirrored[1] + 100, mirrored[2], still[3]), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
    assert (still[1] - mirrored[1]).abs().max() > 1
    assert [shift for shift in shifts if shift] == [2.0]


def test_the_schedule_is_really_stepped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def spy(*arguments: object) -> object:
        made.append(make_schedule(*arguments))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(step, "make_schedule", spy)
    recipe = RECIPE.with_epochs(1)
    fit(recipe, striped_feed(), np.arange(16), np.arange(24, 28), CPU, tmp_path)
    assert made[0].last_epoch == 2  # once for each of the two steps


def test_the_same_seed_gives_the_same_run(tmp_path: Path) -> None:
    recipe = replace(RECIPE.with_epochs(1), dropout=0.5)
    runs = [
        fit(
            replace(recipe, seed=seed), striped_feed(), np.arange(16), np.arange(24, 28), CPU, tmp_path / name
        )
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    np.testing.assert_array_equal(runs[0].predictions_NK, runs[1].predictions_NK)
    assert not np.array_equal(runs[0].predictions_NK, runs[2].predictions_NK)


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, steps = step.weighted_loss, itertools.count(1)

    def loss(*arguments: Any) -> torch.Tensor:
        return real(*arguments) * (float("nan") if next(steps) == 5 else 1)

    monkeypatch.setattr(step, "weighted_loss", loss)
    feed = striped_feed()
    with pytest.raises(
        RunError, match=r"is not finite at step 5 \(epoch 1\), whose batch has the EEGs"
    ) as caught:
        fit(RECIPE, feed, np.arange(24), np.arange(24, 28), CPU, tmp_path)
    named = [int(i) for i in re.findall(r"\d+", str(caught.value).split("EEGs")[1].split(";")[0])]
    second_of_epoch_1 = shuffled(np.arange(24), RECIPE.seed, 1)[8:16]
    assert named == feed.records.eeg_ids[second_of_epoch_1].tolist()
    assert not (tmp_path / WEIGHTS).exists()
    kept = read_state(tmp_path / STATE, {})
    assert kept is not None
    assert all(torch.isfinite(value).all() for value in kept.part("model").values())


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_takes_a_step(name: str, tmp_path: Path) -> None:
    """Layout, stages, augmentations and losses of every recipe; only the network is a small one."""
    recipe = replace(get_recipe(name).with_epochs(2), batch_size=4)
    backbone = "half:test_efficientnet" if recipe.backbone else ""
    recipe = replace(recipe, backbone=backbone, front_end=small(recipe.front_end))
    feed = striped_feed(8, recipe.layout, few=4, teachers=recipe.teachers)
    done = fit(recipe, feed, np.array([0, 1, 4, 5]), np.array([2, 3, 6, 7]), CPU, tmp_path)
    assert np.isfinite([e.train_loss for e in done.history]).all()
    assert [e.stage for e in done.history] == [s for s in range(len(recipe.stages)) for _ in range(2)]
    assert next(e.warm_up for e in done.history if e.stage == 0) == (recipe.stages[0].mosaic_epochs > 0)
    assert load_weights(make_model(recipe)[0], tmp_path / WEIGHTS) == feed.normaliser


def test_the_best_is_reset_after_the_warm_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.1, 0.2, 0.9, 0.8])  # the warm-up looks best, but must not be kept
    monkeypatch.setattr(evaluation, "kl_score", lambda *_: next(scores))
    recipe = replace(RECIPE, stages=(Stage(epochs=4, mosaic_epochs=2),), evaluations_per_epoch=1)
    done = fit(recipe, striped_feed(12), np.arange(8), np.arange(8, 12), CPU, tmp_path)
    assert [e.warm_up for e in done.history] == [True, True, False, False]
    assert done.best == done.history[3]


@pytest.mark.parametrize(("all_epoch", "kept"), [(False, 2), (True, 3)])
def test_the_notebooks_reset_the_best_throughout_an_epoch(
    all_epoch: bool, kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the last evaluation of that epoch stands for it, and later ones must be better than that one."""
    scores = iter([0.1, 0.2, 0.5, 0.7, 0.8, 0.9])
    monkeypatch.setattr(evaluation, "kl_score", lambda *_: next(scores))
    stage = Stage(epochs=3, mosaic_epochs=1, reset_all_epoch=all_epoch)
    recipe = replace(RECIPE, stages=(stage,), evaluations_per_epoch=2, batch_size=4)
    done = fit(recipe, striped_feed(12), np.arange(8), np.arange(8, 12), CPU, tmp_path)
    assert [e.score_stage for e in done.history] == [0.1, 0.2, 0.5, 0.7, 0.8, 0.9]
    assert done.best == done.history[kept]


def test_a_later_stage_starts_from_the_best_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[torch.Tensor] = []
    started: list[torch.Tensor] = []
    real = loop.plain_state

    def keep(model: torch.nn.Module) -> dict[str, torch.Tensor]:
        kept.append(real(model)["classifier.weight"])
        return real(model)

    class Spy(loop.Learner):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            started.append(self.model.state_dict()["classifier.weight"].clone())

    monkeypatch.setattr(loop, "plain_state", keep)
    monkeypatch.setattr(loop, "Learner", Spy)
    scores = iter([0.5, 0.9, 0.7, 0.6])
    monkeypatch.setattr(evaluation, "kl_score", lambda *_: next(scores))
    stages = (Stage(epochs=2, records="unsettled"), Stage(epochs=2, records="settled"))
    recipe = replace(RECIPE, stages=stages, evaluations_per_epoch=1)
    done = fit(recipe, striped_feed(16, few=8), np.arange(4, 12), np.array([0, 1, 14, 15]), CPU, tmp_path)
    torch.testing.assert_close(started[1], kept[0], rtol=0, atol=0)
    assert done.best == done.history[3]
    assert [e.step for e in done.history] == [1, 2, 3, 4]


def test_every_stage_is_checked_before_the_first_one_starts(tmp_path: Path) -> None:
    """None of the held-out records is settled, which only the second stage needs."""
    stages = (Stage(epochs=1, records="unsettled"), Stage(epochs=1, records="settled"))
    feed = striped_feed(16, few=8)
    with pytest.raises(RunError, match="none of 4 records is settled"):
        fit(replace(RECIPE, stages=stages), feed, np.arange(4, 16), np.arange(4), CPU, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([2], r"after step 3 are not finite for 1 of 8 held-out records; look at EEG 126, the first"),
        (slice(None), r"for 8 of 8 held-out records; its weights have overflowed: lower lr \(0.003\)"),
    ],
)
def test_predictions_that_are_not_finite_end_the_run_with_a_hint(
    bad: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(*arguments: Any) -> np.ndarray:
        predictions_NK = predict(*arguments)
        predictions_NK[bad] = np.nan
        return predictions_NK

    monkeypatch.setattr(held_out, "predict", spoiled)
    feed = striped_feed()
    frame = feed.records.frame.with_columns(eeg_id=100 + feed.records.frame["spectrogram_id"])
    feed = Feed(feed.recordings, Records(frame), feed.layout)
    recipe = replace(RECIPE, evaluations_per_epoch=1)
    with pytest.raises(RunError, match=message):
        fit(recipe, feed, np.arange(24), np.arange(24, 32), CPU, tmp_path)


@pytest.mark.parametrize(("n_train", "few"), [(5, 0), (24, 3)])
def test_batches_too_small_for_the_team_are_refused(n_train: int, few: int, tmp_path: Path) -> None:
    stages = (Stage(epochs=1), Stage(epochs=1, records="unsettled")) if few else (Stage(epochs=1),)
    recipe = replace(RECIPE, batch_size=4, stages=stages)
    session = Session(team=Team(0, 4))
    with pytest.raises(RunError, match=r"in batches of down to [23], too few for 4 processes; start fewer"):
        fit(
            recipe,
            striped_feed(few=few),
            np.arange(n_train),
            np.array([0, 31]),
            CPU,
            tmp_path,
            session=session,
        )


def test_the_loss_shown_is_a_mean_whatever_the_size_of_the_team() -> None:
    batch = next(striped_feed(8).batches(np.arange(4), 4))

    def begin(size: int) -> step.Learner:
        torch.manual_seed(0)
        model, _ = make_model(RECIPE)
        return step.Learner(RECIPE, model, model, 10, 0, CPU, Team(0, size))

    alone, member, resumed = begin(1), begin(2), begin(2)
    alone.learn(batch, 0, False, 4)
    member.learn(batch, 0, False, 8)
    resumed.restore(State(alone.tensors(), {"learner": alone.numbers()}, {}))
    shown = []
    for each in (alone, member, resumed):
        each.recent_divergence()  # asks; the next call answers
        shown.append(each.recent_divergence())
    assert shown == pytest.approx([alone.mean_losses()[1]] * 3)


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine"])
def test_the_rate_that_is_logged_is_that_of_the_last_step_also_after_a_resume(schedule: Any) -> None:
    recipe = replace(RECIPE, stages=(Stage(epochs=1, schedule=schedule, last_lr=1e-5),))
    batch = next(striped_feed(8).batches(np.arange(4), 4))
    model, _ = make_model(recipe)
    before, after = (step.Learner(recipe, model, model, 10, 0, CPU, Team()) for _ in range(2))
    for _ in range(5):
        before.learn(batch, 0, False, 4)
    after.restore(State(before.tensors(), {"learner": before.numbers()}, {}))
    assert before.lr < 0.8 * recipe.lr
    assert after.lr == before.lr
    for learner in (before, after):
        learner.learn(batch, 0, False, 4)
    assert after.lr == before.lr


def test_the_training_divergence_is_comparable_with_the_score_whatever_the_loss() -> None:
    """One step with a weighted loss; the logits of the first step are those of the new network in training mode."""
    stage = Stage(epochs=1, loss="kl", weights="votes")
    recipe = replace(RECIPE, stages=(stage,), dropout=0.0)
    torch.manual_seed(0)
    model, _ = make_model(recipe)
    batch = next(striped_feed(8).batches(np.arange(4), 4))
    logits = copy.deepcopy(model).train()(batch.images_BCHW).detach().numpy().astype(np.float64)
    learner = step.Learner(recipe, model.train(), model, 10, 0, CPU, Team())
    learner.learn(batch, 0, False, 4)
    p, q = batch.targets_BK.numpy(), np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    loss, divergence = learner.mean_losses()
    assert divergence == pytest.approx(float(rel_entr(p, q).sum(axis=1).mean()), rel=1e-4)
    assert loss == pytest.approx(divergence * 12 / 20, rel=1e-4)  # each record has twelve votes


def test_the_losses_of_two_views_by_themselves_are_added_with_their_weight() -> None:
    """By SciPy, of the logits of the first step; the divergence is that of both views together."""
    recipe = replace(stand_in("resnet1d+panels"), dropout=0.0, drop_path_rate=0.0, view_loss=0.25)
    torch.manual_seed(0)
    model, _ = make_model(recipe)
    for head in (model.head, *model.own_heads):
        head.weight.data *= 30
    plain = replace(recipe, augmentations=(), stages=(Stage(epochs=1),))
    batch = next(striped_feed(8, recipe.layout).batches(np.arange(4), 4))
    seen = []
    learner = step.Learner(
        plain, model.train(), lambda x: seen.append(model(x)) or seen[0], 10, 0, CPU, Team()
    )
    learner.learn(batch, 0, False, 4)
    p, logits = batch.targets_BK.numpy(), seen[0].detach().numpy().astype(np.float64)
    both, first, second = rel_entr(p, softmax(logits, axis=2)).sum(axis=2).mean(axis=1)
    loss, divergence = learner.mean_losses()
    assert divergence == pytest.approx(both, rel=1e-4)
    assert loss == pytest.approx(both + 0.25 * (first + second), rel=1e-4)
    assert min(abs(both - first), abs(first - second)) > 0.01


def test_the_moving_average_is_what_is_kept(tmp_path: Path) -> None:
    plain = replace(RECIPE, stages=(Stage(epochs=1),), evaluations_per_epoch=1, dropout=0.0, lr=2e-2)
    weights = {}
    for name, ema in (("plain", None), ("fast", 0.0), ("slow", 0.999999)):
        recipe = replace(plain, ema=ema)
        fit(recipe, striped_feed(16), np.arange(12), np.arange(12, 16), CPU, tmp_path / name)
        model, _ = make_model(recipe)
        load_weights(model, tmp_path / name / WEIGHTS)
        weights[name] = model.state_dict()["conv_stem.weight"]
    torch.testing.assert_close(weights["fast"], weights["plain"])  # decay 0: the last weights themselves
    assert (weights["slow"] - weights["plain"]).abs().max() > 1e-4


def test_the_moving_average_soon_forgets_the_first_weights() -> None:
    """By hand: the first average is a copy; then a decay of at most (1 + t) / (10 + t) at step t, counted from 0."""
    recipe = replace(RECIPE, ema=0.2, dropout=0.0)
    torch.manual_seed(0)
    model, _ = make_model(recipe)
    batch = next(striped_feed(8).batches(np.arange(4), 4))
    learner = step.Learner(recipe, model.train(), model, 10, 0, CPU, Team())
    seen = []
    for _ in range(4):
        learner.learn(batch, 0, False, 4)
        seen.append(model.state_dict()["conv_stem.weight"].double().numpy().copy())
    wanted = seen[0]
    for decay, weights in zip((2 / 11, 0.2, 0.2), seen[1:], strict=True):
        wanted = decay * wanted + (1 - decay) * weights
    averaged = learner.evaluated.state_dict()["conv_stem.weight"].double().numpy()
    np.testing.assert_allclose(averaged, wanted, rtol=1e-5, atol=1e-7)
    assert np.abs(averaged - (0.8 * seen[3] + 0.2 * seen[2])).max() > 1e-7


def test_the_mean_of_the_best_is_scored_kept_and_what_the_next_stage_starts_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copies: list[dict[str, torch.Tensor]] = []
    started: list[dict[str, torch.Tensor]] = []
    real = loop.plain_state

    def keep(model: torch.nn.Module) -> dict[str, torch.Tensor]:
        copies.append(real(model))
        return copies[-1]

    class Spy(loop.Learner):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            started.append(real(self.model))

    monkeypatch.setattr(loop, "plain_state", keep)
    monkeypatch.setattr(loop, "Learner", Spy)
    # Three evaluations and the mean of the two best; then one, which needs none.
    scores = iter([0.9, 0.5, 0.7, 0.6, 0.55])
    monkeypatch.setattr(evaluation, "kl_score", lambda *_: next(scores))
    recipe = replace(
        RECIPE, stages=(Stage(epochs=3), Stage(epochs=1)), evaluations_per_epoch=1, average_best=2
    )
    done = fit(recipe, striped_feed(12), np.arange(8), np.arange(8, 12), CPU, tmp_path)
    assert [e.score_stage for e in done.history] == [0.9, 0.5, 0.7, 0.6, 0.55]
    assert [e.averaged for e in done.history] == [1, 1, 1, 2, 1]
    assert [e.step for e in done.history] == [1, 2, 3, 3, 4]
    for name, value in started[1].items():  # 0.5 and 0.7 are the two best
        one, other = copies[1][name], copies[2][name]
        expected = (one.double() + other.double()) / 2 if value.is_floating_point() else one
        torch.testing.assert_close(value.double(), expected.double(), rtol=1e-6, atol=1e-7)
    assert any("running_var" in name for name in started[1])
    out = capsys.readouterr().out
    assert out.count("mean of the weights of the 2 best evaluations: held out") == 1
    assert done.best == done.history[4]


def test_the_predictions_of_a_mean_are_those_of_the_weights_in_the_file(tmp_path: Path) -> None:
    recipe = replace(RECIPE.with_epochs(2), average_best=3, lr=1e-2)
    feed, valid = striped_feed(), np.arange(24, 32)
    done = fit(recipe, feed, np.arange(24), valid, CPU, tmp_path)
    assert done.best.averaged == 3
    assert done.best == done.history[-1]
    model, _ = make_model(RECIPE)
    load_weights(model, tmp_path / WEIGHTS)
    predictions = predict(model, feed, valid, 8, CPU)
    np.testing.assert_allclose(predictions, done.predictions_NK, atol=1e-6)
    assert done.best.score_all == pytest.approx(
        kl_score(feed.records.targets_NK[valid], predictions), abs=1e-5
    )


@pytest.mark.parametrize("ema", [None, 0.5])
def test_the_last_evaluation_is_kept_where_the_recipe_says_so(
    ema: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = iter([0.5, 0.9, 0.8])
    monkeypatch.setattr(evaluation, "kl_score", lambda *_: next(scores))
    recipe = replace(RECIPE, keep="last", ema=ema, evaluations_per_epoch=1)
    done = fit(recipe, striped_feed(12), np.arange(8), np.arange(8, 12), CPU, tmp_path)
    assert done.best == done.history[2]
    state = read_state(tmp_path / STATE, {})
    assert state is not None
    last = state.part("average" if ema else "model")
    kept = load_file(tmp_path / WEIGHTS)
    for name, value in kept.items():
        assert torch.equal(value, last[f"module.{name}" if ema else name]), name
    out = capsys.readouterr().out
    assert "(the last so far, kept)" in out
    assert "best so far" not in out
    assert f"kept: the last evaluation{' of the moving average' if ema else ''}, whatever its score" in out
