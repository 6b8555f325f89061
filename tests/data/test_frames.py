"""What people pass for numbers and for tables."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from kagglehms.data.frames import as_frame, as_table, column, is_frame, numbers, to_library
from kagglehms.errors import UsageError

FRAME = pl.DataFrame({"a": [1.0, None, 3.0], "b": ["x", "y", "z"], "c": [1, 2, 3]})


def as_pandas(frame: pl.DataFrame) -> Any:
    return pd.DataFrame({name: frame[name].to_list() for name in frame.columns})


def test_frames_are_known_by_their_columns() -> None:
    assert is_frame(FRAME)
    assert is_frame(FRAME.lazy())
    assert not is_frame(np.zeros(3))
    assert not is_frame(pd.Series([1.0]))
    assert as_frame("it", FRAME).columns == FRAME.columns
    with pytest.raises(UsageError, match="it is a LazyFrame: make a frame of pandas or polars of it"):
        as_frame("it", FRAME.lazy())


def test_a_name_that_occurs_twice_is_refused() -> None:
    twice = pd.DataFrame([[1, 2, 3]], columns=["a", "b", "a"])
    for read in (as_frame, as_table):
        with pytest.raises(
            UsageError, match="it: the frame has more than one a; its columns go by their names"
        ):
            read("it", twice)


def test_without_narwhals_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "narwhals.stable.v1", None)
    with pytest.raises(UsageError, match="pip install narwhals"):
        as_frame("it", FRAME)


@pytest.mark.parametrize("make", [lambda frame: frame, as_pandas], ids=["polars", "pandas"])
def test_columns_of_numbers_are_float32_with_nan_for_nothing(make: Callable[[pl.DataFrame], Any]) -> None:
    frame = as_frame("it", make(FRAME))
    np.testing.assert_array_equal(column("it", frame, 0), np.array([1, np.nan, 3], np.float32))
    assert column("it", frame, 2).dtype == np.float32
    with pytest.raises(UsageError, match="it: column b cannot be taken"):
        column("it", frame, 1)


def test_tables_of_pandas_have_nulls_where_a_value_is_missing() -> None:
    frame = as_pandas(FRAME).assign(
        n=pd.array([1, None, 3], dtype="Int64"), t=["x", None, "z"], k=pd.Categorical(["p", "q", "p"])
    )
    frame[7] = [True, False, True]
    expected = FRAME.with_columns(
        pl.Series("n", [1, None, 3]),
        pl.Series("t", ["x", None, "z"]),
        pl.Series("k", ["p", "q", "p"]),
        pl.Series("7", [True, False, True]),
    )
    assert as_table("it", frame).equals(expected)
    assert as_table("it", frame).schema == expected.schema
    assert as_table("it", FRAME) is FRAME


def test_tables_become_frames_of_either_library() -> None:
    assert to_library(FRAME, "polars") is FRAME
    found = to_library(FRAME, "pandas")
    pd.testing.assert_frame_equal(
        found, pd.DataFrame({"a": [1, np.nan, 3], "b": ["x", "y", "z"], "c": [1, 2, 3]})
    )
    with pytest.raises(UsageError, match="not of 'spark'"):
        to_library(FRAME, "spark")  # type: ignore[arg-type]


@pytest.mark.parametrize("values", [["a", "b"], [[1], [2, 3]], [True, False], np.array([1j])])
def test_what_is_no_array_of_numbers_is_refused(values: object) -> None:
    with pytest.raises(UsageError, match="it cannot be taken for an array of numbers"):
        numbers("it", values)


def test_masked_values_and_none_are_missing() -> None:
    masked = np.ma.MaskedArray([1.0, 2.0], [False, True])
    np.testing.assert_array_equal(numbers("it", masked), [1, np.nan])
    np.testing.assert_array_equal(numbers("it", [1, None]), [1, np.nan])
