"""Credentials as editors, logins and systems leave them: what is called usable is what the client can read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kagglehms.kaggle.credentials import client_config, configurations, credentials
from kagglehms.kaggle.stamping import PLACEHOLDER_OWNER, find_owner

SECRET = "0123456789abcdef"
CONTENT = json.dumps({"username": "some-owner", "key": SECRET})


@pytest.fixture
def folder(no_credentials: Path) -> Path:
    (no_credentials / ".kaggle").mkdir()
    return no_credentials / ".kaggle"


def client_reads(path: Path) -> bool:
    """Whether the client itself finds the user in its configuration; it is asked offline."""
    code = "import os; from kaggle.api.kaggle_api_extended import KaggleApi as A\na = A(); a._load_config()\n"
    code += "print(a.config_values.get('username') == 'some-owner')"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KAGGLE")}
    environment["KAGGLE_CONFIG_DIR"] = str(path.parent)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("this release of the client has another way to its configuration")
    return done.stdout.splitlines()[-1] == "True"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom", "utf-16-be-bom"])
def test_the_owner_is_found_in_any_encoding_and_the_client_is_asked_for_less(
    folder: Path, encoding: str
) -> None:
    path = folder / "kaggle.json"
    text = "\ufeff" * encoding.endswith("-bom") + CONTENT
    path.write_bytes(text.encode(encoding.removesuffix("-bom")))
    path.chmod(0o600)
    assert find_owner() == ("some-owner", str(path))
    (found,) = credentials()
    assert (found.place, found.username) == (str(path), "some-owner")
    assert bool(found.fault) is (encoding != "utf-8")
    assert client_reads(path) is not bool(found.fault)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe{", "is in UTF-16"),
        (b"\x00\x01\x02", "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b"{}", "lacks username and key"),
        (b'{"username": "some-owner"}', "lacks key"),
        (b'{"username": 7, "key": ""}', "lacks username and key"),
    ],
)
def test_what_is_present_and_of_no_use_is_said_so_by_the_build_too(
    folder: Path, content: bytes, fault: str
) -> None:
    (folder / "kaggle.json").write_bytes(content)
    (found,) = credentials()
    assert fault in found.fault
    owner, source = find_owner()
    if b"some-owner" in content:
        assert owner == "some-owner"
    else:
        assert owner == PLACEHOLDER_OWNER
        assert source.startswith(f"nowhere; {folder / 'kaggle.json'} ")
        assert fault in source


def test_a_folder_in_place_of_the_file_is_no_credential(folder: Path) -> None:
    (folder / "kaggle.json").mkdir()
    (found,) = credentials()
    assert "cannot be read" in found.fault


def test_each_place_is_looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert credentials() == []
    (folder / "credentials.json").write_text(json.dumps({"username": "some-owner", "refresh_token": SECRET}))
    (folder / "access_token").write_text(f"{SECRET}\n")
    (folder / "access_token.txt").write_text(" \n")
    monkeypatch.setenv("KAGGLE_API_TOKEN", SECRET)
    monkeypatch.setenv("KAGGLE_USERNAME", "another")
    monkeypatch.setenv("KAGGLE_KEY", SECRET)
    found = credentials()
    names = ["access_token", "access_token.txt", "credentials.json"]
    places = ["KAGGLE_API_TOKEN", "KAGGLE_USERNAME and KAGGLE_KEY", *(str(folder / name) for name in names)]
    assert [one.place for one in found] == places
    assert [one.fault for one in found] == ["", "", "", "is empty", ""]
    assert SECRET not in repr(found)


def test_a_user_without_a_home_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("kagglehms.kaggle.credentials.home", lambda: None)
    assert client_config() is None
    assert list(configurations()) == credentials() == []
    assert find_owner() == (PLACEHOLDER_OWNER, "nowhere")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert client_config() == tmp_path / "kaggle/kaggle.json"
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "own"))
    assert client_config() == tmp_path / "own/kaggle.json"
