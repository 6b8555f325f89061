"""What people pass for numbers and for tables."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from kagglehms.data.frames import check_frame, column, is_frame, is_numeric, numbers
from kagglehms.errors import UsageError

FRAME = pl.DataFrame({"a": [1.0, None, 3.0], "b": ["x", "y", "z"], "c": [1, 2, 3]})


def test_frames_are_known_by_their_columns() -> None:
    assert is_frame(FRAME)
    assert is_frame(FRAME.lazy())
    assert not is_frame(np.zeros(3))
    check_frame("it", FRAME)
    with pytest.raises(UsageError, match="it is a LazyFrame: make a frame of pandas or polars of it"):
        check_frame("it", FRAME.lazy())


@pytest.mark.parametrize("library", ["polars", "pandas"])
def test_columns_of_numbers_are_float32_with_nan_for_nothing(library: str) -> None:
    frame = FRAME
    if library == "pandas":
        pandas = pytest.importorskip("pandas", reason="pandas is no dependency")
        frame = pandas.DataFrame({name: FRAME[name].to_list() for name in FRAME.columns})
    assert [is_numeric(frame, i) for i in range(3)] == [True, False, True]
    np.testing.assert_array_equal(column("it", frame, 0), np.array([1, np.nan, 3], np.float32))
    assert column("it", frame, 2).dtype == np.float32
    with pytest.raises(UsageError, match="it: column b cannot be taken"):
        column("it", frame, 1)


@pytest.mark.parametrize("values", [["a", "b"], [[1], [2, 3]], [True, False], np.array([1j])])
def test_what_is_no_array_of_numbers_is_refused(values: object) -> None:
    with pytest.raises(UsageError, match="it cannot be taken for an array of numbers"):
        numbers("it", values)


def test_masked_values_and_none_are_missing() -> None:
    masked = np.ma.MaskedArray([1.0, 2.0], [False, True])
    np.testing.assert_array_equal(numbers("it", masked), [1, np.nan])
    np.testing.assert_array_equal(numbers("it", [1, None]), [1, np.nan])
