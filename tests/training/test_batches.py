"""The order of an epoch, and its batches."""

from __future__ import annotations

import numpy as np
import pytest

from kagglehms.training.batches import shuffled, split


def test_an_epochs_order_depends_on_seed_and_epoch_alone() -> None:
    positions = np.arange(100)
    first = shuffled(positions, seed=1, epoch=0)
    assert sorted(first.tolist()) == positions.tolist()
    np.testing.assert_array_equal(first, shuffled(positions, seed=1, epoch=0))
    assert not np.array_equal(first, shuffled(positions, seed=1, epoch=1))
    assert not np.array_equal(first, shuffled(positions, seed=2, epoch=0))


@pytest.mark.parametrize(("n", "size"), [(1, 4), (4, 4), (5, 4), (12, 5), (0, 3)])
def test_batches_are_as_equal_as_can_be(n: int, size: int) -> None:
    parts = split(np.arange(n), size)
    assert np.concatenate([np.arange(0), *parts]).tolist() == list(range(n))
    assert len(parts) == -(-n // size)
    assert all(len(part) <= size for part in parts)
    assert max(map(len, parts), default=0) - min(map(len, parts), default=0) <= 1
