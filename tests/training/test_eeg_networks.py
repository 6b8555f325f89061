"""Networks of braindecode: one that stands for the package, and the package itself where it is installed."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from kagglehms.errors import UsageError
from kagglehms.features import DifferenceSpec
from kagglehms.inputs.kinds import Signals
from kagglehms.training.first_weights import FirstWeights
from kagglehms.training.models import check_model, head_layers, make_model
from kagglehms.training.optimization import make_optimizer
from kagglehms.training.recipe import Recipe, recipe_from_json
from kagglehms.training.recipes import get_recipe

SIGNALS = Signals(DifferenceSpec(filter="causal", step=4, midline=True))
RECIPE = Recipe(name="mine", layout=SIGNALS, backbone="eeg:Tiny", dropout=0.125, head_lr=2e-3)


class Tiny(nn.Module):
    """A network made as braindecode's are; it has six filters besides its six logits."""

    def __init__(
        self, n_outputs: int, n_chans: int, n_times: int, sfreq: float, drop_prob: float = 0.5
    ) -> None:
        super().__init__()
        self.given = (n_outputs, n_chans, n_times, sfreq, drop_prob)
        self.final_layer = nn.Sequential(nn.Flatten(), nn.Linear(6 * 8, n_outputs), nn.Identity())
        self.filters = nn.Conv1d(n_chans, 6, 5)

    def forward(self, signals_BCT: torch.Tensor) -> torch.Tensor:
        return self.final_layer(nn.functional.adaptive_avg_pool1d(self.filters(signals_BCT), 8))


class WithoutDropout(nn.Module):
    """Its logits come from a convolution, and of its own dropout nothing is known."""

    def __init__(self, n_outputs: int, n_chans: int, n_times: int, sfreq: float) -> None:
        super().__init__()
        self.last = nn.Conv1d(n_chans, n_outputs, 3)

    def forward(self, signals_BCT: torch.Tensor) -> torch.Tensor:
        return self.last(signals_BCT).mean(dim=2)


class Averaging(nn.Module):
    """Its logits are the mean of several layers', one for each window."""

    def __init__(self, n_outputs: int, n_chans: int, n_times: int, sfreq: float) -> None:
        super().__init__()
        self.final_layer = nn.ModuleList(nn.Linear(n_chans, n_outputs) for _ in range(3))

    def forward(self, signals_BCT: torch.Tensor) -> torch.Tensor:
        windows = signals_BCT.tensor_split(3, dim=2)
        pairs = zip(self.final_layer, windows, strict=True)
        return torch.stack([layer(window.mean(dim=2)) for layer, window in pairs]).mean(dim=0)


class Encoder(WithoutDropout):
    def __init__(self, n_outputs: int, n_chans: int, n_times: int, sfreq: float) -> None:
        super().__init__(n_outputs + 1, n_chans, n_times, sfreq)


class Choosy(Tiny):
    def __init__(self, **options: object) -> None:
        raise ValueError("n_times must be even prime\nand more")


@pytest.fixture
def braindecode(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    package, models = ModuleType("braindecode"), ModuleType("braindecode.models")
    for kind in (Tiny, WithoutDropout, Averaging, Encoder, Choosy):
        setattr(models, kind.__name__, kind)
    models.helper = len  # type: ignore[attr-defined]
    package.models = models  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "braindecode", package)
    monkeypatch.setitem(sys.modules, "braindecode.models", models)
    return models


def test_a_network_is_made_for_the_recipes_signals(braindecode: ModuleType) -> None:
    model, line = make_model(RECIPE)
    assert line == "weights: none, from scratch"
    assert model.given == (6, 18, 2500, 50.0, 0.125)
    check_model(RECIPE, FirstWeights())
    assert model(torch.randn(3, 18, 2500)).shape == (3, 6)
    assert recipe_from_json(RECIPE.to_json()) == RECIPE
    assert (RECIPE.network, RECIPE.packages, RECIPE.backbones) == ("eeg:Tiny", ("braindecode",), ())


def test_the_head_has_its_own_learning_rate(braindecode: ModuleType) -> None:
    model, _ = make_model(RECIPE)
    assert head_layers(model, RECIPE) == [model.final_layer[1]]
    body, head = make_optimizer(RECIPE, model, RECIPE.stages[0]).param_groups
    assert (head["lr"], [p.shape for p in head["params"]]) == (2e-3, [(6, 48), (6,)])
    assert [p.shape for p in body["params"]] == [(6, 18, 5), (6,)]
    other = replace(RECIPE, backbone="eeg:WithoutDropout")
    model, _ = make_model(other)
    assert head_layers(model, other) == [model.last]
    several = replace(RECIPE, backbone="eeg:Averaging")
    model, _ = make_model(several)
    assert head_layers(model, several) == list(model.final_layer)


def test_a_named_backbone_takes_the_place_of_the_front_end() -> None:
    for name in ("squeeze-1d", "wave-stack"):
        changed = get_recipe(name).changed(backbone="eeg:Tiny")
        assert (changed.backbone, changed.front_end, changed.image_shapes) == ("eeg:Tiny", None, ())
        assert changed.layout == get_recipe(name).layout


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("eeg:Tinny", "backbone 'eeg:Tinny' is none of braindecode's; did you mean 'Tiny'"),
        ("eeg:helper", "backbone 'eeg:helper' is none of braindecode's"),
        (
            "eeg:Choosy",
            r"backbone 'eeg:Choosy' cannot take \(18, 2500\) signals: n_times must be even prime$",
        ),
        ("eeg:Encoder", "backbone 'eeg:Encoder' has no layer that computes logits"),
    ],
)
def test_what_cannot_be_made_is_one_line(braindecode: ModuleType, name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make_model(replace(RECIPE, backbone=name))


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "braindecode", None)
    with pytest.raises(UsageError, match=r"needs braindecode.*; pip install 'kagglehms\[braindecode\]'"):
        make_model(RECIPE)
    (tmp_path / "braindecode").mkdir()
    (tmp_path / "braindecode/__init__.py").touch()
    (tmp_path / "braindecode/models.py").write_text("import a_package_that_it_needs\n")
    monkeypatch.delitem(sys.modules, "braindecode")
    monkeypatch.delitem(sys.modules, "braindecode.models", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match="needs a_package_that_it_needs, which is not installed"):
        make_model(RECIPE)
    sys.modules.pop("braindecode")


@pytest.mark.parametrize("name", ["baseline", "raw+spectrogram", "raw-fold"])
def test_it_sees_nothing_but_signals(name: str) -> None:
    with pytest.raises(UsageError, match="'eeg:Tiny' sees signals alone, as they are"):
        get_recipe(name).changed(backbone="eeg:Tiny")
    with pytest.raises(UsageError, match="'eeg:Tiny' sees signals alone, as they are"):
        replace(get_recipe("squeeze-1d"), backbone="eeg:Tiny")


@pytest.mark.skipif(find_spec("braindecode") is None, reason="braindecode is not installed")
@pytest.mark.parametrize("name", ["EEGNet", "ATCNet"])
def test_networks_of_braindecode_itself(name: str) -> None:
    """Six logits, gradients for all parameters, and heads of which the logits are a linear function."""
    recipe = replace(get_recipe("squeeze-1d").changed(backbone=f"eeg:{name}"), dropout=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the packages that braindecode imports
        check_model(recipe, FirstWeights())
        model, _ = make_model(recipe)
        logits_BK = model(torch.randn(2, *recipe.layout.array_shape))
    logits_BK.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    with torch.no_grad():
        for parameter in (p for head in head_layers(model, recipe) for p in head.parameters()):
            parameter.zero_()
        assert model.eval()(torch.randn(2, *recipe.layout.array_shape)).abs().max() == 0
