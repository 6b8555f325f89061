"""The wave stack against WaveNet's formula in NumPy float64; sizes and reach worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from network_arithmetic import F64, Weights, batch_norm, convolution, shake, sigmoid, silu
from network_checks import check_compiles_whole, check_gradients

from kagglehms.errors import UsageError
from kagglehms.training.front_ends import WaveStack, WaveStackOptions

SMALL = WaveStackOptions(widths=(3, 5), layers=(3, 2), n_columns=10)


def stack(options: WaveStackOptions = SMALL) -> WaveStack:
    torch.manual_seed(0)
    network = WaveStack(options)
    shake(network)
    return network


# ---- the same in NumPy


def features_of_one_signal(x_T: F64, w: Weights, options: WaveStackOptions) -> F64:
    x = x_T[None]
    for b, n_layers in enumerate(options.layers):
        block = w.of(f"blocks.{b}")
        x = convolution(x, block.of("widen"))
        for i in range(n_layers):
            layer = block.of(f"layers.{i}")
            filtered, gate = np.split(convolution(x, layer.of("filter_and_gate"), dilation=2**i), 2)
            x = x + convolution(np.tanh(filtered) * sigmoid(gate), layer.of("mix"))
        x = silu(batch_norm(convolution(x, block.of("halve"), stride=2), block.of("norm")))
    return x


def image_of(x_CT: F64, w: Weights, options: WaveStackOptions) -> F64:
    """(C, T) → (H, W)"""
    features = np.stack([features_of_one_signal(x, w, options) for x in x_CT])
    n, columns = features.shape[-1], []
    for k in range(options.n_columns):
        first, last = k * n // options.n_columns, -(-(k + 1) * n // options.n_columns)
        columns.append(features[..., first:last].mean(axis=-1))
    per_chain = len(x_CT) // options.n_chains
    chains = np.stack(columns, axis=-1).reshape(options.n_chains, per_chain, -1, options.n_columns)
    return chains.mean(axis=1).reshape(-1, options.n_columns)


@pytest.mark.parametrize(
    "options", [SMALL, replace(SMALL, kernel=5, n_chains=2), replace(SMALL, n_columns=7)]
)
@pytest.mark.parametrize("n_times", [160, 163])
def test_agrees_with_float64(options: WaveStackOptions, n_times: int) -> None:
    x = np.random.default_rng(1).normal(size=(2, 8, n_times))
    network = stack(options).eval()
    weights = Weights.of_network(network)
    with torch.inference_mode():
        images = network(torch.tensor(x, dtype=torch.float32))
    assert images.shape == (2, 1, *options.image_shape(16, 4000))
    for image, signals in zip(images, x, strict=True):
        np.testing.assert_allclose(image[0].numpy(), image_of(signals, weights, options), rtol=0, atol=2e-5)


# ---- sizes


def test_the_published_size() -> None:
    """Counts by hand: widen + layers · (filters and gates + mix) + halve and norm, block by block."""
    network = WaveStack()
    by_block = [sum(p.numel() for p in block.parameters()) for block in network.blocks]
    assert by_block == [
        (1 * 8 + 8) + 12 * ((8 * 16 * 3 + 16) + (8 * 8 + 8)) + (8 * 8 * 3 + 2 * 8),
        (8 * 16 + 16) + 8 * ((16 * 32 * 3 + 32) + (16 * 16 + 16)) + (16 * 16 * 3 + 2 * 16),
        (16 * 32 + 32) + 4 * ((32 * 64 * 3 + 64) + (32 * 32 + 32)) + (32 * 32 * 3 + 2 * 32),
        (32 * 64 + 64) + 1 * ((64 * 128 * 3 + 128) + (64 * 64 + 64)) + (64 * 64 * 3 + 2 * 64),
    ]
    assert sum(p.numel() for p in network.parameters()) == 97_680
    assert network.options.image_shape(16, 10_000) == (4 * 64, 256)


@pytest.mark.parametrize(
    ("options", "reach"),
    [
        (WaveStackOptions(widths=(2, 2), layers=(2, 1)), 1 + 2 * 4 + 4 * 2),
        (WaveStackOptions(widths=(2, 2, 2), layers=(1, 3, 2), kernel=5), 1 + 4 * 2 + 8 * 8 + 16 * 4),
        # With the layers as they were published: (2^12 − 1) + 1 dilations in the first block, and so on.
        (WaveStackOptions(widths=(2, 2, 2, 2)), 1 + 2 * 4096 + 4 * 256 + 8 * 16 + 16 * 2),
    ],
)
def test_a_column_reaches_as_far_as_its_receptive_field(options: WaveStackOptions, reach: int) -> None:
    """What a column's gradient is not zero for is exactly that far from the first to the last."""
    n_times = 2 * (reach // 16 + 2) * 16
    n_columns = n_times // 2 ** len(options.widths)  # so that the adaptive mean is of one
    network = stack(replace(options, n_columns=n_columns, n_chains=1)).double().eval()
    x = torch.randn(1, 1, n_times, dtype=torch.float64, requires_grad=True)
    network(x)[0, 0, :, n_columns // 2].sum().backward()
    assert x.grad is not None
    reached = x.grad[0, 0].nonzero()
    assert int(reached.max() - reached.min()) + 1 == reach


# ---- what must hold


def test_signals_share_one_network_and_chains_keep_their_rows() -> None:
    network = stack().eval()
    x = torch.randn(1, 8, 160)
    with torch.inference_mode():
        before = network(x)
        swapped = network(x[:, [1, 0, 2, 3, 4, 5, 7, 6]])  # within chains
        torch.testing.assert_close(swapped, before)
        x[:, 4] += 1  # of the third chain
        changed = (network(x) != before).any(dim=3)[0, 0].reshape(4, 5).all(dim=1)
    assert changed.tolist() == [False, False, True, False]


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_reach_every_parameter(recompute: bool) -> None:
    network = stack(replace(SMALL, recompute=recompute)).train()
    x = torch.randn(2, 8, 160, requires_grad=True)
    network(x).square().sum().backward()
    check_gradients(network)
    assert x.grad is not None
    assert x.grad.count_nonzero() == x.numel()


def test_recomputing_changes_memory_and_nothing_else() -> None:
    x = torch.randn(2, 8, 160)
    results = []
    for recompute in (False, True):
        network = stack(replace(SMALL, recompute=recompute)).train()
        held: list[int] = []

        def keep(tensor: torch.Tensor, held: list[int] = held) -> torch.Tensor:
            held.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            image = network(x)
        held_in_forward = sum(held)
        image.square().sum().backward()
        results.append((image, held_in_forward, [p.grad for p in network.parameters()]))
    (image, held_plain, grads), (image_again, held_less, grads_again) = results
    assert torch.equal(image, image_again)
    for one, other in zip(grads, grads_again, strict=True):
        assert torch.equal(one, other)
    assert held_less < held_plain / 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_finite_and_close(dtype: torch.dtype) -> None:
    network = stack().eval()
    x = 32 * torch.randn(1, 8, 160)  # clipped to 1024 µV and divided by 32
    with torch.inference_mode():
        exact = network(x)
        with torch.autocast("cpu", dtype=dtype):
            half = network(x)
    assert torch.isfinite(half).all()
    assert float((half - exact).abs().mean() / exact.abs().mean()) < 0.02


def test_compiles_whole() -> None:
    network = stack().eval()
    x = torch.randn(1, 8, 160)
    check_compiles_whole(network, x)


@pytest.mark.parametrize(("fields", "named"), [
    ({"widths": ()}, "widths"),
    ({"widths": (8, 0, 32, 64)}, "widths"),
    ({"layers": (12, 8, 4)}, "layers"),
    ({"kernel": 4}, "kernel"),
    ({"n_columns": 0}, "n_columns"),
])  # fmt: skip
def test_options_that_make_no_sense_are_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=rf"WaveStackOptions\.{named}: cannot be"):
        WaveStackOptions(**fields)


def test_signals_that_do_not_make_chains_are_refused() -> None:
    with pytest.raises(UsageError, match="18 signals do not make 4 chains"):
        stack()(torch.zeros(1, 18, 160))
