"""The suite's tests that need a GPU, as many at a time as pay."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from _gpu_book import LOG, Book, figure
from _gpu_parts import Circumstances, finish, launch
from _gpu_reports import VARIABLE

from kagglehms.environment import available_cpus

ROOT = Path(__file__).resolve().parents[1]
MOST_WORKERS = 8
"""Beyond that, starting CUDA in each costs more than it saves."""
DRY = "contract and (baseline or vit)"
"""What a dry run takes of them, on the CPU."""


def run(told: Circumstances, book: Book) -> None:
    reports = told.scratch / "reports.jsonl"
    reports.touch()
    ending = finish(launch(_command(told), told.out / LOG, **_environment(told, reports)), book.left_s)
    found = [json.loads(line) for line in reports.read_text().splitlines()]
    for report in found:
        book.note("test", **report)
    counts = Counter(report["outcome"] for report in found)
    book.note("tests", ending=ending, **counts)
    counted = ", ".join(f"{n} {outcome}" for outcome, n in sorted(counts.items())) or "none came to an end"
    book.text(f"Tests: {counted}; pytest {ending}.")
    for report in found:
        if report["outcome"] in {"failed", "error"}:
            book.text(f"**{report['test']}**\n\n```\n{_essence(report['why'])}\n```")
    _table_of_errors(book, found)
    slowest = sorted(found, key=lambda report: -report["seconds"])[:5]
    book.table("The slowest", ("test", "s"), [(r["test"], figure(r["seconds"], ".1f")) for r in slowest])
    if ending != "done" or not counts["passed"]:  # pytest ends with 1 where a test failed
        sys.exit(1)


def _command(told: Circumstances) -> list[str]:
    # Networks last: there are many, and what was found before a run was cut off stands on the page.
    parts = [
        str(ROOT / "tests" / "cuda" / f"test_{name}.py")
        for name in ("training", "inference", "front_ends", "networks")
    ]
    command = [sys.executable, "-m", "pytest", *parts, "-v", "-p", "_gpu_reports"]
    # What is a warning under these versions is told in the log and fails nothing.
    command += ["-o", "filterwarnings=default", "-p", "no:cacheprovider", "--rootdir", str(ROOT)]
    if told.dry_run:
        return [*command, "-m", "not cuda", "-k", DRY]
    if importlib.util.find_spec("xdist"):
        command += ["-n", str(_workers())]
    return [*command, "-m", "cuda"]


def _workers() -> int:
    return max(1, min(MOST_WORKERS, available_cpus() // 2))


def _environment(told: Circumstances, reports: Path) -> dict[str, str]:
    threads = 1 if told.dry_run else max(1, available_cpus() // _workers())
    return {VARIABLE: str(reports), "OMP_NUM_THREADS": str(threads)}


def _essence(why: str) -> str:
    """The lines of a traceback that say what went wrong."""
    lines = [line for line in why.splitlines() if line.startswith("E ")]
    return "\n".join((lines or why.splitlines())[-12:])


def _table_of_errors(book: Book, found: list[dict[str, Any]]) -> None:
    """How far each network's logits are from those of the CPU in float32."""
    names = sorted({name for report in found for name in report["properties"]})
    rows = []
    for report in found:
        if report["properties"]:
            recipe = re.sub(r".*\[(cuda-|cpu-)?|(-cpu|-cuda)?\]$", "", report["test"])
            errors = (report["properties"].get(name) for name in names)
            rows.append((recipe, *(figure(error, ".1e") for error in errors)))
    if rows:
        title = "Norm of the logits' difference from float32 on the CPU, relative"
        book.table(title, ("network of", *names), rows)
