"""Why a run predicts what it predicts for a sub-window: what mattered, and which training cases are similar."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kagglehms.bundle.explanation import CHAIN_NAMES, Explanation, explain
from kagglehms.data.competition import CLASSES
from kagglehms.device import Device
from kagglehms.errors import RunError, UsageError
from kagglehms.progress import Watch
from kagglehms.report.eeg_view import EegView, Window
from kagglehms.runs.dataset import open_dataset
from kagglehms.runs.identity import with_stored_folds
from kagglehms.runs.nearest import Case, TrainingCases
from kagglehms.runs.run_view import RunView, focus_of, view_runs


@dataclass(frozen=True)
class Reasons:
    """What one fold's network says about a sub-window, and why.

    Attributes:
        run: name of the run.
        fold: number of the fold.
        unseen: whether the patient is held out in this fold, so that the network has never seen the EEG.
        explanation: what each chain and each second adds to the probabilities.
        cases: training records that the network finds most similar, of other EEGs.
    """

    run: str
    fold: int
    unseen: bool
    explanation: Explanation
    cases: tuple[Case, ...]

    @property
    def content(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        found = self.explanation
        return {
            "run": self.run,
            "fold": self.fold,
            "unseen": self.unseen,
            "probabilities": dict(zip(CLASSES, found.probabilities.tolist(), strict=True)),
            "by_chain": {
                chain: dict(zip(CLASSES, row, strict=True))
                for chain, row in zip(CHAIN_NAMES, found.by_chain.tolist(), strict=True)
            },
            "by_second": [dict(zip(CLASSES, row, strict=True)) for row in found.by_second.tolist()],
            "cases": [asdict(case) for case in self.cases],
        }

    @property
    def text(self) -> str:
        """Both in words, for a terminal."""
        seen = "which has not seen this patient" if self.unseen else "which may have seen this patient"
        name = self.explanation.most_likely
        chains = ", ".join(f"{chain} {value:+.3f}" for chain, value in self.explanation.chains_for().items())
        seconds = sorted(list(self.explanation.seconds_for())[:5])
        lines = [
            f"network of {self.run}, fold {self.fold}, {seen}: {name} {self.explanation.probabilities.max():.3f}",
            f"what each chain adds to {name}: {chains}",
            f"seconds of the 50 that add most: {', '.join(map(str, seconds))}",
        ]
        for case in self.cases:
            votes = ", ".join(f"{n} {count}" for n, count in case.votes.items() if count)
            lines.append(f"similar ({case.similarity:.3f}): EEG {case.eeg_id}, votes {votes}")
        return "\n".join(lines)


def reasons(
    view: EegView,
    window: Window,
    data: Path,
    store: Path,
    runs: Path,
    recipe: str | None,
    device: Device,
    watch: Watch = lambda items, _: items,
) -> Reasons:
    """Explain a run's prediction of a sub-window by the fold that has not seen the patient, if there is one.

    Args:
        view: the EEG.
        window: the sub-window.
        data: folder of the competition.
        store: folder of the decoded recordings that the run was trained on.
        runs: folder of all runs.
        recipe: name of the run; None takes the best one.
        device: device to compute on.
        watch: shows the progress while training records are embedded, which is done once for each fold.

    Raises:
        UsageError: there is no run with a finished fold, or no store.
        RunError: the run was trained on other data, or its files are damaged.
    """
    run = focus_of(view_runs(runs), recipe) if runs.is_dir() else None
    if run is None or run.info is None or not run.results:
        raise UsageError(f"{runs}: holds no run with a finished fold; train one, or leave out --explain")
    dataset = with_stored_folds(run.folder, open_dataset(data, store, run.info.n_folds))
    stored = run.folder.stored_folds()
    if stored is not None and stored.records != dataset.records.digest:
        raise RunError(
            f"{run.folder.path}: was trained on other records than those of {data}; give the folder of its competition"
        )
    fold, unseen = _fold(run, dataset.folds[dataset.records.eeg_ids == view.eeg_id])
    cases = TrainingCases(run.folder, fold, dataset, device, watch)
    crop = view.crop(window)
    explanation = explain(crop, cases.network.predict)
    return Reasons(run.name, fold, unseen, explanation, tuple(cases.nearest(crop, without_eeg=view.eeg_id)))


def _fold(run: RunView, of_eeg: np.ndarray) -> tuple[int, bool]:
    """Return the fold that holds the EEG out and True, or the first finished fold and False."""
    finished = [result.fold for result in run.results]
    held_out = [int(fold) for fold in of_eeg if fold in finished]
    if held_out:
        return held_out[0], True
    return finished[0], not len(of_eeg)
