"""When a network is recorded and replayed; what a real GPU makes of it is tested in `tests/cuda`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from striped import CPU, RECIPE, striped_feed
from torch import Tensor, nn

from kagglehms.device import Device
from kagglehms.training.cuda_graphs import GraphedNetwork
from kagglehms.training.loop import fit
from kagglehms.training.session import Session


def replayed(device: str, sizes: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, int]:
    """Which batches of these sizes are replayed, and how often something is recorded, by a stand-in for the card."""
    recorded, found = [], []

    def record(network: GraphedNetwork, inputs: Tensor) -> object:
        recorded.append(inputs.shape)

        def replay(again: Tensor) -> Tensor:
            assert again.shape == inputs.shape
            found.append("r")
            return network.model(again)

        return replay

    monkeypatch.setattr(GraphedNetwork, "_recorded", record)
    model = nn.Linear(3, 2)
    network = GraphedNetwork(model, Device(device, None, "for a test"))
    answers = ""
    for size in map(int, sizes):
        inputs = torch.randn(size, 3)
        found.clear()
        assert torch.equal(network(inputs), model(inputs))
        answers += found[0] if found else "."
    return answers, len(recorded)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ("666466446", ".rr.rr..r"),
        ("466646", "..rr.r"),  # continued with the last, smaller batch of an epoch
        ("6464", "...."),  # no two alike in a row
        ("6", "."),
    ],
)
def test_the_first_size_that_comes_twice_in_a_row_is_recorded(
    sizes: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, n_recorded = replayed("cuda", sizes, monkeypatch)
    assert answers == expected
    assert n_recorded == ("r" in expected)


def test_nothing_is_recorded_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert replayed("cpu", "6666", monkeypatch) == ("....", 0)


def test_a_session_that_asks_for_it_trains_through_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU with the same bits as without."""
    calls = []
    real = GraphedNetwork.__call__

    def counted(network: GraphedNetwork, inputs: Tensor) -> Tensor:
        calls.append(len(inputs))
        return real(network, inputs)

    monkeypatch.setattr(GraphedNetwork, "__call__", counted)
    recipe, feed = RECIPE.with_epochs(1), striped_feed(20)
    train, valid = np.arange(12), np.arange(12, 20)
    plain, asked = (
        fit(recipe, feed, train, valid, CPU, tmp_path / str(asks), session=Session(cuda_graphs=asks))
        for asks in (False, True)
    )
    assert calls == [6, 6]  # of the second fit alone
    assert np.array_equal(plain.predictions_NK, asked.predictions_NK)
