"""Go the whole way once, out of nothing: what a newcomer runs first, and what shows that everything fits together."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kagglehms.cli.command import watched
from kagglehms.console import say
from kagglehms.errors import EXIT_FAILURE, EXIT_OK, RunError, UsageError, counted

if TYPE_CHECKING:
    from kagglehms.data.records import Records
    from kagglehms.runs.cross_validation import Outcome
    from kagglehms.simulator.competition import SimulatedTruth

N_TEST = 40
N_FOLDS = 2
LEAST_EEGS = 16
"""Fewest recordings that teach anything, and that make two folds of patients with every seed."""
RECIPE = "demo"


@dataclass(frozen=True)
class DemoOutcome:
    """How the demo ended.

    Attributes:
        folder: folder of everything that was made.
        score: score of the kernel's submission on the simulated test set.
        prior: score of the training records' class means on the same rows.
        uniform: score of a uniform guess on the same rows.
        out_of_fold: score of the models on their held-out records.
        seconds: time that all of it took.
    """

    folder: Path
    score: float
    prior: float
    uniform: float
    out_of_fold: float
    seconds: float

    @property
    def exit_code(self) -> int:
        """0 if the submission is better than the class prior, else 1."""
        return EXIT_OK if self.score < self.prior else EXIT_FAILURE


def run_demo(out: Path, seed: int, n_eegs: int) -> DemoOutcome:
    """Make a simulated competition, prepare, train, bundle, rehearse the offline kernel, report, and score.

    Every step is one that has its own command, and what was finished before is not done again.

    Args:
        out: folder for all of it.
        seed: random seed of the simulated competition.
        n_eegs: number of training recordings.

    Raises:
        UsageError: there are too few recordings.
        RunError: the rehearsed kernel failed, or see the commands.
    """
    if n_eegs < LEAST_EEGS:
        raise UsageError(f"--eegs {n_eegs}: the demo needs at least {LEAST_EEGS} recordings to learn from")
    start = time.monotonic()
    truth = _simulate(out, seed, n_eegs)
    records = _prepare(out)
    trained = _train(out, len(records))
    _build(out)
    _rehearse(out)
    _report(out)
    score, prior, uniform = _scores(out, truth, records)
    assert trained.score_all is not None  # all folds are trained
    outcome = DemoOutcome(out, score, prior, uniform, trained.score_all, time.monotonic() - start)
    _say_the_end(outcome)
    return outcome


def _simulate(out: Path, seed: int, n_eegs: int) -> SimulatedTruth:
    from kagglehms.simulator.competition import make_competition

    _title(1, f"an easy simulated competition: {n_eegs} EEGs to learn from, {N_TEST} to predict")
    return make_competition(out / "competition", n_eegs, N_TEST, seed, easy=True)


def _prepare(out: Path) -> Records:
    from kagglehms.data.competition import Competition
    from kagglehms.data.preparing import prepare_competition
    from kagglehms.data.records import read_records

    _title(2, "decode every recording once")
    prepare_competition(out / "competition", out / "store")
    return read_records(Competition(out / "competition").train_csv)


def _train(out: Path, n_records: int) -> Outcome:
    from kagglehms.runs.training import TrainingOptions, train_recipes

    _title(3, f"train {N_FOLDS} folds of the recipe {RECIPE!r} on {counted(n_records, 'record')}")
    options = TrainingOptions(
        data=out / "competition", store=out / "store", runs=out / "runs", folds=N_FOLDS, weights="none"
    )
    (outcome,) = train_recipes([RECIPE], options).outcomes
    return outcome


def _build(out: Path) -> None:
    from kagglehms.packing.build import build

    _title(4, "bundle the library and the weights, as `kagglehms build` does")
    built = build(out / "runs", out / "dist")
    say(f"{built.dataset}: {counted(len(built.manifest.files), 'file')}, {built.manifest.size / 1e6:.1f} MB")


def _rehearse(out: Path) -> None:
    from kagglehms.rehearsal.run import rehearse

    _title(5, "rehearse the scored kernel: offline, in a fake /kaggle, in its own process")
    report = rehearse("infer", out / "dist", out / "competition", out / "rehearsal")
    if report.exit_code != EXIT_OK:
        raise RunError(report.sentence)
    for line in report.lines:
        say(line)


def _report(out: Path) -> None:
    from kagglehms.report.page import write_report

    _title(6, "write all of it on one page")
    written = write_report(
        out / "runs", out / "report.html", out / "store", watch=watched("report"), data=out / "competition"
    )
    say(f"{written.path}: open it in a browser")


def _scores(out: Path, truth: SimulatedTruth, records: Records) -> tuple[float, float, float]:
    """Return the score of the submission, of the training records' class means, and of a uniform guess."""
    import numpy as np

    from kagglehms.data.records import vote_fractions
    from kagglehms.kernel.submission import read_submission
    from kagglehms.training.metric import floors, kl_score

    predictions_NK = read_submission(out / "rehearsal" / "submission.csv", truth.eeg_ids.tolist())
    targets_NK = vote_fractions(truth.votes_NK)
    prior_NK = np.tile(records.targets_NK.mean(axis=0), (len(targets_NK), 1))
    return kl_score(targets_NK, predictions_NK), kl_score(targets_NK, prior_NK), floors(targets_NK)[1]


def _title(number: int, text: str) -> None:
    say(f"\n[{number}/6] {text}")


def _say_the_end(outcome: DemoOutcome) -> None:
    out = outcome.folder
    verdict = "better" if outcome.score < outcome.prior else "no better"
    say(
        f"""
The kernel's submission scores {outcome.score:.4f} on the simulated test set (KL divergence, lower is better): {verdict}
than the class prior's {outcome.prior:.4f}; a uniform guess has {outcome.uniform:.4f}. Out of fold the models had \
{outcome.out_of_fold:.4f}. All of it
took {outcome.seconds:.0f} s.

Where everything is:
  {out / "competition"}   the simulated competition, in the real file formats
  {out / "store"}         its recordings, decoded
  {out / "runs" / RECIPE}     weights, learning curves and out-of-fold predictions
  {out / "dist" / "dataset"}  the bundle, ready for `kaggle datasets create -p`
  {out / "dist" / "kernels" / "infer"}   the kernel, ready for `kaggle kernels push -p`
  {out / "rehearsal"}     the submission and the kernel's log
  {out / "report.html"}   learning curves, confusion, calibration, the hardest records with their EEG

With the competition's data in hms/ the same way is:
  kagglehms prepare --data hms
  kagglehms train baseline --data hms
  kagglehms build
  kagglehms rehearse infer --data hms"""
    )
