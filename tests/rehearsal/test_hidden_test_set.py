"""A hidden test set is what the competition's own would look like, at any size."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from folders import copied

from kagglehms.data.competition import Competition
from kagglehms.errors import UsageError
from kagglehms.kernel.prior import read_rows
from kagglehms.rehearsal.hidden_test_set import make_hidden


@pytest.mark.parametrize("n_rows", [1, 4, 11])
def test_given_recordings_are_used_in_their_order_and_again(
    competition_folder: Path, tmp_path: Path, n_rows: int
) -> None:
    hidden = make_hidden(tmp_path / "hidden", n_rows, competition_folder)
    given, rows = Competition(competition_folder), read_rows(hidden)
    first = read_rows(given)
    assert (len(rows), rows.notes) == (n_rows, ())
    assert rows.eeg_ids[:4] == first.eeg_ids[:n_rows]
    for row in range(n_rows):
        same = row % 4
        eeg, spectrogram = hidden.eeg(rows.eeg_id(row) or 0, "test"), rows.spectrogram_ids[row] or 0
        assert eeg.read_bytes() == given.eeg(first.eeg_id(same) or 0, "test").read_bytes()
        expected = given.spectrogram(first.spectrogram_ids[same] or 0, "test").read_bytes()
        assert hidden.spectrogram(spectrogram, "test").read_bytes() == expected
    (hidden.root / "test.csv").unlink()
    assert read_rows(hidden).eeg_ids == rows.eeg_ids


def test_without_given_ones_they_are_simulated_and_take_the_disk_once(tmp_path: Path) -> None:
    hidden = make_hidden(tmp_path / "hidden", 6, distinct=2)
    paths = sorted((hidden.root / "test_eegs").iterdir())
    assert len(paths) == 6
    assert len({path.stat().st_ino for path in paths}) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hidden"]


def test_where_files_cannot_be_linked_they_are_copied(
    competition_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refused)
    hidden = make_hidden(tmp_path / "hidden", 5, competition_folder)
    assert len({path.stat().st_ino for path in (hidden.root / "test_eegs").iterdir()}) == 5


def test_recordings_that_are_missing_stay_missing(competition_folder: Path, tmp_path: Path) -> None:
    given = copied(competition_folder, tmp_path / "given")
    shutil.rmtree(given / "test_eegs")
    hidden = make_hidden(tmp_path / "hidden", 5, given)
    assert len(list((hidden.root / "test_spectrograms").iterdir())) == 5
    assert not list((hidden.root / "test_eegs").iterdir())


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one row"):
        make_hidden(tmp_path / "hidden", 0)
    (tmp_path / "given").mkdir()
    with pytest.raises(UsageError, match="no test set"):
        make_hidden(tmp_path / "hidden", 3, tmp_path / "given")
