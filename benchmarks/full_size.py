"""The commands that look at tables, at the competition's full size: seconds and peak memory, measured from outside.

    python benchmarks/full_size.py [--runs 20] [--eegs 19350] [--keep FOLDER]

A simulated plan of the whole train.csv (no recordings: none of these commands reads any), its folds by patient, and
runs of all five folds, whose predictions are the true probabilities with noise of their own. Each command is a child
process, as a person starts it: its wall-clock time, the processor's, and its peak memory as the kernel counted them.
Prints a table, what was aimed for, and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from _measure import finish, machine, table, versions
from numpy.typing import NDArray
from safetensors.numpy import save_file

from kagglehms.data.competition import PROBABILITY_COLUMNS, Competition
from kagglehms.data.folds import assign_folds
from kagglehms.data.records import Records, read_records
from kagglehms.runs.contents import FoldResult, RunInfo
from kagglehms.runs.dataset import Identity
from kagglehms.runs.folder import RunFolder
from kagglehms.simulator.competition import _train_table
from kagglehms.simulator.studies import draw_studies
from kagglehms.training.recipes import RECIPES, Recipe, get_recipe

N_FOLDS = 5
EVALUATIONS = 24
GOALS = {"report": (12.0, 600.0), "blend": (30.0, None)}
"""Most seconds and most MB of a command."""
IDENTITY = Identity(store="5" * 64, records="a" * 64, folds="0" * 64)
READING = "from pathlib import Path; from kagglehms.data.records import read_records; "
FOLDING = "from kagglehms.data.folds import assign_folds; "


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=20, help="number of runs, all of which are blended")
    parser.add_argument(
        "--eegs",
        type=int,
        default=19_350,
        help="number of EEGs in the plan; real ones have a few more windows each",
    )
    parser.add_argument("--keep", type=Path, help="folder to make the runs in, or to find them in")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        if not (folder / "train.csv").is_file():
            make(folder, options.eegs, options.runs)
        figures = measure(folder)
    print(machine())
    print(versions("numpy", "polars", "scipy", "matplotlib"))
    print(table(("command", "seconds", "processor s", "peak MB", "goal"), map(_row, figures.items())))
    finish({"benchmark": "full_size", "runs": options.runs, "commands": figures})


def make(folder: Path, n_eegs: int, n_runs: int) -> None:
    """Write train.csv and runs of it."""
    folder.mkdir(parents=True, exist_ok=True)
    studies = draw_studies(n_eegs, 0, np.random.default_rng(0))
    train = _train_table(studies)
    truth = {
        (r.eeg_id, label.votes): label.probabilities
        for s in studies
        for r in s.recordings
        for label in r.labels
    }
    train.write_csv(path := Competition(folder).train_csv)
    records = read_records(path)
    votes = records.votes_NK.tolist()
    truth_NK = np.array(
        [truth[id_, tuple(row)] for id_, row in zip(records.eeg_ids.tolist(), votes, strict=True)]
    )
    folds_N = assign_folds(records, N_FOLDS)
    print(f"{len(train):,} rows, {len(records):,} records, {n_runs} runs", flush=True)
    for number, name in enumerate(list(RECIPES)[:n_runs]):
        make_run(folder / "runs", get_recipe(name), records, folds_N, noisy(truth_NK, number))


def noisy(truth_NK: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """(n, 6) probabilities that are as wrong as those of a network, each seed in its own way."""
    rng = np.random.default_rng(seed)
    common_NK = np.random.default_rng(10_000).normal(0, 0.6, truth_NK.shape)
    scores_NK = np.log(truth_NK + 0.02) + common_NK + rng.normal(0, rng.uniform(0.3, 0.9), truth_NK.shape)
    powers_NK = np.exp(scores_NK)
    return powers_NK / powers_NK.sum(axis=1, keepdims=True)


def make_run(
    runs: Path,
    recipe: Recipe,
    records: Records,
    folds_N: NDArray[np.int8],
    predictions_NK: NDArray[np.float64],
) -> None:
    """Write a finished run, with weights that are none."""
    folder = RunFolder(runs / recipe.name)
    predicted = dict(zip(PROBABILITY_COLUMNS, predictions_NK.T, strict=True))
    oof = records.frame.with_columns(record=np.arange(len(records)), fold=folds_N, **predicted)
    folder.path.mkdir(parents=True)
    folder.write_recipe(recipe)
    for fold in range(N_FOLDS):
        folder.fold(fold).mkdir()
        save_file({"weight": np.zeros(16, np.float32)}, folder.fold(fold) / "weights.safetensors")
        (folder.fold(fold) / "history.csv").write_text(history(fold))
        folder.write_predictions(oof.filter(pl.col("fold") == fold), fold)
        folder.write_result(
            FoldResult(
                fold=fold, score_all=0.9, score_votes10=0.8, n_records=int((folds_N == fold).sum()), seconds=1.0,
                device="device: cpu",
            )
        )  # fmt: skip
    folder.write_predictions(oof)
    scores = {"all": 0.9, "votes10": 0.8}
    info = RunInfo(
        recipe=recipe.name, n_folds=N_FOLDS, fingerprint=f"of {recipe.name}", identity=IDENTITY, records=len(oof),
        prior=tuple(records.targets_NK.mean(axis=0).tolist()), versions={}, scores=scores,
    )  # fmt: skip
    folder.write_info(info)


def history(fold: int) -> str:
    """A fold's evaluations, as training writes them."""
    lines = ["stage,warm_up,step,epoch,train_loss,score_stage,score_all,score_votes10,seconds"]
    for i in range(EVALUATIONS):
        score = 0.9 + 0.5 / (i + 1) + 0.01 * fold
        lines.append(
            f"0,{str(i == 0).lower()},{i * 100},{i / 2},{score + 0.05},{score},{score},{score},{i * 10}.0"
        )
    return "\n".join(lines) + "\n"


def measure(folder: Path) -> dict[str, dict[str, float]]:
    """Run every command on the folder."""
    runs, train = folder / "runs", f"read_records(Path({str(folder / 'train.csv')!r}))"
    names = sorted(path.name for path in runs.iterdir() if (path / "run.json").is_file())
    tool = ["-m", "kagglehms"]
    commands: dict[str, list[str]] = {
        "import alone": [*tool, "--version"],
        "records": ["-c", f"{READING}{train}"],
        "records and folds": ["-c", f"{READING}{FOLDING}assign_folds({train})"],
        "ladder": [*tool, "ladder", "--runs", str(runs)],
        "report": [*tool, "report", "--runs", str(runs), "--out", str(folder / "report.html")],
        "blend": [*tool, "blend", *names, "--runs", str(runs), "--name", "benchmark"],
    }
    figures = {}
    for name, arguments in commands.items():
        figures[name] = from_outside([sys.executable, *arguments])
        print(f"{name}: {figures[name]['seconds']:.1f} s, {figures[name]['MB']:.0f} MB", file=sys.stderr)
        (runs / "blends" / "benchmark.json").unlink(missing_ok=True)
    return figures


OUTSIDE = """
import json, os, subprocess, sys, time
begun = time.perf_counter()
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
seconds = time.perf_counter() - begun
print(json.dumps([os.waitstatus_to_exitcode(status), seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss]))
"""
"""What starts and measures a command: an interpreter of its own, as a child's peak begins with that of its parent."""


def from_outside(command: list[str]) -> dict[str, float]:
    """Seconds, processor's seconds and peak memory of a command that has to succeed."""
    watcher = [sys.executable, "-I", "-S", "-c", OUTSIDE, *command]
    told = subprocess.run(watcher, check=True, stdout=subprocess.PIPE, text=True).stdout
    code, seconds, processor_s, kibibytes = json.loads(told)
    if code:
        raise SystemExit(f"{' '.join(command)}: exit code {code}")
    return {"seconds": seconds, "processor_s": processor_s, "MB": kibibytes * 1024 / 1e6}


def _row(item: tuple[str, dict[str, float]]) -> tuple[Any, ...]:
    name, found = item
    seconds, megabytes = GOALS.get(name, (None, None))
    goal = " and ".join(
        f"≤ {most:g} {unit}" for most, unit in ((seconds, "s"), (megabytes, "MB")) if most is not None
    )
    return name, f"{found['seconds']:.1f}", f"{found['processor_s']:.1f}", f"{found['MB']:.0f}", goal


if __name__ == "__main__":
    main()
