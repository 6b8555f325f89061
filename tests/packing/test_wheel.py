"""The wheel: valid for pip, and the same bytes wherever and whenever it is built."""

from __future__ import annotations

import base64
import csv
import email
import hashlib
import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import kagglehms
from kagglehms.errors import RunError
from kagglehms.packing.wheel import build_wheel, package_files

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    name, content = build_wheel(ROOT)
    path = tmp_path_factory.mktemp("wheel") / name
    path.write_bytes(content)
    return path


def checkout(target: Path) -> Path:
    """Copy the project to another place, with other times and with what running it leaves behind."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "kagglehms", target / "kagglehms", ignore=ignored, copy_function=shutil.copyfile)
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copyfile(ROOT / name, target / name)
    return target


def test_pip_installs_it_and_it_imports(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    subprocess.run([*command, "--target", str(target), str(wheel)], check=True, capture_output=True)
    code = f"import sys; sys.path.insert(0, {str(target)!r}); import kagglehms.errors as e; print(e.__file__)"
    done = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True)
    assert Path(done.stdout.strip()) == target / "kagglehms/errors.py"
    for path in package_files(ROOT):
        assert (target / path.relative_to(ROOT)).read_bytes() == path.read_bytes()
    assert (target / "bin/kagglehms").exists()


def test_its_record_lists_every_member_with_its_hash(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        record = next(name for name in names if name.endswith(".dist-info/RECORD"))
        rows = {row[0]: row[1:] for row in csv.reader(io.StringIO(archive.read(record).decode())) if row}
        assert sorted(rows) == sorted(names)
        assert rows.pop(record) == ["", ""]
        for entry in archive.infolist():
            assert entry.date_time == (1980, 1, 1, 0, 0, 0)
            assert entry.external_attr >> 16 == 0o100644
            assert entry.compress_type == zipfile.ZIP_STORED
        for name, (digest, size) in rows.items():
            content = archive.read(name)
            kind, _, value = digest.partition("=")
            assert kind == "sha256"
            assert base64.urlsafe_b64decode(value + "=") == hashlib.sha256(content).digest()
            assert int(size) == len(content)


def test_its_metadata_is_that_of_the_project(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = f"kagglehms-{kagglehms.__version__}.dist-info"
        metadata = email.message_from_bytes(archive.read(f"{info}/METADATA"))
        assert metadata["Name"] == "kagglehms"
        assert metadata["Version"] == kagglehms.__version__
        assert metadata["License-Expression"] == "Apache-2.0"
        assert any(requirement.startswith("torch>=") for requirement in metadata.get_all("Requires-Dist", []))
        assert b"py3-none-any" in archive.read(f"{info}/WHEEL")
        assert b"kagglehms = kagglehms.cli.commands:main" in archive.read(f"{info}/entry_points.txt")


def test_time_place_and_leftovers_do_not_change_a_byte(wheel: Path, tmp_path: Path) -> None:
    copy = checkout(tmp_path / "elsewhere")
    for path in sorted(copy.rglob("*")):
        os.utime(path, (1e9, 1e9))
    cache = copy / "kagglehms/__pycache__"
    cache.mkdir()
    (cache / "errors.cpython-311.pyc").write_bytes(b"\0")
    (copy / "kagglehms/data/x.nbi").write_bytes(b"\0")
    (copy / "kagglehms/.errors.py.swp").write_bytes(b"\0")
    (copy / "kagglehms/errors.py").chmod(0o700)
    assert build_wheel(copy) == (wheel.name, wheel.read_bytes())


def test_a_changed_source_changes_it(wheel: Path, tmp_path: Path) -> None:
    copy = checkout(tmp_path / "elsewhere")
    with (copy / "kagglehms/errors.py").open("a") as file:
        file.write("\n")
    assert build_wheel(copy)[1] != wheel.read_bytes()


def test_another_version_than_the_one_that_runs_is_refused(tmp_path: Path) -> None:
    copy = checkout(tmp_path / "elsewhere")
    text = (copy / "pyproject.toml").read_text()
    (copy / "pyproject.toml").write_text(
        text.replace(f'version = "{kagglehms.__version__}"', 'version = "9.9"')
    )
    with pytest.raises(RunError, match=r"9\.9"):
        build_wheel(copy)


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a checkout"):
        build_wheel(tmp_path)
