"""The optimizer and the learning rate of a stage, step by step."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from stand_ins import stand_in
from striped import RECIPE

from kagglehms.training.models import make_model
from kagglehms.training.optimization import make_optimizer, make_schedule
from kagglehms.training.recipes import Stage, get_recipe


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


def test_heads_of_each_view_by_itself_have_the_heads_rate() -> None:
    recipe = replace(stand_in("resnet1d+panels"), head_lr=1e-3)
    model, _ = make_model(recipe)
    rest, head = make_optimizer(recipe, model, recipe.stages[0]).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    heads = {
        f"{layer}.{kind}" for layer in ("head", "own_heads.0", "own_heads.1") for kind in ("weight", "bias")
    }
    assert {names[id(p)] for p in head["params"]} == heads
    assert {names[id(p)] for p in rest["params"]} == set(names.values()) - heads


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
