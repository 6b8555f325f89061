"""Two processes on one card train what one process trains, as on Kaggle's machine with two T4s.

One card is not two: NCCL wants a card for each process, so tensors travel by gloo here. What is compared is everything
but the transport: shares, weights of shares, batch statistics over both, gathered predictions.

    torchrun --nproc-per-node 2 benchmarks/_gpu_team.py FOLDER DEVICE BACKEND      # what each of the two runs
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import torch.distributed as dist
from _feeding import InMemory, make_records
from _gpu_book import Book, figure
from _gpu_parts import Circumstances, finish, launch

from kagglehms.device import Device
from kagglehms.training.distributed import ALONE, Team
from kagglehms.training.feed import Feed
from kagglehms.training.loop import fit
from kagglehms.training.recipes import Recipe, Stage, get_recipe
from kagglehms.training.resume import STATE, read_state
from kagglehms.training.session import Session

N_TRAIN, N_VALID, BATCH = 45, 13, 8
"""Odd numbers: shares are of different sizes."""
LOSS, PROBABILITY, MOMENT = 1e-3, 2e-2, 2e-2
"""How far the two may be apart: of the training loss, relative; of a probability; of Adam's first moments, relative to
the largest of them. All in float32 without TF32; sums are added in another order."""


def run(told: Circumstances, book: Book) -> None:
    book.text(f"{N_TRAIN} records in batches of {BATCH}, two stages, mosaics and pasted bands, in float32.")
    started = {name: _start(told, name, *how) for name, how in _ways(told).items()}
    try:
        with book.guarded("two processes against one"):
            for name in ("alone", "gloo"):
                ending = _ending(book, name, started[name])
                if ending != "done":
                    raise RuntimeError(f"{name}: {ending}")
            _compare(book, told.scratch / "team-alone", told.scratch / "team-gloo")
        if "nccl" in started:
            with book.guarded("two processes by NCCL"):
                ending = _ending(book, "nccl", started["nccl"])
                book.text(f"Two processes on one card by NCCL: {ending}. {_last_words(told, 'nccl', 'NCCL')}")
            with book.guarded("the refusal of more processes than cards"):
                ending = _ending(book, "refusal", started["refusal"])
                said = _last_words(told, "refusal", "lower --nproc-per-node")
                book.note("refusal", said=said)
                book.text(f"More processes than cards: {ending}. {said or 'NOT refused by a line of ours.'}")
    finally:
        for process in started.values():
            finish(process, 0)


def _ways(told: Circumstances) -> dict[str, tuple[int, list[str]]]:
    """Name → processes and script; all at the same time, since nothing is timed."""

    def member(name: str, backend: str) -> list[str]:
        return [__file__, str(told.scratch / f"team-{name}"), told.device, backend]

    ways = {"alone": (1, member("alone", "gloo")), "gloo": (2, member("gloo", "gloo"))}
    if told.device == "cuda" and torch.cuda.device_count() == 1:
        script = told.scratch / "assemble.py"
        script.write_text("from kagglehms.training.distributed import assemble\nwith assemble():\n    pass\n")
        ways |= {"nccl": (2, member("nccl", "nccl")), "refusal": (2, [str(script)])}
    return ways


def _start(told: Circumstances, name: str, size: int, script: list[str]) -> subprocess.Popen[bytes]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
    command = [sys.executable, *(torchrun if size > 1 else []), *script]
    threads = (
        "2" if told.device == "cuda" else "1"
    )  # threads that wait for a core keep the others from theirs
    return launch(command, _log(told, name), OMP_NUM_THREADS=threads, WORLD_SIZE=str(size))


def _log(told: Circumstances, name: str) -> Path:
    return told.scratch / f"team-{name}.log"


def _ending(book: Book, name: str, process: subprocess.Popen[bytes]) -> str:
    start = time.monotonic()
    ending = finish(process, max(3.0, book.left_s - 2))
    book.note("processes", name=name, ending=ending, waited_s=round(time.monotonic() - start, 1))
    return ending


def _last_words(told: Circumstances, name: str, about: str) -> str:
    """The last line of a log with a word in it; all of the log goes to that of the parts."""
    log = _log(told, name).read_text(errors="replace")
    print(f"--- {name}\n{log[-6000:]}")
    lines = [line.strip() for line in log.splitlines() if about in line]
    return f"`{lines[-1][:300]}`" if lines else ""


def _compare(book: Book, alone: Path, team: Path) -> None:
    histories = [pl.read_csv(folder / "history.csv") for folder in (alone, team)]
    losses = [history["train_loss"].to_numpy() for history in histories]
    predictions = [np.load(folder / "predictions.npy") for folder in (alone, team)]
    states = [read_state(folder / STATE, {}) for folder in (alone, team)]
    moments = [
        {name: value for name, value in state.part("optimizer").items() if name.endswith("exp_avg")}
        for state in states
        if state is not None
    ]
    largest = max(float(value.abs().max()) for value in moments[0].values())
    found = {
        "training loss": (float(np.abs(losses[1] / losses[0] - 1).max()), LOSS),
        "probabilities": (float(np.abs(predictions[1] - predictions[0]).max()), PROBABILITY),
        "Adam's first moments": (
            max(float((moments[1][name] - value).abs().max()) for name, value in moments[0].items())
            / largest,
            MOMENT,
        ),
    }
    book.note("two against one", **{name: {"difference": d, "bound": b} for name, (d, b) in found.items()})
    rows = [(n, figure(d, ".1e"), figure(b, ".0e"), "yes" if d <= b else "NO") for n, (d, b) in found.items()]
    book.table("Two processes against one", ("", "largest difference", "bound", "within"), rows)
    outside = [name for name, (difference, bound) in found.items() if difference > bound]
    if outside or len(predictions[1]) != N_VALID:
        raise AssertionError(
            f"two processes differ from one in {', '.join(outside) or 'the number of records'}"
        )


# -- one process ---------------------------------------------------------------------------------------------------


def _recipe(place: str) -> Recipe:
    stages = (Stage(epochs=2, mosaic_epochs=1), Stage(epochs=1, loss="kl-log-votes"))
    if place == "cpu":
        stages = (Stage(epochs=2, mosaic_epochs=1),)
    # Dropout is drawn by each process for its share; everything else must come out the same.
    recipe = replace(
        get_recipe("vote-weighted"), stages=stages, dropout=0.0, drop_path_rate=0.0, evaluations_per_epoch=1
    )
    return recipe.changed(batch_size=BATCH, backbone="half:test_efficientnet")


def member(folder: Path, place: str, backend: str) -> None:
    """Train alone, or as one of the processes that torchrun has started."""
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    torch.backends.cudnn.allow_tf32 = False
    size = int(os.environ["WORLD_SIZE"])
    if place == "cuda":
        torch.cuda.set_device(0)
    if size > 1:
        dist.init_process_group("cpu:gloo,cuda:nccl" if backend == "nccl" else "gloo")
    team = Team(dist.get_rank(), size, size) if size > 1 else ALONE
    recipe, device = _recipe(place), Device(place, None, f"{place} in float32")
    records = make_records()
    feed = Feed(InMemory(), records, recipe.layout, seed=recipe.seed, pin=place == "cuda")
    train, valid = np.arange(N_TRAIN), np.arange(N_TRAIN, N_TRAIN + N_VALID)
    done: Any = fit(recipe, feed, train, valid, device, folder, session=Session(team=team))
    if team.leads:
        np.save(folder / "predictions.npy", done.predictions_NK)
    if size > 1:
        dist.destroy_process_group()


def _end_with_parent(parent: int) -> None:
    """End when torchrun does: it gives each process a group of its own, which whoever kills torchrun does not reach."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    member(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
