"""The built infer kernel, run as a script against a folder that stands for /kaggle.

No competition is mounted in most of these: the kernel then ends after it has found, unpacked, imported and verified
the bundle, which is what is looked at here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kagglehms.data.competition import SLUG
from kagglehms.deploy.bundle import Built, project_root
from kagglehms.deploy.mounts import LAYOUTS, ROOT_VARIABLE, Layout, dataset_mount
from kagglehms.errors import EXIT_FAILURE, EXIT_USER

MAX_LINES = 30


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty /kaggle."""
    for name in ("input", "working", "tmp"):
        (tmp_path / name).mkdir()
    return tmp_path


def mount(built: Built, root: Path, layout: Layout = "owner", copy: bool = False) -> Path:
    place = root / "input" / dataset_mount(built.owner, built.slug, layout)
    place.parent.mkdir(parents=True, exist_ok=True)
    if copy:
        shutil.copytree(built.dataset, place)
    else:
        place.symlink_to(built.dataset, target_is_directory=True)
    return place


def run(built: Built, root: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(root / "tmp"), "HOME": "/dev/null/home"}
    return subprocess.run(
        [sys.executable, str(built.kernels[0] / "infer.py")],
        cwd=root / "working",
        env=environment | {ROOT_VARIABLE: str(root)},
        capture_output=True,
        text=True,
        check=False,
    )


def assert_one_line(done: subprocess.CompletedProcess[str], code: int, says: str) -> None:
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr


@pytest.mark.parametrize(
    "path", sorted((project_root() / "kernels").glob("*/*.py")), ids=lambda path: path.stem
)
def test_a_kernel_is_short_valid_and_sets_its_environment_first(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    compile(text, str(path), "exec")
    assert len(text.splitlines()) <= MAX_LINES
    assert text.index("os.environ.update(") < text.index("from kagglehms")
    for name in ("NUMBA_CACHE_DIR", "NO_ALBUMENTATIONS_UPDATE", "HF_HUB_OFFLINE"):
        assert name in text
    assert "pickle" not in text
    assert "pip" not in text


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_bundle_is_found_unpacked_and_verified_in_each_layout(
    built: Built, root: Path, layout: Layout
) -> None:
    place = mount(built, root, layout)
    done = run(built, root)
    assert f"bundle {place}: 2 model(s), digest {built.manifest.digest[:12]} verified" in done.stdout
    assert_one_line(done, EXIT_USER, "the competition is not mounted")
    library = Path(done.stdout.splitlines()[0].partition(" from ")[2])
    assert library.is_relative_to(root / "tmp")
    assert not list((root / "working").iterdir())


def test_a_bundle_that_is_not_mounted_is_one_line(built: Built, root: Path) -> None:
    done = run(built, root)
    assert_one_line(done, EXIT_FAILURE, f"{built.owner}/{built.slug} is not mounted")
    for layout in LAYOUTS:
        assert str(root / "input" / dataset_mount(built.owner, built.slug, layout)) in done.stderr


def test_a_competition_of_another_name_is_not_taken(built: Built, root: Path) -> None:
    mount(built, root)
    other = root / "input" / f"{SLUG}-2"
    other.mkdir()
    (other / "test.csv").write_text("eeg_id\n")
    assert_one_line(run(built, root), EXIT_USER, "the competition is not mounted")


def test_a_stale_version_is_named_as_such(built: Built, root: Path) -> None:
    mount(built, root)
    script = built.kernels[0] / "infer.py"
    stale = root / "kernels/infer"
    stale.mkdir(parents=True)
    (stale / "infer.py").write_text(script.read_text().replace(built.manifest.digest, "e" * 64))
    newer = Built(built.dataset, (stale,), built.manifest, built.owner, built.owner_source, built.slug)
    assert_one_line(run(newer, root), EXIT_FAILURE, "stale version")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("baseline.fold0.safetensors", "changed: baseline.fold0.safetensors (same size, other content)"),
        ("manifest.json", "manifest.json"),
    ],
)
def test_a_flipped_bit_is_found(built: Built, root: Path, name: str, says: str) -> None:
    path = mount(built, root, copy=True) / name
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    assert_one_line(run(built, root), EXIT_FAILURE, says)


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped"])
def test_a_damaged_wheel_is_one_line(built: Built, root: Path, damage: str) -> None:
    path = next(mount(built, root, copy=True).glob("*.whl"))
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    path.write_bytes(content[: {"truncated": -100, "empty": 0}.get(damage)])
    assert_one_line(run(built, root), EXIT_FAILURE, "the library cannot be loaded")
