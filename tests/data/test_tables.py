"""What a cell of a table means depends on that cell alone; what has no meaning is refused by row."""

from __future__ import annotations

import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import polars as pl
import pytest
from train_tables import GOOD, written

from kagglehms.data.competition import SLUG
from kagglehms.data.records import read_records, read_train_table
from kagglehms.errors import DataError


def test_blank_lines_count_for_nothing(tmp_path: Path) -> None:
    """A DOS editor ends a file with Ctrl-Z, a spreadsheet with rows of commas, many others with an empty line."""
    expected = read_train_table(written(GOOD, tmp_path))
    text = (tmp_path / "train.csv").read_text()
    head, *rows = text.splitlines()
    commas = "," * head.count(",")
    for changed in (
        text + "\n",
        text + "\n\n  \n",
        text + "\x1a",
        text + commas + "\n",
        "\r\n".join([head, "", *rows, "", ""]),
        "\n".join([head, rows[0], commas, "", *rows[1:]]),
        "\ufeff" + text,
        text.replace("eeg_id", " eeg_id", 1),
    ):
        (tmp_path / "train.csv").write_text(changed, newline="")
        assert read_train_table(tmp_path / "train.csv").equals(expected), repr(changed)


def test_tables_are_read_whatever_their_folder_is_called(tmp_path: Path) -> None:
    """A pattern of polars would find no file, or the other one."""
    for folder in ("a[1]*", "a1"):
        (tmp_path / folder).mkdir()
        table = GOOD.with_columns(pl.lit(folder == "a1").cast(pl.Int64).alias("label_id"))
        table.write_parquet(tmp_path / folder / "train.parquet")
        found = read_train_table(tmp_path / folder / "train.parquet")
        assert set(found["label_id"]) == {int(folder == "a1")}


def test_whole_numbers_may_be_spelled_as_floats(tmp_path: Path) -> None:
    """What pandas writes of a column that had a gap."""
    expected = read_records(written(GOOD, tmp_path))
    for columns in ("eeg_id", "spectrogram_id", "label_id", "seizure_vote"):
        text = written(GOOD.with_columns(pl.col(columns).cast(pl.Float64)), tmp_path)
        assert "7.0" in text.read_text() or columns != "eeg_id"
        assert read_records(text).digest == expected.digest
    GOOD.with_columns(pl.col("eeg_id").cast(pl.Float64)).write_parquet(tmp_path / "train.parquet")
    assert read_records(tmp_path / "train.parquet").digest == expected.digest


@pytest.mark.parametrize(
    "id_", ["99999999999999999999", "9223372036854775808", "-9223372036854775809", "1e30"]
)
@pytest.mark.parametrize("column", ["eeg_id", "spectrogram_id", "label_id", "patient_id"])
def test_an_id_beyond_64_bits_is_refused_by_file_column_and_row(
    tmp_path: Path, column: str, id_: str
) -> None:
    path = written(GOOD.with_columns(pl.Series(column, ["1", "2", id_, "3"])), tmp_path)
    with pytest.raises(DataError, match=rf"train\.csv: column {column} .* in row 2;.*64 bits"):
        read_train_table(path)


def test_the_largest_ids_are_kept_to_the_last_digit(tmp_path: Path) -> None:
    ids = [2**63 - 1, 2**63 - 2, 2**53 + 1, -5]
    path = written(GOOD.with_columns(pl.Series("label_id", ids)), tmp_path)
    assert read_train_table(path)["label_id"].to_list() == ids
    wide = GOOD.with_columns(pl.Series("label_id", [1, 2, 3, 2**63], dtype=pl.UInt64))
    wide.write_parquet(tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"train\.parquet: column label_id .* in row 3"):
        read_train_table(tmp_path / "train.parquet")
    vague = GOOD.with_columns(pl.Series("label_id", [1.0, 2.0, 3.0, 2.0**53 + 2]))
    vague.write_parquet(tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"column label_id .* in row 3"):
        read_train_table(tmp_path / "train.parquet")


@pytest.mark.parametrize("archive", ["train.csv.zip", f"{SLUG}.zip", f"../{SLUG}.zip", "../hms.zip"])
def test_a_table_that_is_still_packed_is_named_and_how_to_unpack_it(tmp_path: Path, archive: str) -> None:
    """The command in the message is run as it stands there."""
    folder = tmp_path / "hms"
    folder.mkdir()
    with zipfile.ZipFile(folder / archive, "w") as packed:
        packed.writestr("train.csv", GOOD.write_csv())
    with pytest.raises(DataError, match=r"no such file; .* has not been unpacked: ") as caught:
        read_train_table(folder / "train.csv")
    command = shlex.split(caught.value.hint.partition("unpacked: ")[2])
    assert command[0] == "python"
    subprocess.run([sys.executable, *command[1:]], check=True)
    assert len(read_train_table(folder / "train.csv")) == len(GOOD)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x01", b"a,b\n1,2,3\n4\n"])
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "train.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"train\.csv: (cannot be read|lacks column)"):
        read_train_table(tmp_path / "train.csv")
