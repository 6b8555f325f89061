"""Score a network on the held-out records of a fold.

Shape legend: N held-out records, K the six classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from kagglehms.device import Device
from kagglehms.errors import RunError
from kagglehms.training.distributed import Team
from kagglehms.training.evaluation import Scores, score
from kagglehms.training.feed import Feed
from kagglehms.training.logs import Journal
from kagglehms.training.prediction import predict
from kagglehms.training.recipe import Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class HeldOut:
    """The held-out records of a fold, and what is needed to predict them.

    Attributes:
        recipe: recipe of the run.
        feed: feed that draws the records' inputs.
        valid: positions of the N records in the feed.
        device: device to compute on.
        team: the processes that predict together.
        journal: logs of the fold.
    """

    recipe: Recipe
    feed: Feed
    valid: NDArray[np.integer]
    device: Device
    team: Team
    journal: Journal

    def score(
        self, model: nn.Module, judged: NDArray[np.bool_], step: int
    ) -> tuple[NDArray[np.float64], Scores]:
        """Predict and score the records.

        Args:
            model: the network, on the device.
            judged: (N,) True for the records by which the stage is judged.
            step: number of steps taken so far, for error messages.

        Returns:
            (N, 6) probabilities and their scores.

        Raises:
            RunError: a prediction is not finite.
        """
        size, what = self.recipe.batch_size, f"evaluate {self.recipe.name}"
        predictions_NK = predict(model, self.feed, self.valid, size, self.device, self.team, what)
        self._refuse_not_finite(predictions_NK, step)
        return predictions_NK, score(self.feed.records, self.valid, judged, predictions_NK)

    def _refuse_not_finite(self, predictions_NK: NDArray[np.float64], step: int) -> None:
        bad = ~np.isfinite(predictions_NK).all(axis=1)
        if not bad.any():
            return
        eeg_id = int(self.feed.records.eeg_ids[self.valid[bad.argmax()]])
        self.journal.event("predictions not finite", step=step, n_records=int(bad.sum()), first_eeg_id=eeg_id)
        why = (
            "its weights have overflowed: lower lr"
            if bad.all()
            else f"look at EEG {eeg_id}, the first of them, with `kagglehms view`, or lower lr"
        )
        raise RunError(
            f"the predictions of {self.recipe.name} after step {step} are not finite for {bad.sum()} of {bad.size} "
            f"held-out records; {why} ({self.recipe.lr})"
        )
