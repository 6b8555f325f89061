"""The built infer kernel, run as a script against a folder that stands for /kaggle.

The bundle's weights are those of no network, so every model fails, which costs the models and not the submission.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kagglehms.bundle.manifest import dump_manifest, read_manifest, with_digest
from kagglehms.data.competition import SLUG, VOTE_COLUMNS
from kagglehms.errors import EXIT_FAILURE, EXIT_USER
from kagglehms.kernel.mounts import MOUNT_STYLES, ROOT_VARIABLE, MountStyle, competition_mount, dataset_mount
from kagglehms.kernel.submission import read_submission
from kagglehms.packing.build import Built

ROOT = Path(__file__).resolve().parents[2]

IDS = [5, 6]
SCRIPTS = sorted((ROOT / "kernels").glob("*/*.py"))
OF_ONE_KERNEL = ("RECIPES", "OPTIONS")
"""How statements begin that stand among those that all kernels share."""


UNHURRIED = {"PATH": os.environ["PATH"], "NUMBA_DISABLE_JIT": "1", "OMP_NUM_THREADS": "1"}
"""Nothing that is asked here needs quick features, which take seconds to compile."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A /kaggle with a competition of two rows."""
    for name in ("input", "working", "tmp"):
        (tmp_path / name).mkdir()
    mount_competition(tmp_path)
    return tmp_path


def mount_competition(root: Path, style: MountStyle = "owner") -> Path:
    place = root / "input" / competition_mount(SLUG, style)
    place.mkdir(parents=True)
    (place / "test.csv").write_text("spectrogram_id,eeg_id,patient_id\n1,5,2\n3,6,2\n")
    values = ",".join(["0.16666666666666666"] * 6)
    lines = ["eeg_id," + ",".join(VOTE_COLUMNS), *(f"{eeg_id},{values}" for eeg_id in IDS)]
    (place / "sample_submission.csv").write_text("\n".join(lines) + "\n")
    return place


def mount(built: Built, root: Path, style: MountStyle = "owner", copy: bool = False) -> Path:
    place = root / "input" / dataset_mount(built.owner, built.slug, style)
    place.parent.mkdir(parents=True, exist_ok=True)
    if copy:
        shutil.copytree(built.dataset, place)
    else:
        place.symlink_to(built.dataset, target_is_directory=True)
    return place


def run(built: Built, root: Path, rerun: bool = False) -> subprocess.CompletedProcess[str]:
    environment = UNHURRIED | {"TMPDIR": str(root / "tmp"), "HOME": "/dev/null/home"}
    environment |= {"KAGGLE_IS_COMPETITION_RERUN": "1"} if rerun else {}
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


def submitted(root: Path) -> np.ndarray:
    return read_submission(root / "working/submission.csv", IDS)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_kernel_is_valid_and_sets_its_environment_first(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    compile(text, str(path), "exec")
    for name in ("NUMBA_CACHE_DIR", "NO_ALBUMENTATIONS_UPDATE", "HF_HUB_OFFLINE"):
        assert text.index(f'os.environ["{name}"] = ') < text.index("from kagglehms")
    assert "pickle" not in text
    assert "pip" not in text


def test_the_kernels_find_and_unpack_the_library_in_the_same_words() -> None:
    """Kaggle takes one file for a kernel, so what they share stands in each of them."""
    assert len(SCRIPTS) == 3
    assert len({shared_lines(path.read_text(encoding="utf-8")) for path in SCRIPTS}) == 1


def shared_lines(text: str) -> str:
    """All statements up to the function that unpacks the library, without those of one kernel alone."""
    lines = text.splitlines(keepends=True)
    shared = ""
    for node in ast.parse(text).body[1:]:  # behind the docstring
        words = "".join(lines[node.lineno - 1 : node.end_lineno])
        if not words.startswith(OF_ONE_KERNEL):
            shared += words
        if isinstance(node, ast.FunctionDef) and node.name == "unpack_library":
            return shared
    raise AssertionError("no function")


@pytest.mark.parametrize("style", MOUNT_STYLES)
def test_everything_is_found_unpacked_and_verified_in_each_style(
    built: Built, tmp_path: Path, style: MountStyle
) -> None:
    """Also where the sample alone names the rows, as it does in the second style here."""
    for name in ("input", "working", "tmp"):
        (tmp_path / name).mkdir()
    competition, place = mount_competition(tmp_path, style), mount(built, tmp_path, style)
    if style != MOUNT_STYLES[0]:
        (competition / "test.csv").unlink()
    done = run(built, tmp_path)
    assert ("2 rows from sample_submission.csv" in done.stdout) is (style != MOUNT_STYLES[0])
    assert f"competition {competition}\n" in done.stdout
    assert f"bundle {place}: 2 models, digest {built.manifest.digest[:12]} verified" in done.stdout
    library = Path(done.stdout.splitlines()[0].partition(" from ")[2])
    assert library.is_relative_to(tmp_path / "tmp")
    assert json.loads(done.stdout.splitlines()[-1])["status"] == "prior"
    assert done.returncode == EXIT_FAILURE
    assert sorted(path.name for path in (tmp_path / "working").iterdir()) == [
        "scored-run.json",
        "submission.csv",
    ]
    np.testing.assert_allclose(submitted(tmp_path), [built.manifest.prior] * 2)


@pytest.mark.parametrize("rerun", [False, True])
def test_a_bundle_that_is_not_mounted_leaves_the_sample(built: Built, root: Path, rerun: bool) -> None:
    done = run(built, root, rerun)
    assert_one_line(done, 0 if rerun else EXIT_FAILURE, "no library in ")
    for style in MOUNT_STYLES:
        assert str(root / "input" / dataset_mount(built.owner, built.slug, style)) in done.stderr
    np.testing.assert_allclose(submitted(root), 1 / 6)


def test_a_competition_of_another_name_is_not_taken(built: Built, tmp_path: Path) -> None:
    for name in ("input", "working", "tmp"):
        (tmp_path / name).mkdir()
    mount(built, tmp_path)
    other = tmp_path / "input" / f"{SLUG}-2"
    other.mkdir()
    (other / "test.csv").write_text("eeg_id\n")
    for rerun in (False, True):
        assert_one_line(run(built, tmp_path, rerun), EXIT_USER, "the competition is not mounted")


def test_a_stale_version_is_named_as_such(built: Built, root: Path) -> None:
    mount(built, root)
    script = built.kernels[0] / "infer.py"
    stale = root / "kernels/infer"
    stale.mkdir(parents=True)
    (stale / "infer.py").write_text(script.read_text().replace(built.manifest.digest, "e" * 64))
    newer = Built(built.dataset, (stale,), built.manifest, built.owner, built.owner_source, built.slug)
    done = run(newer, root)
    assert_one_line(done, EXIT_FAILURE, f"stale version, digest {built.manifest.digest[:12]}; ")
    assert "from " not in done.stdout  # nothing of it was imported
    np.testing.assert_allclose(submitted(root), 1 / 6)


def test_of_two_versions_the_right_one_is_found_and_the_stale_one_named(built: Built, root: Path) -> None:
    first, second = (mount(built, root, style, copy=True) for style in MOUNT_STYLES)
    content = read_manifest(first)
    older = with_digest(replace(content, versions={"torch": "1.0"}))
    for stale, right in ((first, second), (second, first)):
        (stale / "manifest.json").write_bytes(dump_manifest(older))
        (right / "manifest.json").write_bytes(dump_manifest(content))
        done = run(built, root)
        assert f"bundle {right}: 2 models, digest {content.digest[:12]} verified" in done.stdout
        assert f"note: bad library in {stale}: stale version, digest {older.digest[:12]}" in done.stderr
        np.testing.assert_allclose(submitted(root), [content.prior] * 2)


@pytest.mark.parametrize("damage", ["prior", "extra wheel", "wheel missing", "link", "deep", "not an object"])
def test_nothing_is_imported_from_a_bundle_that_is_not_the_one_of_the_kernel(
    built: Built, root: Path, damage: str
) -> None:
    place = mount(built, root, copy=True)
    manifest, wheel = place / "manifest.json", next(place.glob("kagglehms-*.whl"))
    content = json.loads(manifest.read_text())
    match damage:
        case "prior":
            manifest.write_text(json.dumps(content | {"prior": [0.75, 0.05, 0.05, 0.05, 0.05, 0.05]}))
        case "extra wheel":
            (place / "aaa-1-py3-none-any.whl").write_bytes(wheel.read_bytes())
        case "wheel missing":
            wheel.rename(place / "other.whl")
        case "link":
            (place / "zzz-1-py3-none-any.whl").symlink_to("nowhere")
        case "deep":
            manifest.write_text("[" * 100_000)
        case _:
            manifest.write_text("[]")
    done = run(built, root)
    assert_one_line(done, EXIT_FAILURE, f"bad library in {place}: ")
    assert "from " not in done.stdout
    np.testing.assert_allclose(submitted(root), 1 / 6)


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
    assert len(submitted(root)) == 2


ALONE = """
import sys

class Absent:
    def find_spec(self, name, *_):
        top = name.partition(".")[0]
        if top != "kagglehms" and top not in sys.stdlib_module_names:
            raise ImportError(f"{name} does not fit its other half")

sys.meta_path.insert(0, Absent())
from pathlib import Path
from kagglehms.kernel.entry import infer
sys.exit(infer(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], Path(sys.argv[1], "tmp")))
"""
"""A supervisor that has nothing but the standard library; its workers have everything."""

SPOILS = """
import json, sys
from pathlib import Path
from kagglehms.kernel.marker import Marker
out = Path(json.loads(sys.argv[1])["out"])
(out / "submission.csv").write_text("eeg_id")
Marker(rows=2, models=["a"], bundle="d").write(out, 1.0)
"""
"""A worker that damages the submission."""


@pytest.mark.parametrize("damage", ["none", "submission"])
def test_the_supervisor_needs_nothing_but_the_standard_library(built: Built, root: Path, damage: str) -> None:
    """It submits the prior, reads what its worker says, notices a damaged submission, and has the last word."""
    replaced = (
        f"from kagglehms.kernel import supervisor\nsupervisor.WORKER = (sys.executable, '-c', {SPOILS!r})\n"
    )
    script = ALONE.replace("sys.exit", replaced + "sys.exit") if damage == "submission" else ALONE
    place = mount(built, root)
    done = subprocess.run(
        [sys.executable, "-c", script, str(root), str(place), built.manifest.digest],
        env=UNHURRIED | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == EXIT_FAILURE, done.stderr
    event = json.loads(done.stdout.splitlines()[-1])
    assert event["bundle"] == ("d" if damage == "submission" else built.manifest.digest)
    assert ("the submission was damaged" in event["problems"][0]) is (damage == "submission")
    assert event["rows_with_prior"] == 2
    assert json.loads((root / "working/scored-run.json").read_text())["problems"] == event["problems"]
    np.testing.assert_allclose(submitted(root), [built.manifest.prior] * 2)


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped"])
def test_a_damaged_wheel_leaves_the_sample(built: Built, root: Path, damage: str) -> None:
    path = next(mount(built, root, copy=True).glob("*.whl"))
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    path.write_bytes(content[: {"truncated": -100, "empty": 0}.get(damage)])
    assert_one_line(run(built, root), EXIT_FAILURE, "bad library in ")
    np.testing.assert_allclose(submitted(root), 1 / 6)


def test_neither_a_sample_that_cannot_be_read_nor_a_problem_fails_a_scored_run(
    built: Built, root: Path
) -> None:
    """Kaggle throws away the submission of a scored run that does not end with 0."""
    place = mount(built, root)
    sample = root / "input" / competition_mount(SLUG, "owner") / "sample_submission.csv"
    sample.unlink()
    sample.mkdir()
    done = run(built, root, rerun=True)
    assert f"bundle {place}: 2 models" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["status"] == "prior"  # a failure otherwise, see above
    assert done.returncode == 0
    np.testing.assert_allclose(submitted(root), [built.manifest.prior] * 2)


@pytest.mark.skipif(os.name != "posix", reason="a shell closes the streams")
@pytest.mark.parametrize("closed", [">&- 2>&-", ">/dev/full 2>/dev/full"])
def test_a_scored_run_goes_on_whatever_becomes_of_its_output(
    dist: Path, competition_folder: Path, tmp_path: Path, closed: str
) -> None:
    """The models take part: nobody reads that they do, but in the submission and its marker."""
    place = tmp_path / "input" / competition_mount(SLUG, "owner")
    place.parent.mkdir(parents=True)
    place.symlink_to(competition_folder, target_is_directory=True)
    bundle = tmp_path / "input" / dataset_mount("somebody", "kagglehms-bundle", "owner")
    bundle.parent.mkdir(parents=True)
    bundle.symlink_to(dist / "dataset", target_is_directory=True)
    for name in ("working", "tmp"):
        (tmp_path / name).mkdir()
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" "$1" {closed}', sys.executable, str(dist / "kernels/infer/infer.py")],
        cwd=tmp_path / "working",
        env=UNHURRIED | {"TMPDIR": str(tmp_path / "tmp"), ROOT_VARIABLE: str(tmp_path)},
        check=False,
    )
    assert done.returncode == 0
    marker = json.loads((tmp_path / "working/scored-run.json").read_text())
    assert marker["status"] == "complete"
    assert marker["rows_with_prior"] in (0, {})
    assert len(marker["models"]) >= 2
