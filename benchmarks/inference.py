"""Rows a second of the scored run, against the way of the public notebooks, and what the hidden set would take.

    python benchmarks/inference.py [--rows 32] [--rounds 3]

1. From parquet files to images, one process, contenders in turn: the notebooks' way is a Dataset that reads a row's
   files with pandas, cuts, takes logarithms and normalises them with NumPy and makes mel images with librosa, one row
   after the other. Ours reads, checks and draws the same images by threads (`inference.stream`).
2. A scored run of an untrained bundle on more and more rows, in a process of its own: its peak memory must not grow.
3. Seconds of a whole scored run on 4,000 rows, as the rates of this machine say.

Prints tables and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
from _bundles import NORMALISER, untrained_bundle
from _measure import finish, in_turn, machine, medians, table, versions
from _mel_peers import librosa_notebook
from numpy.typing import NDArray

from kagglehms.data.competition import Competition
from kagglehms.inputs.layouts import LAYOUTS, Layout
from kagglehms.kernel.prior import read_rows
from kagglehms.kernel.test_set import CropCache, Reader, batches
from kagglehms.rehearsal.hidden_test_set import HIDDEN_ROWS, make_hidden

F32 = NDArray[np.float32]
CONTENDERS = ("panels", "eeg+percentiles", "kaggle+eeg")


class NotebookDataset:
    """One row after the other, as a PyTorch Dataset without workers would do it."""

    def __init__(self, competition: Competition, layout: str) -> None:
        rows = read_rows(competition)
        self.competition, self.layout = competition, layout
        self.ids = [(rows.eeg_id(row), rows.spectrogram_ids[row]) for row in range(len(rows))]
        self.mel = librosa_notebook()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> F32:
        if self.layout == "panels":
            return self.kaggle(row, per_panel=True)
        if self.layout == "eeg+percentiles":
            panels = self.eeg(row)
            below = np.percentile(panels, [20, 40, 60, 80], axis=0).astype(np.float32)
            return np.concatenate([panels.reshape(512, 256), below.reshape(512, 256)], axis=1)
        image = np.zeros((512, 556), np.float32)
        image[:400, :300] = self.kaggle(row, per_panel=False)
        image[:, 300:] = self.eeg(row).reshape(512, 256)
        return image

    def kaggle(self, row: int, per_panel: bool) -> F32:
        import pandas as pd

        spectrogram = pd.read_parquet(self.competition.spectrogram(self.ids[row][1] or 0, "test"))
        panels = []
        for name in ("LL", "RL", "LP", "RP"):
            columns = [column for column in spectrogram.columns if column.startswith(name)]
            panel = np.log(np.clip(spectrogram[columns].to_numpy(np.float32)[:300].T, np.exp(-4), np.exp(8)))
            mean, std = (
                (np.nanmean(panel), np.nanstd(panel)) if per_panel else NORMALISER.statistics["kaggle"]
            )
            panels.append(np.nan_to_num((panel - mean) / (std + 1e-6), nan=0.0))
        return np.concatenate(panels).astype(np.float32)

    def eeg(self, row: int) -> F32:
        import pandas as pd

        frame = pd.read_parquet(self.competition.eeg(self.ids[row][0] or 0, "test"))
        middle = (len(frame) - 10_000) // 2
        return self.mel(frame.to_numpy(np.float32)[None, middle : middle + 10_000])[0]


def notebook(competition: Competition, layout: str) -> Callable[[], F32]:
    def run() -> F32:
        dataset = NotebookDataset(competition, layout)
        return np.stack([dataset[row] for row in range(len(dataset))])[:, None]

    return run


def ours(reader_of: Callable[[], Reader], layout: Layout) -> Callable[[], F32]:
    def run() -> F32:
        reader = reader_of()
        return np.concatenate(
            [images.copy() for _, images in batches(reader, range(len(reader.rows)), layout, NORMALISER)]
        )

    return run


def rates(hidden: Competition, scratch: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds a row: layout → contender."""
    rows = read_rows(hidden)
    found: dict[str, dict[str, float]] = {}
    for name in CONTENDERS:
        layout = LAYOUTS[name]
        kept = Reader(hidden, rows, CropCache(scratch, len(rows), layout.sources))
        fresh = ours(
            lambda layout=layout: Reader(hidden, rows, CropCache(None, len(rows), layout.sources)), layout
        )
        again = ours(lambda kept=kept: kept, layout)
        theirs = notebook(hidden, name)
        worst = float(np.abs(fresh() - theirs()).max())
        seconds = medians(in_turn({"notebook": theirs, "ours": fresh, "ours, read before": again}, rounds))
        kept.cache.close()
        found[name] = {who: 1e3 * s / len(rows) for who, s in seconds.items()} | {"largest difference": worst}
    return found


def scored_run(rows: int, recipe: str, backbone: str, scratch: Path) -> dict[str, float]:
    """A scored run in a process of its own (see `main`): seconds and peak memory."""
    command = [sys.executable, __file__, "--run", str(rows), "--recipe", recipe, "--backbone", backbone]
    done = subprocess.run(
        [*command, "--scratch", str(scratch)], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def run_here(rows: int, recipe: str, backbone: str, scratch: Path) -> None:
    """Do one scored run and print its figures; imports and compilation are done before the clock starts."""
    from dataclasses import replace

    from kagglehms.kernel.marker import Marker
    from kagglehms.kernel.protocol import Task
    from kagglehms.kernel.scored_run import run_scored
    from kagglehms.training.recipes import get_recipe

    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        where = Path(folder)
        (where / "scratch").mkdir()
        bundle = untrained_bundle(
            where / "bundle", [replace(get_recipe(recipe), backbone=backbone)], n_folds=2
        )
        hidden = make_hidden(where / "hidden", rows, scratch / "given")
        run_scored(
            Task(
                str(bundle),
                str(hidden.root),
                str(where / "out"),
                mirror=False,
                scratch=str(where / "scratch"),
            )
        )
        marker = Marker.read(where / "out")
    assert marker is not None
    assert marker.status == "complete", marker.problems
    peak_MiB = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    first, second = (step["seconds"] for step in marker.steps)
    print(json.dumps({"rows": rows, "first_s": first, "second_s": second, "peak_MiB": peak_MiB}))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=32, help="of the first part")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="*", default=[250, HIDDEN_ROWS], help="of the second part")
    parser.add_argument("--recipe", default="kaggle+eeg")
    parser.add_argument(
        "--backbone", default="test_byobnet", help="of the second part: small, so reading decides"
    )
    parser.add_argument("--run", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_here(options.run, options.recipe, options.backbone, options.scratch)
        return
    print(machine(), versions("numpy", "numba", "polars", "pandas", "librosa", "torch", "timm"), sep="\n")
    with tempfile.TemporaryDirectory(prefix="kagglehms-benchmark-") as folder:
        scratch = Path(folder)
        hidden = make_hidden(scratch / "given", options.rows)
        found = rates(hidden, scratch, options.rounds)
        print(
            f"\n{options.rows} rows, medians of {options.rounds} rounds, milliseconds a row (rows a second)"
        )
        print(
            table(
                ["image", "notebook", "ours", "÷", "ours, read before", "largest difference"],
                map(_row, found.items()),
            )
        )
        runs = [scored_run(rows, options.recipe, options.backbone, scratch) for rows in options.sizes]
    print(f"\nscored runs of two models, {options.recipe} with {options.backbone}")
    print(
        table(
            ["rows", "first pass s", "second pass s", "peak memory MiB"],
            [[f"{v:.0f}" for v in run.values()] for run in runs],
        )
    )
    growth = [
        f"{1024 * (b['peak_MiB'] - a['peak_MiB']) / (b['rows'] - a['rows']):.1f}" for a, b in pairwise(runs)
    ]
    print(f"growth of peak memory: {', '.join(growth)} KiB a row")
    for who in ("notebook", "ours"):
        seconds = [f"{name} {HIDDEN_ROWS * found[name][who] / 1e3:.0f} s" for name in CONTENDERS]
        print(f"{HIDDEN_ROWS} rows, reading and drawing alone, {who}: {', '.join(seconds)}")
    finish({"machine": machine(), "ms_per_row": found, "runs": runs})


def _row(item: tuple[str, dict[str, float]]) -> list[str]:
    name, found = item
    cells = [
        f"{found[who]:.1f} ({1e3 / found[who]:.0f})" for who in ("notebook", "ours", "ours, read before")
    ]
    ratio = f"{found['notebook'] / found['ours']:.1f}"
    return [name, cells[0], cells[1], ratio, cells[2], f"{found['largest difference']:.1e}"]


if __name__ == "__main__":
    main()
