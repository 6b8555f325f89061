"""Train every rung of the ladder on one fixed simulated competition, several seeds, and write the table.

python benchmarks/ladder_on_simulated.py --out work [--eegs 4000] [--seeds 0 1] [--table docs/results-earlier.md]

One command does all of it, and the same command goes on after an interruption: the competition is completed, the
store is continued, finished folds are not trained again. Competition and folds are the same for every run; a seed
decides first weights, order, augmentations and dropout. `--epochs`, `--backbone` and `--folds` make a reduced pass,
which the table says. With `--only-table` nothing is trained.

Three options help to find out why a step does what it does: `--recipes baseline-together …` also knows the variants
below, which are no rungs; `--share 0.5 --only-folds 0` leaves out half of the patients to learn from, and nothing else;
`--true-labels --only-folds 0` learns from the probabilities that the votes were drawn from.

`--jobs 6` trains six folds at a time, each in a process of its own: where a small network leaves most of a fast card
idle, that is how to fill it. `--time-limit 5m` ends the training in time, and the same command goes on from there.

`--table` writes the tables between the two marks of a Markdown file, and leaves what stands around them; `--picture`
draws how far each recipe comes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import get_args

import numpy as np
from _ladder_picture import draw
from _ladder_report import load, report
from _measure import finish, machine, versions
from _side_by_side import Claims, run_side_by_side
from numpy.typing import NDArray

from kagglehms.console import say
from kagglehms.data.competition import Competition, truth_folder
from kagglehms.data.folds import assign_folds
from kagglehms.data.preparing import prepare, recordings_of
from kagglehms.data.records import Records, read_records, vote_fractions
from kagglehms.device import Precision, choose_device
from kagglehms.errors import HMSError, Stopped
from kagglehms.features.fold import FoldSpec
from kagglehms.files import write_bytes
from kagglehms.inputs import layouts
from kagglehms.inputs.kinds import SIXTEEN_SIGNALS_50_HZ, Folded
from kagglehms.inputs.layouts import Layout, Tile
from kagglehms.progress import progress
from kagglehms.runs.baselines import read_truth, record_energies
from kagglehms.runs.cross_validation import cross_validate
from kagglehms.runs.dataset import Dataset
from kagglehms.runs.folder import RunFolder
from kagglehms.runs.ladder import ladder
from kagglehms.runs.published_figures import RUNGS
from kagglehms.simulator.competition import make_competition
from kagglehms.timing import Clock, seconds_of
from kagglehms.training.front_ends.options import WaveStackOptions
from kagglehms.training.metric import kl_score
from kagglehms.training.options import HorizontalFlip, Mirror, SignFlip, TimeMask
from kagglehms.training.recipes import Recipe, get_recipe
from kagglehms.training.session import Session

COMPETITION_SEED = 2024
N_TEST = 40
CHANGEABLE = ("backbone", "batch_size", "lr", "dropout", "drop_path_rate")
"""What a reduced pass may change in all recipes."""


def main() -> None:
    options = _options()
    out: Path = options.out
    competition, truth_csv = _competition(out, options.eegs)
    records = read_records(competition.train_csv)
    folds = assign_folds(records, options.folds)
    if not options.only_table:
        store = prepare(
            recordings_of(competition, records), out / "store", lambda items, n: progress(items, n, "decode")
        ).store
    if options.share < 1:
        kept = _share(records, _held_out(folds, options), options.share)
        records, folds = records.take(kept), folds[kept]
    if not options.only_table:
        learned = records
        if options.true_labels:
            learned = _TrueLabels(records.frame, truth_csv, _held_out(folds, options))
        _train(options, Dataset(store, learned, folds))
    if options.claims is not None:
        return
    energies_ND = record_energies(competition, records, lambda items, n: progress(items, n, "read"))
    results = load(_runs(options), options.recipes, options.folds, records, truth_csv, energies_ND)
    text = report(results, describe(options, records))
    say(text)
    if options.table is not None:
        write_between_marks(options.table, options.marks, text)
    if options.picture is not None:
        draw(results, options.picture)
    finish(
        {
            "benchmark": "ladder_on_simulated",
            "records": len(records),
            "seeds": options.seeds,
            "scores": {
                name: [kl_score(results.records.targets_NK, p) for p in of_seed.values()]
                for name, of_seed in results.predictions.items()
            },
        }
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder of competition, store and runs")
    parser.add_argument("--eegs", type=int, default=4000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--recipes", nargs="+", default=[*RUNGS, "kaggle+eeg"])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--only-folds", type=int, nargs="+", help="train only these, for a reduced pass")
    parser.add_argument("--share", type=float, default=1, help="of the patients to learn from")
    parser.add_argument("--true-labels", action="store_true", help="learn from the truth, not from votes")
    parser.add_argument("--epochs", type=int, help="per stage, instead of the recipes'")
    parser.add_argument("--backbone", help="any timm model, instead of the recipes'")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--dropout", type=float)
    parser.add_argument("--drop-path-rate", type=float)
    parser.add_argument("--weights", default="none", help="as for `kagglehms train`")
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--precision", choices=get_args(Precision), help="as for `kagglehms train`")
    parser.add_argument("--cuda-graphs", action="store_true", help="as for `kagglehms train`")
    parser.add_argument("--jobs", type=int, default=1, help="folds that are trained at the same time")
    parser.add_argument(
        "--time-limit", type=seconds_of, help="of the training, such as 5m; no limit by default"
    )
    parser.add_argument("--claims", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--table", type=Path, help="a Markdown file with marks for the tables")
    parser.add_argument("--marks", default="measured", help="name of the two marks in that file")
    parser.add_argument("--picture", type=Path, help="a PNG file for the picture")
    parser.add_argument("--only-table", action="store_true", help="train nothing")
    return parser.parse_args()


def _competition(out: Path, n_eegs: int) -> tuple[Competition, Path]:
    folder = out / "competition"
    make_competition(folder, n_eegs, N_TEST, COMPETITION_SEED)
    return Competition(folder), truth_folder(folder.resolve()) / "train_truth.csv"


def _held_out(folds: NDArray[np.int8], options: argparse.Namespace) -> NDArray[np.bool_]:
    """Return which records are held out, where all runs hold out the same."""
    if options.only_folds is None or len(options.only_folds) != 1:
        raise SystemExit("--share and --true-labels need the one fold that is held out, as in --only-folds 0")
    return folds == options.only_folds[0]


def _share(records: Records, held_out_N: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
    """Return which records are kept when only a share of the patients who are not held out is learned from."""
    others = np.unique(records.patients[~held_out_N])
    chosen = np.random.default_rng(0).permutation(others)[: round(share * len(others))]
    return held_out_N | np.isin(records.patients, chosen)


@dataclass(frozen=True)
class _TrueLabels(Records):
    """Records that are learned from as if infinitely many experts had voted; the held-out ones have their votes."""

    truth_csv: Path
    held_out_N: NDArray[np.bool_]

    @cached_property
    def targets_NK(self) -> NDArray[np.float64]:
        """(n_records, 6) true probabilities, or vote fractions where held out."""
        truth_NK = read_truth(self.truth_csv, self.frame)
        return np.where(self.held_out_N[:, None], vote_fractions(self.votes_NK), truth_NK)


def _runs(options: argparse.Namespace) -> dict[int, Path]:
    """Where the runs of each seed are."""
    kind = "" if options.share == 1 else f"-share{options.share:g}"
    kind += "-true-labels" if options.true_labels else ""
    return {seed: options.out / f"runs-seed{seed}{kind}" for seed in options.seeds}


@dataclass(frozen=True)
class _Job:
    """A fold of a recipe that is to be trained with a seed."""

    runs: Path
    recipe: Recipe
    fold: int
    seed: int

    @property
    def run(self) -> str:
        return f"{self.recipe.name}-seed{self.seed}"

    @property
    def name(self) -> str:
        return f"{self.run}-fold{self.fold}"


def _jobs(options: argparse.Namespace) -> list[_Job]:
    """All folds of all recipes, in the order in which they are trained: every recipe before any second fold."""
    folds = range(options.folds) if options.only_folds is None else options.only_folds
    return [
        _Job(runs, _changed(VARIANTS.get(name) or get_recipe(name), seed, options), fold, seed)
        for seed, runs in _runs(options).items()
        for fold in folds
        for name in options.recipes
    ]


def _train(options: argparse.Namespace, dataset: Dataset) -> None:
    """Train whatever is missing, here or in processes of its own."""
    if options.jobs > 1 and options.claims is None:
        run_side_by_side(Path(__file__), options.jobs, options.out)
    else:
        _train_in_turn(options, dataset, _jobs(options))


def _train_in_turn(options: argparse.Namespace, dataset: Dataset, jobs: Iterable[_Job]) -> None:
    """Train one fold after the other; one that fails is reported, and the others go on."""
    device, claims = choose_device(options.device, options.precision), Claims(options.claims)
    say(device.reason)
    session = Session(clock=Clock(options.time_limit, time.monotonic()), cuda_graphs=options.cuda_graphs)
    for job in jobs:
        if session.clock.left_s <= 0:
            break
        if not claims.take(job.name):
            continue
        claims.wait_for(job.run, lambda job=job: RunFolder(job.runs / job.recipe.name).begun)
        try:
            done = cross_validate(job.recipe, dataset, job.runs, device, options.weights, [job.fold], session)
            say(f"seed {job.seed}, fold {job.fold}: {done.sentence}")
        except Stopped as stopped:
            say(str(stopped))
            break
        except HMSError as error:
            say(f"seed {job.seed}, fold {job.fold}: {job.recipe.name} failed: {error}")


def _changed(recipe: Recipe, seed: int, options: argparse.Namespace) -> Recipe:
    recipe = recipe if options.epochs is None else recipe.with_epochs(options.epochs)
    changes = {name: value for name in CHANGEABLE if (value := getattr(options, name)) is not None}
    return replace(recipe, seed=seed, **changes)


VARIANTS = {
    recipe.name: recipe
    for recipe in (
        # The panels of `baseline` under the normalisation of `global-stats`.
        replace(get_recipe("baseline"), name="baseline-together", layout=Layout((Tile(normalise="image"),))),
        # `global-norm` with the image, or the loss, of the others.
        replace(
            get_recipe("global-norm"), name="global-norm-plain-loss", stages=get_recipe("baseline").stages
        ),
        # Other images with the training of `raw-fold`: what of a difference is due to the input alone.
        replace(
            get_recipe("raw-fold"), name="global-norm-as-raw-fold", layout=get_recipe("global-norm").layout
        ),
        replace(get_recipe("raw-fold"), name="eeg-panels-as-raw-fold", layout=layouts.EEG_PANELS),
        # As many pixels as `half:` leaves of the image of `raw-fold`, which it makes by averaging samples 50 ms apart,
        # so that 10 Hz cancel. Sampling at 50 Hz keeps the band whole.
        replace(get_recipe("raw-fold"), name="raw-fold-50-hz", layout=Folded(FoldSpec(step=4, phases=5))),
        # The same image with the training of `global-norm`, and left and right swapped.
        replace(
            get_recipe("global-norm"),
            name="folded-as-global-norm",
            layout=Folded(FoldSpec(step=4, phases=5)),
            augmentations=(Mirror(),),
        ),
        # No loss of its own for the signals and the panels.
        replace(get_recipe("resnet1d+panels"), name="resnet1d+panels-one-loss", view_loss=0.0),
        # `wave-stack` for a CPU: at 50 Hz, with half of the features before the last block and fewer layers.
        replace(
            get_recipe("wave-stack"),
            name="wave-stack-small",
            layout=SIXTEEN_SIGNALS_50_HZ,
            front_end=WaveStackOptions(widths=(4, 8, 16, 64), layers=(7, 5, 3, 1)),
            augmentations=(Mirror(), SignFlip(), HorizontalFlip(), TimeMask(probability=0.2, max_width=250)),
            stages=tuple(
                replace(stage, warm_up_steps=min(stage.warm_up_steps, 100))
                for stage in get_recipe("wave-stack").stages
            ),
        ),
    )
}


def write_between_marks(path: Path, name: str, text: str) -> None:
    """Put the measured part of a page in its place; a page that does not exist yet gets nothing else."""
    marks = f"<!-- {name} -->", f"<!-- /{name} -->"
    page = path.read_text() if path.is_file() else "\n\n".join(marks) + "\n"
    before, begin, rest = page.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not (begin and end):
        raise SystemExit(f"{path}: expected {marks[0]} and {marks[1]} around the place of the tables")
    write_bytes(path, f"{before}{begin}\n\n{text}\n\n{end}{after}".encode())


def describe(options: argparse.Namespace, records: Records) -> str:
    """What the figures are of."""
    rows = [row for folder in _runs(options).values() for row in ladder(folder) if row.folds]
    changed = sorted({row.note.partition("quick pass: ")[2].partition(";")[0] for row in rows} - {""})
    hardware = sorted({row.hardware for row in rows})
    seconds = sum(row.seconds_per_fold or 0 for row in rows)
    n_patients = records.frame["patient_id"].n_unique()
    lines = [
        f"{options.eegs} EEGs, {len(records)} records of {n_patients} patients, simulated with seed {COMPETITION_SEED}",
        f"by `benchmarks/ladder_on_simulated.py`; training seeds {', '.join(map(str, options.seeds))}.",
        f"{machine()}; {', '.join(hardware)}; {versions('numpy', 'torch', 'timm', 'numba', 'polars')};",
        f"{seconds / 3600:.1f} hours for a fold of everything.",
    ]
    if options.true_labels:
        lines += ["", "Learned from the probabilities that the votes were drawn from, instead of the votes."]
    if changed:
        epochs = "" if options.epochs else ", epochs"
        start = "from scratch" if options.weights == "none" else "from ImageNet weights"
        backbones = " and ".join(f"`{name}`" for name in sorted({row.backbone for row in rows}))
        lines += [
            "",
            f"**A reduced pass** ({'; '.join(changed)}): all recipes train {backbones}",
            f"{start}; images, losses, augmentations{epochs} and stages are the recipes' own.",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
