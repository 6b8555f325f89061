"""The whole way once, out of nothing: what a newcomer runs first, and what shows that everything fits together."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kagglehms.console import say
from kagglehms.errors import EXIT_FAILURE, EXIT_OK

if TYPE_CHECKING:
    from kagglehms.simulator.competition import SimulatedTruth

N_EEGS = 240
N_TEST = 40
N_FOLDS = 2
RECIPE = "demo"


def run_demo(out: Path, seed: int = 0, n_eegs: int = N_EEGS, n_test: int = N_TEST) -> int:
    """Make a simulated competition, prepare, train, bundle, rehearse the offline kernel, score its submission, report.

    Every step is one that has its own command, and what was finished before is not done again.

    Args:
        out: the folder for all of it.
        seed: of the simulated competition.
        n_eegs: training recordings.
        n_test: test recordings.

    Returns:
        An exit code: 0 when the submission beat the class prior.
    """
    from kagglehms.data.competition import Competition
    from kagglehms.data.preparing import prepare, recordings_of
    from kagglehms.data.records import read_records
    from kagglehms.device import choose_device
    from kagglehms.kernel.submission import read_submission
    from kagglehms.packing.build import build
    from kagglehms.progress import progress
    from kagglehms.rehearsal.run import rehearse
    from kagglehms.report.page import write_report
    from kagglehms.runs.cross_validation import cross_validate
    from kagglehms.runs.dataset import Dataset
    from kagglehms.simulator.competition import make_competition
    from kagglehms.training.recipes import get_recipe

    start = time.monotonic()
    _title(1, f"an easy simulated competition: {n_eegs} EEGs to learn from, {n_test} to predict")
    folder = out / "competition"
    truth = make_competition(folder, n_eegs, n_test, seed, easy=True)

    _title(2, "decode every recording once")
    competition = Competition(folder)
    records = read_records(competition.train_csv)
    recordings = recordings_of(competition, records)
    store = prepare(recordings, out / "store", lambda items, n: progress(items, n, "decode")).store

    _title(3, f"train {N_FOLDS} folds of the recipe {RECIPE!r} on {len(records)} records")
    device = choose_device()
    say(device.reason)
    dataset = Dataset.of(store, records, N_FOLDS)
    outcome = cross_validate(get_recipe(RECIPE), dataset, out / "runs", device)
    say(outcome.sentence)

    _title(4, "bundle the library and the weights, as `python build.py` does")
    built = build(out / "runs", out / "dist")
    say(f"{built.dataset}: {len(built.manifest.files)} files, {built.manifest.size / 1e6:.1f} MB")

    _title(5, "rehearse the scored kernel: offline, in a fake /kaggle, in its own process")
    report = rehearse("infer", out / "dist", folder, out / "rehearsal")
    say(report.sentence)
    if report.exit_code != EXIT_OK:
        return report.exit_code

    _title(6, "write all of it on one page")
    written = write_report(
        out / "runs", out / "report.html", out / "store", watch=lambda items, n: progress(items, n, "report")
    )
    say(f"{written.path}: open it in a browser")

    predictions_NK = read_submission(out / "rehearsal" / "submission.csv", truth.eeg_ids.tolist())
    score, prior, uniform = _scores(truth, predictions_NK, records.targets_NK.mean(axis=0))
    _say_the_end(out, score, prior, uniform, outcome.score_all, time.monotonic() - start)
    return EXIT_OK if score < prior else EXIT_FAILURE


def _scores(
    truth: SimulatedTruth, predictions_NK: np.ndarray, prior_K: np.ndarray
) -> tuple[float, float, float]:
    """The submission's score, that of the training records' class means, and of a uniform guess."""
    from kagglehms.data.records import vote_fractions
    from kagglehms.training.metric import floors, kl_score

    targets_NK = vote_fractions(truth.votes_NK)
    prior = kl_score(targets_NK, np.tile(prior_K, (len(targets_NK), 1)))
    return kl_score(targets_NK, predictions_NK), prior, floors(targets_NK)[1]


def _title(number: int, text: str) -> None:
    say(f"\n[{number}/6] {text}")


def _say_the_end(
    out: Path, score: float, prior: float, uniform: float, oof: float | None, seconds: float
) -> None:
    verdict = "better" if score < prior else "no better"
    say(
        f"""
The kernel's submission scores {score:.4f} on the simulated test set (KL divergence, lower is better): {verdict}
than the class prior's {prior:.4f}; a uniform guess has {uniform:.4f}. Out of fold the models had {oof:.4f}. All of it
took {seconds:.0f} s.

Where everything is:
  {out / "competition"}   the simulated competition, in the real file formats
  {out / "store"}         its recordings, decoded
  {out / "runs" / RECIPE}     weights, learning curves and out-of-fold predictions
  {out / "dist" / "dataset"}  the bundle, ready for `kaggle datasets create -p`
  {out / "dist" / "kernels" / "infer"}   the kernel, ready for `kaggle kernels push -p`
  {out / "rehearsal"}     the submission and the kernel's log
  {out / "report.html"}   learning curves, confusion, calibration, the hardest records with their EEG

With the competition's data in hms/ the same way is:
  kagglehms prepare --data hms --store store
  kagglehms train baseline --data hms --store store --out runs
  python build.py --runs runs --dist dist
  kagglehms rehearse infer --data hms --dist dist --out rehearsal"""
    )
