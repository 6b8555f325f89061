"""The labelled records of train.csv: one for each EEG and vote vector.

A record consists of all sub-windows of an EEG with the same six votes. It is the unit of training, folds and scores
in this project, as in the published solutions. Its sub-windows are usually neighbours that were labelled together. In
859 of the 20,125 records of the real table, sub-windows with other votes lie between them, and in 645 records the
labelled sub-window nearest to the middle (the earlier one of two) belongs to another record. `Windows` says which
50 s represent a record.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from kagglehms.data.competition import (
    CONSENSUS_NAMES,
    SFREQ_HZ,
    SPECTROGRAM_STEP_S,
    VOTE_COLUMNS,
)
from kagglehms.data.frames import Frame
from kagglehms.data.tables import Content, name_of, read_table, refuse_rows
from kagglehms.errors import DataError, UsageError, closest

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import ArrayLike, NDArray

MANY_VOTES = 10
"""Smallest number of votes of the records called `many`, on which all published solutions report as well."""
FEW_VOTES = 3
"""Largest number of votes of the records called `few`, which the source considers noisy."""

EEG_OFFSET = "eeg_label_offset_seconds"
SPECTROGRAM_OFFSET = "spectrogram_label_offset_seconds"
MOST_VOTES = 10_000
_MOST_OFFSET_S = 10_000_000
"""Bounds far beyond any real table, within which sums of votes and numbers of samples are exact."""
_IDS = ("eeg_id", "eeg_sub_id", "spectrogram_id", "label_id", "patient_id")
_OFFSETS = (EEG_OFFSET, SPECTROGRAM_OFFSET)
RANGES = (
    "eeg_offset_min_s",
    "eeg_offset_max_s",
    "spectrogram_offset_min_s",
    "spectrogram_offset_max_s",
)
"""Columns with the offsets of a record's first and last sub-window."""
Windows = Literal["middle", "nearest", "random"]
"""Which 50 s represent a record. `middle`: the middle between its first and its last sub-window, as in the source, even
if another record is labelled there. `nearest`: its sub-window nearest to the middle, the earlier one of two.
`random`: in training, a position between the first and the last sub-window, drawn in each epoch."""
_TRAIN_COLUMNS: dict[str, Content] = {
    **dict.fromkeys(_IDS, "whole"),
    **dict.fromkeys(_OFFSETS, "number"),
    "expert_consensus": "text",
    **dict.fromkeys(VOTE_COLUMNS, "whole"),
}


def vote_fractions(votes_NK: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the targets of records: (n, 6) vote fractions of (n, 6) vote counts."""
    return votes_NK / votes_NK.sum(axis=1, keepdims=True)


def first_row_and_sample(
    spectrogram_offset_s: ArrayLike, eeg_offset_s: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first spectrogram row and the first EEG sample of windows.

    Args:
        spectrogram_offset_s: (n,) seconds from the beginning of the spectrogram to each ten minutes, as in train.csv.
        eeg_offset_s: (n,) seconds from the beginning of the EEG to each 50 s.

    Returns:
        (n,) rows and (n,) samples; a window may start within its first row or sample.
    """
    rows = np.floor_divide(spectrogram_offset_s, SPECTROGRAM_STEP_S)
    return rows.astype(np.int64), np.multiply(eeg_offset_s, SFREQ_HZ).astype(np.int64)


@dataclass(frozen=True)
class Records:
    """Labelled records, sorted by EEG and vote vector.

    Attributes:
        frame: one row per record, with the columns eeg_id, the six votes, eeg_offset_min_s, eeg_offset_max_s,
            eeg_offset_nearest_s, spectrogram_offset_min_s, spectrogram_offset_max_s, spectrogram_offset_nearest_s,
            spectrogram_id, patient_id, expert_consensus and label_id.
    """

    frame: pl.DataFrame

    def __len__(self) -> int:
        return len(self.frame)

    @cached_property
    def votes_NK(self) -> NDArray[np.int64]:
        """(n_records, 6) vote counts."""
        return self.frame.select(VOTE_COLUMNS).to_numpy().astype(np.int64)

    @cached_property
    def n_votes(self) -> NDArray[np.int64]:
        """(n_records,) votes per record, at least 1."""
        return self.votes_NK.sum(axis=1)

    @cached_property
    def targets_NK(self) -> NDArray[np.float64]:
        """(n_records, 6) vote fractions; every row sums to 1."""
        return vote_fractions(self.votes_NK)

    @cached_property
    def patients(self) -> NDArray[np.int64]:
        """(n_records,) patient ids."""
        return self.frame["patient_id"].to_numpy()

    @cached_property
    def eeg_ids(self) -> NDArray[np.int64]:
        return self.frame["eeg_id"].to_numpy()

    @cached_property
    def spectrogram_ids(self) -> NDArray[np.int64]:
        return self.frame["spectrogram_id"].to_numpy()

    def places(self, windows: Windows = "middle") -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Locate the window that represents each record.

        Args:
            windows: which window. `random` ones are drawn by `starts`, and here give the `middle`, which represents
                held-out records.

        Returns:
            (n_records,) first spectrogram rows and (n_records,) first EEG samples.

        Raises:
            UsageError: `nearest` is asked of records that an earlier version saved without it.
        """
        if windows != "nearest":
            low_s, high_s, low_rows_s, high_rows_s = (self.frame[name].to_numpy() for name in RANGES)
            return first_row_and_sample((low_rows_s + high_rows_s) / 2, (low_s + high_s) / 2)
        columns = ("spectrogram_offset_nearest_s", "eeg_offset_nearest_s")
        if not set(columns) <= set(self.frame.columns):
            raise UsageError(
                "these records do not know their nearest sub-windows; make them of train.csv again"
            )
        return first_row_and_sample(*(self.frame[name].to_numpy() for name in columns))

    def starts(
        self, index: NDArray[np.integer], part_N: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Locate a window between the first and the last sub-window of records.

        Args:
            index: positions of the records.
            part_N: position of each record's window, from its first (0) to its last (1) label offset. Both recordings
                move together, since their offsets differ by a constant in all rows of an EEG.

        Returns:
            First spectrogram rows and first EEG samples, in the order of `index`.
        """
        low_s, high_s, low_rows_s, high_rows_s = (self.frame[name].to_numpy()[index] for name in RANGES)
        shift_s = part_N * (high_s - low_s)
        return first_row_and_sample(np.minimum(low_rows_s + shift_s, high_rows_s), low_s + shift_s)

    @property
    def many(self) -> NDArray[np.bool_]:
        """(n_records,) whether at least `MANY_VOTES` experts voted."""
        return self.n_votes >= MANY_VOTES

    @property
    def few(self) -> NDArray[np.bool_]:
        """(n_records,) whether at most `FEW_VOTES` experts voted."""
        return self.n_votes <= FEW_VOTES

    @property
    def settled(self) -> NDArray[np.bool_]:
        """(n_records,) whether the label is settled: at least 5 votes, or 4 that agree; for stage 2 of `two-stage`."""
        return (self.n_votes >= 5) | ((self.n_votes == 4) & (self.votes_NK.max(axis=1) == 4))

    @cached_property
    def digest(self) -> str:
        """sha256 of everything that a score depends on; the same records in the same order have the same digest."""
        digest = hashlib.sha256()
        for name in sorted(self.frame.columns):
            digest.update(f"{name}:{self.frame[name].to_list()};".encode())
        return digest.hexdigest()

    def take(self, index: NDArray[np.integer] | NDArray[np.bool_]) -> Records:
        """Select records by their positions or by a mask."""
        positions = np.flatnonzero(index) if index.dtype == np.bool_ else index
        return Records(self.frame[positions])


def read_train_table(source: Path | Frame) -> pl.DataFrame:
    """Read and check train.csv, or a Parquet file or frame with the same columns.

    Raises:
        DataError: the file is unreadable, lacks columns, or has wrong types, negative votes, none at all or absurdly
            many, duplicate sub-windows, negative or absurd offsets, or an unknown class name; the message names the
            first such rows, counted from 0.
    """
    table, path = read_table(source, _TRAIN_COLUMNS), Path(name_of(source))
    if table.is_empty():
        raise DataError(path, "has no rows", "give the competition's train.csv")
    _check_rows(path, table)
    return table


def make_records(table: pl.DataFrame) -> Records:
    """Group a checked table by EEG and vote vector; the order of its rows does not matter.

    Returns:
        Records in ascending order of eeg_id and the six vote counts, with the minimum and maximum of their offsets
        and the offset nearest to the middle between these, the earlier one of two. Spectrogram, patient, consensus
        and label are those of the record's first sub-window.
    """
    import polars as pl

    keys = ["eeg_id", *VOTE_COLUMNS]
    offset_s = pl.col(EEG_OFFSET)
    from_middle_s = (offset_s - (offset_s.min() + offset_s.max()) / 2).abs()
    # Sorted as a whole, since releases of polars do not agree on the order of equals that are sorted within groups.
    nearest = (
        table.sort(from_middle_s.over(keys), EEG_OFFSET, "eeg_sub_id")
        .group_by(keys, maintain_order=True)
        .agg(
            offset_s.first().alias("eeg_offset_nearest_s"),
            pl.col(SPECTROGRAM_OFFSET).first().alias("spectrogram_offset_nearest_s"),
        )
    )
    frame = (
        table.sort("eeg_id", "eeg_sub_id")
        .group_by(keys, maintain_order=True)
        .agg(
            pl.col(EEG_OFFSET).min().alias("eeg_offset_min_s"),
            pl.col(EEG_OFFSET).max().alias("eeg_offset_max_s"),
            pl.col(SPECTROGRAM_OFFSET).min().alias("spectrogram_offset_min_s"),
            pl.col(SPECTROGRAM_OFFSET).max().alias("spectrogram_offset_max_s"),
            pl.col("spectrogram_id", "patient_id", "expert_consensus", "label_id").first(),
        )
        .join(nearest, on=keys)
        .sort(keys)
    )
    return Records(frame)


def read_records(train_csv: Path | Frame) -> Records:
    """Read train.csv, or a frame of it, and make its records.

    Raises:
        DataError: the table cannot be used, see `read_train_table`.
    """
    return make_records(read_train_table(train_csv))


def _check_rows(path: Path, table: pl.DataFrame) -> None:
    import polars as pl

    votes = table.select(VOTE_COLUMNS)
    refuse_rows(path, table, (votes.min_horizontal() < 0), "negative votes")
    many = f"more than {MOST_VOTES:,} votes for a class, which are no experts'"
    refuse_rows(path, table, (votes.max_horizontal() > MOST_VOTES), many)
    refuse_rows(path, table, (votes.sum_horizontal() == 0), "no votes at all")
    for name in _OFFSETS:
        refuse_rows(path, table, table[name] < 0, f"negative {name}")
        refuse_rows(path, table, table[name] > _MOST_OFFSET_S, f"{name} of more than {_MOST_OFFSET_S:,} s")
    duplicated = table.select(pl.struct("eeg_id", "eeg_sub_id").is_duplicated()).to_series()
    refuse_rows(path, table, duplicated, "the same sub-window (eeg_id, eeg_sub_id) twice")
    consensus = table["expert_consensus"]
    unknown = ~consensus.is_in(list(CONSENSUS_NAMES))
    if unknown.any():
        name = consensus.filter(unknown)[0]
        refuse_rows(
            path, table, unknown, f"unknown expert_consensus {name!r} ({closest(name, CONSENSUS_NAMES)})"
        )
