"""Does training still learn as well as it did? Two small recipes on a fixed simulated set, against reference figures.

    python benchmarks/learning_check.py             # exit code 1 if a recipe learns less than the reference says
    python benchmarks/learning_check.py --update    # measure the reference anew, from more seeds

Tests of correctness do not see a fault that only makes a network learn worse, such as first weights that are too large.
This check does. It trains each recipe of `EPOCHS` from scratch on a CPU and measures how far it comes, held out, on the
way from the class prior (0) to the perfect predictor (1). The reference, learning_check.json, holds the way of each of
its seeds; a recipe fails if the mean way over the check's seeds is below what those let expect
(`_learning_verdict.least_expected`). A longer way is only mentioned. The simulated set is the same every time, until
the simulator changes: where set or settings differ from those of the reference, the check asks for a new one and ends
in exit code 2.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from _learning_verdict import complaint, differences, judge, least_expected
from _measure import finish, machine, table, versions
from _planted_faults import FAULTS
from _simulated_set import SimulatedSet

from kagglehms.console import be_quiet
from kagglehms.data.competition import PROBABILITY_COLUMNS
from kagglehms.device import choose_device
from kagglehms.errors import EXIT_FAILURE, EXIT_OK, HMSError, UsageError
from kagglehms.files import write_bytes
from kagglehms.runs.baselines import recovered
from kagglehms.runs.cross_validation import cross_validate
from kagglehms.runs.dataset import Dataset
from kagglehms.runs.folder import RunFolder
from kagglehms.simulator.competition import GENERATOR
from kagglehms.training.metric import kl_score
from kagglehms.training.recipe import Recipe
from kagglehms.training.recipes import get_recipe

REFERENCE = Path(__file__).with_suffix(".json")
N_EEGS, SET_SEED = 200, 2024
SEEDS, REFERENCE_SEEDS = (0, 1), tuple(range(2, 10))
"""Of the check and of its reference: they share none, so that the reference is not fitted to what it judges."""

SMALL: dict[str, Any] = {
    "backbone": "half:test_efficientnet",
    "batch_size": 16,
    "lr": 2e-3,
    "dropout": 0.1,
    "drop_path_rate": 0.0,
    "evaluations_per_epoch": 1,
    "keep": "last",
}
"""What all recipes have instead of their own settings. The last weights are kept, since the best ones would hide a
training that ends badly."""
EPOCHS = {"global-norm": [8], "stft-50-10": [6, 2]}
"""Recipes and epochs of each stage: one of ten minutes of spectrogram, one of fifty seconds of EEG in two stages."""


@dataclass(frozen=True)
class FixedSet:
    """The data that all recipes are trained and judged on.

    Attributes:
        dataset: recordings and records, of which fold 0 is held out.
        prior: score of the class prior on the records held out.
        perfect: score of their true probabilities.
    """

    dataset: Dataset
    prior: float
    perfect: float

    @classmethod
    def make(cls, folder: Path, n_eegs: int) -> FixedSet:
        """Simulate and decode it, or complete what is there."""
        made = SimulatedSet.make(folder, n_eegs, SET_SEED, easy=True)
        held_out = made.held_out
        targets_NK = made.records.targets_NK[held_out]
        prior_K = made.records.targets_NK[~held_out].mean(axis=0)
        return cls(
            Dataset(made.store, made.records, np.where(held_out, 0, 1).astype(np.int8)),
            kl_score(targets_NK, np.tile(prior_K, (len(targets_NK), 1))),
            kl_score(targets_NK, made.truth_NK[held_out]),
        )

    @property
    def facts(self) -> dict[str, Any]:
        """What must be the same for two checks to be comparable."""
        n_records, n_held_out = len(self.dataset.records), int((self.dataset.folds == 0).sum())
        return {
            "simulator's version": GENERATOR,
            "records": n_records,
            "records held out": n_held_out,
            "score of the class prior": self.prior,
            "score of the perfect predictor": self.perfect,
            "settings": SMALL,
            "epochs": EPOCHS,
        }

    def way(self, recipe: Recipe, runs: Path) -> float:
        """Train a recipe, and return how far it comes."""
        cross_validate(recipe, self.dataset, runs, choose_device("cpu"), "none", [0])
        frame = RunFolder(runs / recipe.name).fold_predictions(0)
        held_out = self.dataset.records.take(frame["record"].to_numpy())
        predictions_NK = frame.select(PROBABILITY_COLUMNS).to_numpy()
        return recovered(kl_score(held_out.targets_NK, predictions_NK), self.prior, self.perfect)


def small_recipe(name: str, seed: int) -> Recipe:
    """Return the recipe as it is trained here."""
    recipe = get_recipe(name)
    stages = tuple(replace(s, epochs=n) for s, n in zip(recipe.stages, EPOCHS[name], strict=True))
    return replace(recipe, stages=stages, seed=seed, **SMALL)


def measure(fixed: FixedSet, seeds: Sequence[int], runs: Path) -> Iterator[dict[str, list[float]]]:
    """Train all recipes from nothing, seed by seed, and yield the ways of the seeds so far."""
    ways: dict[str, list[float]] = {name: [] for name in EPOCHS}
    for seed in seeds:
        for name, of_recipe in ways.items():
            start, cpu = time.monotonic(), time.process_time()
            of_recipe.append(fixed.way(small_recipe(name, seed), runs / f"seed{seed}"))
            took, worked = time.monotonic() - start, time.process_time() - cpu
            print(
                f"{name}, seed {seed}: {of_recipe[-1]:.1%} of the way; {took:.0f} s, {worked:.0f} s of CPU",
                flush=True,
            )
        yield ways


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    if options.plant:
        FAULTS[options.plant]()
    be_quiet()
    with tempfile.TemporaryDirectory(prefix="kagglehms-learning-") as scratch:
        try:
            fixed = FixedSet.make(options.set or Path(scratch) / "set", options.eegs)
            if options.update:
                return _update(fixed, options.seeds or REFERENCE_SEEDS, Path(scratch), options.reference)
            return _check(fixed, options.seeds or SEEDS, Path(scratch), options.reference)
        except HMSError as error:
            print(error, file=sys.stderr)
            return error.exit_code


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--update", action="store_true", help="measure the reference and write it")
    parser.add_argument("--seeds", type=int, nargs="+", help="other seeds than those of check or reference")
    parser.add_argument("--set", type=Path, help="a folder to keep the simulated set in, for the next time")
    parser.add_argument(
        "--eegs", type=int, default=N_EEGS, help="recordings of the set, to try this in small"
    )
    parser.add_argument("--reference", type=Path, default=REFERENCE, help="the file of the reference")
    parser.add_argument("--plant", choices=sorted(FAULTS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.update and options.seeds and len(set(options.seeds)) < 2:
        parser.error("a reference needs two seeds or more, since their scatter is its measure")
    return options


def _update(fixed: FixedSet, seeds: Sequence[int], runs: Path, path: Path) -> int:
    """Measure the reference, and write it whenever another seed is done: even two say something."""
    for done, ways in enumerate(measure(fixed, seeds, runs), 1):
        reference = {
            "measured on": _surroundings(),
            "facts": fixed.facts,
            "seeds": list(seeds[:done]),
            "ways": {name: [round(way, 4) for way in of_recipe] for name, of_recipe in ways.items()},
        }
        write_bytes(path, (json.dumps(reference, indent=2, ensure_ascii=False) + "\n").encode())
    finish({"benchmark": "learning_check", **reference})
    return EXIT_OK


def _surroundings() -> str:
    return f"{machine()}; {versions('numpy', 'scipy', 'torch', 'timm', 'numba', 'polars')}"


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path}: no reference can be read from it ({error}); measure one, with --update"
        ) from error


def _check(fixed: FixedSet, seeds: Sequence[int], runs: Path, path: Path) -> int:
    reference = _read(path)
    if other := differences(fixed.facts, reference["facts"]):
        raise UsageError(f"{path} was measured on something else ({other}); measure it anew, with --update")
    blunt = [name for name in EPOCHS if least_expected(reference["ways"][name], len(seeds)) <= 0]
    if blunt:
        raise UsageError(
            f"{path}: its seeds of {', '.join(blunt)} are too few, or scatter too much, to find any fault; measure "
            "more of them, with --update"
        )
    *_, ways = measure(fixed, seeds, runs)
    verdicts = judge(ways, reference["ways"])
    print(f"\n{_surroundings()}\n")
    print(
        table(
            ("recipe", "way", "at least", "reference", ""),
            [
                (
                    f"`{v.recipe}`",
                    f"{v.way:.1%}",
                    f"{v.least:.1%}",
                    f"{v.usual:.1%} ± {v.scatter:.1%}",
                    "worse" if v.failed else "better: `--update` would hold it to that" if v.improved else "",
                )
                for v in verdicts
            ],
        )
    )
    finish({"benchmark": "learning_check", "ways": {v.recipe: v.way for v in verdicts}})
    if line := complaint(verdicts):
        print(line, file=sys.stderr)
        return EXIT_FAILURE
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
