"""Which records a stage learns from and is judged by, and when it is scored."""

from __future__ import annotations

import numpy as np
import pytest
from striped import striped_feed

from kagglehms.errors import RunError
from kagglehms.training.stage_plan import evaluation_steps, population


@pytest.mark.parametrize(
    ("steps", "per_epoch", "expected"),
    [(1, 2, {1}), (2, 2, {1, 2}), (7, 2, {3, 7}), (10, 3, {3, 6, 10}), (2, 5, {1, 2}), (100, 1, {100})],
)
def test_evaluation_steps(steps: int, per_epoch: int, expected: set[int]) -> None:
    assert evaluation_steps(steps, per_epoch) == expected


def test_stages_learn_from_and_are_judged_by_their_own_records() -> None:
    records = striped_feed(8, few=3).records
    positions = np.arange(8)
    assert population(records, positions, "unsettled").tolist() == [0, 1, 2]
    assert population(records, positions, "few").tolist() == [0, 1, 2]
    assert population(records, positions, "settled").tolist() == [3, 4, 5, 6, 7]
    assert population(records, positions, "all").tolist() == positions.tolist()
    many = [i for i in range(8) if records.votes_NK[i].sum() >= 10]
    assert population(records, positions, "many").tolist() == many
    with pytest.raises(RunError, match="none of 3 records is settled"):
        population(records, np.arange(3), "settled")
