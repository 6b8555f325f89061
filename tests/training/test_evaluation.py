"""An evaluation is printed with its floors, and files keep their columns."""

from __future__ import annotations

import numpy as np
import pytest
from striped import striped_feed

from kagglehms.training.evaluation import Evaluation, score
from kagglehms.training.recipes import get_recipe


def test_an_evaluation_prints_all_and_many_and_its_own_records_with_their_floors() -> None:
    numbers = (0.7, 0.9, 0.8, 12.0, 1.0, 1.3, 0.85, 1.2, 1.5, 1.1)
    line = Evaluation(1, False, 40, 2.5, 1.25, *numbers).line(get_recipe("two-stage"), True)
    assert line == (
        "  epoch 2.5/12, step 40: loss 1.2500, held out 0.9000 (class prior 1.3000, uniform 1.5000), many (≥ 10 votes) "
        "0.8000 (class prior 0.8500, uniform 1.1000), settled 0.7000 (class prior 1.0000, uniform 1.2000), 12 s"
        "  (best so far)"
    )
    weighted = Evaluation(1, False, 40, 2.5, 1.25, *numbers, train_kl=0.6).line(get_recipe("two-stage"), True)
    assert "step 40: training KL 0.6000 (loss 1.2500), held out 0.9000" in weighted
    few = (0.7, 0.9, None, 12.0, 1.0, 1.3, None, 1.2, 1.5, None)
    assert "many" not in Evaluation(0, True, 40, 2.5, 1.25, *few).line(get_recipe("baseline"), False)


def test_files_keep_the_columns_of_earlier_versions() -> None:
    one = Evaluation(0, True, 40, 2.5, 1.25, 0.7, 0.8, 0.6, 9.0, 1.0, 1.1, 1.2, 1.7, 1.8, 1.9, 2, 0.9)
    assert list(one.row) == [
        "stage", "warm_up", "step", "epoch", "train_loss", "score_stage", "score_all", "score_votes10", "seconds",
        "prior_stage", "prior_all", "prior_votes10", "uniform_stage", "uniform_all", "uniform_votes10", "averaged",
        "train_kl",
    ]  # fmt: skip
    assert (one.row["score_votes10"], one.row["prior_votes10"], one.row["uniform_votes10"]) == (0.6, 1.2, 1.9)
    assert Evaluation.from_row(one.row) == one


def test_scores_are_those_of_the_records_in_question() -> None:
    records = striped_feed(8, few=3).records
    valid, rng = np.array([1, 2, 5, 6]), np.random.default_rng(0)
    predictions = rng.dirichlet(np.ones(6), size=4)
    scores = score(records, valid, np.array([True, True, False, False]), predictions)
    targets = records.votes_NK[valid] / records.votes_NK[valid].sum(axis=1, keepdims=True)

    def kl(rows: list[int], q: np.ndarray) -> float:
        p = targets[rows]
        return float((p * (np.log(np.where(p > 0, p, 1)) - np.log(q[rows]))).sum(axis=1).mean())

    prior = np.tile(targets.mean(axis=0), (4, 1)).clip(1e-15)
    assert scores.all.score == pytest.approx(kl([0, 1, 2, 3], predictions))
    assert scores.all.prior == pytest.approx(kl([0, 1, 2, 3], prior))
    assert scores.stage.score == pytest.approx(kl([0, 1], predictions))
    assert scores.stage.uniform == pytest.approx(kl([0, 1], np.full((4, 6), 1 / 6)))
    assert scores.many is not None
    assert scores.many.score == pytest.approx(kl([2, 3], predictions))
