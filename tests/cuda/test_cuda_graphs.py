"""Networks that a GPU replays as CUDA graphs, against the same networks launched kernel by kernel."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from children import THOROUGH
from devices import device_at
from striped import RECIPE, striped_feed
from torch import Tensor, nn

from kagglehms.training.cuda_graphs import GraphedNetwork
from kagglehms.training.distributed import ALONE
from kagglehms.training.feed import Feed
from kagglehms.training.loop import fit
from kagglehms.training.losses import kl_loss
from kagglehms.training.models import make_model
from kagglehms.training.precision import autocast, placed
from kagglehms.training.recipes import Recipe, get_recipe
from kagglehms.training.session import Session
from kagglehms.training.step import Learner

SIZES = (6, 6, 6, 4, 6, 6, 4, 4, 6)
"""Of batches: the second one is recorded, the others of its size are replayed, and those in between are not."""


def network_of(recipe: Recipe, place: str) -> nn.Module:
    torch.manual_seed(0)
    model = make_model(replace(recipe, backbone="half:test_efficientnet"))[0]
    return placed(model, place).train()


def inputs_in_turn(place: str) -> Iterator[tuple[Tensor, Tensor]]:
    batch = next(striped_feed(8).batches(np.arange(8), 8)).to(torch.device(place))
    for number, size in enumerate(SIZES if place == "cuda" else SIZES[2:4]):  # a CPU records nothing
        chosen = (torch.arange(size, device=place) + number) % 8
        yield batch.images_BCHW[chosen], batch.targets_BK[chosen]


@pytest.mark.parametrize("amp", [None, "bfloat16", "float16"])
def test_logits_gradients_and_statistics_of_batches_are_those_of_the_plain_network(
    place: str, amp: str | None
) -> None:
    device = device_at(place, amp)
    plain = network_of(replace(RECIPE, dropout=0.0), place)
    model = copy.deepcopy(plain)
    graphed = GraphedNetwork(model, device)
    for inputs, targets_BK in inputs_in_turn(place):
        found = []
        for network, called in ((plain, plain), (model, graphed)):
            network.zero_grad(set_to_none=True)
            with autocast(device):
                logits_BK = called(inputs)
            kl_loss(logits_BK, targets_BK).backward()
            gradients = [p.grad for p in network.parameters() if p.grad is not None]
            assert len(gradients) == len(list(network.parameters()))
            statistics = [buffer.flatten().float() for buffer in network.buffers()]
            found.append(
                (logits_BK.float(), torch.cat([g.flatten() for g in gradients]), torch.cat(statistics))
            )
        for expected, value in zip(*found, strict=True):
            assert (value - expected).norm() <= 1e-2 * expected.norm()
    assert graphed.is_recorded == (place == "cuda")


def test_steps_with_dropout_and_moving_averages_learn_what_they_learn_without_graphs(place: str) -> None:
    """Every step draws its dropout from a seed of its own, so a graph that drew the same each time would show."""
    recipe = replace(RECIPE, dropout=0.5, drop_path_rate=0.2, ema=0.9, backbone="half:test_efficientnet")
    device, feed = device_at(place), striped_feed(32)
    batches = list(feed.batches(np.arange(32), 8)) * 4
    weights, losses = [], []
    wraps: tuple[Callable[[nn.Module], Callable[[Tensor], Tensor]], ...] = (
        lambda model: model,
        lambda model: GraphedNetwork(model, device),
    )
    for wrap in wraps:
        model = network_of(recipe, place)
        learner = Learner(recipe, model, wrap(model), 100, 0, device, ALONE)
        for batch in batches:
            learner.learn(batch, 0, False, len(batch.index_B))
        losses.append(learner.mean_losses()[0])
        weights.append(torch.cat([p.detach().flatten() for p in learner.evaluated.parameters()]))
    assert losses[1] == pytest.approx(losses[0], abs=0.0 if place == "cpu" else 1e-2)
    moved = (weights[0] - torch.cat([p.flatten() for p in network_of(recipe, place).parameters()])).norm()
    assert (weights[1] - weights[0]).norm() <= 0.2 * moved


def test_a_fold_trained_with_graphs_is_learned_as_without(place: str, tmp_path: Path) -> None:
    """Its batches are drawn into page-locked memory by other threads, also while the network is recorded."""
    recipe = replace(THOROUGH, batch_size=8, dropout=0.0)
    device, train, valid = device_at(place), np.arange(26), np.arange(26, 32)
    done = {}
    for graphs in (False, True):
        plain = striped_feed(32, few=8)
        feed = Feed(plain.recordings, plain.records, plain.layout, plain.normaliser, pin=place == "cuda")
        folder, session = tmp_path / str(graphs), Session(cuda_graphs=graphs)
        done[graphs] = fit(recipe, feed, train, valid, device, folder, session=session)
    histories = [[(e.stage, e.step, e.train_loss) for e in fold.history] for fold in done.values()]
    tolerance = 0.0 if place == "cpu" else 5e-2
    np.testing.assert_allclose(histories[1], histories[0], atol=tolerance, rtol=0)
    if done[True].best.step == done[False].best.step:  # two evaluations may be as good as equal
        predictions = [fold.predictions_NK for fold in done.values()]
        np.testing.assert_allclose(predictions[1], predictions[0], atol=tolerance, rtol=0)


WAITS = """
import sys

import torch
from kagglehms.device import Device
from kagglehms.errors import RunError
from kagglehms.training.cuda_graphs import GraphedNetwork

class Waits(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x) * (2.0 if float(x.sum()) > 0 else 1.0)

place = sys.argv[1]
network = GraphedNetwork(Waits(3, 2).to(place), Device(place, None, "for a test"))
try:
    for _ in range(3):
        network(torch.ones(4, 3, device=place)).sum().backward()
except RunError as error:
    sys.exit(str(error))
"""
"""A network that waits for the device in the middle. Afterwards its process cannot draw random numbers on the GPU."""


def test_a_network_that_cannot_be_recorded_says_so(place: str) -> None:
    done = subprocess.run([sys.executable, "-c", WAITS, place], capture_output=True, text=True, check=False)
    assert done.returncode == (1 if place == "cuda" else 0), done.stderr
    assert ("train without --cuda-graphs" in done.stderr) == (place == "cuda")


@pytest.mark.parametrize(
    "name",
    ["baseline", "raw-fold", "stft-50-10", "wave-stack", "transformer-vit", "effnet1d", "resnet1d+panels"],
)
@pytest.mark.cuda
def test_networks_of_every_kind_can_be_recorded(name: str) -> None:
    recipe, device = get_recipe(name), device_at("cuda", "bfloat16")
    torch.manual_seed(0)
    model = placed(make_model(recipe)[0], "cuda").train()
    graphed = GraphedNetwork(model, device)
    learner = Learner(recipe, model, graphed, 100, 0, device, ALONE)
    batch = next(striped_feed(2, recipe.layout).batches(np.arange(2), 2))
    for _ in range(3):
        learner.learn(batch, 0, False, 2)
    assert graphed.is_recorded
    assert learner.first_bad_step() is None
