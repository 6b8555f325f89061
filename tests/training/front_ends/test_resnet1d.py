"""The one-dimensional residual network against its formulas in NumPy float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from network_arithmetic import F64, Weights, batch_norm, convolution, shake, silu
from network_checks import check_compiles_whole, check_gradients, check_half_precision

from kagglehms.errors import UsageError
from kagglehms.training.front_ends import ResNet1d, ResNet1dOptions

SMALL = ResNet1dOptions(
    knee=0.5,
    stem_kernel=7,
    stem_stride=4,
    widths=(6, 8, 10),
    kernels=(5, 3, 3),
    layers=(2, 1, 2),
    middle=0.25,
)


def resnet(options: ResNet1dOptions = SMALL) -> ResNet1d:
    torch.manual_seed(0)
    network = ResNet1d(8, options)
    shake(network)
    return network


# ---- the same in NumPy


def stage(x: F64, w: Weights, n_layers: int, halves: bool) -> F64:
    first = 0
    if halves:
        x, first = convolution(silu(batch_norm(x, w.of("0"))), w.of("2"), stride=2), 3
    for layer in range(n_layers):
        inner = w.of(f"{first + layer}.layers")
        x = x + convolution(silu(batch_norm(x, inner.of("0"))), inner.of("2"), dilation=2**layer)
    return x


def embedding(x_CT: F64, w: Weights) -> F64:
    """Of the small network: 8 signals in 4 chains, two stages of chains and one of recordings."""
    chains = []
    for chain in range(4):
        y = convolution(np.arcsinh(x_CT[2 * chain : 2 * chain + 2] / 0.5), w.of("stem"), stride=4)
        y = stage(y, w.of("of_chains.0"), 2, halves=False)
        chains.append(stage(y, w.of("of_chains.1"), 1, halves=True))
    frames = stage(np.concatenate(chains), w.of("of_recordings.0"), 2, halves=True)
    frames = silu(batch_norm(frames, w.of("of_recordings.1")))
    n_middle = round(frames.shape[1] / 4)
    start = (frames.shape[1] - n_middle) // 2
    middle = frames[:, start : start + n_middle]
    return np.concatenate([frames.mean(axis=1), frames.max(axis=1), middle.mean(axis=1), middle.max(axis=1)])


@pytest.mark.parametrize("n_times", [320, 333])
def test_agrees_with_float64(n_times: int) -> None:
    network = resnet().eval()
    x = np.random.default_rng(0).normal(0, 2, size=(2, 8, n_times))
    with torch.inference_mode():
        embeddings = network(torch.tensor(x, dtype=torch.float32))
    assert embeddings.shape == (2, network.width)
    weights = Weights.of_network(network)
    for computed, signals in zip(embeddings, x, strict=True):
        np.testing.assert_allclose(computed.numpy(), embedding(signals, weights), rtol=1e-4, atol=2e-5)


# ---- sizes


def layer_size(n_in: int, n_out: int, kernel: int) -> int:
    """Parameters by hand: two of each normalised feature, and a convolution without biases."""
    return 2 * n_in + n_in * n_out * kernel


def test_the_size_of_the_recipes_network() -> None:
    network = ResNet1d(16)
    assert network.width == 4 * 192
    assert sum(p.numel() for p in network.stem.parameters()) == 4 * 64 * 25
    of_chains = 2 * layer_size(64, 64, 9) + layer_size(64, 128, 5) + 2 * layer_size(128, 128, 7)
    assert sum(p.numel() for p in network.of_chains.parameters()) == of_chains
    of_recordings = layer_size(4 * 128, 192, 5) + 3 * layer_size(192, 192, 7) + 2 * 192
    assert sum(p.numel() for p in network.of_recordings.parameters()) == of_recordings
    seen: list[tuple[int, ...]] = []
    network.of_chains.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    network.of_recordings.register_forward_hook(lambda *call: seen.append(tuple(call[2].shape)))
    with torch.inference_mode():
        assert network.eval()(torch.zeros(2, 16, 2500)).shape == (2, 768)
    assert seen == [(8, 64, 500), (2, 192, 125)]  # every fifth sample of 50 per second, halved twice


# ---- what must hold


def test_what_one_chain_shows_does_not_depend_on_which_it_is_until_they_meet() -> None:
    network = resnet().double().eval()
    x = torch.randn(1, 8, 320, dtype=torch.float64)
    other_way_round = x.reshape(1, 4, 2, 320).flip(1).reshape(1, 8, 320)
    seen: list[torch.Tensor] = []
    network.of_chains.register_forward_hook(lambda *call: seen.append(call[2]))
    with torch.inference_mode():
        one, other = network(x), network(other_way_round)
    torch.testing.assert_close(seen[1], seen[0].flip(0))
    assert float((one - other).abs().max()) > 1e-3


def test_loud_signals_are_compressed_and_quiet_ones_are_not() -> None:
    network = resnet().double().eval()
    seen: list[torch.Tensor] = []
    network.stem.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        network(torch.full((1, 8, 320), 0.01, dtype=torch.float64))
        network(torch.full((1, 8, 320), -320.0, dtype=torch.float64))
    assert float(seen[0].min()) == pytest.approx(0.02, rel=1e-3)  # 0.01 in units of the knee
    assert float(seen[1].max()) == pytest.approx(-np.log(2 * 640), rel=1e-3)


def test_a_change_in_the_middle_reaches_both_poolings_and_one_at_the_ends_the_first() -> None:
    network = resnet(replace(SMALL, stem_stride=1)).double().eval()
    x = torch.randn(1, 8, 640, dtype=torch.float64)
    ends = x.clone()
    ends[..., :40] += 3
    with torch.inference_mode():
        changed = (network(ends) - network(x)).abs().reshape(4, 10).max(dim=1).values
    assert changed[0] > 1e-3
    assert changed[2:].max() < 1e-12


@pytest.mark.parametrize("options", [SMALL, replace(SMALL, drop_path_rate=0.3), replace(SMALL, n_shared=1)])
def test_gradients_reach_every_parameter(options: ResNet1dOptions) -> None:
    network = resnet(options).train()
    (network(torch.randn(8, 8, 320)) * torch.randn(8, network.width)).sum().backward()
    check_gradients(network)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_finite_and_close(dtype: torch.dtype) -> None:
    network = resnet().eval()
    x = torch.randn(2, 8, 320)
    x[0] *= 32
    check_half_precision(network, x, dtype)


def test_compiles_whole() -> None:
    network, x = resnet().eval(), torch.randn(2, 8, 320)
    check_compiles_whole(network, x)


def test_signals_that_make_no_chains_are_refused() -> None:
    with pytest.raises(UsageError, match="18 signals do not make 4 chains"):
        ResNet1d(18)


@pytest.mark.parametrize(("fields", "named"), [
    ({"widths": ()}, "n_shared"),
    ({"n_shared": 0}, "n_shared"),
    ({"n_shared": 3}, "n_shared"),
    ({"n_chains": 0}, "n_chains"),
    ({"knee": 0.0}, "knee"),
    ({"stem_kernel": 24}, "stem_kernel"),
    ({"stem_stride": 0}, "stem_stride"),
    ({"widths": (64, 0, 192)}, "widths"),
    ({"kernels": (9, 7)}, "kernels"),
    ({"kernels": (9, 7, 6)}, "kernels"),
    ({"layers": (2, 2)}, "layers"),
    ({"drop_path_rate": 1.0}, "drop_path_rate"),
    ({"middle": 0.0}, "middle"),
    ({"middle": 1.1}, "middle"),
])  # fmt: skip
def test_options_that_make_no_sense_are_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=rf"ResNet1dOptions\.{named}: cannot be"):
        ResNet1dOptions(**fields)
