"""The network that panels share against its formulas in NumPy float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from network_arithmetic import F64, Weights, batch_norm, image_convolution, shake, silu
from network_checks import check_compiles_whole, check_gradients, check_half_precision

from kagglehms.errors import UsageError
from kagglehms.training.front_ends import PanelResNet, PanelResNetOptions

SMALL = PanelResNetOptions(n_panels=3, widths=(4, 6, 10), layers=(1, 2, 1), middle=0.25)


def panel_resnet(options: PanelResNetOptions = SMALL) -> PanelResNet:
    torch.manual_seed(0)
    network = PanelResNet(72, options)
    shake(network)
    return network


# ---- the same in NumPy


def normalised(x: F64, w: Weights) -> F64:
    return silu(batch_norm(x, w))


def residual(x: F64, w: Weights) -> F64:
    return x + image_convolution(normalised(x, w.of("layers.0")), w.of("layers.2"))


def of_panel(x_FT: F64, w: Weights) -> F64:
    """The first two stages of the small network, of means of 2 × 2 pixels."""
    n_freqs, n_times = x_FT.shape
    smaller = x_FT.reshape(n_freqs // 2, 2, n_times // 2, 2).mean(axis=(1, 3))
    y = residual(image_convolution(smaller[None], w.of("stem"), stride=2), w.of("of_panels.0.0"))
    second = w.of("of_panels.1")
    y = image_convolution(normalised(y, second.of("0")), second.of("2"), stride=2)
    return residual(residual(y, second.of("3")), second.of("4"))


def embedding(image_HW: F64, w: Weights) -> F64:
    panels = [of_panel(panel, w) for panel in image_HW.reshape(3, 24, -1)]
    last = w.of("of_recordings.0")
    y = image_convolution(normalised(np.concatenate(panels), last.of("0")), last.of("2"))
    y = normalised(residual(y, last.of("3")), w.of("of_recordings.1"))
    n_middle = round(y.shape[2] / 4)
    start = (y.shape[2] - n_middle) // 2
    middle = y[:, :, start : start + n_middle]
    return np.concatenate([y.mean(axis=(1, 2)), y.max(axis=(1, 2)), middle.mean(axis=(1, 2))])


@pytest.mark.parametrize("n_times", [64, 90])
def test_agrees_with_float64(n_times: int) -> None:
    network = panel_resnet().eval()
    x = np.random.default_rng(0).normal(0, 2, size=(2, 1, 72, n_times))
    with torch.inference_mode():
        embeddings = network(torch.tensor(x, dtype=torch.float32))
    assert embeddings.shape == (2, network.width)
    weights = Weights.of_network(network)
    for computed, image in zip(embeddings, x[:, 0], strict=True):
        np.testing.assert_allclose(computed.numpy(), embedding(image, weights), rtol=1e-4, atol=2e-5)


# ---- sizes


def layer_size(n_in: int, n_out: int, kernel: int) -> int:
    """Parameters by hand: two of each normalised feature, and a square convolution without biases."""
    return 2 * n_in + n_in * n_out * kernel**2


def test_the_size_of_the_recipes_network() -> None:
    network = PanelResNet(400)
    assert network.width == 3 * 192
    assert sum(p.numel() for p in network.stem.parameters()) == 32 * 25
    of_panels = layer_size(32, 64, 3) + 2 * layer_size(64, 64, 3)
    of_panels += layer_size(64, 128, 3) + 2 * layer_size(128, 128, 3)
    assert sum(p.numel() for p in network.of_panels.parameters()) == of_panels
    of_recordings = layer_size(4 * 128, 192, 1) + layer_size(192, 192, 3) + 2 * 192
    assert sum(p.numel() for p in network.of_recordings.parameters()) == of_recordings
    seen: list[tuple[int, ...]] = []
    network.of_panels.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    network.of_recordings.register_forward_hook(lambda *call: seen.append(tuple(call[2].shape)))
    with torch.inference_mode():
        assert network.eval()(torch.zeros(2, 1, 400, 300)).shape == (2, 576)
    assert seen == [(8, 32, 25, 75), (2, 192, 7, 19)]


# ---- what must hold


def test_what_one_panel_shows_does_not_depend_on_which_it_is_until_they_meet() -> None:
    network = panel_resnet().double().eval()
    x = torch.randn(1, 1, 72, 64, dtype=torch.float64)
    other_way_round = x.reshape(1, 3, 24, 64).flip(1).reshape(1, 1, 72, 64)
    seen: list[torch.Tensor] = []
    network.of_panels.register_forward_hook(lambda *call: seen.append(call[2]))
    with torch.inference_mode():
        one, other = network(x), network(other_way_round)
    torch.testing.assert_close(seen[1], seen[0].flip(0))
    assert float((one - other).abs().max()) > 1e-3


def test_nothing_of_a_panel_reaches_its_neighbour_until_they_meet() -> None:
    """As a convolution over the whole image would let it, where two panels touch."""
    network = panel_resnet().double().eval()
    x = torch.randn(1, 1, 72, 64, dtype=torch.float64)
    changed = x.clone()
    changed[:, :, 23] += 5  # the last row of the first panel
    seen: list[torch.Tensor] = []
    network.of_panels.register_forward_hook(lambda *call: seen.append(call[2]))
    with torch.inference_mode():
        network(x), network(changed)
    differs = (seen[1] - seen[0]).abs().amax(dim=(1, 2, 3))
    assert differs[0] > 1e-3
    assert not differs[1:].any()


def test_a_change_in_the_middle_reaches_all_poolings_and_one_at_the_ends_the_first_two() -> None:
    network = panel_resnet().double().eval()
    x = torch.randn(1, 1, 72, 400, dtype=torch.float64)
    ends, centre = x.clone(), x.clone()
    ends[..., :20] += 3
    centre[..., 180:220] += 3
    with torch.inference_mode():
        by_ends, by_centre = (
            (network(other) - network(x)).abs().reshape(3, 10).amax(dim=1) for other in (ends, centre)
        )
    assert by_centre.min() > 1e-3
    assert by_ends[0] > 1e-3
    assert by_ends[2] < 1e-12


@pytest.mark.parametrize("options", [SMALL, replace(SMALL, drop_path_rate=0.3), replace(SMALL, shrink=1)])
def test_gradients_reach_every_parameter(options: PanelResNetOptions) -> None:
    network = panel_resnet(options).train()
    (network(torch.randn(8, 1, 72, 64)) * torch.randn(8, network.width)).sum().backward()
    check_gradients(network)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_finite_and_close(dtype: torch.dtype) -> None:
    check_half_precision(panel_resnet().eval(), torch.randn(2, 1, 72, 64), dtype)


def test_compiles_whole() -> None:
    check_compiles_whole(panel_resnet().eval(), torch.randn(2, 1, 72, 64))


def test_images_that_are_no_panels_are_refused() -> None:
    with pytest.raises(UsageError, match="513 rows do not make 4 panels"):
        PanelResNet(513)


@pytest.mark.parametrize(("fields", "named"), [
    ({"n_panels": 0}, "n_panels"),
    ({"shrink": 0}, "shrink"),
    ({"widths": (32,)}, "widths"),
    ({"widths": (32, 0, 128, 192)}, "widths"),
    ({"layers": (0, 2, 2)}, "layers"),
    ({"layers": (-1, 2, 2, 1)}, "layers"),
    ({"drop_path_rate": 1.0}, "drop_path_rate"),
    ({"middle": 0.0}, "middle"),
    ({"middle": 1.1}, "middle"),
])  # fmt: skip
def test_options_that_make_no_sense_are_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=rf"PanelResNetOptions\.{named}: cannot be"):
        PanelResNetOptions(**fields)
