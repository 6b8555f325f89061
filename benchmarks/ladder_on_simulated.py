"""Train every rung of the ladder on one fixed simulated competition, several seeds, and write the table.

python benchmarks/ladder_on_simulated.py --out work [--eegs 4000] [--seeds 0 1] [--table docs/results.md]

One command does all of it, and the same command goes on after an interruption: the competition is completed, the
store is continued, finished folds are not trained again. Competition and folds are the same for every run; a seed
decides first weights, order, augmentations and dropout. `--epochs`, `--backbone` and `--folds` make a reduced pass,
which the table says. With `--only-table` nothing is trained.

`--table` writes the tables between the two marks of a Markdown file, and leaves what stands around them.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from _ladder_report import load, report
from _measure import finish, machine, versions

from kagglehms.data.competition import Competition, truth_folder
from kagglehms.data.records import Records, make_records, read_train_table
from kagglehms.data.store import plan, prepare
from kagglehms.data.synthetic import make_competition
from kagglehms.errors import HMSError
from kagglehms.learning.crossval import Dataset, cross_validate
from kagglehms.learning.floor import record_energies
from kagglehms.learning.ladder import RUNGS, ladder
from kagglehms.learning.metric import kl_score
from kagglehms.learning.recipes import Recipe, get_recipe
from kagglehms.runtime import choose_device, progress, say, write_bytes

COMPETITION_SEED = 2024
N_TEST = 40
CHANGEABLE = ("backbone", "batch_size", "lr", "dropout", "drop_path_rate")
"""What a reduced pass may change in all recipes."""


def main() -> None:
    options = _options()
    out: Path = options.out
    competition, truth_csv = _competition(out, options.eegs)
    records = make_records(read_train_table(competition.train_csv))
    if not options.only_table:
        _train(options, competition, out)
    energies_ND = record_energies(competition, records, lambda items, n: progress(items, n, "read"))
    runs = {seed: out / f"runs-seed{seed}" for seed in options.seeds}
    results = load(runs, options.recipes, options.folds, records, truth_csv, energies_ND)
    text = report(results, describe(options, records))
    say(text)
    if options.table is not None:
        write_between_marks(options.table, text)
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
    parser.add_argument("--recipes", nargs="+", default=[*(rung.recipe for rung in RUNGS), "kaggle+eeg"])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--only-folds", type=int, nargs="+", help="train only these, for a reduced pass")
    parser.add_argument("--epochs", type=int, help="per stage, instead of the recipes'")
    parser.add_argument("--backbone", help="any timm model, instead of the recipes'")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--dropout", type=float)
    parser.add_argument("--drop-path-rate", type=float)
    parser.add_argument("--weights", default="none", help="as for `kagglehms train`")
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--table", type=Path, help="a Markdown file with marks for the tables")
    parser.add_argument("--only-table", action="store_true", help="train nothing")
    return parser.parse_args()


def _competition(out: Path, n_eegs: int) -> tuple[Competition, Path]:
    folder = out / "competition"
    make_competition(folder, n_eegs, N_TEST, COMPETITION_SEED)
    return Competition(folder), truth_folder(folder.resolve()) / "train_truth.csv"


def _train(options: argparse.Namespace, competition: Competition, out: Path) -> None:
    """Train whatever is missing, seed by seed; a rung that fails is reported, and the others go on."""
    records = make_records(read_train_table(competition.train_csv))
    store = prepare(
        plan(competition, records), out / "store", lambda items, n: progress(items, n, "decode")
    ).store
    dataset = Dataset.of(store, records, options.folds)
    device = choose_device(options.device)
    say(device.reason)
    for seed in options.seeds:
        for name in options.recipes:
            recipe = _changed(get_recipe(name), seed, options)
            try:
                runs = out / f"runs-seed{seed}"
                done = cross_validate(recipe, dataset, runs, device, options.weights, options.only_folds)
                say(f"seed {seed}: {done.sentence}")
            except HMSError as error:
                say(f"seed {seed}: {name} failed: {error}")


def _changed(recipe: Recipe, seed: int, options: argparse.Namespace) -> Recipe:
    recipe = recipe if options.epochs is None else recipe.with_epochs(options.epochs)
    changes = {name: value for name in CHANGEABLE if (value := getattr(options, name)) is not None}
    return replace(recipe, seed=seed, **changes)


MARKS = ("<!-- measured -->", "<!-- /measured -->")


def write_between_marks(path: Path, text: str) -> None:
    """Put the measured part of a page in its place; a page that does not exist yet gets nothing else."""
    page = path.read_text() if path.is_file() else "\n\n".join(MARKS) + "\n"
    before, begin, rest = page.partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not (begin and end):
        raise SystemExit(f"{path}: expected {MARKS[0]} and {MARKS[1]} around the place of the tables")
    write_bytes(path, f"{before}{begin}\n\n{text}\n\n{end}{after}".encode())


def describe(options: argparse.Namespace, records: Records) -> str:
    """What the figures are of."""
    runs = [options.out / f"runs-seed{seed}" for seed in options.seeds]
    rows = [row for folder in runs for row in ladder(folder) if row.cv_all is not None]
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
    if changed:
        backbones = " and ".join(f"`{name}`" for name in sorted({row.backbone for row in rows}))
        lines += [
            "",
            f"**A reduced pass** ({'; '.join(changed)}): all recipes train {backbones}",
            "from scratch; images, losses, augmentations, stages and epochs are the recipes' own.",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
