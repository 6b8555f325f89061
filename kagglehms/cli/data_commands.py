"""The commands that make and check data: prepare, verify, simulate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kagglehms.cli.command import Result, watched
from kagglehms.cli.data_folder import data_folder
from kagglehms.errors import counted


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """Decode every recording that train.csv names, once, into a store that training memory-maps.

    Safe to interrupt: the same command continues where it stopped. A finished store is left as it is.

    Attributes:
        data: the competition's folder (default: KAGGLEHMS_DATA, or where `kagglehms doctor` finds it).
        store: folder of the store.
        jobs: files decoded at a time (default: all CPU cores).
        backend: engine that decodes: threads of this process, `loky` processes, or the workers of a Dask or Ray
            cluster that see the same files.
        scheduler: address of the cluster, such as tcp://host:8786 (default: workers started on this machine).
    """

    data: Path | None = None
    store: Path = Path("store")
    jobs: int | None = None
    backend: Literal["threading", "loky", "dask", "ray"] = "threading"
    scheduler: str | None = None


def prepare(options: Prepare) -> Result:
    """Decode the competition's recordings, once."""
    from kagglehms.data.preparing import prepare_competition
    from kagglehms.data.workers import Workers

    data = data_folder(options.data)
    done = prepare_competition(data, options.store, Workers(options.backend, options.scheduler, options.jobs))
    return Result(
        {
            "data": data,
            "store": options.store,
            "fingerprint": done.store.fingerprint,
            "decoded": done.decoded,
            "found": done.found,
        }
    )


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Compare every byte of the store with the checksums of the day it was made; ten seconds for the whole competition.

    What is wrong is listed, and the exit code is 2. Nothing is changed.

    Attributes:
        store: folder of the store.
        data: the competition's folder, to compare its recordings with those that the store was made of; takes as long
            as reading them (default: they are not read).
        runs: folder of runs, to compare weights, predictions and all they say with what was written (default: they are
            not read).
    """

    store: Path = Path("store")
    data: Path | None = None
    runs: Path | None = None


def verify(options: Verify) -> Result:
    """Compare store, recordings and runs with their checksums."""
    from kagglehms.data.competition import Competition
    from kagglehms.data.preparing import changed_sources
    from kagglehms.data.store import Store
    from kagglehms.errors import EXIT_OK, EXIT_USER, DataErrors
    from kagglehms.runs.run_view import check_runs

    store = Store(options.store)
    problems: list[str] = []
    try:
        store.verify(watched("store"))
    except DataErrors as error:
        problems += map(str, error.errors)
    if options.data is not None:
        problems += map(str, changed_sources(store, Competition(options.data), watched("recordings")))
    if options.runs is not None:
        problems += check_runs(options.runs)
    content = {
        "store": options.store,
        "fingerprint": store.fingerprint,
        "recordings": len(store.entries),
        "problems": problems,
    }
    found = (
        f"{counted(len(problems), 'file or recording', 'files or recordings')} changed or broken"
        if problems
        else "nothing has changed"
    )
    text = "\n".join(
        [*problems, f"{options.store}: {counted(len(store.entries), 'recording')} compared; {found}"]
    )
    return Result(content, text, EXIT_USER if problems else EXIT_OK)


@dataclass(frozen=True, kw_only=True)
class Simulate:
    """Make a simulated competition, in the real file formats, out of nothing.

    Its true class probabilities are written beside it, into OUT-truth. Safe to interrupt: the same command continues.

    Attributes:
        out: folder of the competition; new, empty, or made by the same command before.
        eegs: EEG recordings to learn from.
        test: EEG recordings to predict.
        seed: random seed, which decides every byte.
        jobs: studies simulated at a time (default: all CPU cores).
        truth: also score the perfect predictor, the class prior and a baseline on electrode energy.
        easy: quiet patients, mostly clear truths and many votes, as in the demo: not like real data, but little of it
            is enough to learn from.
    """

    out: Path
    eegs: int = 240
    test: int = 40
    seed: int = 0
    jobs: int | None = None
    truth: bool = False
    easy: bool = False


def simulate(options: Simulate) -> Result:
    """Make a simulated competition whose truth is known."""
    from kagglehms.console import say
    from kagglehms.data.competition import Competition, truth_folder
    from kagglehms.runs.baselines import measure_floor
    from kagglehms.simulator.competition import make_competition

    make_competition(options.out, options.eegs, options.test, options.seed, options.jobs, options.easy)
    truth = truth_folder(options.out.resolve())
    say(
        f"{options.eegs} EEGs to learn from and {options.test} to predict in {options.out}; the truth in {truth}"
    )
    content = {"data": options.out, "truth": truth, "eegs": options.eegs, "test": options.test}
    if not options.truth:
        return Result(content)
    floor = measure_floor(Competition(options.out), truth / "train_truth.csv", watched("read"))
    return Result(content | {"scores": floor}, floor.sentence)
