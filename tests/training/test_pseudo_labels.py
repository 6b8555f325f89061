"""Pseudo labels against sums worked by hand, and that a feed gives them to training alone."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from striped import striped_feed

from kagglehms.data.competition import VOTE_COLUMNS
from kagglehms.data.records import Records
from kagglehms.errors import RunError
from kagglehms.training.feed import Feed, Work
from kagglehms.training.options import PseudoLabels
from kagglehms.training.pseudo_labels import pseudo_targets


def records_of(votes: list[list[int]]) -> Records:
    return Records(pl.DataFrame(dict(zip(VOTE_COLUMNS, np.transpose(votes).tolist(), strict=True))))


def test_worked_by_hand() -> None:
    """One vote, nine votes and ten; a tenth of the votes and three tenths of each of three teachers."""
    records = records_of([[1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 3, 6], [0, 5, 5, 0, 0, 0]])
    teachers = {
        "one": np.eye(6)[[0, 1, 2]],
        "two": np.eye(6)[[1, 1, 2]],
        "three": np.full((3, 6), 1 / 6),
    }
    labels = PseudoLabels(("one", "two", "three"))
    wanted = [
        [0.1 + 0.3 + 0.05, 0.3 + 0.05, 0.05, 0.05, 0.05, 0.05],
        [0.05, 0.65, 0.05, 0.05, 0.05 + 0.1 / 3, 0.05 + 0.2 / 3],
        [0, 0.5, 0.5, 0, 0, 0],
    ]
    np.testing.assert_allclose(pseudo_targets(records, labels, teachers), wanted, rtol=0, atol=1e-15)
    only_few = PseudoLabels(("two",), share=1.0, most_votes=1)
    wanted = [[0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1 / 3, 2 / 3], [0, 0.5, 0.5, 0, 0, 0]]
    np.testing.assert_allclose(pseudo_targets(records, only_few, teachers), wanted, rtol=0, atol=1e-15)


def test_a_teacher_that_is_missing_is_named() -> None:
    with pytest.raises(RunError, match="no predictions of the teachers two, three; train them first"):
        pseudo_targets(
            records_of([[1, 0, 0, 0, 0, 0]]), PseudoLabels(("one", "two", "three")), {"one": np.eye(6)[:1]}
        )


def test_a_feed_gives_them_where_a_stage_asks_and_keeps_votes_and_images() -> None:
    plain = striped_feed(8, few=4)
    predictions_NK = np.random.default_rng(0).dirichlet(np.ones(6), 8)
    feed = Feed(
        plain.recordings, plain.records, plain.layout, plain.normaliser, teachers={"a": predictions_NK}
    )
    labels, order = PseudoLabels(("a",), share=0.25), np.array([5, 1, 7, 2])
    (taught,) = feed.draw([Work(order, 0, labels=labels)])
    (voted,) = feed.draw([Work(order, 0)])
    wanted = plain.records.targets_NK[order]
    np.testing.assert_allclose(voted.targets_BK, wanted, rtol=0, atol=1e-7)
    wanted[[1, 3]] = 0.75 * wanted[[1, 3]] + 0.25 * predictions_NK[[1, 2]]  # the two with one vote
    np.testing.assert_allclose(taught.targets_BK, wanted, rtol=0, atol=1e-7)
    assert taught.n_votes_B.equal(voted.n_votes_B)
    assert taught.images_BCHW.equal(voted.images_BCHW)
