"""The doctor: what it finds on good and on broken machines, that it never shows a secret, and its exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest
from folders import copied

from kagglehms.cli import doctor
from kagglehms.cli.commands import main
from kagglehms.cli.data_folder import find_data
from kagglehms.cli.doctor import Check, State, check_data, check_disk, check_store, credentials
from kagglehms.errors import RunError

SECRET = "0123456789abcdef-this-is-secret"


def states(checks: Iterable[Check]) -> dict[str, State]:
    return {check.name: check.state for check in checks}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home and an empty working folder, whoever runs the tests."""
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLE_CONFIG_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def test_an_empty_machine_is_told_where_to_get_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "kaggle competitions download -c hms-harmful-brain-activity-classification" in text
    assert "`kagglehms demo` needs none" in text
    assert "kaggle auth login" in text
    assert "nothing stops you" in text
    assert "\033" not in text


def test_json_holds_every_check_and_each_problem_a_fix(
    competition_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(competition_folder, tmp_path / "hms")
    next((folder / "train_eegs").iterdir()).unlink()
    assert main(["doctor", "--data", str(folder), "--json"]) == 1
    checks = json.loads(capsys.readouterr().out)
    names = {check["name"] for check in checks}
    assert {
        "python",
        "packages",
        "device",
        "features",
        "data",
        "store",
        "disk",
        "rehearsal",
        "credentials",
    } <= names
    assert all(check["fix"] for check in checks if check["state"] != "ok")
    assert [c["name"] for c in checks if c["state"] == "stop"] == ["data"]
    assert "1 of" in next(c["finding"] for c in checks if c["name"] == "data")


def test_data_that_are_found_are_checked(competition_folder: Path, tmp_path: Path) -> None:
    copied(competition_folder, tmp_path / "hms")
    assert states(check_data(None, tmp_path / "hms")) == {"data": "ok"}


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "train.csv").write_text("eeg_id\n1\n"), "lacks column"),
        (
            lambda folder: [p.unlink() for p in (folder / "train_spectrograms").iterdir()],
            "are missing, first",
        ),
    ],
)
def test_broken_data_stop(damage, says: str, competition_folder: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = copied(competition_folder, tmp_path / "hms")
    damage(folder)
    (check,) = check_data(folder, find_data(folder))
    assert check.state == "stop"
    assert says in check.finding
    assert check.fix


def test_a_given_folder_without_data_stops(tmp_path: Path) -> None:
    (check,) = check_data(tmp_path / "nowhere", find_data(tmp_path / "nowhere"))
    assert (check.state, check.finding) == ("stop", f"{tmp_path / 'nowhere'}: no such folder")


def test_the_store_is_told_apart_finished_unfinished_broken_absent(
    dist: Path, competition_folder: Path, tmp_path: Path
) -> None:
    assert states(check_store(dist.parent / "store", competition_folder)) == {"store": "ok"}
    assert states(check_disk(dist.parent / "store", competition_folder)) == {"disk": "ok"}
    absent = list(check_store(tmp_path / "store", competition_folder))
    assert "none yet" in absent[0].finding
    assert absent[0].fix == f"kagglehms prepare --data {competition_folder} --store {tmp_path / 'store'}"
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished/journal.jsonl").write_text("")
    assert "unfinished" in next(iter(check_store(tmp_path / "unfinished", None))).finding
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/store.json").write_text("{}")
    (broken,) = check_store(tmp_path / "broken", None)
    assert broken.state == "stop"
    changed = copied(dist.parent / "store", tmp_path / "changed")
    with (changed / "eeg.f16").open("r+b") as file:
        file.write(b"\0\1\2")
    (found,) = check_store(changed, None)
    assert found.state == "stop"
    assert "has changed since it was stored" in found.finding
    assert "\n" not in found.finding


def test_a_full_disk_stops(competition_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    (disk,) = check_disk(tmp_path / "store", competition_folder)
    assert (disk.name, disk.state) == ("disk", "stop")
    assert "free space" in disk.fix


def test_credentials_are_found_and_never_shown(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert credentials() == []
    (home / ".kaggle").mkdir()
    file = home / ".kaggle/kaggle.json"
    file.write_text(json.dumps({"username": "somebody", "key": SECRET}))
    file.chmod(0o644)
    monkeypatch.setenv("KAGGLE_API_TOKEN", SECRET)
    for arguments in (["doctor"], ["doctor", "--json"]):
        assert main(arguments) == 0
        captured = capsys.readouterr()
        assert SECRET not in captured.out + captured.err
        assert "KAGGLE_API_TOKEN" in captured.out
        assert str(file) in captured.out
        assert "somebody" in captured.out
        assert f"chmod 600 {file}" in captured.out
    file.chmod(0o600)
    assert states(doctor.check_credentials())["credentials"] == "ok"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_credentials_that_the_client_cannot_read_are_not_called_good(
    home: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".kaggle").mkdir()
    file = home / ".kaggle/kaggle.json"
    file.write_text(json.dumps({"username": "somebody", "key": SECRET}), encoding=encoding)
    (check,) = doctor.check_credentials()
    assert check.state == "stop"
    assert "the client cannot read it" in check.finding
    assert "UTF-8" in check.fix
    monkeypatch.setenv("KAGGLE_API_TOKEN", SECRET)
    broken, usable = doctor.check_credentials()
    assert (broken.state, usable.state) == ("note", "ok")
    assert str(file) not in usable.finding


def test_a_user_without_a_home_is_told_of_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kagglehms.kaggle.credentials.home", lambda: None)
    assert main(["doctor"]) == 0
    assert "credentials           none" in capsys.readouterr().out


def test_a_package_too_old_stops_and_one_unlike_the_image_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {check.name: check for check in doctor.check_packages()}
    assert found["packages"].state == "ok"
    monkeypatch.setattr(doctor, "version", lambda name: "0.1")
    checks = list(doctor.check_packages())
    assert checks[0].state == "stop"
    assert "torch is 0.1, needed is >=2.5" in checks[0].finding
    image = doctor.kaggle_image().packages["torch"]
    monkeypatch.setattr(doctor, "version", lambda name: image.highest if name == "torch" else "99.0")
    text = " ".join(
        check.finding for check in doctor.check_packages() if check.name == "other than on Kaggle"
    )
    assert "timm 99.0 (there" in text
    assert "torch" not in text


def test_a_device_that_fails_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise RunError("the driver is too old")

    monkeypatch.setattr(doctor, "choose_device", fails)
    (check,) = doctor.check_device()
    assert check.state == "stop"
    assert "the driver is too old" in check.finding
    assert check.fix
