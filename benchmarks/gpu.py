"""All that is to be known about this toolkit on a GPU, by one command, in a time that is given.

    python benchmarks/gpu.py --out found                     # on a machine with a GPU, ten minutes at most
    python benchmarks/gpu.py --out found --dry-run           # on a CPU, in small: proves that it works

Parts, in this order, each in a process of its own with a share of the time that is left:

machine      card, driver, versions; what the card can multiply and copy
correctness  the suite's tests that need a GPU (tests/cuda)
compile      gain of torch.compile
feed         images per second without a network, and drawn on the card
steps        images per second: the network alone, ours, the source's way, a conventional DataLoader; memory
graphs       gain of CUDA graphs
gains        of channels last, of the fused AdamW, of half precision, of trying convolution algorithms
scored       a scored run of 4,000 rows with bundles of 1, 5 and 25 networks; what Kaggle's T4 would take
ladder       recipes trained on a simulated competition from ImageNet weights
team         two processes on one card against one process

What is found goes to gpu.jsonl and gpu.md in the folder `--out` at once; what the parts print goes to gpu.log.
`--weights` is timm's file of tf_efficientnet_lite0, in any precision; without it the ladder begins from scratch.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from _gpu_book import Book
from _gpu_parts import GRACE_S, Circumstances, finish, start

SHARES = {
    "machine": 20,
    "correctness": 150,
    "compile": 60,
    "feed": 40,
    "steps": 90,
    "graphs": 30,
    "gains": 40,
    "scored": 110,
    "ladder": 75,
    "team": 45,
}
"""Seconds of the whole budget that a part gets, in proportion; a dry run has nothing to share out, it is small."""
TIMED = {"feed", "steps", "graphs", "gains", "scored", "ladder"}
"""Parts beside which nothing else may run, or which need the simulation."""
LADDER = ("baseline", "vote-weighted", "global-norm", "mosaic-xloss", "raw-fold", "stft-50-10")


def main() -> int:
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="kagglehms-gpu-", dir=options.scratch) as scratch:
        ladder = tuple(options.ladder) if "ladder" in options.parts else ()
        told = Circumstances(
            options.out.resolve(), Path(scratch), options.dry_run, options.weights, ladder, options.networks
        )
        return _run(told, options.parts, options.budget)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder of what is found")
    parser.add_argument("--budget", type=float, help="seconds for everything; 540, or 1400 of a dry run")
    parser.add_argument("--parts", nargs="+", choices=list(SHARES), default=list(SHARES))
    parser.add_argument("--weights", type=Path, help="ImageNet weights of tf_efficientnet_lite0")
    parser.add_argument(
        "--ladder", nargs="*", default=list(LADDER), help="recipes; unknown ones are left out"
    )
    parser.add_argument(
        "--networks", type=int, nargs="+", default=[1, 5, 25], help="of the scored runs: 1, 5, 25"
    )
    parser.add_argument("--dry-run", action="store_true", help="small, and on the CPU")
    parser.add_argument("--scratch", type=Path, help="where temporary files go")
    options = parser.parse_args()
    if options.budget is None:
        options.budget = 1400 if options.dry_run else 540
    return options


def _run(told: Circumstances, parts: list[str], budget_s: float) -> int:
    """Do the parts one after the other; the simulation of what later ones need goes on beside the first ones."""
    book = told.book("all", budget_s)
    book.text(f"# {'Dry run on the CPU' if told.dry_run else 'On a GPU'}, {budget_s:.0f} s")
    shares = {name: SHARES[name] for name in SHARES if name in parts}
    simulation, endings = None, {}
    if {"scored", "ladder"} & set(shares):
        simulation = start(partial(_do, "simulate"), budget_s, told, niceness=10)
    try:
        for name in list(shares):
            if name in TIMED and simulation is not None:
                book.note("simulation", ending=finish(simulation, min(60.0, book.left_s / 3)))
                simulation = None
            share = 1.0 if told.dry_run else shares[name] / sum(shares.values())
            del shares[name]
            seconds = share * book.left_s
            endings[name] = _one(book, told, name, seconds)
    finally:
        if simulation is not None:
            finish(simulation, 0)
    book.note("finished", endings=endings, left_s=round(book.left_s, 1))
    book.table("## How the parts ended", ("part", "ending"), endings.items())
    return 0 if all(ending == "done" for ending in endings.values()) else 1


def _one(book: Book, told: Circumstances, name: str, seconds: float) -> str:
    book.text(f"## {name} ({seconds:.0f} s)")
    begun = time.monotonic()
    ending = finish(start(partial(_do, name), seconds, told), min(seconds + GRACE_S, book.left_s))
    took = time.monotonic() - begun
    book.note("part", name=name, given_s=round(seconds, 1), took_s=round(took, 1), ending=ending)
    if ending != "done":
        book.text(f"**{name}: {ending}** after {took:.0f} s.")
    print(f"{name}: {ending} after {took:.0f} of {seconds:.0f} s, {book.left_s:.0f} s left", flush=True)
    return ending


def _do(part: str, told: Circumstances, seconds: float) -> None:
    """Be one part."""
    book = told.book(part, seconds)
    match part:
        case "machine":
            from _gpu_machine import run
        case "correctness":
            from _gpu_correctness import run
        case "simulate":
            from _gpu_data import run
        case "feed":
            from _gpu_feed import run_feed as run
        case "steps":
            from _gpu_feed import run_steps as run
        case "graphs":
            from _gpu_graphs import run
        case "gains":
            from _gpu_feed import run_gains as run
        case "scored":
            from _gpu_scored import run
        case "ladder":
            from _gpu_ladder import run
        case "team":
            from _gpu_team import run
        case _:
            from _gpu_compile import run
    run(told, book)


if __name__ == "__main__":
    sys.exit(main())
