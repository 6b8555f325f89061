"""The source's published figures, each once.

Source: README and notebooks of the public solution "HMS-Harmful Brain Activity Classification" (Cranjis-McB). CV
is its out-of-fold score on all 20,183 records of train.csv, LB the public leaderboard; both KL divergence.
"""

from __future__ import annotations

from dataclasses import dataclass

from kagglehms.training.published import SUFFIX

N_RECORDS = 20_183
"""Records of train.csv, which the published out-of-fold scores are of."""


def noted(*parts: str) -> str:
    """Join the parts of a note that there are."""
    return "; ".join(part for part in parts if part)


@dataclass(frozen=True)
class Published:
    """What the source published of one recipe or ensemble.

    Attributes:
        cv: out-of-fold score on all records; None where the source gives none, or one on other records only.
        lb: score on the public leaderboard.
        settled: out-of-fold score on settled records, which is another population than all records.
        remark: what must be known to compare.
    """

    cv: float | None = None
    lb: float | None = None
    settled: float | None = None
    remark: str = ""

    @property
    def note(self) -> str:
        """Everything that must be known to compare."""
        settled = "" if self.settled is None else f"published {self.settled:.4f}, on settled records only"
        return noted(settled, self.remark)


RUNGS = {
    "baseline": Published(0.7287, 0.45, remark="its notebook: 0.7289"),
    "global-stats": Published(0.7324, 0.46),
    "percentiles": Published(0.7644, remark="from its notebook, whose last run was interrupted"),
    "panels+global": Published(0.7027, 0.43),
    "eeg-panels": Published(0.7528, remark="from the notebook of eeg+percentiles"),
    "eeg+percentiles": Published(0.7104, 0.45),
    "eeg-global-stats": Published(0.7537, 0.46),
    "vote-weighted-only": Published(remark="published: 0.02 better than baseline, CV and LB"),
    "vote-weighted": Published(0.6767, 0.42),
    "vote-weighted-global": Published(0.6971, 0.42),
    "global-norm": Published(0.6355, 0.40, remark="its notebook: 0.6294"),
    "global-norm-stats": Published(0.6566, 0.41),
    "mosaic-xloss": Published(0.6290, 0.37),
    "mosaic-xloss-stats": Published(0.6402, 0.39),
    "two-stage": Published(settled=0.4142),
    "two-stage-weighted": Published(settled=0.4108),
    "two-stage-stats": Published(settled=0.4240),
    "eeg-two-stage": Published(),
    "eeg-two-stage-stats": Published(),
}
"""Figures of recipes by name, in the source's order. Its transformers were announced and never published."""
ENSEMBLES = {
    "kaggle-ensemble": Published(lb=0.42),
    "eeg-ensemble": Published(lb=0.42),
    "kaggle+eeg-ensemble": Published(lb=0.38),
    "vote-weighted-ensemble": Published(lb=0.40),
    "global-norm-ensemble": Published(lb=0.38),
    "mosaic-xloss-ensemble": Published(lb=0.36),
    "two-stage-ensemble": Published(
        lb=0.34, settled=RUNGS["two-stage"].settled, remark="the score of two-stage"
    ),
    "eeg-two-stage-ensemble": Published(lb=0.37, settled=0.4608),
    "final": Published(lb=0.32),
}
"""Figures of ensembles by name, in the source's order."""


def published(name: str) -> Published:
    """Return what the source published of a recipe, of its run as published, or of an ensemble; nothing of others."""
    return (RUNGS | ENSEMBLES).get(name.removesuffix(SUFFIX), Published())
