"""Train every rung of the ladder on one fixed simulated competition, several seeds, and write the table.

python benchmarks/ladder_on_simulated.py --out work [--eegs 4000] [--seeds 0 1] [--table docs/results.md]

One command does all of it, and the same command goes on after an interruption: the competition is completed, the
store is continued, finished folds are not trained again. Competition and folds are the same for every run; a seed
decides first weights, order, augmentations and dropout. `--epochs`, `--backbone` and `--folds` make a reduced pass,
which the table says. With `--only-table` nothing is trained.

The second table asks of each step of the source whether it helps here as it did there. Its figures are differences
of out-of-fold scores (negative helps), paired by seed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

from _measure import finish, machine, table, versions

from kagglehms.data.competition import Competition, truth_folder
from kagglehms.data.records import make_records, read_train_table
from kagglehms.data.store import plan, prepare
from kagglehms.data.synthetic import make_competition
from kagglehms.errors import HMSError
from kagglehms.learning.crossval import Dataset, cross_validate
from kagglehms.learning.floor import Floor, measure_floor
from kagglehms.learning.ladder import RUNGS, Row, ladder
from kagglehms.learning.recipes import Recipe, get_recipe
from kagglehms.runtime import choose_device, progress, say, write_bytes

COMPETITION_SEED = 2024
N_TEST = 40
CHANGEABLE = ("backbone", "batch_size", "lr", "dropout", "drop_path_rate")
"""What a reduced pass may change in all recipes."""
STEPS = (
    ("baseline", "global-stats", "summaries over panels instead of the panels"),
    ("baseline", "panels+global", "both side by side"),
    ("baseline", "vote-weighted", "percentiles beside, loss × log(votes + 1), CutMix"),
    ("global-stats", "vote-weighted-global", "loss × log(votes + 1), CutMix"),
    ("vote-weighted", "global-norm", "one normalisation for all records, B4"),
    ("vote-weighted-global", "global-norm-stats", "one normalisation for all records"),
    ("global-norm", "mosaic-xloss", "mosaics first, loss × min(votes, 10), B0"),
    ("global-norm-stats", "mosaic-xloss-stats", "the same"),
    ("baseline", "eeg+percentiles", "the 50 s of EEG instead of ten minutes"),
    ("eeg+percentiles", "eeg-global-stats", "summaries of the EEG's images"),
    ("mosaic-xloss", "two-stage", "few votes first, then many"),
    ("two-stage", "two-stage-weighted", "another weight in the second stage"),
)
"""From, to, and what changes; the source's own figure is the difference of its two cross-validated scores."""


def main() -> None:
    options = _options()
    out: Path = options.out
    competition, truth_csv = _competition(out, options.eegs)
    records = make_records(read_train_table(competition.train_csv))
    if not options.only_table:
        _train(options, competition, out)
    rows = {seed: ladder(out / f"runs-seed{seed}", truth_csv) for seed in options.seeds}
    floor = measure_floor(competition, truth_csv, lambda items, n: progress(items, n, "read"))
    text = report(rows, floor, options.recipes, f"{options.eegs} EEGs, {len(records)} records")
    say(text)
    if options.table is not None:
        write_bytes(options.table, text.encode())
    finish(
        {
            "benchmark": "ladder_on_simulated",
            "records": len(records),
            "seeds": options.seeds,
            "scores": {name: _scores(rows, name, "cv_all") for name in options.recipes},
        }
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder of competition, store and runs")
    parser.add_argument("--eegs", type=int, default=4000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--recipes", nargs="+", default=[rung.recipe for rung in RUNGS])
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
    parser.add_argument("--table", type=Path, help="a Markdown file for the tables")
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


def report(rows: dict[int, list[Row]], floor: Floor, names: Sequence[str], size: str) -> str:
    """The tables, as Markdown, with everything that must be known to read them."""
    trained = [row for of_seed in rows.values() for row in of_seed if row.cv_all is not None]
    hardware = sorted({row.hardware for row in trained})
    passes = sorted({row.note for row in trained if "quick pass" in row.note})
    made = (
        f"{size}, generated by `benchmarks/ladder_on_simulated.py` with competition seed {COMPETITION_SEED}; "
    )
    made += f"training seeds {', '.join(map(str, rows))}. {machine()}; {'; '.join(hardware) or 'nothing trained'}; "
    made += f"{versions('numpy', 'torch', 'timm', 'numba', 'polars')}.\n"
    floors = f"Perfect predictor {_pair(floor.perfect)}, electrode energy {_pair(floor.energy)}, class prior "
    floors += f"{_pair(floor.prior)} (all records / ≥ 10 votes).\n"
    how = "Scores are out of fold, mean over seeds ± half their range. The way is the part of the distance from the "
    how += "class prior to the perfect predictor.\n"
    heads = (
        "recipe",
        "all records",
        "≥ 10 votes",
        "settled",
        "way, all",
        "way, ≥ 10",
        "folds",
        "published CV",
    )
    parts = [
        "# The ladder on a simulated competition\n",
        made,
        floors,
        how,
        table(heads, [_line(rows, name) for name in names]),
        "\n## Which steps help\n",
        table(
            ("from", "to", "what changes", "published", "here", "agrees"),
            [_step(rows, *step) for step in STEPS],
        ),
    ]
    return "\n".join([*parts, *([f"\nA reduced pass: {'; '.join(passes)}."] if passes else []), ""])


def _pair(scores: tuple[float, float | None]) -> str:
    return " / ".join("–" if score is None else f"{score:.4f}" for score in scores)


def _scores(rows: dict[int, list[Row]], name: str, column: str) -> dict[int, float]:
    """A column of a recipe, by seed; only what was trained."""
    found = {
        seed: getattr(row, column) for seed, of_seed in rows.items() for row in of_seed if row.recipe == name
    }
    return {seed: value for seed, value in found.items() if value is not None}


def _spread(values: Sequence[float], scale: float = 1, digits: int = 4, unit: str = "") -> str:
    if not values:
        return "–"
    half = (max(values) - min(values)) / 2
    return f"{scale * mean(values):.{digits}f} ± {scale * half:.{digits}f}{unit}"


def _line(rows: dict[int, list[Row]], name: str) -> list[str]:
    of = {column: list(_scores(rows, name, column).values()) for column in
          ("cv_all", "cv_votes10", "cv_settled", "recovered", "recovered_votes10")}  # fmt: skip
    folds = {row.folds for of_seed in rows.values() for row in of_seed if row.recipe == name and row.folds}
    published = next((rung.cv for rung in RUNGS if rung.recipe == name), None)
    return [
        f"`{name}`",
        *(_spread(of[column]) for column in ("cv_all", "cv_votes10", "cv_settled")),
        *(_spread(of[column], 100, 1, " %") for column in ("recovered", "recovered_votes10")),
        ", ".join(sorted(folds)) or "–",
        "–" if published is None else f"{published:.4f}",
    ]


def _step(rows: dict[int, list[Row]], before: str, after: str, what: str) -> list[str]:
    """One step: the source's difference, and ours, paired by seed."""
    published = {rung.recipe: rung.cv for rung in RUNGS}
    # Two-stage figures are on settled records, so the step to them is read there.
    column = "cv_settled" if "two-stage" in after else "cv_all"
    first, second = _scores(rows, before, column), _scores(rows, after, column)
    ours = [second[seed] - first[seed] for seed in sorted(first.keys() & second.keys())]
    a, b = published.get(before), published.get(after)
    theirs = None if a is None or b is None else b - a
    sure = len(ours) > 1 and abs(mean(ours)) > stdev(ours)
    verdict = "–" if not ours or theirs is None else "yes" if mean(ours) * theirs > 0 else "no"
    return [
        f"`{before}`",
        f"`{after}`",
        what + (" (settled records)" if column == "cv_settled" else ""),
        "–" if theirs is None else f"{theirs:+.4f}",
        "–" if not ours else f"{mean(ours):+.4f}" + ("" if sure else " (within the seeds' scatter)"),
        verdict,
    ]


if __name__ == "__main__":
    main()
