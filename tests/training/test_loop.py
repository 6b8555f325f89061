"""The loop: schedule, evaluations, what is kept, and that it learns."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from striped import CPU, RECIPE, striped_feed

from kagglehms.data.records import Records
from kagglehms.errors import RunError
from kagglehms.training import evaluation, loop, step
from kagglehms.training.checkpoint import load_weights
from kagglehms.training.distributed import Team
from kagglehms.training.evaluation import Evaluation, predict
from kagglehms.training.feed import Feed, shuffled
from kagglehms.training.front_ends.options import WaveStackOptions
from kagglehms.training.loop import WEIGHTS, fit
from kagglehms.training.metric import kl_score
from kagglehms.training.models import make_model
from kagglehms.training.options import FrequencyMask
from kagglehms.training.recipes import RECIPES, Stage, get_recipe
from kagglehms.training.resume import STATE, State, read_state
from kagglehms.training.session import Session
from kagglehms.training.step import make_optimizer, make_schedule


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
    assert done.best.score_votes10 == pytest.approx(done.best.score_all)  # all have twelve votes


def test_an_evaluation_prints_all_and_many_and_its_own_records_with_their_floors() -> None:
    numbers = (0.7, 0.9, 0.8, 12.0, 1.0, 1.3, 0.85, 1.2, 1.5, 1.1)
    line = Evaluation(1, False, 40, 2.5, 1.25, *numbers).line(get_recipe("two-stage"), True)
    assert line == (
        "  epoch 2.5/12, step 40: loss 1.2500, held out 0.9000 (class prior 1.3000, uniform 1.5000), many (≥ 10 votes) "
        "0.8000 (class prior 0.8500, uniform 1.1000), settled 0.7000 (class prior 1.0000, uniform 1.2000), 12 s"
        "  (best so far)"
    )
    few = (0.7, 0.9, None, 12.0, 1.0, 1.3, None, 1.2, 1.5, None)
    assert "many" not in Evaluation(0, True, 40, 2.5, 1.25, *few).line(get_recipe("baseline"), False)


def test_evaluations_come_twice_an_epoch(fitted: tuple[loop.Fit, Path]) -> None:
    done, _ = fitted
    assert [e.step for e in done.history[:4]] == [1, 3, 4, 6]  # three steps an epoch
    assert [e.epoch for e in done.history[1:4:2]] == [1.0, 2.0]
    assert len(done.history) == 16


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


def test_a_constant_schedule_is_the_cycle_never_stepped() -> None:
    unstepped = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=123.0)
    torch.optim.lr_scheduler.OneCycleLR(
        unstepped, 1e-3, total_steps=3030, pct_start=0.0, div_factor=25, final_div_factor=0.4
    )
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    schedule = make_schedule(replace(RECIPE, schedule="constant"), optimizer, total_steps=5)
    for _ in range(7):
        group, theirs = optimizer.param_groups[0], unstepped.param_groups[0]
        assert group["lr"] == 1e-3
        assert group["lr"] == pytest.approx(theirs["lr"], rel=1e-6)
        assert group["betas"] == pytest.approx(theirs["betas"], rel=1e-6)
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize(("total", "asked"), [(100, 20), (100, 0), (10, 800)])
def test_a_cosine_rises_linearly_and_falls_along_half_a_cosine(total: int, asked: int) -> None:
    stage = Stage(schedule="cosine", lr=2e-3, warm_up_steps=asked, last_lr=1e-5)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=2e-3)
    schedule = make_schedule(replace(RECIPE, lr=0.5), optimizer, total, stage)
    rates = []
    for _ in range(total + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    rise = min(asked, total // 2)
    expected = [2e-3 * (i + 1) / rise for i in range(rise)]
    for i in range(total - rise + 1):
        expected.append(1e-5 + (2e-3 - 1e-5) * (1 + np.cos(np.pi * i / (total - rise))) / 2)
    np.testing.assert_allclose(rates, expected, rtol=1e-12)


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
    recipe = replace(get_recipe(name).with_epochs(2), backbone="half:test_efficientnet", batch_size=4)
    if isinstance(recipe.front_end, WaveStackOptions):
        recipe = replace(recipe, front_end=WaveStackOptions(widths=(4, 8), layers=(2, 1), n_columns=64))
    feed = striped_feed(8, recipe.layout, few=4)
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

    monkeypatch.setattr(loop, "predict", spoiled)
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
        each.recent_loss()  # asks; the next call answers
        shown.append(each.recent_loss())
    assert shown == pytest.approx([alone.mean_loss()] * 3)


def test_the_moving_average_is_what_is_kept(tmp_path: Path) -> None:
    plain = replace(RECIPE, stages=(Stage(epochs=1),), evaluations_per_epoch=1, dropout=0.0)
    weights = {}
    for name, ema in (("plain", None), ("fast", 0.0), ("frozen", 0.999999)):
        recipe = replace(plain, ema=ema)
        fit(recipe, striped_feed(16), np.arange(12), np.arange(12, 16), CPU, tmp_path / name)
        model, _ = make_model(recipe)
        load_weights(model, tmp_path / name / WEIGHTS)
        weights[name] = model.state_dict()["conv_stem.weight"]
    torch.testing.assert_close(weights["fast"], weights["plain"])  # decay 0: the last weights themselves
    # The first update copies the weights after one step; from then on this average hardly moves.
    assert (weights["frozen"] - weights["plain"]).abs().max() > 1e-4


def small_model(seed: int = 0) -> tuple[torch.nn.Module, list[torch.nn.Parameter]]:
    """A network with its head's two parameters."""
    torch.manual_seed(seed)
    model, _ = make_model(RECIPE)
    return model, [p for name, p in model.named_parameters() if name.startswith("classifier.")]


@pytest.mark.parametrize("schedule", ["cosine", "one-cycle", "constant"])
def test_the_head_has_a_rate_of_its_own(schedule: str) -> None:
    """It keeps its proportion to the backbone's throughout."""
    recipe = replace(RECIPE, schedule=schedule, lr=5e-4, head_lr=1e-3)
    model, head = small_model()
    optimizer = make_optimizer(recipe, model, Stage(warm_up_steps=3))
    rest, of_head = optimizer.param_groups
    assert [id(p) for p in of_head["params"]] == [id(p) for p in head]
    assert len(rest["params"]) + len(head) == len(list(model.parameters()))
    steps = make_schedule(recipe, optimizer, 12, Stage(warm_up_steps=3))
    rates = []
    for _ in range(12):
        rates.append((rest["lr"], of_head["lr"]))
        optimizer.step()
        steps.step()
    backbone, heads = np.array(rates).T
    np.testing.assert_allclose(heads, 2 * backbone, rtol=1e-9)
    assert backbone.max() == pytest.approx(5e-4, rel=0.02)
    assert (backbone.max() > backbone.min()) == (schedule != "constant")


def test_the_head_behind_a_front_end_is_found_as_well() -> None:
    recipe = replace(get_recipe("wave-stack"), backbone="half:test_efficientnet", head_lr=1e-3)
    model, _ = make_model(recipe)
    _, head = make_optimizer(recipe, model, recipe.stages[0]).param_groups
    classifier = model.backbone.classifier  # type: ignore[union-attr]
    assert [id(p) for p in head["params"]] == [id(p) for p in classifier.parameters()]  # type: ignore[union-attr]


def test_a_stages_optimizer_and_head_rate_come_before_the_recipes() -> None:
    model, _ = small_model()
    recipe = replace(RECIPE, optimizer="adam", lr=1e-3, head_lr=2e-3)
    of_recipe = make_optimizer(recipe, model, Stage())
    of_stage = make_optimizer(recipe, model, Stage(optimizer="adamw", lr=1e-4, head_lr=3e-4))
    assert type(of_recipe) is torch.optim.Adam
    assert [group["lr"] for group in of_recipe.param_groups] == [1e-3, 2e-3]
    assert type(of_stage) is torch.optim.AdamW
    assert [group["lr"] for group in of_stage.param_groups] == [1e-4, 3e-4]
    assert [g["lr"] for g in make_optimizer(recipe, model, Stage(lr=1e-4)).param_groups] == [1e-4, 2e-3]
    assert len(make_optimizer(RECIPE, model, Stage()).param_groups) == 1


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_adam_adds_decay_to_the_gradient_and_adamw_takes_it_off_the_weight(kind: str) -> None:
    """One weight, two steps, by the formulas of Kingma & Ba and of Loshchilov & Hutter."""
    model = torch.nn.Linear(1, 1, bias=False).double()
    model.weight.data.fill_(2.0)
    recipe = replace(RECIPE, optimizer=kind, lr=0.1, weight_decay=0.5)
    optimizer = make_optimizer(recipe, model, Stage())
    w, m, v = 2.0, 0.0, 0.0
    for number, gradient in enumerate((0.3, -0.2), start=1):
        model.weight.grad = torch.full_like(model.weight, gradient)
        optimizer.step()
        if kind == "adam":
            gradient += 0.5 * w
        else:
            w -= 0.1 * 0.5 * w
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        w -= 0.1 * (m / (1 - 0.9**number)) / (math.sqrt(v / (1 - 0.999**number)) + 1e-8)
        assert model.weight.item() == pytest.approx(w, rel=1e-9)


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
