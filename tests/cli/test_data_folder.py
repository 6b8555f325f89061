"""Where commands find the competition's data: named by an option, by a variable, or in one of the usual places."""

from __future__ import annotations

from pathlib import Path

import pytest

from kagglehms.cli.data_folder import PLACES, VARIABLE, data_folder, find_data, named_data
from kagglehms.errors import UsageError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and no variable."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(folder: Path, name: str = "train.csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()
    return folder


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["train.csv", "test.csv"])
def test_every_usual_place_is_looked_at(place: str, name: str, here: Path) -> None:
    assert find_data() is None
    table(here / place, name)
    found = find_data()
    assert found is not None
    assert found.samefile(here / place)
    assert data_folder(None) == found


def test_the_first_place_wins_and_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table(here / "demo/competition")
    table(here / "hms")
    assert data_folder(None) == Path("hms")
    assert capsys.readouterr().out.startswith("data: hms, found by itself; --data or KAGGLEHMS_DATA")


def test_the_option_comes_before_the_variable_and_both_before_the_places(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table(here / "hms")
    elsewhere, given = table(here / "elsewhere"), table(here / "given")
    monkeypatch.setenv(VARIABLE, str(elsewhere))
    assert (named_data(None), find_data(), data_folder(None)) == (elsewhere, elsewhere, elsewhere)
    assert (named_data(given), find_data(given), data_folder(given)) == (given, given, given)
    monkeypatch.setenv(VARIABLE, "")
    assert named_data(None) is None
    assert capsys.readouterr().out == ""


def test_a_named_folder_without_tables_is_not_replaced_by_another(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that gets it says what is wrong with it; the doctor finds no data in it."""
    table(here / "hms")
    assert data_folder(Path("nowhere")) == Path("nowhere")
    assert find_data(Path("nowhere")) is None
    monkeypatch.setenv(VARIABLE, "nowhere")
    assert data_folder(None) == Path("nowhere")
    assert find_data() is None


def test_no_data_is_one_line_that_says_how_to_get_them() -> None:
    with pytest.raises(UsageError) as raised:
        data_folder(None)
    message = str(raised.value)
    assert "--data" in message
    assert VARIABLE in message
    assert "kaggle competitions download" in message
    assert "\n" not in message
