"""Losses, against the formula in plain NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kagglehms.errors import UsageError
from kagglehms.learning.losses import kl_loss, vote_weights, weighted_kl_loss
from kagglehms.learning.options import LOSSES


def test_kl_is_summed_over_classes_and_averaged_over_the_batch() -> None:
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(7, 6))
    targets = draw.dirichlet(np.ones(6), size=7)
    targets[0] = [1, 0, 0, 0, 0, 0]
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    terms = [t * np.log(t / p) for t, p in zip(targets.ravel(), softmax.ravel(), strict=True) if t > 0]
    loss = kl_loss(torch.tensor(logits), torch.tensor(targets))
    assert loss.dtype == torch.float32
    np.testing.assert_allclose(loss.item(), sum(terms) / 7, rtol=1e-5)


def test_half_precision_logits_give_a_finite_float32_loss() -> None:
    logits = torch.tensor([[60_000.0, -60_000, 0, 0, 0, 0]], dtype=torch.float16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = kl_loss(logits, torch.tensor([[0.0, 1, 0, 0, 0, 0]]))
    assert loss.dtype == torch.float32
    assert loss.item() == 120_000


def weight(n: int, kind: str) -> float:
    """What a record of n votes counts, as the ladder says."""
    if kind == "kl":
        return 1.0
    if kind == "kl-log-votes":
        return math.log(n + 1)
    if kind == "kl-votes":
        return n / 20
    if kind == "kl-capped-votes":
        return float(min(n, 10))
    assert kind == "kl-two-stage"
    if n <= 10:
        return float(n)
    m = math.log10(n)
    return (10 + 2 * m) * m


@pytest.mark.parametrize("kind", LOSSES)
def test_weights_of_every_number_of_votes(kind: str) -> None:
    n_votes = torch.arange(1, 40)
    weights = vote_weights(n_votes, kind)  # type: ignore[arg-type]
    assert weights.dtype == torch.float32
    np.testing.assert_allclose(weights, [weight(n, kind) for n in n_votes.tolist()], rtol=1e-6)


def test_weights_worked_by_hand() -> None:
    n_votes = torch.tensor([1, 10, 11, 20, 100])
    expected = {
        "kl": [1, 1, 1, 1, 1],
        "kl-log-votes": [0.693147, 2.397895, 2.484907, 3.044522, 4.615121],
        "kl-votes": [0.05, 0.5, 0.55, 1, 5],
        "kl-capped-votes": [1, 10, 10, 10, 10],
        "kl-two-stage": [1, 10, 12.582924, 16.395658, 28],
    }
    for kind in LOSSES:
        np.testing.assert_allclose(vote_weights(n_votes, kind), expected[kind], rtol=1e-6)  # type: ignore[arg-type]


@st.composite
def labelled(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, whole votes among six classes, and their numbers."""
    n = draw(st.integers(1, 6))
    votes = [draw(st.lists(st.integers(0, 5), min_size=6, max_size=6).filter(any)) for _ in range(n)]
    logits = np.random.default_rng(draw(st.integers(0, 9999))).normal(0, 4, (n, 6))
    votes_BK = np.array(votes)
    return logits, votes_BK / votes_BK.sum(axis=1, keepdims=True), votes_BK.sum(axis=1)


@pytest.mark.parametrize("kind", LOSSES)
@settings(max_examples=20, deadline=None)
@given(case=labelled())
def test_the_weighted_loss_and_its_gradient(
    kind: str, case: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    logits, targets, n_votes = case
    total, gradient = 0.0, np.empty_like(logits)
    for i, (z, t, n) in enumerate(zip(logits, targets, n_votes, strict=True)):
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        total += weight(n, kind) * sum(t[k] * math.log(t[k] / p[k]) for k in range(6) if t[k] > 0)
        gradient[i] = weight(n, kind) * (p - t) / len(logits)
    leaf = torch.tensor(logits, dtype=torch.float32, requires_grad=True)
    loss = weighted_kl_loss(leaf, torch.tensor(targets), torch.tensor(n_votes), kind)  # type: ignore[arg-type]
    loss.backward()
    assert loss.dtype == torch.float32
    np.testing.assert_allclose(loss.item(), total / len(logits), rtol=1e-4, atol=1e-4)
    assert leaf.grad is not None
    np.testing.assert_allclose(leaf.grad, gradient, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", LOSSES)
def test_under_mixed_precision_the_weighted_loss_is_float32_and_its_gradient_finite(kind: str) -> None:
    logits = torch.tensor([[60_000.0, -60_000, 0, 0, 0, 0]] * 2, dtype=torch.float16, requires_grad=True)
    targets = torch.tensor([[0.0, 1, 0, 0, 0, 0], [1.0, 0, 0, 0, 0, 0]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = weighted_kl_loss(logits, targets, torch.tensor([11, 3]), kind)  # type: ignore[arg-type]
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(60_000 * weight(11, kind), rel=1e-6)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_without_weights_it_is_the_plain_loss() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(32, 6, generator=draw)
    targets = torch.softmax(torch.randn(32, 6, generator=draw), dim=1)
    torch.testing.assert_close(
        weighted_kl_loss(logits, targets, torch.arange(1, 33)), kl_loss(logits, targets)
    )


def test_an_unknown_loss_lists_what_exists() -> None:
    with pytest.raises(UsageError, match="unknown loss 'kl-log'; did you mean 'kl-log-votes'.*kl-two-stage"):
        vote_weights(torch.ones(1), "kl-log")  # type: ignore[arg-type]
