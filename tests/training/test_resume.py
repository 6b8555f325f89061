"""A state comes back as it was, or is refused with the reason."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import kagglehms
from kagglehms.errors import RunError
from kagglehms.training import resume as module
from kagglehms.training.resume import State, code_version, read_state, write_state

PACKAGE = Path(kagglehms.__file__).parent
IDENTITY = {"recipe": "a" * 64, "code": "b" * 12}


def a_state() -> State:
    weight = torch.arange(6.0).reshape(2, 3)
    tensors = {
        "model/weight": weight,
        "model/tied": weight,  # shares its memory
        "model/strided": weight.T,
        "optimizer/0/step": torch.tensor(3.0),
        "predictions/NK": torch.rand(2, 6, dtype=torch.float64),
    }
    return State(tensors, {"stage": 1, "history": [{"score": 0.1 + 0.2}], "best": None}, IDENTITY)


def test_a_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    before = a_state()
    write_state(tmp_path / "s", before)
    after = read_state(tmp_path / "s", IDENTITY)
    assert after is not None
    assert after.numbers == before.numbers
    assert set(after.tensors) == set(before.tensors)
    for name, value in before.tensors.items():
        assert torch.equal(after.tensors[name], value)
    assert set(after.part("model")) == {"weight", "tied", "strided"}
    assert set(after.part("optimizer")) == {"0/step"}


def test_no_state_is_no_error(tmp_path: Path) -> None:
    assert read_state(tmp_path / "s", IDENTITY) is None


def test_all_that_has_changed_is_named(tmp_path: Path) -> None:
    write_state(tmp_path / "s", a_state())
    with pytest.raises(
        RunError, match=r"other recipe .a{12} there, c{12} now., folds .nothing there, d there?"
    ):
        read_state(tmp_path / "s", IDENTITY | {"recipe": "c" * 64, "folds": "d there"})


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_truncated_state_is_refused(tmp_path: Path, keep: int) -> None:
    write_state(tmp_path / "s", a_state())
    (tmp_path / "s").write_bytes((tmp_path / "s").read_bytes()[:keep])
    with pytest.raises(RunError, match="cannot be read .*; delete it to train this fold from its start"):
        read_state(tmp_path / "s", IDENTITY)


def test_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_state(tmp_path / "s", a_state())
    monkeypatch.setattr(module, "FORMAT", "99")
    with pytest.raises(RunError, match=r"other format of the state .2 there, 99 now"):
        read_state(tmp_path / "s", IDENTITY)


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    """Of the length, the header, the numbers, the tensors: wherever it is, no training goes on from it."""
    path, draw = tmp_path / "s", random.Random(0)
    write_state(path, a_state())
    whole = path.read_bytes()
    tensors = len(whole) - 24 * 3 - 4 - 96  # where those of `a_state` begin
    places = [*range(8), *draw.sample(range(8, tensors), 150), *draw.sample(range(tensors, len(whole)), 100)]
    for at in places:
        flipped = bytearray(whole)
        flipped[at] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(RunError, match="cannot be read|was saved with other"):
            read_state(path, IDENTITY)
    path.write_bytes(whole)
    assert read_state(path, IDENTITY) is not None


EDIT_EACH = """
from pathlib import Path
import kagglehms
from kagglehms.training.resume import code_version

package = Path(kagglehms.__file__).parent
before = code_version()
for path in sorted(package.rglob("*.py")):
    content = path.read_bytes()
    path.write_bytes(content + b"EDITED = True\\n")
    if code_version.__wrapped__() != before:
        print(path.relative_to(package).as_posix())
    path.write_bytes(content)
"""


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The modules of a copied package after whose edit an unfinished fold would be refused."""
    root = tmp_path_factory.mktemp("copied")
    shutil.copytree(PACKAGE, root / "kagglehms", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "edit_each.py").write_text(EDIT_EACH)
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "edit_each.py"],
        cwd=root,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return set(done.stdout.split())


def edited(*patterns: str) -> set[str]:
    found = {p.relative_to(PACKAGE).as_posix() for pattern in patterns for p in PACKAGE.glob(pattern)}
    assert len(found) >= len(patterns)
    return found


def test_edits_of_what_decides_a_step_are_refused(refusing: set[str]) -> None:
    deciding = edited(
        "features/*.py",
        "inputs/*.py",
        "training/losses.py",
        "training/augment*.py",
        "training/feed.py",
        "training/models.py",
        "training/step.py",
        "training/loop.py",
        "training/distributed.py",
        "training/front_ends/*.py",
        "data/competition.py",
        "data/records.py",
        "data/store.py",
        "data/readers.py",
        "data/tables.py",
    )
    assert deciding <= refusing


def test_edits_of_what_decides_no_step_are_not_refused(refusing: set[str]) -> None:
    rooms = ("simulator", "runs", "bundle", "kernel", "kaggle", "packing", "rehearsal", "report", "cli")
    others = edited(
        "*.py",
        *(f"{room}/*.py" for room in rooms),
        "data/workers.py",
        "training/logs.py",
        "training/recipes.py",
        "training/session.py",
        "training/trackers.py",
        "training/variants.py",
    )
    assert not others & refusing


def test_the_code_version_names_the_release() -> None:
    assert code_version().endswith(f"({kagglehms.__version__})")
