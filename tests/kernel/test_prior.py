"""Whatever test.csv is like, it becomes rows; whatever the bundle is like, there is a prior."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kagglehms.data.competition import VOTE_COLUMNS, Competition
from kagglehms.data.tables import read_table
from kagglehms.errors import DataError
from kagglehms.kernel.prior import TRAIN_PRIOR, Rows, read_prior, read_rows, submission_ids, write_prior
from kagglehms.kernel.submission import read_submission

HEAD = "spectrogram_id,eeg_id,patient_id\n"
SAMPLE = "eeg_id," + ",".join(VOTE_COLUMNS) + "\n"


def rows_of(folder: Path, test: str | bytes | None, sample: str | None = None) -> Rows:
    if test is not None:
        (folder / "test.csv").write_bytes(test if isinstance(test, bytes) else test.encode())
    if sample is not None:
        (folder / "sample_submission.csv").write_text(sample)
    return read_rows(Competition(folder))


def test_a_number_spelled_as_a_float_is_the_recording_and_keeps_its_spelling(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, HEAD + "853520.0,3911565283.0,6885\n")
    assert [rows.eeg_id(0), rows.spectrogram_ids[0]] == [3911565283, 853520]
    write_prior(tmp_path / "s.csv", rows, TRAIN_PRIOR)
    assert (tmp_path / "s.csv").read_text().splitlines()[1].startswith("3911565283.0,")
    np.testing.assert_array_equal(read_submission(tmp_path / "s.csv", rows.eeg_ids), [TRAIN_PRIOR])


def test_a_usual_table(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, HEAD + "853520,3911565283,6885\n7,8,9\n")
    assert rows.eeg_ids == ("3911565283", "8")
    assert rows.spectrogram_ids == (853520, 7)
    assert [rows.eeg_id(0), len(rows), rows.notes] == [3911565283, 2, ()]


@pytest.mark.parametrize(
    ("test", "ids", "spectrograms", "note"),
    [
        (HEAD + "1,2,3\n4,5,6\n7,2,9\n", ("2", "5"), (1, 4), "1 eeg_id again: 2"),
        (HEAD + "1,2,3\n4,,6\n", ("2",), (1,), "a line without an eeg_id"),
        (HEAD + "1,x7,3\n4,5,6\n", ("x7", "5"), (1, 4), "1 eeg_id not written as a number: x7"),
        (HEAD + "x,2,3\n,5,6\n", ("2", "5"), (None, None), None),
        ("eeg_id,patient_id\n2,3\n", ("2",), (None,), None),
        ("\ufeffeeg_id , spectrogram_id\r\n 2 , 3 \r\n", ("2",), (3,), None),
        (HEAD + "1,2,3\n4,5", ("2", "5"), (1, 4), None),
        (HEAD.encode() + b"1,2,\xff\xfe\n", ("2",), (1,), None),
        (HEAD + "853520.0,3911565283.0,6885.0\n", ("3911565283.0",), (853520,), None),
        (HEAD + "8.5352e5,3911565283,6885\n", ("3911565283",), (853520,), None),
        (HEAD + "1,2,3\n1,2.0,3\n", ("2",), (1,), "1 eeg_id again: 2.0"),
        (HEAD + "1,99999999999999999999,3\n", ("99999999999999999999",), (1,), "not written as a number"),
        (HEAD + "99999999999999999999,2,3\n", ("2",), (None,), None),
        (HEAD + "1,2,3\n\n \n,,\n4,5,6\n\x1a", ("2", "5"), (1, 4), None),
        ("eeg_id,spectrogram_id\n2,1\n\x1a", ("2",), (1,), None),
    ],
)
def test_odd_tables_give_the_rows_that_they_can(
    tmp_path: Path, test: str | bytes, ids: tuple[str, ...], spectrograms: tuple[int | None], note: str | None
) -> None:
    rows = rows_of(tmp_path, test)
    assert rows.eeg_ids == ids
    assert rows.spectrogram_ids == spectrograms
    assert note in rows.notes[0] if note else not rows.notes


@pytest.mark.parametrize(
    ("test", "note"),
    [
        (None, "test.csv cannot be used"),
        (HEAD, "test.csv has no rows"),
        ("a,b\n1,2\n", "it has no column eeg_id, only a, b"),
        ("", "it is empty"),
    ],
)
def test_without_a_usable_table_the_sample_names_the_rows(
    tmp_path: Path, test: str | None, note: str
) -> None:
    rows = rows_of(tmp_path, test, SAMPLE + "5,1,0,0,0,0,0\n6,1,0,0,0,0,0\n")
    assert (rows.eeg_ids, rows.spectrogram_ids) == (("5", "6"), (None, None))
    assert rows.source.name == "sample_submission.csv"
    assert note in rows.notes[0]


@pytest.mark.skipif(os.name != "posix", reason="makes devices and pipes as POSIX has them")
@pytest.mark.parametrize("kind", ["hole of 100 GB", "pipe", "device"])
def test_a_table_whose_reading_would_not_end_is_not_read(tmp_path: Path, kind: str) -> None:
    competition, path = Competition(tmp_path), tmp_path / "test.csv"
    competition.sample_submission_csv.write_text("eeg_id,seizure_vote\n7,1\n")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.touch()
        os.truncate(path, 100_000_000_000)
    rows = read_rows(competition)
    assert rows.eeg_ids == ("7",)
    assert "100,000 MB" in rows.notes[0] or "a device or a pipe" in rows.notes[0]
    with pytest.raises(DataError, match=r"test.csv: (cannot be read as a table|no such file)"):
        read_table(path, {"eeg_id": "whole"})


def test_without_any_table_there_are_no_rows(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, None)
    assert len(rows) == 0
    assert len(rows.notes) == 2
    write_prior(tmp_path / "submission.csv", rows, TRAIN_PRIOR)
    assert (tmp_path / "submission.csv").read_text() == SAMPLE


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_are_too_much(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("any")
    rows = rows_of(folder, HEAD.encode() + content)
    write_prior(folder / "submission.csv", rows, TRAIN_PRIOR)
    assert len(set(rows.eeg_ids)) == len(rows)
    assert submission_ids(folder / "submission.csv") is not None


def test_the_priors_submission_is_one_that_is_accepted(tmp_path: Path) -> None:
    write_prior(tmp_path / "s.csv", Rows(("7", "8"), (1, 2), tmp_path), TRAIN_PRIOR)
    np.testing.assert_array_equal(read_submission(tmp_path / "s.csv", [7, 8]), [TRAIN_PRIOR] * 2)
    assert submission_ids(tmp_path / "s.csv") == ["7", "8"]


@pytest.mark.parametrize(
    "content", ["", "eeg_id\n1\n", SAMPLE + "1,1,0,0,0,0\n", SAMPLE + "1,nan,0,0,0,0,1\n"]
)
def test_a_submission_that_is_not_whole_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "s.csv").write_text(content)
    assert submission_ids(tmp_path / "s.csv") is None
    assert submission_ids(tmp_path / "absent.csv") is None


def test_the_prior_is_the_bundles(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"prior": [0.5, 0.1, 0.1, 0.1, 0.1, 0.1]}))
    assert read_prior(tmp_path) == ((0.5, 0.1, 0.1, 0.1, 0.1, 0.1), "the bundle's records")


@pytest.mark.parametrize(
    "content", [None, "", "[]", "{}", '{"prior": "x"}', '{"prior": [1, 1, 0, 0, 0, 0]}', '{"prior": [1]}',
                '{"prior": [NaN, 0, 0, 0, 0, 1]}', '{"prior": [-1, 2, 0, 0, 0, 0]}', '{"prior": null}']
)  # fmt: skip
def test_a_bundle_that_cannot_say_gives_that_of_the_competition(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    prior, where_from = read_prior(tmp_path)
    assert prior == TRAIN_PRIOR
    assert "as the bundle has none" in where_from


def test_the_competitions_prior_is_that_of_its_records(real_train_table: Path) -> None:
    import polars as pl

    from kagglehms.data.records import make_records

    records = make_records(pl.read_parquet(real_train_table))
    many = records.targets_NK[records.many]
    assert len(many) == 6329
    np.testing.assert_allclose(TRAIN_PRIOR, many.mean(axis=0), atol=6e-4)


def test_nothing_but_the_standard_library_is_needed() -> None:
    code = "import sys, kagglehms.kernel.supervisor; print([m for m in sys.modules if m in sys.argv[1:]])"
    heavy = ["numpy", "torch", "polars", "pydantic", "numba", "tqdm"]
    done = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
