"""Pseudo labels: targets that are partly what other runs, the teachers, predict.

    q = (1 − share) · vote fractions + share · mean of the teachers' predictions

for records with few votes. A teacher's prediction of a record is only worth something if the teacher did not learn from
the record's patient; `runs.teachers` reads no others.

Shape legend: N records, K the six classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from kagglehms.data.records import Records
from kagglehms.errors import RunError
from kagglehms.training.options import PseudoLabels

if TYPE_CHECKING:
    from numpy.typing import NDArray

Predictions = Mapping[str, "NDArray[np.float64]"]
"""(N, 6) probabilities of all records, by the name of the run that predicts them."""


def pseudo_targets(records: Records, labels: PseudoLabels, predictions: Predictions) -> NDArray[np.float64]:
    """Return the (N, 6) targets of a stage; each row sums to 1.

    Args:
        records: all records.
        labels: which of them get new targets, and from which teachers.
        predictions: out-of-fold predictions of the teachers.

    Raises:
        RunError: the predictions of a teacher are missing.
    """
    missing = [name for name in labels.teachers if name not in predictions]
    if missing:
        raise RunError(f"no predictions of the teachers {', '.join(missing)}; train them first")
    mean_NK = np.mean([predictions[name] for name in labels.teachers], axis=0)
    changed_N = records.n_votes <= labels.most_votes
    mixed_NK = (1 - labels.share) * records.targets_NK + labels.share * mean_NK
    return np.where(changed_N[:, None], mixed_NK, records.targets_NK)
