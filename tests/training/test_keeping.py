"""What is kept of a stage's evaluations, and the mean of the best."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from striped import RECIPE

from kagglehms.errors import UsageError
from kagglehms.training.evaluation import Evaluation
from kagglehms.training.keeping import Keeper
from kagglehms.training.recipes import Recipe
from kagglehms.training.resume import State


def evaluation(step: int, score: float) -> Evaluation:
    return Evaluation(0, False, step, 1.0, 0.5, score, score, None, 1.0, 1.5, 1.5, None, 1.7, 1.7, None)


def weights(step: int) -> dict[str, torch.Tensor]:
    """Parameters, a buffer of batch normalisation and a count; all different at each step."""
    draw = torch.Generator().manual_seed(step)
    return {
        "w": torch.randn(3, 2, generator=draw),
        "bn.running_var": torch.rand(4, generator=draw),
        "bn.num_batches_tracked": torch.tensor(step),
    }


def keeper_after(recipe: Recipe, scores: list[float]) -> tuple[Keeper, list[bool]]:
    keeper = Keeper(recipe)
    stands = [
        keeper.offer(evaluation(step, score), lambda step=step: weights(step), np.full((2, 6), step))  # type: ignore[misc]
        for step, score in enumerate(scores)
    ]
    return keeper, stands


scores_of = st.lists(st.sampled_from([0.3, 0.5, 0.7, 0.9]), min_size=1, max_size=8)


@given(scores=scores_of, k=st.integers(1, 4))
def test_the_best_are_kept_later_ones_first_among_equals(scores: list[float], k: int) -> None:
    keeper, stands = keeper_after(replace(RECIPE, average_best=k), scores)
    order = sorted(range(len(scores)), key=lambda step: (scores[step], -step))[:k]
    assert [kept.evaluation.step for kept in keeper.kept] == order
    assert [int(kept.weights["bn.num_batches_tracked"]) for kept in keeper.kept] == order
    assert (keeper.predictions_NK == order[0]).all()
    assert stands == [scores[step] <= min(scores[: step + 1]) for step in range(len(scores))]


@given(scores=scores_of, k=st.integers(2, 4))
def test_the_mean_is_that_of_parameters_and_buffers(scores: list[float], k: int) -> None:
    keeper, _ = keeper_after(replace(RECIPE, average_best=k), scores)
    mean = keeper.mean()
    if len(scores) == 1:
        assert mean is None
        return
    assert mean is not None
    steps = sorted(range(len(scores)), key=lambda step: (scores[step], -step))[:k]
    for name in ("w", "bn.running_var"):
        each = [weights(step)[name].numpy().astype(np.float64) for step in steps]
        np.testing.assert_allclose(mean[name], sum(each) / len(each), rtol=1e-6, atol=1e-7)
        assert mean[name].dtype == torch.float32
    assert int(mean["bn.num_batches_tracked"]) == steps[0]


@given(scores=scores_of)
def test_the_last_is_kept_whatever_its_score(scores: list[float]) -> None:
    keeper, stands = keeper_after(replace(RECIPE, keep="last"), scores)
    assert [kept.evaluation.step for kept in keeper.kept] == [len(scores) - 1]
    assert (keeper.predictions_NK == len(scores) - 1).all()
    assert all(stands)
    assert keeper.mean() is None


def test_weights_that_are_not_kept_are_not_copied() -> None:
    keeper, _ = keeper_after(replace(RECIPE, average_best=2), [0.5, 0.6])

    def refuse() -> dict[str, torch.Tensor]:
        raise AssertionError("copied for nothing")

    assert not keeper.offer(evaluation(2, 0.7), refuse, np.zeros((2, 6)))
    keeper.forget()
    assert keeper.best is None
    assert keeper.offer(evaluation(3, 0.9), lambda: weights(3), np.zeros((2, 6)))


@pytest.mark.parametrize("settings", [{}, {"average_best": 3}, {"keep": "last"}])
def test_what_is_saved_is_found_again(settings: dict[str, Any]) -> None:
    scores = [0.8, 0.5, 0.6, 0.4]
    recipe = replace(RECIPE, **settings)
    keeper, _ = keeper_after(recipe, scores)
    history = [evaluation(step, score) for step, score in enumerate(scores)]
    again = Keeper(recipe)
    again.restore(State(keeper.tensors(), {}, {}), keeper.numbers(history), history)
    assert [kept.evaluation for kept in again.kept] == [kept.evaluation for kept in keeper.kept]
    for one, other in zip(again.kept, keeper.kept, strict=True):
        assert set(one.weights) == set(other.weights)
        assert all(torch.equal(one.weights[name], value) for name, value in other.weights.items())
    np.testing.assert_array_equal(again.predictions_NK, keeper.predictions_NK)


def test_a_recipe_says_what_is_kept_and_whether_its_score_is_optimistic() -> None:
    optimistic = "chosen on the held-out records, so that its score is a little optimistic"
    assert RECIPE.kept == f"the best evaluation, {optimistic}"
    mean = replace(RECIPE, average_best=3, ema=0.9).kept
    assert mean == (
        "the mean of the weights of the 3 best evaluations of the moving average, or of as many as there were, "
        + optimistic
    )
    assert replace(RECIPE, keep="last", ema=0.9).kept == (
        "the last evaluation of the moving average, whatever its score"
    )
    with pytest.raises(UsageError, match="average_best must be 1 where the last is kept, but got 2"):
        replace(RECIPE, keep="last", average_best=2)
    with pytest.raises(UsageError, match="average_best must be at least 1"):
        replace(RECIPE, average_best=0)
