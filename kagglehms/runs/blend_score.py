"""What a blend is worth: its nested score beside the plain mean, the in-sample score and the floors.

Shapes: M members, N rows, K classes (always the six).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kagglehms.errors import counted
from kagglehms.runs.blends import Blend, Floats
from kagglehms.training.metric import Standing, floors, shortcoming, standing_text

_ROWS = (
    ("before: plain mean", "plain_mean"),
    ("class priors corrected, nothing else", "corrected"),
    ("after: nested score of the blend", "nested"),
    ("class prior of the same records", "prior"),
    ("uniform guess", "uniform"),
)
"""Rows of the table of a blend's figures: words, and the name in `Blend.scores`."""


@dataclass(frozen=True)
class NestedScore:
    """Scores of a blend on patients that it was not fitted to.

    Attributes:
        blend: the blend to use, fitted to all rows; its `scores` hold the figures below.
        of_all: nested score on all rows, the mean over seeds, beside the floors of the same rows.
        of_many: nested score on the rows with many votes; None if there are none, or if they are not known.
        scores: nested score on all rows, one a seed.
        plain_mean: score of the members' plain mean on the same rows.
        in_sample: score of `blend` on the rows that it was fitted to, which is too good.
        gain: difference of `plain_mean` and `score`, on the rows that the blend is for.
        gain_error: standard error of the gain, rows of one patient taken together.
        fits: blends of all folds and seeds.
        terms_N: (n,) nested score of each row, the mean over seeds.
        corrected_N: (n,) score of each row by the members' mean with only their class priors corrected; None without
            such a correction.
        n_rows: number of rows scored.
        n_patients: number of their patients.
    """

    blend: Blend
    of_all: Standing
    of_many: Standing | None
    scores: tuple[float, ...]
    plain_mean: float
    in_sample: float
    gain: float
    gain_error: float
    fits: tuple[Blend, ...]
    terms_N: Floats
    corrected_N: Floats | None
    n_rows: int
    n_patients: int

    @property
    def score(self) -> float:
        """Nested score on all rows."""
        return self.of_all.score

    @property
    def weights_std(self) -> tuple[float, ...]:
        """(members,) standard deviation of each weight over the fits."""
        return tuple(np.std([fit.weights for fit in self.fits], axis=0).tolist())

    @property
    def sentence(self) -> str:
        """The figures, for people to read."""
        fitting = self.blend.fitting
        if fitting is not None and (fitting.population == "many" or self.blend.prior is not None):
            return self._before_and_after
        scores, short = self.blend.scores, self.shortcoming
        many = ("", "")
        if self.of_many is not None:
            many = tuple(f", many {scores[f'{name}_votes10']:.4f}" for name in ("plain_mean", "in_sample"))  # type: ignore[assignment]
        return (
            f"{self.blend.name}: nested score {standing_text(self.of_all, self.of_many)}; "
            f"{counted(self.n_rows, 'record')} of {counted(self.n_patients, 'patient')}\n"
            f"plain mean {self.plain_mean:.4f}{many[0]} (gain {self.gain:.4f} ± "
            f"{self.gain_error:.4f}), in-sample {self.in_sample:.4f}{many[1]}; lower is better"
            f"{f'; the blend is {short}' if short else ''}"
        )

    @property
    def _before_and_after(self) -> str:
        """The figures of a blend that is for one population or corrects for priors, on both populations."""
        scores, fitting = self.blend.scores, self.blend.fitting
        assert fitting is not None
        own = "all records" if fitting.population == "all" else "records with many (≥ 10) votes"
        head = (
            f"{self.blend.name}: for {own}, fitted to {self.blend.n_rows} of {self.n_rows} records of "
            f"{counted(self.n_patients, 'patient')}"
        )
        lines = [head, f"{'KL divergence, lower is better':<44}{'all records':>12}{'many votes':>12}"]
        for words, key in _ROWS:
            if key in scores:
                many = scores.get(f"{key}_votes10")
                lines.append(f"{words:<44}{scores[key]:>12.4f}{'–' if many is None else f'{many:.4f}':>12}")
        in_sample = scores["in_sample" if fitting.population == "all" else "in_sample_votes10"]
        short = self.shortcoming
        lines.append(
            f"gain {self.gain:.4f} ± {self.gain_error:.4f} on {own}, in-sample {in_sample:.4f} there"
            f"{f'; the blend is {short}' if short else ''}"
        )
        return "\n".join([*lines, *self._price])

    @property
    def _price(self) -> list[str]:
        """A sentence on the population that the blend is not for, if its score has got worse."""
        fitting, scores = self.blend.fitting, self.blend.scores
        assert fitting is not None
        ending, other = (
            ("", "all records") if fitting.population == "many" else ("_votes10", "those with many votes")
        )
        before, after = scores.get(f"plain_mean{ending}"), scores.get(f"nested{ending}")
        if before is None or after is None or after <= before:
            return []
        sentence = (
            f"On {other} it gets worse, {after:.4f} after {before:.4f}: the classes have other shares there"
        )
        return [sentence]

    @property
    def shortcoming(self) -> str:
        """Where the blend is worse than knowing nothing, in words; empty if nowhere."""
        return shortcoming(self.of_all, self.of_many)


def figures_of(
    terms: Mapping[str, Floats], targets_NK: Floats, many: NDArray[np.bool_]
) -> tuple[dict[str, float], Standing, Standing | None]:
    """Return the means of terms by name, on all rows and on those with many votes, and the standings on both."""
    figures: dict[str, float] = {}
    found: list[Standing] = []
    for ending, mask in (("", np.ones(len(many), bool)), ("_votes10", many)):
        if not mask.any():
            continue
        prior, uniform = floors(targets_NK[mask])
        of_these = {name: float(values[mask].mean()) for name, values in terms.items()}
        of_these |= {"prior": prior, "uniform": uniform}
        figures |= {name + ending: value for name, value in of_these.items()}
        found.append(Standing(of_these["nested"], prior, uniform))
    return figures, found[0], found[1] if len(found) > 1 else None
