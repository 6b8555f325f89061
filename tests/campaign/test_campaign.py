"""The short form of the campaign, and that its judge finds what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from runs_folder import make_run, tree

from campaign import damage, faults, subjects
from campaign.__main__ import table
from campaign.child import Inside
from campaign.faults import KINDS, Fault, available
from campaign.judging import judge, run_case
from campaign.subjects import Subject, without_fault

SEED = 7


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """The quickest command that writes a file."""
    where = tmp_path_factory.mktemp("campaign")
    make_run(where / "runs-only" / "runs", "baseline")
    words = "ladder baseline --runs runs --format json --out ladder.json"
    return without_fault("ladder", words, where / "runs-only", 1, ("runs",))


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.suffix not in {".edf"}])
def test_a_fault_of_each_class_is_handled(ladder: Subject, tmp_path: Path, kind: str) -> None:
    if not available(kind):
        pytest.skip("needs strace")
    outcome = run_case(SEED, list(KINDS).index(kind), [ladder], tmp_path, kind)
    assert not outcome.wrong, outcome


def judged(
    ladder: Subject, work: Path, fault: Fault, code: int, text: str, kind: str = "file operation fails"
) -> str:
    return judge(
        ladder, KINDS[kind], fault, [code], text, tree(ladder.master), work, work.with_suffix(".log")
    )


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (1, "Traceback (most recent call last):\nkagglehms: error: x", "prints a traceback"),
        (1, "", "says nothing"),
        (1, "kagglehms: error: KeyError: 'a' (--debug shows where)", "does not explain the error"),
        (-11, "", "ends with -11"),
        (-9, "", "ends with -9"),
        (0, "", "other results: ['ladder.json']"),
    ],
)
def test_the_judge_finds_endings_that_are_wrong(
    ladder: Subject, tmp_path: Path, code: int, text: str, expected: str
) -> None:
    subjects.copy(ladder.master, tmp_path / "work")
    assert judged(ladder, tmp_path / "work", Fault("", Inside(operation=0, error=5)), code, text) == expected


def test_the_judge_finds_inputs_that_were_changed_and_what_was_left_half_written(
    ladder: Subject, tmp_path: Path
) -> None:
    subjects.copy(ladder.master, work := tmp_path / "work")
    fault, refusal = Fault("", Inside(operation=0, error=5)), "kagglehms: error: runs: no such folder"
    (work / ".ladder.json.0123.partial").write_bytes(b"{")
    assert judged(ladder, work, fault, 1, refusal) == "leaves partial files"
    (work / "runs" / "baseline" / "run.json").unlink()
    assert judged(ladder, work, fault, 1, refusal).startswith("changes what it reads")


def test_the_judge_finds_damage_that_nobody_has_noticed(ladder: Subject, tmp_path: Path) -> None:
    subjects.copy(ladder.master, work := tmp_path / "work")
    (work / "ladder.json").write_text("[]")
    fault = Fault("bit flip", damaged="runs/baseline/run.json")
    assert judged(ladder, work, fault, 0, "", "bit flip") == "damage unnoticed, and other results"
    assert judged(ladder, work, fault, 0, "runs/baseline/run.json: cannot be read", "bit flip") == ""
    unnoticed = replace(ladder, name="verify")
    before = tree(work)
    assert (
        judge(unnoticed, KINDS["bit flip"], fault, [0], "", before, work, tmp_path / "log") == ""
    )  # the same bytes
    (work / "runs" / "baseline" / "run.json").write_text('{"recipe": "other"}')
    assert (
        judge(unnoticed, KINDS["bit flip"], fault, [0], "", tree(work), work, tmp_path / "log")
        == "damage unnoticed"
    )


@pytest.mark.parametrize("suffix", damage.STRUCTURES)
def test_damage_depends_on_the_seed_alone_and_is_damage(
    suffix: str, ladder: Subject, competition_folder: Path, tmp_path: Path
) -> None:
    content = _example(suffix, ladder, competition_folder, tmp_path)
    mutate = damage.STRUCTURES[suffix]
    found = [mutate(np.random.default_rng(seed), content) for seed in range(25)]
    assert found[:5] == [mutate(np.random.default_rng(seed), content) for seed in range(5)]
    assert len({*found} - {content}) >= 15


def _example(suffix: str, ladder: Subject, competition: Path, tmp_path: Path) -> bytes:
    if suffix == ".edf":
        from own_recordings import write_referential

        return write_referential(tmp_path / "short.edf", np.zeros((200, 20), np.float32)).read_bytes()
    if suffix == ".csv":
        return b"".join((competition / "train.csv").read_bytes().splitlines(keepends=True)[:20])
    return next(ladder.master.rglob(f"*{suffix}")).read_bytes()


def test_the_table_counts_each_class() -> None:
    outcomes = [
        {"kind": "bit flip", "wrong": ""},
        {"kind": "bit flip", "wrong": "hangs"},
        {"kind": "full disk", "wrong": ""},
    ]
    lines = table(json.loads(json.dumps(outcomes))).splitlines()
    assert lines[2:] == ["| bit flip | 2 | 1 | 1 |", "| full disk | 1 | 1 | 0 |", "| all | 3 | 2 | 1 |"]


def test_a_library_that_has_no_memory_may_abort_and_nothing_else_may_panic(
    ladder: Subject, tmp_path: Path
) -> None:
    panic = "thread '<unnamed>' panicked at no threads"
    for fault, expected in (
        (Fault("", Inside(memory_bytes=1)), ""),
        (Fault("", Inside(file_bytes=1)), "ends with -6"),
        (Fault("", call="mmap:error=ENOMEM:when=1"), ""),
        (Fault("", call="write:error=ENOMEM:when=1"), "ends with -6"),
    ):
        subjects.copy(ladder.master, tmp_path / "work")
        assert judged(ladder, tmp_path / "work", fault, -6, panic) == expected


@pytest.mark.parametrize(
    ("called", "expected"),
    [
        ("7 write(5<anon_inode:[eventfd]>, ..., 8) = -1 EIO (Input/output error) (INJECTED)", True),
        ("7 write(5<anon_inode:[eventfd]>, ..., 8) = 8", False),
        ("7 write(5</folder/ladder.json>, ..., 8) = -1 EIO (Input/output error) (INJECTED)", False),
    ],
)
def test_a_thread_can_always_be_woken(called: str, expected: bool, tmp_path: Path) -> None:
    (tmp_path / "case.trace").write_text(f"7 write(1</folder/case.log>, ..., 3) = 3\n{called}\n")
    assert faults.impossible(tmp_path / "case.log") is expected
    fault = faults.later(Fault("EIO at write 9", call="write:error=EIO:when=9"))
    assert (fault.text, fault.call) == ("EIO at write 10", "write:error=EIO:when=10")
