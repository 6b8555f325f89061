"""Losses, against the formula in plain NumPy."""

from __future__ import annotations

import numpy as np
import torch

from kagglehms.learning.losses import kl_loss


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
