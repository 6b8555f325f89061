"""Missing samples are bridged by straight lines, whatever is missing."""

from __future__ import annotations

import numpy as np
import pytest

from kagglehms.data.gaps import bridge

NAN, INF = np.nan, np.inf


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_gaps_are_bridged_by_straight_lines(kind: type[np.floating]) -> None:
    signals_CT = np.array(
        [
            [1, 2, 3, 4, 5, 6],
            [1, NAN, NAN, 4, INF, 0],
            [NAN, NAN, 7, -INF, 9, NAN],
            [NAN, NAN, NAN, NAN, -3, NAN],
            [NAN, NAN, NAN, NAN, NAN, NAN],
        ],
        kind,
    )
    expected = [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 2, 0], [7, 7, 7, 8, 9, 9], [-3] * 6, [0] * 6]
    missing = ~np.isfinite(signals_CT)
    np.testing.assert_array_equal(bridge(signals_CT), missing)
    np.testing.assert_allclose(signals_CT, expected)
    assert signals_CT.dtype == kind
    assert not bridge(signals_CT).any()


def test_columns_are_bridged_where_they_stand() -> None:
    signals_TC = np.array([[0.0, 5.0], [NAN, 6.0], [2.0, NAN]])
    assert bridge(signals_TC.T).T.tolist() == [[False, False], [True, False], [False, True]]
    assert signals_TC.tolist() == [[0, 5], [1, 6], [2, 6]]


def test_nothing_is_bridged_by_nothing() -> None:
    assert bridge(np.empty((2, 0))).shape == (2, 0)
    assert bridge(np.empty((0, 3))).shape == (0, 3)
