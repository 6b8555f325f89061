"""train.csv → validated table → records (one per EEG and vote vector) → folds.

A record is all sub-windows of an EEG that carry the same six votes: the unit of training, of folds and of every score
of this project, as of the published ones. Most often these are neighbours, labelled as one stretch. In the real table
859 of 20,125 records are not: sub-windows with other votes lie between them; and in 645 records the labelled
sub-window nearest to the middle, the earlier one of two, is another's. Which 50 s stand for a record is `Windows`.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable, Mapping
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
    unpacking,
)
from kagglehms.data.whole import BLANKS, whole_number
from kagglehms.errors import DataError, UsageError, closest, first_line

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import ArrayLike, NDArray

MANY_VOTES = 10
"""Records with at least so many votes are what all published solutions report on as well."""
FEW_VOTES = 3
"""Records with at most so many votes are those that the source calls noisy."""
FOLD_SEED = 42

EEG_OFFSET = "eeg_label_offset_seconds"
SPECTROGRAM_OFFSET = "spectrogram_label_offset_seconds"
_IDS = ("eeg_id", "eeg_sub_id", "spectrogram_id", "label_id", "patient_id")
_OFFSETS = (EEG_OFFSET, SPECTROGRAM_OFFSET)
RANGES = (
    "eeg_offset_min_s",
    "eeg_offset_max_s",
    "spectrogram_offset_min_s",
    "spectrogram_offset_max_s",
)
"""Columns of a record that hold the offsets of its first and its last sub-window."""
Windows = Literal["middle", "nearest", "random"]
"""Which 50 s stand for a record: those in the `middle` between its first and its last sub-window, as the source does,
whosever label is there; its own sub-window that is `nearest` to the middle, the earlier one of two; in training, a
`random` place between the first and the last, drawn anew in each epoch."""
Content = Literal["whole", "number", "text"]
"""What the cells of a column hold."""
_TRAIN_COLUMNS: dict[str, Content] = {
    **dict.fromkeys(_IDS, "whole"),
    **dict.fromkeys(_OFFSETS, "number"),
    "expert_consensus": "text",
    **dict.fromkeys(VOTE_COLUMNS, "whole"),
}


def vote_fractions(votes_NK: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the target of each record, (n, 6) vote fractions, from its (n, 6) vote counts."""
    return votes_NK / votes_NK.sum(axis=1, keepdims=True)


def window_starts(
    spectrogram_offset_s: ArrayLike, eeg_offset_s: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first spectrogram row and the first EEG sample of windows.

    Args:
        spectrogram_offset_s: (n,) seconds from the beginning of the spectrogram to each ten minutes, as in train.csv.
        eeg_offset_s: (n,) seconds from the beginning of the EEG to each 50 s.

    Returns:
        (n,) rows and (n,) samples; a row or sample begun before the offset counts as a whole.
    """
    rows = np.floor_divide(spectrogram_offset_s, SPECTROGRAM_STEP_S)
    return rows.astype(np.int64), np.multiply(eeg_offset_s, SFREQ_HZ).astype(np.int64)


@dataclass(frozen=True)
class Records:
    """Labelled records, one per row, sorted by EEG and vote vector.

    Attributes:
        frame: columns eeg_id, the six votes, eeg_offset_min_s, eeg_offset_max_s, eeg_offset_nearest_s,
            spectrogram_offset_min_s, spectrogram_offset_max_s, spectrogram_offset_nearest_s, spectrogram_id,
            patient_id, expert_consensus, label_id.
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
        """First spectrogram row and EEG sample of the window that stands for each record.

        Args:
            windows: `random` is drawn by `starts`, in training; held-out records are seen at their `middle` then.

        Raises:
            UsageError: `nearest` of records that were read back from a run of before it was known.
        """
        if windows != "nearest":
            low_s, high_s, low_rows_s, high_rows_s = (self.frame[name].to_numpy() for name in RANGES)
            return window_starts((low_rows_s + high_rows_s) / 2, (low_s + high_s) / 2)
        columns = ("spectrogram_offset_nearest_s", "eeg_offset_nearest_s")
        if not set(columns) <= set(self.frame.columns):
            raise UsageError(
                "these records do not know their nearest sub-windows; make them of train.csv again"
            )
        return window_starts(*(self.frame[name].to_numpy() for name in columns))

    def starts(
        self, index: NDArray[np.integer], part_N: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First spectrogram row and EEG sample of one sub-window of each record at `index`.

        Args:
            index: positions.
            part_N: where the sub-window lies between the record's first (0) and last (1) label offset. Both
                recordings move together, as the offsets of all rows of an EEG differ by a constant.
        """
        low_s, high_s, low_rows_s, high_rows_s = (self.frame[name].to_numpy()[index] for name in RANGES)
        shift_s = part_N * (high_s - low_s)
        return window_starts(np.minimum(low_rows_s + shift_s, high_rows_s), low_s + shift_s)

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
        """(n_records,) whether the label is settled: at least 5 votes, or 4 that agree. Stage 2 of `two-stage`."""
        return (self.n_votes >= 5) | ((self.n_votes == 4) & (self.votes_NK.max(axis=1) == 4))

    @cached_property
    def digest(self) -> str:
        """sha256 of all that a score depends on: the same records, in the same order, have the same digest."""
        digest = hashlib.sha256()
        for name in sorted(self.frame.columns):
            digest.update(f"{name}:{self.frame[name].to_list()};".encode())
        return digest.hexdigest()

    def take(self, index: NDArray[np.integer] | NDArray[np.bool_]) -> Records:
        """Return the records at `index` (positions or a mask)."""
        positions = np.flatnonzero(index) if index.dtype == np.bool_ else index
        return Records(self.frame[positions])


def read_train_table(path: Path) -> pl.DataFrame:
    """Read and check train.csv (or a parquet file of the same columns).

    Raises:
        DataError: unreadable, missing columns, wrong types, negative or all-zero votes, duplicate sub-windows,
            negative offsets or an unknown class name; the message names the first rows (counted from 0).
    """
    table = read_table(path, _TRAIN_COLUMNS)
    if table.is_empty():
        raise DataError(path, "has no rows", "give the competition's train.csv")
    _check_rows(path, table)
    return table


def read_table(path: Path, columns: Mapping[str, Content]) -> pl.DataFrame:
    """Read a CSV or parquet table.

    A CSV file is read as text first, so that what a cell is taken for depends on that cell alone, and not on the other
    rows. Blank lines count for nothing.

    Args:
        path: the file.
        columns: name → what its cells hold: `whole` numbers of at most 64 bits (see `whole.whole_number`), finite
            `number`s, or `text` letter by letter.

    Returns:
        Int64, Float64 and String columns of these names, and the others as they are.

    Raises:
        DataError: missing, unreadable, without one of the columns, or with a cell that does not hold what it should;
            the message names the first rows.
    """
    import polars as pl

    if not path.is_file():
        hint = unpacking(path, path.parent) or "give the folder of the competition's download"
        raise DataError(path, "no such file", hint)
    try:
        if path.suffix == ".parquet":
            table = pl.read_parquet(path)
        else:
            table = _without_blank_lines(pl.read_csv(io.BytesIO(path.read_bytes()), infer_schema=False))
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        raise DataError(
            path, f"cannot be read as a table ({first_line(error)})", "download it again"
        ) from error
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise DataError(
            path, f"lacks column(s) {', '.join(missing)}", f"it has: {', '.join(table.columns[:20])}"
        )
    for name, content in columns.items():
        values = _CASTS[content](table[name])
        _refuse(path, table, values.is_null(), f"column {name} has no usable value", _EXPECTED[content])
        table = table.with_columns(values.alias(name))
    return table


def _without_blank_lines(table: pl.DataFrame) -> pl.DataFrame:
    """Drop the rows that are blank in every column, and blanks around the columns' names."""
    import polars as pl

    table = table.rename({name: name.strip(BLANKS) for name in table.columns})
    filled = pl.all().str.strip_chars(BLANKS).fill_null("") != ""
    return table.filter(pl.any_horizontal(filled)) if table.width else table


def _as_whole(values: pl.Series) -> pl.Series:
    """Int64, null where a cell holds no whole number of 64 bits."""
    import polars as pl

    if values.dtype == pl.String:
        text = values.str.strip_chars(BLANKS)
        plain = text.str.contains(r"^-?[0-9]{1,18}$")
        others = text.filter(~plain).unique().drop_nulls()
        read = {cell: whole_number(cell) for cell in others.to_list()}
        by_rule = text.replace_strict(read, default=None, return_dtype=pl.Int64)
        return text.cast(pl.Int64, strict=False).zip_with(plain.fill_null(False), by_rule)
    if values.dtype.is_float():  # beyond 2⁵³ a float is no longer the number that was meant
        exact = (values == values.round()) & (values.abs() <= 2**53)
        return values.cast(pl.Int64, strict=False).set(~exact.fill_null(False), None)
    return values.cast(pl.Int64, strict=False)


def _as_number(values: pl.Series) -> pl.Series:
    """Float64, null where a cell holds no finite number."""
    import polars as pl

    text = values.dtype == pl.String
    numbers = (values.str.strip_chars(BLANKS) if text else values).cast(pl.Float64, strict=False)
    return numbers.set(~numbers.is_finite().fill_null(False), None)


def _as_text(values: pl.Series) -> pl.Series:
    import polars as pl

    return values.cast(pl.String, strict=False)


_CASTS: dict[Content, Callable[[pl.Series], pl.Series]] = {
    "whole": _as_whole,
    "number": _as_number,
    "text": _as_text,
}
_EXPECTED: dict[Content, str] = {
    "whole": "whole numbers of at most 64 bits are expected; ",
    "number": "finite numbers are expected; ",
    "text": "text is expected; ",
}


def make_records(table: pl.DataFrame) -> Records:
    """Group a checked table by EEG and vote vector. The order of its rows does not matter.

    Returns:
        Records in ascending order of eeg_id and the six vote counts. Offsets keep their minimum and maximum, and the
        one nearest to the middle of the two, the earlier one of two; spectrogram, patient, consensus and label are
        those of the group's first sub-window.
    """
    import polars as pl

    keys = ["eeg_id", *VOTE_COLUMNS]
    offset_s = pl.col(EEG_OFFSET)
    from_middle_s = (offset_s - (offset_s.min() + offset_s.max()) / 2).abs()
    nearest = (pl.col(name).sort_by(from_middle_s, EEG_OFFSET, "eeg_sub_id").first() for name in _OFFSETS)
    frame = (
        table.sort("eeg_id", "eeg_sub_id")
        .group_by(keys, maintain_order=True)
        .agg(
            pl.col(EEG_OFFSET).min().alias("eeg_offset_min_s"),
            pl.col(EEG_OFFSET).max().alias("eeg_offset_max_s"),
            pl.col(SPECTROGRAM_OFFSET).min().alias("spectrogram_offset_min_s"),
            pl.col(SPECTROGRAM_OFFSET).max().alias("spectrogram_offset_max_s"),
            pl.col("spectrogram_id", "patient_id", "expert_consensus", "label_id").first(),
            *(
                column.alias(name)
                for column, name in zip(
                    nearest, ("eeg_offset_nearest_s", "spectrogram_offset_nearest_s"), strict=True
                )
            ),
        )
        .sort(keys)
    )
    return Records(frame)


def read_records(train_csv: Path) -> Records:
    """Read train.csv and make its records.

    Raises:
        DataError: the table cannot be used, see `read_train_table`.
    """
    return make_records(read_train_table(train_csv))


def limit_records(records: Records, n: int, seed: int = FOLD_SEED) -> Records:
    """Keep whole patients, in an order that depends on `seed` alone, until there are at least `n` records.

    Raises:
        UsageError: `n` is not positive.
    """
    if n < 1:
        raise UsageError(f"the limit must be at least 1 record, but got {n}")
    patients, patient_N = np.unique(records.patients, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(patients))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    enough = np.searchsorted(np.cumsum(np.bincount(patient_N)[order]), n)
    return records.take(rank[patient_N] <= enough)


def assign_folds(records: Records, n_folds: int = 5, seed: int = FOLD_SEED) -> NDArray[np.int8]:
    """Assign each record to a fold: classes spread evenly, no patient in two folds.

    Classes go in by name, as in the source: scikit-learn sorts them, and numbers in another order give other folds.
    The outcome also depends on the release of scikit-learn (its shuffling has changed), so a run stores its folds.

    Returns:
        (n_records,) fold numbers 0 … n_folds − 1.

    Raises:
        UsageError: fewer than two folds, or fewer patients than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    patients = records.patients
    n_patients = len(np.unique(patients))
    if not 2 <= n_folds <= n_patients:
        raise UsageError(
            f"{n_folds} folds cannot be made of {n_patients} patient(s); choose 2 to {n_patients} (--folds)"
        )
    classes = np.array(records.frame["expert_consensus"].to_list())
    # scikit-learn refuses only when *every* class is rarer than the folds; a small sample is not an error here.
    if np.unique(classes, return_counts=True)[1].max() < n_folds:
        classes = np.full_like(classes, "any")
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    folds = np.full(len(records), -1, dtype=np.int8)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        for fold, (_, held_out) in enumerate(splitter.split(classes, classes, patients)):
            folds[held_out] = fold
    return folds


def _check_rows(path: Path, table: pl.DataFrame) -> None:
    import polars as pl

    votes = table.select(VOTE_COLUMNS)
    _refuse(path, table, (votes.min_horizontal() < 0), "negative votes")
    _refuse(path, table, (votes.sum_horizontal() == 0), "no votes at all")
    for name in _OFFSETS:
        _refuse(path, table, table[name] < 0, f"negative {name}")
    duplicated = table.select(pl.struct("eeg_id", "eeg_sub_id").is_duplicated()).to_series()
    _refuse(path, table, duplicated, "the same sub-window (eeg_id, eeg_sub_id) twice")
    consensus = table["expert_consensus"]
    unknown = ~consensus.is_in(list(CONSENSUS_NAMES))
    if unknown.any():
        name = consensus.filter(unknown)[0]
        _refuse(path, table, unknown, f"unknown expert_consensus {name!r} ({closest(name, CONSENSUS_NAMES)})")


def _refuse(path: Path, table: pl.DataFrame, bad: pl.Series, reason: str, expected: str = "") -> None:
    """Raise a `DataError` that names the rows where `bad` holds, if there are any."""
    rows = bad.fill_null(True).arg_true().to_list()
    if rows:
        listed = ", ".join(map(str, rows[:5])) + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")
        hint = f"{expected}rows are counted from 0, without the header and blank lines"
        raise DataError(path, f"{reason} in row(s) {listed}", hint)
