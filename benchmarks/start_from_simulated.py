"""Few records of one's own: does it help to start from weights that were learned on simulated data?

python benchmarks/start_from_simulated.py --out work [--weights FILE] [--records 50 200 800] [--seeds 0 1 2]

A network learns from a simulated competition. It then goes on with few records of *other* recordings, held-out
patients of which judge it, and beside it the same network starts from what the first competition was learned from as
well: `--weights`, such as ImageNet's. The last layer begins anew in either case, as it does wherever `--weights` is
given. The other recordings are simulated with another seed and from patients that are shifted, as those of another
hospital: louder, at another reference, with another spectral slope, other amplifiers and less regular patterns
(`SHIFTED`). So what is learned in the first competition is neither wrong nor right in the second, but how far real
recordings are from the simulator this does not tell.

Where a network has learned from simulated records already, as those of `ladder_on_simulated.py` have, `--learned` names
its run for each seed, and none is trained first.

A seed decides first weights, order, augmentations and dropout, and which records are the few. A training takes about
`--steps` steps, fewer for few records (`MOST_EPOCHS`), and from both starts the same number. The same command goes on
after an interruption.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from _measure import finish, group_interval, machine, table, versions
from _simulated_set import SimulatedSet
from ladder_on_simulated import write_between_marks
from numpy.typing import NDArray

from kagglehms.console import say
from kagglehms.data.competition import PROBABILITY_COLUMNS
from kagglehms.data.folds import limit_records
from kagglehms.data.records import Records
from kagglehms.device import Device, choose_device
from kagglehms.errors import Stopped, UsageError
from kagglehms.runs.baselines import recovered
from kagglehms.runs.cross_validation import cross_validate
from kagglehms.runs.dataset import Dataset
from kagglehms.runs.folder import RunFolder
from kagglehms.simulator.patients import Patient
from kagglehms.timing import Clock, seconds_of
from kagglehms.training.feed import Feed
from kagglehms.training.metric import kl_score, kl_terms
from kagglehms.training.prediction import predict
from kagglehms.training.recipe import Recipe
from kagglehms.training.recipes import get_recipe
from kagglehms.training.session import Session
from kagglehms.training.trained_network import TrainedNetwork

F64 = NDArray[np.float64]

SEED, OTHER_SEED = 2024, 77
MOST_EPOCHS = 40
"""Passes over the records, at most: fifty records seen hundreds of times are learned by heart."""
N_BOOTSTRAP = 4000
SHIFTED = {
    "level_uv": 1.6,
    "slow_uv": 1.9,
    "reference_uv": 3.0,
    "muscle_uv": 1.5,
    "floor_uv": 2.0,
    "line_uv": 0.3,
    "spectral_exponent": 0.8,
    "width": 0.85,
    "unevenness": 1.4,
    "irregularity": 1.25,
}
"""What the other patients' properties are multiplied by."""
STARTS = ("plain", "simulated")


@contextmanager
def shifted_patients() -> Iterator[None]:
    """Let the simulator draw patients of another hospital."""
    draw = Patient.draw

    def drawn(rng: np.random.Generator, usual_K: NDArray[np.floating] | None = None) -> Patient:
        patient = draw(rng, usual_K)
        return replace(patient, **{name: getattr(patient, name) * by for name, by in SHIFTED.items()})

    Patient.draw = staticmethod(drawn)
    try:
        yield
    finally:
        Patient.draw = draw


class Data(SimulatedSet):
    """A simulated competition of which few records are learned from."""

    def dataset(self, n: int | None = None, seed: int = 0) -> Dataset:
        """All held-out records as fold 0, and about `n` others, of whole patients, to learn from; None for all."""
        others = self.records.take(~self.held_out)
        chosen = ~self.held_out
        if n is not None:
            if n > len(others):
                raise UsageError(
                    f"there are {len(others)} other records, and {n} are needed; give more --other-eegs"
                )
            chosen &= np.isin(self.records.patients, limit_records(others, n, seed).patients)
        kept = self.held_out | chosen
        folds = np.where(self.held_out, 0, 1).astype(np.int8)[kept]
        return Dataset(self.store, self.records.take(kept), folds)

    @property
    def judges(self) -> Records:
        return self.records.take(self.held_out)


def main() -> None:
    options = _options()
    simulated = None if options.learned else Data.make(options.out / "simulated", options.eegs, SEED)
    with shifted_patients():
        other = Data.make(options.out / "other", options.other_eegs, OTHER_SEED)
    device = choose_device(options.device)
    session = Session(clock=Clock(options.time_limit, time.monotonic()))
    found: dict[tuple[int, str], dict[int, F64]] = {}
    learned: dict[int, int] = {}
    try:
        for seed in options.seeds:
            weights = _first(options, simulated, seed, device, session)
            found.setdefault((0, "simulated"), {})[seed] = _as_it_is(options, weights, other, seed, device)
            for n in options.records:
                dataset = other.dataset(n, seed)
                learned[n] = int((dataset.folds == 1).sum())
                for start, path in zip(STARTS, (options.weights, str(weights)), strict=True):
                    runs = options.out / f"{n}-records-from-{start}-seed{seed}"
                    recipe = _recipe(options, seed, learned[n])
                    found.setdefault((n, start), {})[seed] = _trained(
                        recipe, dataset, runs, path, device, session
                    )
    except Stopped as stopped:
        say(str(stopped))
        return
    text = report(found, other, describe(options, simulated))
    say(text)
    if options.table is not None:
        write_between_marks(options.table, options.marks, text)
    targets_NK = other.judges.targets_NK
    scores = {
        f"{n} from {start}": [kl_score(targets_NK, p) for p in of.values()]
        for (n, start), of in found.items()
    }
    finish({"benchmark": "start_from_simulated", "seeds": options.seeds, "scores": scores})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder of competitions, stores and runs")
    parser.add_argument(
        "--eegs", type=int, default=4000, help="of the competition that is learned from first"
    )
    parser.add_argument(
        "--learned", type=Path, nargs="+", help="runs that have learned from simulated records, one a seed"
    )
    parser.add_argument("--other-eegs", type=int, default=1500)
    parser.add_argument("--records", type=int, nargs="+", default=[50, 200, 800])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipe", default="stft-50-10")
    parser.add_argument("--backbone", help="any timm model, instead of the recipe's")
    parser.add_argument("--steps", type=int, default=300, help="of a training on few records, about")
    parser.add_argument("--weights", default="none", help="as for `kagglehms train`")
    parser.add_argument("--epochs", type=int, help="per stage of the first training, instead of the recipe's")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--time-limit", type=seconds_of, help="such as 30m; no limit by default")
    parser.add_argument("--table", type=Path, help="a Markdown file with marks for the table")
    parser.add_argument("--marks", default="start", help="name of the two marks in that file")
    options = parser.parse_args()
    if options.learned and len(options.learned) != len(options.seeds):
        parser.error(f"--learned names {len(options.learned)} runs for {len(options.seeds)} seeds")
    return options


def _recipe(options: argparse.Namespace, seed: int, n_records: int | None = None) -> Recipe:
    """The recipe; for few records a single stage, so that epochs are counted in one way."""
    recipe = get_recipe(options.recipe).changed(options.epochs, options.batch_size, options.backbone)
    recipe = replace(recipe, seed=seed, lr=options.lr or recipe.lr)
    if n_records is None:
        return recipe
    steps_per_epoch = -(-n_records // recipe.batch_size)
    epochs = min(MOST_EPOCHS, max(1, round(options.steps / steps_per_epoch)))
    return replace(recipe, stages=(replace(recipe.stages[0], epochs=epochs, mosaic_epochs=0),))


def _first(
    options: argparse.Namespace, data: Data | None, seed: int, device: Device, session: Session
) -> Path:
    """Train on the first competition, unless a run has learned already, and return the weights."""
    if data is None:
        return _learned(options, seed)
    runs = options.out / f"first-seed{seed}"
    recipe = _recipe(options, seed)
    cross_validate(recipe, data.dataset(), runs, device, options.weights, [0], session)
    return RunFolder(runs / recipe.name).check_weights(0)


def _learned(options: argparse.Namespace, seed: int) -> Path:
    """Return the weights of a run that has learned already, if its network and its input are those of the recipe."""
    run, recipe = RunFolder(options.learned[options.seeds.index(seed)]), _recipe(options, seed)
    theirs = run.recipe()
    if (theirs.network, theirs.layout) != (recipe.network, recipe.layout):
        raise UsageError(f"{run.path}: expected {recipe.network} on the input of {recipe.name}")
    return run.check_weights(min(run.finished, default=0))


def _as_it_is(options: argparse.Namespace, weights: Path, other: Data, seed: int, device: Device) -> F64:
    """Predict the held-out records by the network of the first competition, without learning anything from others."""
    recipe = _recipe(options, seed)
    network = TrainedNetwork.load(recipe, weights, device)
    feed = Feed(other.store, other.judges, recipe.layout, network.normaliser)
    return predict(network.network, feed, np.arange(len(other.judges)), recipe.batch_size, device)


def _trained(
    recipe: Recipe, dataset: Dataset, runs: Path, weights: str, device: Device, session: Session
) -> F64:
    cross_validate(recipe, dataset, runs, device, weights, [0], session)
    frame = RunFolder(runs / recipe.name).fold_predictions(0).sort("record")
    return frame.select(PROBABILITY_COLUMNS).to_numpy()


def report(found: dict[tuple[int, str], dict[int, F64]], other: Data, made: str) -> str:
    """The curve as a table."""
    judges, truth_NK = other.judges, other.truth_NK[other.held_out]
    targets_NK = judges.targets_NK
    prior_K = other.records.targets_NK[~other.held_out].mean(axis=0)
    limits = kl_score(targets_NK, np.tile(prior_K, (len(judges), 1))), kl_score(targets_NK, truth_NK)

    def way(key: tuple[int, str]) -> str:
        ways = [recovered(kl_score(targets_NK, p), *limits) for p in found.get(key, {}).values()]
        if not ways:
            return "–"
        return f"{100 * mean(ways):.1f}" + (f" ± {100 * stdev(ways):.1f} %" if len(ways) > 1 else " %")

    rows = []
    for n in sorted({n for n, _ in found}):
        plain, started = (found.get((n, start), {}) for start in STARTS)
        both = sorted(plain.keys() & started.keys())
        change = "–"
        if both:
            differences_SN = np.array(
                [kl_terms(truth_NK, started[s]) - kl_terms(truth_NK, plain[s]) for s in both]
            )
            low, high = group_interval(differences_SN.mean(axis=0), judges.patients, N_BOOTSTRAP)
            change = f"{differences_SN.mean():+.3f} ({low:+.3f} … {high:+.3f})"
        rows.append((n, way((n, "plain")), way((n, "simulated")), change))
    lines = [
        made,
        "",
        f"{len(judges)} records are held out; score of the class prior {limits[0]:.4f}, of the perfect predictor",
        f"{limits[1]:.4f}. Ways from the one to the other: mean over seeds ± standard deviation. The change is that of",
        f"the expected score, with the 95 % interval over patients ({N_BOOTSTRAP} paired bootstrap draws): negative",
        "helps. From either start the best evaluation on the held-out records is kept, so all ways are a little too",
        "good.",
        "",
        table(("other records", "way, without simulated data", "way, with them first", "change"), rows),
    ]
    return "\n".join(lines)


def describe(options: argparse.Namespace, simulated: Data | None) -> str:
    """What the figures are of."""
    recipe = _recipe(options, 0)
    if simulated is None:
        first = _told_of_runs(options)
    else:
        first = f"{int((~simulated.held_out).sum())} records of {options.eegs} EEGs (seed {SEED})"
    return "\n".join(
        (
            f"`{recipe.name}` with `{recipe.network}`, batches of {recipe.batch_size}; first {first},",
            f"then few of {options.other_eegs} EEGs of shifted patients (seed {OTHER_SEED}),",
            f"about {options.steps} steps, at most {MOST_EPOCHS} epochs; first weights {Path(options.weights).name};",
            f"training seeds {_listed(options.seeds)}.",
            f"{machine()}; {versions('numpy', 'torch', 'timm', 'numba', 'polars')}.",
        )
    )


def _told_of_runs(options: argparse.Namespace) -> str:
    learned = []
    for path in options.learned:
        run = RunFolder(path)
        n_all = run.info().records
        n_others = n_all - len(run.fold_predictions(min(run.finished)))
        learned.append(f"{n_others} records, {run.recipe().epochs} epochs")
    return f"a run that had learned before ({'; '.join(sorted(set(learned)))})"


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


if __name__ == "__main__":
    main()
