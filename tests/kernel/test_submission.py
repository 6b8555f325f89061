"""Submissions are written only if valid, and read back as the competition would."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from kagglehms.data.competition import VOTE_COLUMNS
from kagglehms.errors import DataError, UsageError
from kagglehms.kernel.submission import read_submission, write_submission


def test_only_valid_submissions_are_written(tmp_path: Path) -> None:
    good = np.full((2, 6), 1 / 6)
    write_submission(tmp_path / "s.csv", [5, 6], good)
    before = (tmp_path / "s.csv").read_bytes()
    for bad in (good * 1.1, good * np.nan, np.array([[2.0, -1, 0, 0, 0, 0]] * 2)):
        with pytest.raises(UsageError):
            write_submission(tmp_path / "s.csv", [5, 6], bad)
    assert (tmp_path / "s.csv").read_bytes() == before
    np.testing.assert_array_equal(read_submission(tmp_path / "s.csv", [6, 5]), good)


def test_submissions_that_would_be_refused_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    write_submission(path, [5, 6], np.full((2, 6), 1 / 6))
    with pytest.raises(DataError, match="its 2 ids are not the test set's 1"):
        read_submission(path, [5])
    table = pl.read_csv(path)
    table.select("eeg_id", *reversed(VOTE_COLUMNS)).write_csv(path)
    with pytest.raises(DataError, match="has columns eeg_id, other_vote"):
        read_submission(path, [5, 6])
    table.with_columns(pl.lit(0.5).alias("lpd_vote")).write_csv(path)
    with pytest.raises(DataError, match="row 0 of the predictions sums to"):
        read_submission(path, [5, 6])
