"""Building from any folder: `build.py` in the checkout, `kagglehms build` where only the wheel is installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from runs_folder import make_run, tree

from kagglehms.bundle.manifest import read_manifest, verify
from kagglehms.errors import EXIT_FAILURE, EXIT_OK, EXIT_OUTPUT_CLOSED, EXIT_USER

BUILD = Path(__file__).resolve().parents[1] / "build.py"


def build(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run build.py in `folder` as a user with an empty home."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("KAGGLE")}
    return subprocess.run(
        [sys.executable, str(BUILD), *arguments],
        cwd=folder,
        env=inherited | {"HOME": str(folder / "home")} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_run(tmp_path / "runs", "baseline")
    make_run(tmp_path / "runs", "global-stats", finished=())
    return tmp_path


def test_it_builds_from_any_folder_and_says_what_to_type_next(folder: Path) -> None:
    done = build(folder, "--recipe", "baseline", "--fold", "0", KAGGLE_USERNAME="some-owner")
    assert done.returncode == EXIT_OK, done.stderr
    manifest = read_manifest(folder / "dist/dataset")
    verify(folder / "dist/dataset", manifest)
    assert [model.weights for model in manifest.models] == ["baseline.fold0.safetensors"]
    assert manifest.digest in done.stdout
    assert "kaggle kernels push -p dist/kernels/infer" in done.stdout
    assert "some-owner (from KAGGLE_USERNAME)" in done.stdout
    assert "warning" not in done.stdout


def test_outputs_that_could_not_be_fetched_are_refused_at_once(folder: Path) -> None:
    (folder / "outputs").touch()
    done = build(folder, "--recipe", "baseline", "--push")
    assert done.returncode == EXIT_USER
    assert done.stderr == "kagglehms: error: outputs: cannot be written (File exists); give another folder\n"
    assert not (folder / "dist").exists()


def test_a_path_that_the_system_refuses_is_one_line(folder: Path) -> None:
    done = build(folder, "--runs", "r" * 300)
    assert (done.returncode, done.stderr.count("\n")) == (EXIT_FAILURE, 1)
    assert done.stderr.startswith("kagglehms: error: ")
    assert "too long" in done.stderr


def test_two_builds_anywhere_and_anyhow_are_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    """Other folder, checkout, dates, umask, hash seed, time zone and language; one tree."""
    root = BUILD.parent
    copied = tmp_path / "elsewhere/checkout"
    ignored = shutil.ignore_patterns(
        ".git", "__pycache__", "dist", "*.nbi", "*.nbc", ".*_cache", "tests", "docs"
    )
    shutil.copytree(root, copied, ignore=ignored, copy_function=shutil.copyfile)
    runs = Path(shutil.copytree(folder / "runs", copied / "somewhere/runs", copy_function=shutil.copyfile))
    for path in copied.rglob("*"):
        os.utime(path, (1e9, 1e9))
    variants = [
        (root, folder, folder / "runs", "one", {"PYTHONHASHSEED": "1", "TZ": "UTC", "LC_ALL": "C"}, 0o022),
        (
            copied,
            copied,
            runs,
            "two",
            {"PYTHONHASHSEED": "2", "TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8"},
            0o077,
        ),
    ]
    for checkout, cwd, source, name, environment, umask in variants:
        done = subprocess.run(
            [sys.executable, str(checkout / "build.py"), "--runs", str(source), "--recipe", "baseline",
             "--dist", str(tmp_path / name), "--owner", "some-owner"],
            cwd=cwd, env={"PATH": os.environ["PATH"], "PYTHONPATH": str(checkout), "HOME": str(tmp_path)} | environment,
            capture_output=True, text=True, check=False, umask=umask,
        )  # fmt: skip
        assert done.returncode == EXIT_OK, done.stderr
    one, two = (tree(tmp_path / name) for name in ("one", "two"))
    manifests = [json.loads(content.pop("dataset/manifest.json")) for content in (one, two)]
    assert one == two
    assert manifests[1]["library"].pop("commit") is None  # no git there
    assert manifests[0]["library"].pop("commit") or not (root / ".git").exists()
    assert manifests[0] == manifests[1]


def test_it_warns_where_no_owner_is_known(folder: Path) -> None:
    done = build(folder, "--recipe", "baseline", "--dist", "elsewhere")
    assert done.returncode == EXIT_OK, done.stderr
    assert "warning: no Kaggle user name is known" in done.stdout
    assert (folder / "elsewhere/dataset/manifest.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((), EXIT_FAILURE, "global-stats: unfinished"),
        (("--recipe", "baselin"), EXIT_USER, "did you mean 'baseline'?"),
        (("--recipe", "baseline", "--fold", "5"), EXIT_FAILURE, "fold 5 is not finished"),
        (("--runs", "nowhere"), EXIT_USER, "nowhere: no such folder"),
        (("--recipe", "baseline", "--owner", "not a name"), EXIT_USER, "not a Kaggle user name"),
        (("--recipe", "baseline", "--half", "--store", "store"), EXIT_USER, "no competition data in hms"),
        (("--recipe", "baseline", "--data", "hms"), EXIT_USER, "belong to --half"),
        (("--recipes", "baseline"), EXIT_USER, "did you mean '--recipe'?"),
        (("--outputs", "here"), EXIT_USER, "build has no option '--outputs'"),
        (("--recipe", "baseline", "--wheels", "torch"), EXIT_USER, "replace the image's own"),
    ],
)
def test_what_goes_wrong_is_one_line_and_a_code(
    folder: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    done = build(folder, *arguments)
    assert done.returncode == code
    assert says in done.stderr
    assert done.stderr.startswith("kagglehms: error: ")
    assert done.stderr.count("\n") == 1
    assert not (folder / "dist").exists()


def test_a_reader_of_its_output_that_has_gone_is_no_full_disk(folder: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, str(BUILD), "--owner", "somebody", "--recipe", "baseline"],
        cwd=folder,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (EXIT_OUTPUT_CLOSED, "")


def test_a_python_without_the_packages_is_told_what_to_install() -> None:
    """An isolated interpreter finds nothing but the standard library."""
    done = subprocess.run([sys.executable, "-I", "-S", str(BUILD)], capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert line.endswith("pip install -e .")


def test_it_is_the_command_of_that_name(folder: Path) -> None:
    built = [build(folder, "--json", "--quiet", "--recipe", "baseline", "--owner", "some-owner")]
    command = [sys.executable, "-m", "kagglehms", "build", "--json", "--recipe", "baseline"]
    built.append(
        subprocess.run(
            [*command, "--owner", "some-owner"], cwd=folder, capture_output=True, text=True, check=False
        )
    )
    said = [json.loads(done.stdout) for done in built]
    assert said[0] == said[1]
    assert said[0]["digest"] == read_manifest(folder / "dist/dataset").digest
    assert set(said[0]["files"]) == {path.name for path in (folder / "dist/dataset").iterdir()} - {
        "manifest.json",
        "dataset-metadata.json",
    }
    assert len(BUILD.read_text().splitlines()) <= 50  # a screen


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, made in the checkout as everybody makes one."""
    out = tmp_path_factory.mktemp("package")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)],
        cwd=BUILD.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel installed in it, and no checkout around."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target"]
    subprocess.run([*command, str(target), str(wheel)], check=True, capture_output=True)
    return target


def run_installed(
    installed: Path, folder: Path, *words: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("KAGGLE")}
    where = {"PYTHONPATH": str(installed), "HOME": str(folder / "home")}
    return subprocess.run(
        [sys.executable, "-P", "-m", "kagglehms", *words],
        cwd=folder,
        env=inherited | where | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_pypas_build_makes_the_package_beside_a_script_of_its_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    root = BUILD.parent
    for path in [*root.glob("kernels/*/*.py"), *root.glob("kernels/*/*.json")]:
        assert f"kagglehms/kernel_scripts/{path.relative_to(root / 'kernels').as_posix()}" in names
    assert "kagglehms/kernel_scripts/dataset-metadata.json" in names
    assert "build.py" not in names


def members(wheel: Path) -> dict[str, bytes]:
    """What a wheel holds, but for its list of contents, whose order is free."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")}


def test_build_works_without_a_checkout(wheel: Path, installed: Path, folder: Path) -> None:
    words = ["build", "--recipe", "baseline", "--owner", "some-owner"]
    done = run_installed(installed, folder, *words)
    assert done.returncode == EXIT_OK, done.stderr
    manifest = read_manifest(folder / "dist/dataset")
    verify(folder / "dist/dataset", manifest)
    kernels = {path.name: path for path in (folder / "dist/kernels").iterdir()}
    assert set(kernels) == {"infer", "prepare", "train"}
    for name, path in kernels.items():
        assert f'DIGEST = "{manifest.digest}"' in (path / f"{name}.py").read_text()
    again = run_installed(installed, folder, *words, "--dist", "again", PYTHONHASHSEED="3", TZ="Asia/Tokyo")
    assert again.returncode == EXIT_OK, again.stderr
    assert tree(folder / "again") == tree(folder / "dist")
    (bundled,) = (folder / "dist/dataset").glob("*.whl")
    assert members(bundled) == members(wheel)
    # The library in the bundle builds in its turn.
    unpacked = folder / "unpacked"
    with zipfile.ZipFile(bundled) as archive:
        archive.extractall(unpacked)
    third = run_installed(unpacked, folder, *words, "--dist", "third")
    assert third.returncode == EXIT_OK, third.stderr
    assert read_manifest(folder / "third/dataset").digest == manifest.digest


@pytest.mark.slow(50)
def test_the_demo_works_without_a_checkout(installed: Path, tmp_path: Path) -> None:
    done = run_installed(installed, tmp_path, "demo", "--eegs", "80", "--json")
    assert done.returncode == EXIT_OK, done.stderr
    said = json.loads(done.stdout)
    assert said["score"] < said["prior"]
    assert (tmp_path / "demo/rehearsal/submission.csv").is_file()
    assert str(installed) not in (tmp_path / "demo/rehearsal/rehearsal.log").read_text()
