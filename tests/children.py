"""Real child processes that train, started from a server that has torch imported already: forking is quick.

What runs in them stands here, since a child has to import it.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from kagglehms.data.competition import Competition
from kagglehms.data.records import read_records
from kagglehms.data.store import Store
from kagglehms.device import choose_device
from kagglehms.runs import cross_validation
from kagglehms.runs.cross_validation import cross_validate
from kagglehms.runs.dataset import Dataset
from kagglehms.training.distributed import assemble
from kagglehms.training.loop import Fit
from kagglehms.training.options import SameClassCutMix
from kagglehms.training.recipes import Recipe, Stage, get_recipe
from kagglehms.training.resume import STATE
from kagglehms.training.session import Session

THOROUGH = replace(
    get_recipe("baseline"),
    backbone="half:test_efficientnet",
    batch_size=3,
    stages=(Stage(epochs=2, mosaic_epochs=1), Stage(epochs=2, loss="kl-log-votes")),
    augmentations=(SameClassCutMix(probability=0.9),),
    ema=0.9,
    windows="random",
)
"""All that has a state: two stages, a warm-up, a moving average, dropout, random sub-windows and pasted bands."""


PRELOADED = ("torch", "timm", "polars", "sklearn.model_selection", "children")


def server() -> ForkServerContext:
    """Return the server's context; the server runs, and has this folder on its path, which it does not inherit."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOADED, "campaign.preload"])
    found = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *([found] if found else [])])
    try:
        forkserver.ensure_running()
    finally:
        if found is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = found
    return context


def start(function: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    process = server().Process(target=function, args=arguments)
    process.start()
    return process


def open_dataset(competition: Path, store: Path, n_folds: int = 2) -> Dataset:
    return Dataset.of(Store(store), read_records(Competition(competition).train_csv), n_folds)


def train(competition: Path, store: Path, runs: Path, recipe: Recipe, save_every_s: float) -> None:
    """Train fold 0; a failure ends the process with 1."""
    session = Session(save_every_s=save_every_s)
    dataset = open_dataset(competition, store)
    cross_validate(recipe, dataset, runs, choose_device("cpu"), only_folds=[0], session=session)


def train_as_member(
    rank: int, size: int, port: int, competition: Path, store: Path, runs: Path, recipe: Recipe
) -> None:
    """One of `size` processes that train fold 0 together; the state is left there to be looked at."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    real = cross_validation._Run._finish

    def finish(run: cross_validation._Run, fold: int, done: Fit) -> None:
        path = run.folder.fold(fold) / STATE
        state = path.read_bytes()
        real(run, fold, done)
        path.write_bytes(state)

    cross_validation._Run._finish = finish  # type: ignore[method-assign]
    with assemble("cpu") as team:
        dataset = open_dataset(competition, store)
        session = Session(team=team)
        cross_validate(recipe, dataset, runs, choose_device("cpu"), only_folds=[0], session=session)


def train_on_a_disk_that_fills(competition: Path, store: Path, runs: Path, recipe: Recipe) -> None:
    """Train fold 0 where no file may grow beyond 100 kB once a state has been saved; exits with 7 on a RunError."""
    from kagglehms.errors import RunError
    from kagglehms.training import loop

    real = loop.write_state

    def write(*arguments: Any) -> None:
        real(*arguments)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))

    loop.write_state = write  # type: ignore[assignment]
    try:
        train(competition, store, runs, recipe, save_every_s=600)
    except RunError as error:
        (runs / "error.txt").write_text(str(error))
        sys.exit(7)


def command(arguments: list[str], log: Path) -> None:
    """`kagglehms` with its output in a file."""
    from kagglehms.cli.commands import main

    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.exit(main(arguments))
