"""Losses, against the formula in plain NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kagglehms.errors import UsageError
from kagglehms.training import losses
from kagglehms.training.losses import kl_loss, own_weights, vote_weights, weighted_loss
from kagglehms.training.options import LOSSES, WEIGHTS
from kagglehms.training.stages import Stage


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


def weight(n: int, kind: str, epoch: int = 0, epochs: int = 1) -> float:
    """What a record of n votes counts, as the ladder and the winners say."""
    if kind == "groups":
        if n >= 9:
            return 1.0
        return max((0.3 if n <= 2 else 0.5) * (1 - 1.2 * epoch / epochs), 0.02)
    if kind == "two-stage" and n > 10:
        m = math.log10(n)
        return (10 + 2 * m) * m
    return {
        "equal": 1.0,
        "log-votes": math.log(n + 1),
        "log3-votes": math.log(n + 1, 3),
        "votes": n / 20,
        "capped-votes": float(min(n, 10)),
        "two-stage": float(n),
        "quarter-few": 0.25 if n <= 7 else 1.0,
    }[kind]


KNOWN_WEIGHTS = (
    *("equal", "log-votes", "log3-votes", "votes", "capped-votes", "two-stage", "quarter-few", "groups"),
)
KNOWN = (
    *(
        "kl",
        "kl-log-votes",
        "kl-votes",
        "kl-capped-votes",
        "kl-two-stage",
        "cross-entropy",
        "binary-cross-entropy",
    ),
)
"""Weights and losses whose formulas stand here; what is added elsewhere needs no line in these tables."""


OWN = {
    "kl-log-votes": "log-votes",
    "kl-votes": "votes",
    "kl-capped-votes": "capped-votes",
    "kl-two-stage": "two-stage",
}


def loss_weight(n: int, loss: str) -> float:
    return weight(n, OWN.get(loss, "equal"))


@pytest.mark.parametrize("kind", KNOWN_WEIGHTS)
def test_weights_of_every_number_of_votes(kind: str) -> None:
    n_votes = torch.arange(1, 40)
    for epoch in range(12):
        weights = vote_weights(n_votes, kind, epoch / 12)  # type: ignore[arg-type]
        assert weights.dtype == torch.float32
        expected = [weight(n, kind, epoch, 12) for n in n_votes.tolist()]
        np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_weights_worked_by_hand() -> None:
    n_votes = torch.tensor([1, 10, 11, 20, 100])
    expected = {
        "equal": [1, 1, 1, 1, 1],
        "log-votes": [0.693147, 2.397895, 2.484907, 3.044522, 4.615121],
        "log3-votes": [0.630930, 2.182658, 2.261860, 2.771244, 4.200863],
        "votes": [0.05, 0.5, 0.55, 1, 5],
        "capped-votes": [1, 10, 10, 10, 10],
        "two-stage": [1, 10, 12.582924, 16.395658, 28],
        "quarter-few": [0.25, 1, 1, 1, 1],
        "groups": [0.3, 1, 1, 1, 1],
    }
    for kind, of_each in expected.items():
        np.testing.assert_allclose(vote_weights(n_votes, kind), of_each, rtol=1e-5)  # type: ignore[arg-type]


def test_group_weights_fall_along_the_epochs_down_to_their_floors() -> None:
    """Five of ten epochs done: 1 - 1.2 / 2 = 0.4 of the first weight; from the ninth on nothing is left but 0.02."""
    n_votes = torch.tensor([2.0, 3, 8, 9])
    np.testing.assert_allclose(vote_weights(n_votes, "groups", 0.5), [0.12, 0.2, 0.2, 1], rtol=1e-6)
    np.testing.assert_allclose(vote_weights(n_votes, "groups", 0.9), [0.02, 0.02, 0.02, 1], rtol=1e-6)


def test_the_weights_of_a_loss_stand_in_its_name_and_nowhere_else() -> None:
    assert {loss: own_weights(loss) for loss in KNOWN} == {loss: OWN.get(loss, "equal") for loss in KNOWN}  # type: ignore[arg-type]
    assert Stage(loss="binary-cross-entropy", weights="groups").weights == "groups"
    with pytest.raises(
        UsageError, match="weights must be None where the loss has its own, but got groups, kl-votes"
    ):
        Stage(loss="kl-votes", weights="groups")


@st.composite
def labelled(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, whole votes among six classes, and their numbers."""
    n = draw(st.integers(1, 6))
    votes = [draw(st.lists(st.integers(0, 5), min_size=6, max_size=6).filter(any)) for _ in range(n)]
    logits = np.random.default_rng(draw(st.integers(0, 9999))).normal(0, 4, (n, 6))
    votes_BK = np.array(votes)
    return logits, votes_BK / votes_BK.sum(axis=1, keepdims=True), votes_BK.sum(axis=1)


def plain_loss(loss: str, z: np.ndarray, t: np.ndarray) -> float:
    """Of one record, term by term."""
    p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    if loss == "cross-entropy":
        return sum(-t[k] * math.log(p[k]) for k in range(6))
    if loss == "binary-cross-entropy":
        rest = [sum(p[j] for j in range(6) if j != k) for k in range(6)]
        return sum(-t[k] * math.log(p[k]) - (1 - t[k]) * math.log(rest[k]) for k in range(6))
    return sum(t[k] * math.log(t[k] / p[k]) for k in range(6) if t[k] > 0)


def plain_gradient(loss: str, z: np.ndarray, t: np.ndarray) -> np.ndarray:
    """By the difference of the losses a small step to either side."""
    steps = np.eye(6) * 1e-5
    return np.array([(plain_loss(loss, z + h, t) - plain_loss(loss, z - h, t)) / 2e-5 for h in steps])


@pytest.mark.parametrize("weights", [None, "log3-votes", "groups"])
@pytest.mark.parametrize("loss", KNOWN)
@settings(max_examples=20, deadline=None)
@given(case=labelled())
def test_the_weighted_loss_and_its_gradient(
    loss: str, weights: str | None, case: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    logits, targets, n_votes = case
    total, gradient = 0.0, np.empty_like(logits)
    for i, (z, t, n) in enumerate(zip(logits, targets, n_votes, strict=True)):
        counts = weight(n, weights, 1, 4) if weights else loss_weight(n, loss)
        total += counts * plain_loss(loss, z, t)
        gradient[i] = counts * plain_gradient(loss, z, t) / len(logits)
    leaf = torch.tensor(logits, dtype=torch.float32, requires_grad=True)
    found = weighted_loss(leaf, torch.tensor(targets), torch.tensor(n_votes), loss, weights, 0.25)  # type: ignore[arg-type]
    found.backward()
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.item(), total / len(logits), rtol=1e-4, atol=1e-4)
    assert leaf.grad is not None
    np.testing.assert_allclose(leaf.grad, gradient, rtol=2e-4, atol=2e-4)


def test_binary_cross_entropy_is_least_where_the_softmax_is_the_fractions() -> None:
    targets = torch.tensor([[0.5, 0.2, 0.1, 0.1, 0.05, 0.05]])
    logits = targets.log().requires_grad_()
    weighted_loss(logits, targets, torch.ones(1), "binary-cross-entropy").backward()
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad, 0, atol=1e-6)


@pytest.mark.parametrize(
    ("loss", "weights"),
    [
        *((loss, None) for loss in LOSSES),
        *((loss, weights) for loss in LOSSES for weights in WEIGHTS if own_weights(loss) == "equal"),  # type: ignore[arg-type]
    ],
)
def test_every_loss_is_a_mean_that_falls_down_its_gradient(loss: str, weights: str | None) -> None:
    """Whatever its formula: finite, a float32 scalar, the same for a batch twice over, and less after a small step."""
    draw = np.random.default_rng(3)
    targets, n_votes = torch.tensor(draw.dirichlet(np.ones(6), 5)), torch.tensor([1, 3, 9, 11, 20])
    logits = torch.tensor(draw.normal(0, 2, (5, 6)), dtype=torch.float32, requires_grad=True)
    found = weighted_loss(logits, targets, n_votes, loss, weights)  # type: ignore[arg-type]
    twice = weighted_loss(logits.repeat(2, 1), targets.repeat(2, 1), n_votes.repeat(2), loss, weights)  # type: ignore[arg-type]
    found.backward()
    assert (found.dtype, found.shape) == (torch.float32, ())
    assert twice.item() == pytest.approx(found.item(), rel=1e-5)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    step = logits.detach() - 1e-2 * logits.grad
    assert weighted_loss(step, targets, n_votes, loss, weights) < found  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", KNOWN)
def test_under_mixed_precision_the_weighted_loss_is_float32_and_its_gradient_finite(loss: str) -> None:
    logits = torch.tensor([[60_000.0, -60_000, 0, 0, 0, 0]] * 2, dtype=torch.float16, requires_grad=True)
    targets = torch.tensor([[0.0, 1, 0, 0, 0, 0], [1.0, 0, 0, 0, 0, 0]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = weighted_loss(logits, targets, torch.tensor([11, 3]), loss)  # type: ignore[arg-type]
    found.backward()
    assert found.dtype == torch.float32
    # ln p of the second class is -120,000; ln(1 - p) of the first, which should have had nothing, is ln 4 - 60,000.
    each = 120_000 + (60_000 - math.log(4) if loss == "binary-cross-entropy" else 0)
    assert found.item() == pytest.approx(each / 2 * loss_weight(11, loss), rel=1e-6)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_without_weights_it_is_the_plain_loss() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(32, 6, generator=draw)
    targets = torch.softmax(torch.randn(32, 6, generator=draw), dim=1)
    torch.testing.assert_close(weighted_loss(logits, targets, torch.arange(1, 33)), kl_loss(logits, targets))


def test_an_unknown_name_lists_what_exists() -> None:
    with pytest.raises(UsageError, match="unknown loss 'kl-log'; did you mean 'kl-log-votes'.*kl-two-stage"):
        weighted_loss(torch.zeros(1, 6), torch.full((1, 6), 1 / 6), torch.ones(1), "kl-log")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="unknown weights 'group'; did you mean 'groups'.*quarter-few"):
        vote_weights(torch.ones(1), "group")  # type: ignore[arg-type]


@pytest.mark.parametrize("weights", ["equal", None])
def test_a_loss_that_does_not_exist_is_refused(weights: str | None) -> None:
    ones = torch.ones(2, 6)
    with pytest.raises(UsageError, match="unknown loss 'focl'"):
        weighted_loss(ones, ones / 6, torch.ones(2), "focl", weights)  # type: ignore[arg-type]


def test_a_loss_without_a_formula_is_no_other_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "LOSSES", (*LOSSES, "kl-focal"))
    ones = torch.ones(2, 6)
    with pytest.raises(UsageError, match="no formula"):
        weighted_loss(ones, ones / 6, torch.ones(2), "kl-focal")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setting", "value"),
    [("loss", "focl"), ("weights", "vote"), ("records", "most"), ("judged_by", "all of them"),
     ("optimizer", "sgd"), ("schedule", "step")],
)  # fmt: skip
def test_a_stage_refuses_names_that_a_script_misspells(setting: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"unknown {setting.replace('_', ' ')} '{value}'; "):
        Stage(**{setting: value})  # type: ignore[arg-type]
