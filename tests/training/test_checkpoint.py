"""Weights come back bit for bit, or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from kagglehms.errors import DataError
from kagglehms.training.checkpoint import load_weights, save_weights
from kagglehms.training.models import make_model
from kagglehms.training.recipes import get_recipe

SMALL = replace(get_recipe("baseline"), backbone="test_efficientnet")


def make(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return make_model(SMALL)[0].eval()


def test_export_and_import_are_bit_equal(tmp_path: Path) -> None:
    trained, fresh = make(1), make(2)
    save_weights(trained, tmp_path / "w.safetensors")
    load_weights(fresh, tmp_path / "w.safetensors")
    images = torch.randn(2, 1, 400, 300)
    with torch.no_grad():
        assert torch.equal(trained(images), fresh(images))


class Wrapped(nn.Module):
    """Names its tensors as DistributedDataParallel and torch.compile do."""

    def __init__(self, inner: nn.Module, prefix: str) -> None:
        super().__init__()
        self.add_module(prefix, inner)


@pytest.mark.parametrize("prefix", ["module", "_orig_mod"])
def test_prefixes_of_wrappers_are_stripped(tmp_path: Path, prefix: str) -> None:
    trained, fresh = make(1), make(2)
    save_weights(Wrapped(trained, prefix), tmp_path / "w.safetensors")
    load_weights(fresh, tmp_path / "w.safetensors")
    wrapped = Wrapped(make(3), prefix)
    load_weights(wrapped, tmp_path / "w.safetensors")
    for name, tensor in trained.state_dict().items():
        assert torch.equal(tensor, fresh.state_dict()[name])
        assert torch.equal(tensor, wrapped.state_dict()[f"{prefix}.{name}"])


def test_shared_tensors_are_written(tmp_path: Path) -> None:
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    save_weights(tied, tmp_path / "w.safetensors")
    fresh = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    load_weights(fresh, tmp_path / "w.safetensors")
    assert torch.equal(fresh[1].weight, tied[0].weight)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(nn.Linear(4, 3), path)
    with pytest.raises(DataError, match=r"weight is \(3, 4\) instead of \(6, 4\)"):
        load_weights(nn.Linear(4, 6), path)
    with pytest.raises(
        DataError, match=r"2 tensors missing, such as 0\.weight; 2 unknown, such as (weight|bias)"
    ):
        load_weights(nn.Sequential(nn.Linear(4, 3)), path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match="truncated or no weights"):
        load_weights(nn.Linear(4, 3), path)
    with pytest.raises(DataError, match="no such file"):
        load_weights(nn.Linear(4, 3), tmp_path / "none")
