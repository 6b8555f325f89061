"""Vendored wheels, fetched by the real pip from a folder that stands for the index."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from runs_folder import make_run, visible
from strangers import work_among_strangers

from kagglehms.bundle.manifest import read_manifest, verify
from kagglehms.errors import RunError, UsageError
from kagglehms.kaggle.preflight import preflight
from kagglehms.kaggle.scripts import LIBRARY, Wheel
from kagglehms.packing.build import build
from kagglehms.packing.vendor import lacking, vendor
from kagglehms.training.recipes import get_recipe

Q = "tinyparser"


def make_wheel(folder: Path, name: str, version: str = "1.0", tag: str = "py3-none-any", *needs: str) -> Path:
    """A wheel that pip accepts."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-{tag}.whl"
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {need}\n" for need in needs)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/__init__.py", f"NAME = {name!r}\n")
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip may look."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def fetched(tmp_path: Path, *requirements: str) -> list[str]:
    folder = tmp_path / "fetched"
    folder.mkdir()
    return [path.name for path in vendor(requirements, folder)]


def test_nothing_in_the_working_folder_is_executed(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(index, Q)
    witness = work_among_strangers(tmp_path, monkeypatch)
    assert fetched(tmp_path, Q) == [f"{Q}-1.0-py3-none-any.whl"]
    assert not witness.exists()


def test_what_a_wheel_needs_comes_along_and_what_the_image_has_does_not(index: Path, tmp_path: Path) -> None:
    needs = ("helper>=1", "numpy>=2.0", "torch", 'winonly; sys_platform == "win32"', 'more; extra == "all"')
    make_wheel(index, Q, "1.0", "py3-none-any", *needs)
    make_wheel(index, "helper", "0.9")
    make_wheel(index, "helper", "1.2")
    make_wheel(index, "more")
    assert fetched(tmp_path, Q) == ["helper-1.2-py3-none-any.whl", f"{Q}-1.0-py3-none-any.whl"]


def test_an_extra_brings_its_own(index: Path, tmp_path: Path) -> None:
    make_wheel(index, Q, "1.0", "py3-none-any", 'more; extra == "all"')
    make_wheel(index, "more")
    assert "more-1.0-py3-none-any.whl" in fetched(tmp_path, f"{Q}[all]")


def test_wheels_are_those_of_the_image_and_not_of_this_machine(index: Path, tmp_path: Path) -> None:
    make_wheel(index, Q, "1.0", "cp313-cp313-manylinux_2_28_x86_64")
    make_wheel(index, Q, "2.0", "cp311-cp311-manylinux_2_28_x86_64")
    make_wheel(index, Q, "3.0", "cp313-cp313-win_amd64")
    assert fetched(tmp_path, Q) == [f"{Q}-1.0-cp313-cp313-manylinux_2_28_x86_64.whl"]


@pytest.mark.parametrize("name", ["torch", "Torch==2.10.0", "triton", "torchvision"])
def test_torch_is_never_replaced(index: Path, tmp_path: Path, name: str) -> None:
    make_wheel(index, "torch", "2.10.0")
    with pytest.raises(UsageError, match="would replace the image's own"):
        fetched(tmp_path, name)


def test_a_need_that_the_image_contradicts(index: Path, tmp_path: Path) -> None:
    make_wheel(index, Q, "1.0", "py3-none-any", "numpy>=3")
    with pytest.raises(RunError, match=rf"^{Q}-1\.0-.* wants numpy>=3, and the image has 2\.1\.3; choose"):
        fetched(tmp_path, Q)


def test_needs_are_held_to_the_image_in_use_and_not_to_its_predecessor(index: Path, tmp_path: Path) -> None:
    """wfdb, which braindecode imports, wants the first pandas for the Python of the image."""
    make_wheel(index, Q, "1.0", "py3-none-any", "pandas>=2.2.3", "numpy>=2.1", "torch>=2.11")
    assert fetched(tmp_path, Q) == [f"{Q}-1.0-py3-none-any.whl"]


def test_an_older_version_comes_along_where_the_image_contradicts_the_newest(
    index: Path, tmp_path: Path
) -> None:
    make_wheel(index, Q, "1.0", "py3-none-any", "helper")
    for version, need in (
        ("0.9", "pandas"),
        ("1.1", "pandas<3"),
        ("1.2", "pandas>=3"),
        ("2.0", "polars>=99"),
    ):
        make_wheel(index, "helper", version, "py3-none-any", need)
    assert fetched(tmp_path, Q) == ["helper-1.1-py3-none-any.whl", f"{Q}-1.0-py3-none-any.whl"]


def test_where_no_version_fits_the_line_is_about_the_newest_that_is_wanted(
    index: Path, tmp_path: Path
) -> None:
    make_wheel(index, Q, "1.0", "py3-none-any", "helper<2")
    for version, need in (("1.1", "pandas>=4"), ("1.2", "pandas>=3"), ("2.0", "pandas")):
        make_wheel(index, "helper", version, "py3-none-any", need)
    with pytest.raises(RunError, match=r"^helper-1\.2-.* wants pandas>=3, and the image has 2\.2\.3; choose"):
        fetched(tmp_path, Q)


def test_what_cannot_be_fetched_is_one_line(index: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"nowhere: no wheel for Python 3\.13 .*No matching distribution"):
        fetched(tmp_path, "nowhere")
    (tmp_path / "fetched").rmdir()
    with pytest.raises(UsageError, match="write names as pip takes them"):
        fetched(tmp_path, "not a name")


def test_what_kernels_lack_is_read_from_their_imports(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import rocket_fft, numpy, os\nfrom kagglehms.cli import commands\n")
    library = Wheel(
        tmp_path, {"kagglehms": "", "kagglehms.cli.commands": "import tyro\n"}, frozenset({LIBRARY}), ""
    )
    assert lacking([script], library) == ["rocket-fft", "tyro"]


def test_a_bundle_with_a_wheel_and_a_kernel_that_imports_it(index: Path, runs: Path, tmp_path: Path) -> None:
    make_wheel(index, Q)
    built = build(runs, tmp_path / "dist", owner="some-owner", wheels=[Q])
    name = f"{Q}-1.0-py3-none-any.whl"
    manifest = read_manifest(built.dataset)
    verify(built.dataset, manifest, built.manifest.digest)
    assert name in manifest.wheels
    assert name in manifest.files
    script = tmp_path / "dist/kernels/infer/infer.py"
    script.write_text(script.read_text().replace("import os\n", f"import os\n\nimport {Q}\n"))
    assert preflight(tmp_path / "dist").ok
    assert visible(tmp_path / "dist") == ["dataset", "kernels"]
    (built.dataset / name).unlink()
    assert any(f"imports {Q}" in finding.what for finding in preflight(tmp_path / "dist").findings)


def test_none_is_needed_by_the_projects_own_kernels(index: Path, runs: Path, tmp_path: Path) -> None:
    built = build(runs, tmp_path / "dist", owner="some-owner", wheels=[])
    assert built.manifest.wheels == ()
    assert len(list(built.dataset.glob("*.whl"))) == 1


def test_the_package_of_a_recipes_network_comes_along(index: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "runs", get_recipe("squeeze-1d").changed(backbone="eeg:EEGNet"))
    make_wheel(index, "braindecode", "1.0", "py3-none-any", "torchaudio>=2.0", Q)
    make_wheel(index, Q)
    built = build(tmp_path / "runs", tmp_path / "dist", owner="some-owner", wheels=[])
    assert built.manifest.wheels == ("braindecode-1.0-py3-none-any.whl", f"{Q}-1.0-py3-none-any.whl")
    assert preflight(tmp_path / "dist").ok


def test_the_package_of_a_recipes_network_is_the_version_it_was_trained_with(
    index: Path, tmp_path: Path
) -> None:
    recipe = get_recipe("squeeze-1d").changed(backbone="eeg:EEGNet")
    make_run(tmp_path / "runs", recipe, versions={"torch": "2.10.0", "braindecode": "1.5"})
    for version in ("1.0", "1.5", "2.0"):
        make_wheel(index, "braindecode", version)
    built = build(tmp_path / "runs", tmp_path / "dist", owner="some-owner", wheels=[])
    assert built.manifest.wheels == ("braindecode-1.5-py3-none-any.whl",)


def test_a_kernel_finds_what_was_vendored(index: Path, runs: Path, tmp_path: Path) -> None:
    """The script unpacks every wheel of the bundle beside the library."""
    make_wheel(index, Q)
    built = build(runs, tmp_path / "dist", owner="some-owner", wheels=[Q])
    text = (tmp_path / "dist/kernels/infer/infer.py").read_text()
    text = text.replace(
        "    from kagglehms.kernel.entry import infer\n",
        f"    import {Q}; print({Q}.NAME); infer = lambda *_: 0\n",
    )
    assert Q in text
    for name in ("input", "working"):
        (tmp_path / "root" / name).mkdir(parents=True)
    (tmp_path / "root/input/kagglehms-bundle").symlink_to(built.dataset)
    (tmp_path / "script.py").write_text(text)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        env={"KAGGLEHMS_KAGGLE_ROOT": str(tmp_path / "root"), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{Q}\n"
