"""The one-dimensional EfficientNet against its formulas in NumPy float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from network_arithmetic import (
    F64,
    Weights,
    batch_norm,
    convolution,
    gelu,
    gem,
    layer_norm,
    linear,
    shake,
    sigmoid,
    silu,
)
from network_checks import check_compiles_whole, check_gradients, check_half_precision

from kagglehms.errors import UsageError
from kagglehms.training.front_ends import EffNet1d, EffNet1dOptions

SMALL = EffNet1dOptions(
    n_times=320, step=5, stem_width=8, widths=(8, 12), kernels=(3, 5), layers=(2, 2), expansion=3, n_mixers=2
)


def effnet(options: EffNet1dOptions = SMALL) -> EffNet1d:
    torch.manual_seed(0)
    network = EffNet1d(8, options)
    shake(network)
    return network


# ---- the same in NumPy


def inverted_residual(x: F64, w: Weights, expands: bool, stride: int) -> F64:
    y, at = x, 0
    if expands:
        y, at = silu(batch_norm(convolution(y, w.of("layers.0")), w.of("layers.1"))), 3
    y = silu(batch_norm(convolution(y, w.of(f"layers.{at}"), stride), w.of(f"layers.{at + 1}")))
    excite = w.of(f"layers.{at + 3}.weigh")
    means = silu(convolution(y.mean(axis=1, keepdims=True), excite.of("0")))
    y = y * sigmoid(convolution(means, excite.of("2")))
    y = batch_norm(convolution(y, w.of(f"layers.{at + 4}")), w.of(f"layers.{at + 5}"))
    return x + y if y.shape == x.shape else y


def mixed(x_cD: F64, w: Weights) -> F64:
    """One frame of all chains."""

    def mlp(x: F64, w: Weights) -> F64:
        return linear(gelu(linear(x, w.of("fc1"))), w.of("fc2"))

    x_cD = x_cD + mlp(layer_norm(x_cD, w.of("norm1"), 1e-6).T, w.of("mlp_tokens")).T
    return x_cD + mlp(layer_norm(x_cD, w.of("norm2"), 1e-6), w.of("mlp_channels"))


def embedding(x_CT: F64, w: Weights) -> F64:
    """Of the small network: 8 signals in 4 chains, stages of 2 + 2 layers, 2 mixers."""
    start = (x_CT.shape[1] - 320) // 2
    taken = x_CT[:, start : start + 320][:, ::5]
    taken = taken - taken.mean(axis=1, keepdims=True)
    chains = []
    for chain in range(4):
        y = silu(batch_norm(convolution(taken[2 * chain : 2 * chain + 2], w.of("stem.0"), 2), w.of("stem.1")))
        for layer, (expands, stride) in enumerate([(False, 2), (False, 1), (True, 2), (True, 1)]):
            y = inverted_residual(y, w.of(f"layers.{layer}"), expands, stride)
        chains.append(y)
    features = np.stack(chains)  # (chains, D, L)
    for mixer in range(2):
        frames = [mixed(features[:, :, t], w.of(f"mixers.{mixer}")) for t in range(features.shape[2])]
        features = np.stack(frames, axis=2)
    return gem(features.transpose(1, 0, 2))


@pytest.mark.parametrize("n_times", [320, 333])
def test_agrees_with_float64(n_times: int) -> None:
    network = effnet().eval()
    x = np.random.default_rng(0).normal(2, 1, size=(2, 8, n_times))
    with torch.inference_mode():
        embeddings = network(torch.tensor(x, dtype=torch.float32))
    assert embeddings.shape == (2, 12)
    weights = Weights.of_network(network)
    for computed, signals in zip(embeddings, x, strict=True):
        np.testing.assert_allclose(computed.numpy(), embedding(signals, weights), rtol=1e-5, atol=2e-5)


# ---- sizes


def layer_size(n_in: int, n_out: int, kernel: int, expansion: int = 4) -> int:
    """Parameters by hand: expand, along time, squeeze and excitation, project; two of each norm."""
    hidden, squeezed = n_in * expansion, n_in // 4
    expand = n_in * hidden + 2 * hidden if expansion > 1 else 0
    along = hidden * kernel + 2 * hidden
    excite = (hidden * squeezed + squeezed) + (squeezed * hidden + hidden)
    return expand + along + excite + hidden * n_out + 2 * n_out


def test_the_published_size() -> None:
    network = EffNet1d(16)
    assert network.width == 384
    assert network.options.kernels == (3, 3, 5, 5, 3)
    assert (network.options.widths[0], network.options.widths[-1]) == (64, 384)
    assert sum(p.numel() for p in network.stem.parameters()) == 4 * 32 * 3 + 2 * 32
    assert [sum(p.numel() for p in layer.parameters()) for layer in network.layers] == [
        layer_size(32, 64, 3, 1),
        layer_size(64, 96, 3), layer_size(96, 96, 3),
        layer_size(96, 160, 5), layer_size(160, 160, 5),
        layer_size(160, 256, 5), layer_size(256, 256, 5),
        layer_size(256, 384, 3),
    ]  # fmt: skip
    tokens, channels = (4 * 192 + 192) + (192 * 4 + 4), (384 * 1536 + 1536) + (1536 * 384 + 384)
    assert sum(p.numel() for p in network.mixers.parameters()) == tokens + channels + 2 * 2 * 384
    seen: list[tuple[int, ...]] = []
    network.stem.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    network.layers.register_forward_hook(lambda *call: seen.append(tuple(call[2].shape)))
    with torch.inference_mode():
        assert network.eval()(torch.zeros(2, 16, 10_000)).shape == (2, 384)
    assert seen == [(8, 4, 1920), (8, 384, 30)]  # 1,920 samples halved six times


# ---- what must hold


def test_looks_at_every_fifth_sample_of_the_middle_and_not_at_the_level() -> None:
    network = effnet().double().eval()
    x = torch.randn(1, 8, 340, dtype=torch.float64, requires_grad=True)
    network(x).sum().backward()
    assert x.grad is not None
    looked_at = x.grad[0] != 0
    wanted = torch.zeros(340, dtype=torch.bool)
    wanted[10:330:5] = True  # half of the 20 samples left over stand before the first
    assert torch.equal(looked_at, wanted.expand(8, 340))
    torch.testing.assert_close(network(x + 100 * torch.arange(8)[:, None]), network(x), rtol=0, atol=1e-10)


def test_chains_share_one_network_and_the_mixer_tells_them_apart() -> None:
    x = torch.randn(1, 8, 320, dtype=torch.float64)
    other_way_round = x.reshape(1, 4, 2, 320).flip(1).reshape(1, 8, 320)
    moved = []
    for n_mixers in (0, 1):
        network = effnet(replace(SMALL, n_mixers=n_mixers)).double().eval()
        with torch.inference_mode():
            embedding = network(x)
            assert embedding.max() > 0.1  # not all raised to the least that is pooled
            moved.append(float((network(other_way_round) - embedding).abs().max()))
    assert moved[0] < 1e-7  # pooling is float32
    assert moved[1] > 1e-5


@pytest.mark.parametrize(
    "options", [SMALL, replace(SMALL, pooling="mean+max"), replace(SMALL, drop_path_rate=0.3)]
)
def test_gradients_reach_every_parameter(options: EffNet1dOptions) -> None:
    network = effnet(options).train()
    (network(torch.randn(8, 8, 320)) * torch.randn(8, 12)).sum().backward()
    check_gradients(network)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_finite_and_close(dtype: torch.dtype) -> None:
    network = effnet().eval()
    x = torch.randn(2, 8, 320)
    x[0] *= 32
    check_half_precision(network, x, dtype)


def test_compiles_whole() -> None:
    network, x = effnet().eval(), torch.randn(2, 8, 320)
    check_compiles_whole(network, x)


def test_refusals() -> None:
    with pytest.raises(UsageError, match="18 signals do not make 4 chains"):
        EffNet1d(18)
    with pytest.raises(UsageError, match="expected 320 samples or more, got 319"):
        effnet()(torch.zeros(1, 8, 319))


@pytest.mark.parametrize(("fields", "named"), [
    ({"widths": ()}, "widths"),
    ({"kernels": (3, 3, 5, 5)}, "kernels"),
    ({"kernels": (3, 3, 5, 4, 3)}, "kernels"),
    ({"layers": (1, 2, 2, 2, 0)}, "layers"),
    ({"step": 0}, "step"),
    ({"expansion": 0}, "expansion"),
    ({"n_mixers": -1}, "n_mixers"),
    ({"drop_path_rate": 1.0}, "drop_path_rate"),
])  # fmt: skip
def test_options_that_make_no_sense_are_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=rf"EffNet1dOptions\.{named}: cannot be"):
        EffNet1dOptions(**fields)
