"""The Squeezeformer against its formulas in NumPy float64."""

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
    gem,
    layer_norm,
    linear,
    shake,
    silu,
    softmax,
)
from network_checks import check_compiles_whole, check_gradients, check_half_precision

from kagglehms.errors import UsageError
from kagglehms.training.front_ends import Squeeze, SqueezeOptions

SMALL = SqueezeOptions(width=8, n_blocks=2, n_heads=2, kernel=5, n_halvings=3, stem_kernel=3, dropout=0.0)


def squeeze(options: SqueezeOptions = SMALL) -> Squeeze:
    torch.manual_seed(0)
    network = Squeeze(6, options)
    shake(network)
    return network


# ---- the same in NumPy


def attention(x_LD: F64, w: Weights, n_heads: int) -> F64:
    """Pair by pair: q_i·k_j and q_i·r(i − j), each with a bias on the query."""
    n_frames, width = x_LD.shape
    per_head = width // n_heads
    queries, keys, values = np.split(linear(x_LD, w.of("queries_keys_values")), 3, axis=1)
    wavelengths = 10_000.0 ** (np.arange(0, width, 2) / width)
    out = np.zeros_like(x_LD)
    for head in range(n_heads):
        part = slice(head * per_head, (head + 1) * per_head)
        scores = np.zeros((n_frames, n_frames))
        for i in range(n_frames):
            for j in range(n_frames):
                encoded = np.concatenate([np.sin((i - j) / wavelengths), np.cos((i - j) / wavelengths)])
                distance = linear(encoded, w.of("positions"))[part]
                scores[i, j] = (queries[i, part] + w["content_bias"][head, 0]) @ keys[j, part]
                scores[i, j] += (queries[i, part] + w["position_bias"][head, 0]) @ distance
        out[:, part] = softmax(scores / np.sqrt(per_head)) @ values[:, part]
    return linear(out, w.of("out"))


def feed_forward(x_LD: F64, w: Weights) -> F64:
    return linear(silu(linear(x_LD, w.of("fc1"))), w.of("fc2"))


def convolved(x_LD: F64, w: Weights) -> F64:
    y = silu(convolution(x_LD.T, w.of("layers.0")))
    y = silu(batch_norm(convolution(y, w.of("layers.2")), w.of("layers.3")))
    return convolution(y, w.of("layers.5")).T


def embedding(x_CT: F64, w: Weights, options: SqueezeOptions) -> F64:
    y = silu(batch_norm(convolution(x_CT, w.of("stem.0"), stride=2), w.of("stem.1")))
    for i in range(options.n_halvings - 1):
        at = 3 + 4 * i
        y = convolution(convolution(y, w.of(f"stem.{at}"), stride=2), w.of(f"stem.{at + 1}"))
        y = silu(batch_norm(y, w.of(f"stem.{at + 2}")))
    x = y.T
    for b in range(options.n_blocks):
        modules = (lambda x, w: attention(x, w, options.n_heads), feed_forward, convolved, feed_forward)
        for m, module in enumerate(modules):
            at_module = w.of(f"blocks.{b}.{m}")
            found = module(x * at_module["scale"] + at_module["shift"], at_module.of("module"))
            x = layer_norm(x + found, at_module.of("norm"))
    return gem(x.T)


@pytest.mark.parametrize("n_times", [96, 99])
def test_agrees_with_float64(n_times: int) -> None:
    network = squeeze().eval()
    x = np.random.default_rng(0).normal(size=(2, 6, n_times))
    with torch.inference_mode():
        embeddings = network(torch.tensor(x, dtype=torch.float32))
    assert embeddings.shape == (2, 8)
    weights = Weights.of_network(network)
    for computed, signals in zip(embeddings, x, strict=True):
        np.testing.assert_allclose(computed.numpy(), embedding(signals, weights, SMALL), rtol=0, atol=2e-5)


# ---- sizes


def test_the_published_size() -> None:
    """By hand: 313 frames × 128 of 10,000 samples, three blocks."""
    network = Squeeze(16)
    assert network.width == 128
    assert network.options.n_frames(10_000) == 313
    with torch.inference_mode():
        assert network.stem(torch.zeros(2, 16, 10_000)).shape == (2, 128, 313)
    first = 16 * 64 * 5 + 2 * 64
    second, others = 64 * 5 + 64 * 128 + 2 * 128, 128 * 5 + 128 * 128 + 2 * 128
    assert sum(p.numel() for p in network.stem.parameters()) == first + second + 3 * others == 65_856
    attended = (128 * 384 + 384) + 128 * 128 + 2 * 128 + (128 * 128 + 128)
    fed = (128 * 512 + 512) + (512 * 128 + 128)
    convolved = (128 * 128 + 128) + 128 * 51 + 2 * 128 + (128 * 128 + 128)
    around = 4 * (2 * 128 + 2 * 128)
    block = attended + 2 * fed + convolved + around
    assert [sum(p.numel() for p in b.parameters()) for b in network.blocks] == [block] * 3
    assert sum(p.numel() for p in network.parameters()) == 65_856 + 3 * block == 1_229_760


def test_a_frame_is_made_of_as_many_samples_as_the_stem_reaches() -> None:
    """1 + 4 · (1 + 2 + 4 + 8 + 16) = 125 with five convolutions of five taps."""
    network = Squeeze(2, replace(SMALL, n_halvings=5, stem_kernel=5)).double().eval()
    x = torch.randn(1, 2, 640, dtype=torch.float64, requires_grad=True)
    network.stem(x)[0, :, 10].sum().backward()
    assert x.grad is not None
    reached = x.grad.abs().sum(dim=(0, 1)).nonzero()
    assert int(reached.max() - reached.min()) + 1 == 125


# ---- what must hold


@pytest.mark.parametrize(
    "options", [SMALL, replace(SMALL, n_halvings=1, pooling="mean+max"), replace(SMALL, dropout=0.3)]
)
def test_gradients_reach_every_parameter(options: SqueezeOptions) -> None:
    network = squeeze(options).train()
    x = torch.randn(3, 6, 96, requires_grad=True)
    (network(x) * torch.randn(3, 8)).sum().backward()
    check_gradients(network)
    assert x.grad is not None
    assert x.grad.count_nonzero() == x.numel()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_finite_and_close(dtype: torch.dtype) -> None:
    network = squeeze().eval()
    x = torch.randn(2, 6, 96)
    x[0] = 32.0
    check_half_precision(network, x, dtype)


def test_attention_tells_before_from_behind() -> None:
    """Positions are relative and signed: time reversal changes the embedding, a later start of the same does not."""
    network = squeeze().eval()
    x = torch.randn(1, 6, 96)
    with torch.inference_mode():
        assert not torch.allclose(network(x.flip(-1)), network(x), atol=1e-3)
        alone = squeeze().blocks[0][0].module.eval()
        frames = torch.randn(1, 7, 8)
        order = torch.tensor([1, 0, 2, 3, 4, 5, 6])
        assert not torch.allclose(alone(frames[:, order])[:, order], alone(frames), atol=1e-3)


def test_compiles_whole() -> None:
    network, x = squeeze().eval(), torch.randn(2, 6, 96)
    check_compiles_whole(network, x)


@pytest.mark.parametrize(("fields", "named"), [
    ({"width": 7}, "width"),
    ({"n_heads": 3}, "n_heads"),
    ({"kernel": 50}, "kernel"),
    ({"stem_kernel": 4}, "stem_kernel"),
    ({"n_blocks": 0}, "n_blocks"),
    ({"n_halvings": 0}, "n_halvings"),
    ({"dropout": 1.0}, "dropout"),
    ({"expansion": 0}, "expansion"),
])  # fmt: skip
def test_options_that_make_no_sense_are_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=rf"SqueezeOptions\.{named}: cannot be"):
        SqueezeOptions(**fields)
