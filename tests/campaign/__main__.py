"""The long campaign: `python -m tests.campaign`; see the package."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import json
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

from campaign.faults import KINDS
from campaign.judging import run_case
from campaign.subjects import all_subjects

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- campaign -->\n", "<!-- /campaign -->\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaign", description="Inject faults, and judge what follows."
    )
    parser.add_argument("--faults", type=int, default=10_000, help="number of faults to inject (10,000)")
    parser.add_argument("--seed", type=int, default=1, help="random seed, which decides every fault (1)")
    parser.add_argument("--minutes", type=float, help="end after so long, with what was done")
    parser.add_argument(
        "--jobs", type=int, default=len(os.sched_getaffinity(0)), help="faults at a time (one per CPU core)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("campaign.jsonl"), help="outcomes; those in it are not repeated"
    )
    parser.add_argument("--work", type=Path, help="folder to work in, where what was not handled stays")
    parser.add_argument("--kind", choices=list(KINDS), help="only this class of fault")
    parser.add_argument("--only", type=int, nargs="+", help="repeat these cases, and print what they say")
    parser.add_argument("--page", action="store_true", help=f"write the table into {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    if options.minutes != 0:
        run(options)
    outcomes = [json.loads(line) for line in options.out.read_text().splitlines()]
    text = table(outcomes)
    print(text)
    for outcome in outcomes:
        if outcome["wrong"]:
            print(f"--only {outcome['number']}: {outcome['subject']}: {outcome['fault']}: {outcome['wrong']}")
    if options.page:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}{text}{END}{rest.partition(END)[2]}")


def run(options: argparse.Namespace) -> None:
    """Run the cases that have no outcome yet, as far as the time allows, and add their outcomes to the file."""
    begun = time.monotonic()
    done = (
        {json.loads(line)["number"] for line in options.out.read_text().splitlines()}
        if options.out.exists()
        else set()
    )
    with tempfile.TemporaryDirectory(prefix="campaign-") as scratch:
        work = (options.work or Path(scratch)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix="made-", dir=work))
        subjects = all_subjects(made)

        def numbers() -> Iterator[int]:
            for number in options.only or range(options.faults):
                if options.minutes is not None and time.monotonic() - begun > 60 * options.minutes:
                    return
                if options.only or number not in done:
                    yield number

        def case(number: int) -> None:
            outcome = run_case(options.seed, number, subjects, work, options.kind)
            with options.out.open("a") as file:
                file.write(json.dumps(asdict(outcome)) + "\n")
            if options.only or outcome.wrong:
                print(json.dumps(asdict(outcome), indent=1), flush=True)

        left, turn = numbers(), threading.Lock()

        def worker() -> None:
            while True:
                with turn:
                    number = next(left, None)
                if number is None:
                    return
                case(number)

        with ThreadPoolExecutor(options.jobs) as pool:
            for working in [pool.submit(worker) for _ in range(options.jobs)]:
                working.result()


def table(outcomes: list[dict[str, object]]) -> str:
    """class of fault | injected | handled | wrong, as Markdown."""
    injected = Counter(str(outcome["kind"]) for outcome in outcomes)
    wrong = Counter(str(outcome["kind"]) for outcome in outcomes if outcome["wrong"])
    lines = ["| class of fault | injected | handled | wrong |", "|---|---|---|---|"]
    for kind in [kind for kind in KINDS if kind in injected]:
        lines.append(f"| {kind} | {injected[kind]:,} | {injected[kind] - wrong[kind]:,} | {wrong[kind]:,} |")
    total, bad = injected.total(), wrong.total()
    return "\n".join([*lines, f"| all | {total:,} | {total - bad:,} | {bad:,} |", ""])


if __name__ == "__main__":
    main()
