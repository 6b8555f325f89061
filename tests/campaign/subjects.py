"""Commands that faults are injected into, each with a small folder of what it reads, and what it leaves undisturbed."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import children
from runs_folder import make_run, tree

from campaign import child

LIMIT_S = 60
"""A command that has not ended by then hangs."""


@dataclass(frozen=True)
class Subject:
    """A command in a folder.

    Attributes:
        name: name of the command.
        words: its command line.
        master: folder of all that it reads; never written to.
        weight: how often it is chosen.
        seals: folders below `master` whose files have checksums, so that no change may go unnoticed.
        results: tree of the folder after the command without a fault.
        log: what it printed.
        cpu_s: processor time that it took.
        operations: operations on files that it made.
    """

    name: str
    words: tuple[str, ...]
    master: Path
    weight: float = 1.0
    seals: tuple[str, ...] = ()
    results: dict[str, bytes] = field(default_factory=dict, compare=False, repr=False)
    log: str = ""
    cpu_s: float = 0.0
    operations: int = 0

    @property
    def inputs(self) -> list[str]:
        """Files that it reads."""
        return sorted(tree(self.master))


def run_child(subject: Subject, folder: Path, log: Path, inside: child.Inside | None = None) -> int | None:
    """Run the command to its end; None if it hangs."""
    process = children.start(child.run, list(subject.words), folder, log, inside)
    process.join(LIMIT_S)
    code = process.exitcode
    if code is None:
        process.kill()
    process.join()
    process.close()
    return code


def without_fault(
    name: str, words: str, master: Path, weight: float = 1.0, seals: tuple[str, ...] = ()
) -> Subject:
    """Run a command as it should be, twice, and keep what it leaves."""
    subject = Subject(name, tuple(words.split()), master, weight, seals)
    found, taken = [], {}
    for number in range(2):
        work = master.with_name(f"{master.name}-{name}-{number}")
        copy(master, work)
        log = work.with_suffix(".log")
        if (code := run_child(subject, work, log)) != 0:
            raise RuntimeError(f"{words}: exit code {code} without a fault:\n{log.read_text()}")
        taken = json.loads(log.with_suffix(".json").read_text())
        found.append((tree(work), log.read_text()))
        shutil.rmtree(work)
    if found[0][0] != found[1][0]:
        different = [path for path in found[0][0] if found[0][0][path] != found[1][0].get(path)]
        raise RuntimeError(f"{words}: writes other bytes each time: {different}")
    return Subject(name, subject.words, master, weight, seals, *found[0], taken["cpu_s"], taken["operations"])


def copy(master: Path, work: Path) -> None:
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(master, work, symlinks=True)


def quick_subjects(where: Path, competition: Path, store: Path) -> list[Subject]:
    """Commands that take a fraction of a second: with a competition and its store, and two runs."""
    data, checked, runs = where / "data", where / "checked", where / "runs-only"
    data.mkdir(parents=True)
    shutil.copytree(competition, data / "competition")
    shutil.copytree(data, checked)
    shutil.copytree(store, checked / "store", ignore=shutil.ignore_patterns(".lock*"))
    for folder in (checked, runs):
        make_run(folder / "runs", "baseline")
        make_run(folder / "runs", "panels+global")
    verify = "verify --store store --data competition --runs runs --quiet"
    return [
        without_fault("prepare", "prepare --data competition --store store --jobs 1 --quiet", data, 2),
        without_fault("verify", verify, checked, 4, ("store", "runs")),
        without_fault("ladder", "ladder --runs runs --format json --out ladder.json", runs, 4, ("runs",)),
        without_fault(
            "blend", "blend baseline panels+global --runs runs --shrinkage 0.1 --quiet", runs, 2, ("runs",)
        ),
    ]


def all_subjects(where: Path) -> list[Subject]:
    """The quick ones, and those that simulate, report, build, check and predict."""
    from own_recordings import simulated_uv, write_referential
    from trained import make_dist

    from kagglehms.simulator.competition import make_competition

    make_competition(where / "competition", n_eegs=3, n_test=1, seed=5)
    dist = make_dist(where / "competition", where / "trained")
    subjects = quick_subjects(where, where / "competition", where / "trained" / "store")
    nothing, built, judged, finished = (where / name for name in ("nothing", "built", "judged", "finished"))
    nothing.mkdir()
    shutil.copytree(where / "trained" / "runs", finished / "runs", ignore=shutil.ignore_patterns(".lock*"))
    shutil.copytree(dist, built / "dist", ignore=shutil.ignore_patterns(".lock*"))
    shutil.copytree(built / "dist" / "dataset", judged / "bundle")
    write_referential(judged / "night.edf", simulated_uv(60))
    predict = "predict night.edf --bundle bundle --out found --device cpu --no-timeline --quiet"
    eeg_id = (where / "competition" / "train.csv").read_text().splitlines()[1].split(",")[0]
    view = f"view {eeg_id} --data competition --store store --runs none --out seen --quiet"
    return [
        *subjects,
        without_fault("simulate", "simulate --out made --eegs 1 --test 1 --threads 1 --quiet", nothing, 1),
        without_fault(
            "report", "report --runs runs --out report.html --quiet", where / "runs-only", 0.5, ("runs",)
        ),
        without_fault(
            "build", "build --runs runs --out dist --owner somebody --quiet", finished, 0.5, ("runs",)
        ),
        without_fault("view", view, where / "checked", 0.5, ("store",)),
        without_fault("preflight", "preflight --dist dist --quiet", built, 1),
        without_fault("predict", predict, judged, 1, ("bundle",)),
    ]
