"""The doctor: what it finds on good and on broken machines, that it never shows a secret, and its exit codes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest
from folders import copied

from kagglehms.cli import doctor
from kagglehms.cli.commands import main
from kagglehms.cli.doctor import Check, State, check_data, check_store, credentials, find_data
from kagglehms.errors import RunError
from kagglehms.rehearsal import isolation, launching

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
    assert "Create New Token" in text
    assert "nothing stops you" in text
    assert "\033" not in text


def test_json_holds_every_check_and_each_problem_its_cure(
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
    assert all(check["cure"] for check in checks if check["state"] != "ok")
    assert [c["name"] for c in checks if c["state"] == "stop"] == ["data"]
    assert "1 of" in next(c["finding"] for c in checks if c["name"] == "data")


def test_data_is_found_where_the_cure_puts_it(competition_folder: Path, tmp_path: Path) -> None:
    assert find_data(None, tmp_path) is None
    copied(competition_folder, tmp_path / "hms")
    assert find_data(None, tmp_path) == tmp_path / "hms"
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
    assert check.cure


def test_a_given_folder_without_data_stops(tmp_path: Path) -> None:
    (check,) = check_data(tmp_path / "nowhere", find_data(tmp_path / "nowhere"))
    assert (check.state, check.finding) == ("stop", f"{tmp_path / 'nowhere'}: no such folder")


def test_the_store_is_told_apart_finished_unfinished_broken_absent(
    dist: Path, competition_folder: Path, tmp_path: Path
) -> None:
    assert states(check_store(dist.parent / "store", competition_folder)) == {"store": "ok", "disk": "ok"}
    absent = list(check_store(tmp_path / "store", competition_folder))
    assert "none yet" in absent[0].finding
    assert absent[0].cure == f"kagglehms prepare --data {competition_folder} --store {tmp_path / 'store'}"
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished/journal.jsonl").write_text("")
    assert "unfinished" in next(iter(check_store(tmp_path / "unfinished", None))).finding
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/store.json").write_text("{}")
    (broken,) = check_store(tmp_path / "broken", None)
    assert broken.state == "stop"


def test_a_full_disk_stops(competition_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    disk = list(check_store(tmp_path / "store", competition_folder))[-1]
    assert (disk.name, disk.state) == ("disk", "stop")
    assert "free space" in disk.cure


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
    assert states(doctor.check_client())["credentials"] == "ok"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_credentials_that_the_client_cannot_read_are_not_called_good(
    home: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".kaggle").mkdir()
    file = home / ".kaggle/kaggle.json"
    file.write_text(json.dumps({"username": "somebody", "key": SECRET}), encoding=encoding)
    (check,) = doctor.check_client()
    assert check.state == "stop"
    assert "the client cannot read it" in check.finding
    assert "UTF-8" in check.cure
    monkeypatch.setenv("KAGGLE_API_TOKEN", SECRET)
    broken, usable = doctor.check_client()
    assert (broken.state, usable.state) == ("note", "ok")
    assert str(file) not in usable.finding


def test_a_user_without_a_home_is_told_of_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kagglehms.kaggle.credentials.home", lambda: None)
    assert main(["doctor"]) == 0
    assert "credentials           none" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "outside of this container"),
        ({"kernel/unprivileged_userns_clone": "0"}, "sysctl kernel.unprivileged_userns_clone=1"),
        (
            {"kernel/unprivileged_userns_clone": "1", "user/max_user_namespaces": "500"},
            "outside of this container",
        ),
        ({"user/max_user_namespaces": "0"}, "sysctl user.max_user_namespaces=15000"),
        (
            {"kernel/apparmor_restrict_unprivileged_userns": "1", "user/max_user_namespaces": "500"},
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ],
)
def test_only_a_setting_that_forbids_is_named_as_a_cure(
    settings: dict[str, str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.platform, "system", lambda: "Linux")
    for name, value in settings.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{value}\n")
    cure = isolation.how_to_allow_namespaces(tmp_path)
    assert says in cure
    assert all(
        name.replace("/", ".") in cure for name in settings if "sysctl" in says and settings[name] in "01"
    ) or ("sysctl" not in cure)


def test_the_cure_names_no_setting_that_this_machine_lacks() -> None:
    for name in re.findall(r"sysctl ([\w.]+)=", isolation.how_to_allow_namespaces()):
        assert Path("/proc/sys", *name.split(".")).is_file()


def test_a_full_disk_for_temporary_files_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(isolation.tempfile, "mkdtemp", full)
    (check,) = doctor.check_isolation()
    assert check.state == "note"
    assert "No space left" in check.finding


def test_namespaces_are_probed_by_running_something(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the probe says is what a rehearsal's launcher says; a launcher that refuses is passed on."""
    report = b'{"unavailable": "unshare: Operation not permitted"}'
    monkeypatch.setattr(launching, "LAUNCHER", f"import os, sys; os.write(int(sys.argv[3]), {report!r})")
    (check,) = doctor.check_isolation()
    assert check.state == "note"
    assert "Operation not permitted" in check.finding
    monkeypatch.setattr(launching, "LAUNCHER", "raise SystemExit(3)")
    assert isolation.namespaces_unavailable() is not None


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
    assert check.cure
