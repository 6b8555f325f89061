"""Every recipe's network on a GPU: in half precision, channels last, compiled; against the same network on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from devices import HALVES, device_at
from stand_ins import stand_in
from striped import striped_feed
from torch import Tensor, nn

from kagglehms.training.losses import kl_loss
from kagglehms.training.models import make_model
from kagglehms.training.precision import autocast, laid_out, placed
from kagglehms.training.recipes import RECIPES, Recipe, get_recipe

SMALL = {
    "baseline": "half:test_efficientnet",
    "eeg+percentiles": "half:test_convnext",
    "transformer-vit": "half:test_vit",
    "two-views": "half:test_efficientnet",
    "squeeze-1d": "",
    "effnet1d": "",
    "resnet1d": "",
    "resnet1d+panels": "",
    "raw+spectrogram": "half:test_efficientnet",
}
"""Recipe → the backbone of its stand-in, which shows on a CPU that the tests are right; empty where there is none."""
BOUNDS = {None: 1e-3, "float16": 1e-2, "bfloat16": 5e-2}
"""Euclidean norm of the logits' difference from float32 on the CPU, over that of the logits: float16 keeps 11 bits of
each activation and bfloat16 8, and their roundings add up over some hundred layers."""


def _cases() -> Iterator[Any]:
    for name, backbone in SMALL.items():
        yield pytest.param(replace(stand_in(name), backbone=backbone), "cpu", id=f"{name}-cpu")
    # Networks differ by backbone, front end and the size of their input, whatever is drawn there.
    distinct = {(r.backbone, r.front_end, r.layout.array_shape): r for r in reversed(RECIPES.values())}
    for recipe in distinct.values():
        yield pytest.param(recipe, "cuda", id=f"{recipe.name}-cuda", marks=pytest.mark.cuda)


every_network: Callable[..., Any] = pytest.mark.parametrize(("recipe", "place"), list(_cases()))


def network_of(recipe: Recipe, place: str) -> nn.Module:
    """Without anything random in training, so that every parameter takes part."""
    torch.manual_seed(0)
    model, _ = make_model(replace(recipe, drop_path_rate=0.0, dropout=0.0))
    return placed(model, place)


def inputs_of(recipe: Recipe, place: str, n: int) -> tuple[Tensor, Tensor]:
    """What the recipe's network is given of `n` records, and their targets."""
    batch = next(striped_feed(n, recipe.layout).batches(np.arange(n), n)).to(torch.device(place))
    return laid_out(batch.images_BCHW), batch.targets_BK


@every_network
def test_it_keeps_its_contract_in_half_precision_and_computes_what_the_cpu_does(
    recipe: Recipe, place: str, record_property: Callable[[str, object], None]
) -> None:
    """Both in one test, since making some of these networks takes longer than testing them."""
    model = network_of(recipe, place)
    inputs, targets_BK = inputs_of(recipe, place, 2)
    for amp in HALVES:
        _check_contract(model, inputs, targets_BK, place, amp)
    errors = _logits_less_the_cpus(model, inputs, place)
    for amp, error in errors.items():
        record_property(f"error in {amp or 'float32'}", error)
    assert all(errors[amp] <= bound for amp, bound in BOUNDS.items()), errors


def _check_contract(model: nn.Module, inputs: Tensor, targets_BK: Tensor, place: str, amp: str) -> None:
    """Six finite logits a record, and a finite gradient for every parameter, as a step of training computes them.

    A network of two views may return those of each view as well.
    """
    model.train().zero_grad(set_to_none=True)
    with autocast(device_at(place, amp)):
        logits = model(inputs)
    assert logits.shape in ((2, 6), (3, 2, 6))
    assert torch.isfinite(logits).all()
    torch.stack([kl_loss(each_BK, targets_BK) for each_BK in logits.reshape(-1, 2, 6)]).sum().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not without
    assert any(bool(p.grad.any()) for p in model.parameters() if p.grad is not None)


def _logits_less_the_cpus(model: nn.Module, inputs: Tensor, place: str) -> dict[str | None, float]:
    """Precision → norm of the difference from the CPU's logits in float32, over the norm of these."""
    _settle_statistics(model, inputs)
    reference = copy.deepcopy(model).cpu().to(memory_format=torch.contiguous_format).eval()
    errors: dict[str | None, float] = {}
    with torch.inference_mode():
        expected_BK = reference(inputs.cpu().contiguous())
        assert expected_BK.norm() > 0
        for amp in BOUNDS:
            with autocast(device_at(place, amp)):
                logits_BK = model.eval()(inputs).float().cpu()
            errors[amp] = float((logits_BK - expected_BK).norm() / expected_BK.norm())
    return errors


def _settle_statistics(model: nn.Module, inputs: Tensor) -> None:
    """Let batch normalisation know these inputs: of a fresh network whose layers do not normalise, little arrives."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # the plain mean of all batches, here of one
    with torch.no_grad():
        model.train()(inputs)


def test_a_compiled_network_computes_what_it_is_compiled_from(place: str) -> None:
    """Logits, and the gradient of every parameter, in float32; by Inductor on a GPU, of which a CPU needs a minute."""
    backend = "inductor" if place == "cuda" else "aot_eager"
    recipe = replace(get_recipe("baseline"), backbone="half:test_efficientnet")
    model = network_of(recipe, place).train()
    inputs, targets_BK = inputs_of(recipe, place, 2)
    found = []
    for network in (model, torch.compile(copy.deepcopy(model), backend=backend)):
        logits_BK = network(inputs)
        kl_loss(logits_BK, targets_BK).backward()
        gradients = [p.grad for p in network.parameters()]
        assert None not in gradients
        found.append((logits_BK.detach(), torch.cat([g.flatten() for g in gradients if g is not None])))
    for eager, compiled in zip(*found, strict=True):
        assert (compiled - eager).norm() <= 1e-3 * eager.norm()
