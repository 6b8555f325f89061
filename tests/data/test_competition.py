"""The facts of the competition agree with each other and with the real files."""

from __future__ import annotations

import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import polars as pl
import pytest

from kagglehms.data import competition as facts
from kagglehms.errors import DataError


def test_chains_are_made_of_known_electrodes() -> None:
    assert tuple(facts.CHAINS) == facts.PANELS
    for electrodes in facts.CHAINS.values():
        assert len(set(electrodes)) == 5
        assert set(electrodes) < set(facts.CHANNELS)


def test_left_and_right_chains_mirror_each_other() -> None:
    for left, right in (("LL", "RL"), ("LP", "RP")):
        for odd, even in zip(facts.CHAINS[left], facts.CHAINS[right], strict=True):
            assert odd[:-1] == even[:-1]
            assert int(odd[-1]) + 1 == int(even[-1])


def test_frequencies_are_bins_of_a_1024_point_transform() -> None:
    assert len(facts.FREQUENCIES_HZ) == facts.N_BINS
    assert facts.FREQUENCIES_HZ[0] == 0.59
    assert facts.FREQUENCIES_HZ[-1] == 19.92
    assert facts.FREQUENCIES_HZ[13] == 3.13  # 3.125, which Python's own rounding would make 3.12


def test_columns_are_those_of_the_real_files(hms_sample: Path) -> None:
    spectrogram = next((hms_sample / "test_spectrograms").glob("*.parquet"))
    assert list(pl.read_parquet_schema(spectrogram)) == ["time", *facts.SPECTROGRAM_COLUMNS]
    eeg = next((hms_sample / "train_eegs").glob("*.parquet"))
    assert list(pl.read_parquet_schema(eeg)) == list(facts.CHANNELS)
    submission = pl.read_csv(hms_sample / "sample_submission.csv")
    assert submission.columns == ["eeg_id", *facts.VOTE_COLUMNS]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such folder"):
        facts.Competition(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("archive", "missing", "member"),
    [
        ("hms/train.csv.zip", "train.csv", "train.csv"),
        ("hms/train_eegs/7.parquet.zip", "train_eegs/7.parquet", "7.parquet"),
        ("hms/train_eegs.zip", "train_eegs/7.parquet", "train_eegs/7.parquet"),
        (f"hms/{facts.SLUG}.zip", "train_eegs/7.parquet", "train_eegs/7.parquet"),
        (f"{facts.SLUG}.zip", "train_eegs/7.parquet", "train_eegs/7.parquet"),
        ("hms.zip", "test.csv", "test.csv"),
        ("hms.zip", "", "test.csv"),
    ],
)
def test_what_is_still_packed_is_named_with_a_command_that_unpacks_it(
    tmp_path: Path, archive: str, missing: str, member: str
) -> None:
    root, path = tmp_path / "hms", tmp_path / archive
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr(member, "content")
    said = facts.unpacking(root / missing if missing else root, root)
    assert said is not None
    named, _, command = said.partition(" has not been unpacked: ")
    assert named == str(path)
    subprocess.run([sys.executable, *shlex.split(command)[1:]], check=True)
    assert (root / (missing or member)).read_text() == "content"


def test_nothing_is_said_where_no_archive_is(tmp_path: Path) -> None:
    assert facts.unpacking(tmp_path / "hms/train.csv", tmp_path / "hms") is None
    assert facts.unpacking(Path("train.csv"), Path()) is None


def test_an_archive_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "hms.zip", "w") as packed:
        packed.writestr("train.csv", "content")
    with pytest.raises(DataError, match="is an archive and no folder") as caught:
        facts.Competition(tmp_path / "hms.zip")
    assert caught.value.hint.endswith(f"-e {tmp_path / 'hms.zip'} {tmp_path / 'hms'}")
