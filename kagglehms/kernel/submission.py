"""Submissions: written atomically and only if valid, and read as strictly as the competition reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import VOTE_COLUMNS
from kagglehms.data.frames import Frame
from kagglehms.data.tables import name_of, read_table, refuse_rows
from kagglehms.errors import DataError, HMSError
from kagglehms.files import write_bytes
from kagglehms.kernel.prior import SUBMISSION, SUBMISSION_COLUMNS, submission_csv
from kagglehms.training.metric import check_probabilities

if TYPE_CHECKING:
    import polars as pl

__all__ = ["SUBMISSION", "read_submission", "read_submission_table", "write_submission"]


def write_submission(path: Path, eeg_ids: Sequence[int | str], probabilities_NK: NDArray[np.float64]) -> None:
    """Write a submission atomically, after the checks that the competition makes.

    Args:
        path: file to write.
        eeg_ids: N ids, one for each row.
        probabilities_NK: (N, 6) float64 probabilities in the order of `competition.CLASSES`.

    Raises:
        UsageError: values are negative or not finite, or rows do not sum to 1.
        RunError: the disk is full or the folder cannot be written.
    """
    check_probabilities(probabilities_NK)
    write_bytes(path, submission_csv(eeg_ids, probabilities_NK.tolist()))


def read_submission_table(source: Path | Frame) -> pl.DataFrame:
    """Read a submission, from a file or a frame, and check all that can be checked without its test set.

    Raises:
        DataError: the columns or their order are wrong, an id stands twice, or the values are not probabilities.
    """
    table = read_table(source, {"eeg_id": "text", **dict.fromkeys(VOTE_COLUMNS, "number")})
    path = Path(name_of(source))
    if tuple(table.columns) != SUBMISSION_COLUMNS:
        raise DataError(
            path, f"has columns {', '.join(table.columns)}", f"expected {', '.join(SUBMISSION_COLUMNS)}"
        )
    refuse_rows(path, table, ~table["eeg_id"].is_first_distinct(), "an eeg_id that stands there before")
    try:
        check_probabilities(table.select(VOTE_COLUMNS).to_numpy())
    except HMSError as error:
        raise DataError(path, str(error), "it would be refused") from error
    return table


def read_submission(path: Path, eeg_ids: Sequence[int | str]) -> NDArray[np.float64]:
    """Read a submission, and refuse one that the competition would refuse.

    Args:
        path: file to read.
        eeg_ids: N ids of the test set as its table spells them, in any order.

    Returns:
        (N, 6) float64 probabilities in the order of `eeg_ids`.

    Raises:
        DataError: the columns or their order are wrong, the ids are not those of the test set, or the values are not
            probabilities.
    """
    table = read_submission_table(path)
    place = {str(eeg_id): row for row, eeg_id in enumerate(table["eeg_id"].to_list())}
    wanted = [str(eeg_id) for eeg_id in eeg_ids]
    if set(place) != set(wanted):
        raise DataError(
            path, f"its {len(table)} ids are not the test set's {len(eeg_ids)}", "one row per eeg_id"
        )
    return table.select(VOTE_COLUMNS).to_numpy()[[place[eeg_id] for eeg_id in wanted]]
