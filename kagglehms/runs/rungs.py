"""The source's published figures, one rung a recipe.

Source: README and notebooks of the public solution "HMS-Harmful Brain Activity Classification" (Cranjis-McB). CV
is its out-of-fold score on all 20,183 records of train.csv, LB the public leaderboard; both KL divergence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from kagglehms.training.published import SUFFIX


def noted(*parts: str) -> str:
    """Join the parts of a note that there are."""
    return "; ".join(part for part in parts if part)


def settled_note(settled: float | None) -> str:
    """Return the note that belongs to a score on settled records; empty without one."""
    return "" if settled is None else f"published {settled:.4f}, on settled records only"


@dataclass(frozen=True)
class Rung:
    """What the source published of one recipe.

    Attributes:
        recipe: name of the recipe here.
        cv: out-of-fold score on all records; None where the source gives none, or one on other records only.
        lb: score on the public leaderboard.
        settled: out-of-fold score on settled records, which is another population than all records.
        remark: what must be known to compare.
    """

    recipe: str
    cv: float | None = None
    lb: float | None = None
    settled: float | None = None
    remark: str = ""

    @property
    def note(self) -> str:
        """Everything that must be known to compare."""
        return noted(settled_note(self.settled), self.remark)


RUNGS = (
    Rung("baseline", 0.7287, 0.45, remark="its notebook: 0.7289"),
    Rung("global-stats", 0.7324, 0.46),
    Rung("percentiles", 0.7644, remark="from its notebook, whose last run was interrupted"),
    Rung("panels+global", 0.7027, 0.43),
    Rung("eeg-panels", 0.7528, remark="from the notebook of eeg+percentiles"),
    Rung("eeg+percentiles", 0.7104, 0.45),
    Rung("eeg-global-stats", 0.7537, 0.46),
    Rung("vote-weighted-only", remark="published: 0.02 better than baseline, CV and LB"),
    Rung("vote-weighted", 0.6767, 0.42),
    Rung("vote-weighted-global", 0.6971, 0.42),
    Rung("global-norm", 0.6355, 0.40, remark="its notebook: 0.6294"),
    Rung("global-norm-stats", 0.6566, 0.41),
    Rung("mosaic-xloss", 0.6290, 0.37),
    Rung("mosaic-xloss-stats", 0.6402, 0.39),
    Rung("two-stage", settled=0.4142),
    Rung("two-stage-weighted", settled=0.4108),
    Rung("two-stage-stats", settled=0.4240),
    Rung("eeg-two-stage"),
    Rung("eeg-two-stage-stats"),
)
"""In the source's order. Its transformers were announced and never published."""


def rung_of(name: str) -> Rung:
    """Return what the source published of a recipe, or of its run as published; a rung without figures for others."""
    rungs = {rung.recipe: rung for rung in RUNGS}
    return replace(rungs.get(name.removesuffix(SUFFIX), Rung(name)), recipe=name)
