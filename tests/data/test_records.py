"""train.csv → records → folds, against plain-Python recomputation, the real table, and damaged tables."""

from __future__ import annotations

from collections import Counter, defaultdict
from fractions import Fraction
from pathlib import Path
from random import Random

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from train_tables import GOOD, table_of, written

from kagglehms.data.competition import VOTE_COLUMNS
from kagglehms.data.records import (
    Records,
    first_row_and_sample,
    make_records,
    read_records,
    read_train_table,
    vote_fractions,
)
from kagglehms.errors import DataError, UsageError


def test_a_worked_example(tmp_path: Path) -> None:
    records = read_records(written(GOOD, tmp_path))
    assert records.eeg_ids.tolist() == [1, 7, 7]
    assert records.votes_NK.tolist() == [[0, 1, 0, 0, 0, 0], [0, 0, 0, 2, 0, 9], [3, 0, 0, 0, 0, 0]]
    assert records.n_votes.tolist() == [1, 11, 3]
    assert records.many.tolist() == [False, True, False]
    np.testing.assert_allclose(records.targets_NK[1], [0, 0, 0, 2 / 11, 0, 9 / 11])
    assert records.places()[0].tolist() == [2, 21, 22]  # 10 // 4, 84 // 4, 89 // 4
    assert records.places()[1].tolist() == [200, 400, 900]
    assert records.frame["label_id"].to_list() == [3, 1, 0]


votes = st.tuples(*[st.integers(0, 3)] * 6).filter(any)
sub_windows = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 60), votes), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(sub_windows)
def test_grouping_agrees_with_a_dictionary(windows: list[tuple[int, int, tuple[int, ...]]]) -> None:
    rows = [(eeg, i, float(at), float(at) + 100 * eeg, v) for i, (eeg, at, v) in enumerate(windows)]
    groups: dict[tuple[int, ...], list[float]] = defaultdict(list)
    for eeg, _, at, _, v in rows:
        groups[eeg, *v].append(at)
    records = make_records(table_of(rows))
    keys = [(eeg, *v) for eeg, v in zip(records.eeg_ids.tolist(), records.votes_NK.tolist(), strict=True)]
    assert keys == sorted(groups)
    assert records.frame["eeg_offset_min_s"].to_list() == [min(groups[key]) for key in keys]
    assert records.frame["eeg_offset_max_s"].to_list() == [max(groups[key]) for key in keys]
    np.testing.assert_allclose(records.targets_NK.sum(axis=1), 1)


@settings(max_examples=60, deadline=None)
@given(sub_windows, st.randoms(use_true_random=False))
def test_records_do_not_depend_on_the_order_of_rows(
    windows: list[tuple[int, int, tuple[int, ...]]], random: Random
) -> None:
    rows = [(eeg, i, float(at), float(at) + 100 * eeg, v) for i, (eeg, at, v) in enumerate(windows)]
    table = table_of(rows)
    order = list(range(len(rows)))
    random.shuffle(order)
    shuffled = make_records(table[order])
    assert shuffled.digest == make_records(table).digest
    assert shuffled.frame.equals(make_records(table).frame)
    for label, eeg, *votes_K in shuffled.frame.select("label_id", "eeg_id", *VOTE_COLUMNS).iter_rows():
        assert label == min(i for i, (e, _, v) in enumerate(windows) if (e, *v) == (eeg, *votes_K))


TWO_NEAREST = [
    (1, 0, (0, 0, 0, 0, 1, 0)),
    (1, 1, (1, 1, 1, 1, 1, 1)),
    (1, 0, (0, 0, 0, 0, 0, 1)),
    (1, 2, (1, 1, 1, 1, 1, 1)),
]


@settings(max_examples=60, deadline=None)
@example(TWO_NEAREST)
@given(sub_windows)
def test_the_nearest_sub_window_is_the_records_own(windows: list[tuple[int, int, tuple[int, ...]]]) -> None:
    rows = [(eeg, i, at / 2, at / 2 + 100 * eeg, v) for i, (eeg, at, v) in enumerate(windows)]
    groups: dict[tuple[int, ...], list[float]] = defaultdict(list)
    for eeg, _, at, _, v in rows:
        groups[eeg, *v].append(at)
    records = make_records(table_of(rows))
    starts = zip(*(part.tolist() for part in records.places("nearest")), strict=True)
    votes = records.votes_NK.tolist()
    for eeg, votes_K, (row, sample) in zip(records.eeg_ids.tolist(), votes, starts, strict=True):
        own = groups[eeg, *votes_K]
        middle = (min(own) + max(own)) / 2
        nearest = min(own, key=lambda at: (abs(at - middle), at))
        assert (row, sample) == (int((nearest + 100 * eeg) // 2), int(nearest * 200))


def test_where_a_record_is_not_one_stretch_its_middle_may_be_of_another(tmp_path: Path) -> None:
    first, other = (3, 0, 0, 0, 0, 0), (0, 0, 0, 0, 0, 9)
    rows = [(1, 0, 0.0, 0.0, first), (1, 1, 40.0, 40.0, other), (1, 2, 80.0, 80.0, first)]
    records = make_records(read_train_table(written(table_of(rows), tmp_path)))
    assert records.votes_NK.tolist() == [list(other), list(first)]
    assert [part.tolist() for part in records.places()] == [[20, 20], [8000, 8000]]
    assert [part.tolist() for part in records.places("nearest")] == [[20, 0], [8000, 0]]
    assert [part.tolist() for part in records.places("random")] == [[20, 20], [8000, 8000]]
    of_before = Records(records.frame.drop("eeg_offset_nearest_s"))
    assert of_before.places()[1].tolist() == [8000, 8000]
    with pytest.raises(UsageError, match="do not know their nearest"):
        of_before.places("nearest")


def test_what_the_choice_of_windows_changes_in_the_real_table(real_train_table: Path) -> None:
    """The figures of the documentation, by loops over the rows."""
    table = read_train_table(real_train_table)
    labels: dict[int, list[tuple[float, tuple[int, ...]]]] = defaultdict(list)
    for eeg, at, *votes_K in table.select("eeg_id", "eeg_label_offset_seconds", *VOTE_COLUMNS).iter_rows():
        labels[eeg].append((at, tuple(votes_K)))
    not_one_stretch = other_label = 0
    for at_votes in labels.values():
        at_votes.sort()
        runs = [v for i, (_, v) in enumerate(at_votes) if i == 0 or v != at_votes[i - 1][1]]
        for v in set(runs):
            not_one_stretch += runs.count(v) > 1
            own = [at for at, votes_K in at_votes if votes_K == v]
            middle = (min(own) + max(own)) / 2
            other_label += min(at_votes, key=lambda x: abs(x[0] - middle))[1] != v
    assert (not_one_stretch, other_label) == (859, 645)
    records = make_records(table)
    middle, nearest = records.places("middle")[1] / 200, records.places("nearest")[1] / 200
    moved_s = np.abs(nearest - middle)
    assert [int((moved_s > s).sum()) for s in (0, 5, 10, 25)] == [9_627, 1_806, 907, 184]
    for starts, shared in ((middle, 96), (nearest, 0)):
        pairs = list(zip(records.eeg_ids.tolist(), starts.tolist(), strict=True))
        assert sum(n for n in Counter(pairs).values() if n > 1) == shared


def test_the_real_table_gives_its_records(real_train_table: Path) -> None:
    records = read_records(real_train_table)
    assert len(records) == 20_125
    assert records.many.sum() == 6_329
    assert not np.isin(records.n_votes, [8, 9]).any()
    expected = [0.184, 0.154, 0.102, 0.069, 0.103, 0.388]
    np.testing.assert_allclose(records.targets_NK.mean(axis=0), expected, atol=5e-4)


FAULTS = {
    r"lacks column lpd_vote": GOOD.drop("lpd_vote"),
    r"negative votes in row 2": GOOD.with_columns(pl.Series("gpd_vote", [0, 0, -1, 0])),
    r"no votes at all in row 3": GOOD.with_columns(pl.Series("lpd_vote", [0, 0, 0, 0])),
    r"same sub-window .* twice in rows 0, 2": GOOD.with_columns(pl.Series("eeg_sub_id", [0, 1, 0, 0])),
    r"unknown expert_consensus 'Seizur' \(did you mean 'Seizure'\?.*row 1": GOOD.with_columns(
        pl.Series("expert_consensus", ["LPD", "Seizur", "GPD", "Other"])
    ),
    r"column patient_id has no usable value in row 1": GOOD.with_columns(
        pl.Series("patient_id", ["1", "unknown", "1", "1"])
    ),
    r"column lpd_vote has no usable value in row 0": GOOD.with_columns(
        pl.Series("lpd_vote", [1.5, 1.0, 1.0, 1.0])
    ),
    r"more than 10,000 votes for a class.*row 2": GOOD.with_columns(
        pl.Series("gpd_vote", [0, 0, 9 * 10**18, 0])
    ),
    r"eeg_label_offset_seconds of more than 10,000,000 s in row 1": GOOD.with_columns(
        pl.Series("eeg_label_offset_seconds", [0.0, 1e300, 0.0, 0.0])
    ),
    r"column eeg_id has no usable value in row 0; whole numbers of at most 64 bits": GOOD.with_columns(
        pl.Series("eeg_id", [str(2**64), "2", "3", "4"])
    ),
    r"negative eeg_label_offset_seconds in row 3": GOOD.with_columns(
        pl.Series("eeg_label_offset_seconds", [0.0, 1.0, 2.0, -1.0])
    ),
    "has no rows": GOOD.head(0),
}


@pytest.mark.parametrize("message", FAULTS)
def test_a_bad_table_is_refused_and_its_rows_named(tmp_path: Path, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_train_table(written(FAULTS[message], tmp_path))
    assert "\n" not in str(caught.value)


def test_the_digest_knows_values_and_order(tmp_path: Path) -> None:
    records = make_records(GOOD)
    assert (
        records.digest == make_records(GOOD.reverse().sort("eeg_id", "eeg_sub_id")).take(np.arange(3)).digest
    )
    assert records.digest != records.take(np.array([1, 0, 2])).digest
    assert records.digest != make_records(GOOD.with_columns(pl.lit(1).alias("patient_id"))).digest


def test_vote_fractions_are_those_of_plain_division() -> None:
    votes_NK = np.random.default_rng(0).integers(0, 9, (50, 6)) + np.eye(6, dtype=int)[np.arange(50) % 6]
    expected = [[float(Fraction(int(v), int(row.sum()))) for v in row] for row in votes_NK]
    np.testing.assert_array_equal(vote_fractions(votes_NK), expected)


def test_windows_start_at_the_row_and_sample_that_hold_their_offset() -> None:
    """Rows are two seconds long and there are 200 samples a second."""
    offsets_s = [0.0, 1.9, 2.0, 3.5, 66.0, 601.0]
    rows, samples = first_row_and_sample(offsets_s, offsets_s)
    assert rows.tolist() == [0, 0, 1, 1, 33, 300]
    assert samples.tolist() == [0, 380, 400, 700, 13_200, 120_200]
    row, sample = first_row_and_sample(3.5, 66.0)
    assert (int(row), int(sample)) == (1, 13_200)
