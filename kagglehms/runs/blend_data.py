"""The rows that a blend is fitted to: checked arrays, the rows that the blend is for, and their class priors.

Shapes: M members, N rows, K classes (always the six).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kagglehms.data.competition import CLASSES
from kagglehms.errors import UsageError
from kagglehms.runs.blends import Blend, Fitting, Floats, Stack, check_stack, pool
from kagglehms.runs.prior_correction import PriorCorrection, class_prior
from kagglehms.training.metric import check_probabilities, kl_terms


@dataclass(frozen=True)
class BlendData:
    """Checked arrays of one fit, without the rows of weight 0.

    Attributes:
        names: names of the members.
        predictions_MNK: (members, n, 6) probabilities.
        targets_NK: (n, 6) vote fractions.
        row_weights_N: (n,) weights above 0.
        patients_N: (n,) patients numbered from 0; None where there is no cross-validation.
        own_N: (n,) mask of the rows to fit to; the others are only scored.
        training_MN: (members, n) weight of each row in each member's training; None without a prior correction.
    """

    names: tuple[str, ...]
    predictions_MNK: Floats
    targets_NK: Floats
    row_weights_N: Floats
    patients_N: NDArray[np.intp] | None
    own_N: NDArray[np.bool_]
    training_MN: Floats | None

    @classmethod
    def of(
        cls,
        predictions: Stack,
        targets: ArrayLike,
        names: Sequence[str],
        patients: ArrayLike | None,
        sample_weights: ArrayLike | None,
        fitting: Fitting,
        many_votes: ArrayLike | None,
        training: ArrayLike | None,
    ) -> BlendData:
        """Check the arguments of `blend_fitting.fit_blend`.

        Raises:
            UsageError: arrays do not fit together, there are no rows, or something that `fitting` needs is missing.
        """
        stack = check_stack(predictions, names)
        n = stack.shape[1]
        targets_NK = np.asarray(targets, dtype=np.float64)
        rows = np.ones(n) if sample_weights is None else np.asarray(sample_weights, dtype=np.float64)
        codes = None if patients is None else np.unique(np.asarray(patients), return_inverse=True)[1]
        if fitting.population == "many" and many_votes is None:
            raise UsageError("to fit to the rows with many votes, say which they are")
        if fitting.prior_exponent is not None and training is None:
            raise UsageError(
                "to correct for class priors, say what each row counts in each member's training"
            )
        own = np.ones(n, bool) if fitting.population == "all" else np.asarray(many_votes, dtype=bool)
        training_MN = None if training is None else np.asarray(training, dtype=np.float64)
        for what, values, shape in (
            ("targets", targets_NK, (n, len(CLASSES))),
            ("sample weights", rows, (n,)),
            ("patients", codes, (n,)),
            ("rows with many votes", own, (n,)),
            ("rows' weights in training", training_MN, (len(stack), n)),
        ):
            if values is not None and values.shape != shape:
                raise UsageError(f"{what} must be {shape} to fit the predictions, but are {values.shape}")
        if not np.isfinite(rows).all() or (rows < 0).any() or not rows.any():
            raise UsageError("sample weights must be finite, ≥ 0 and not all 0")
        try:
            check_probabilities(targets_NK)
        except UsageError as error:
            raise UsageError(f"targets: {str(error).replace('the predictions', 'the targets')}") from error
        return cls(tuple(names), stack, targets_NK, rows, codes, own, training_MN).take(rows > 0)

    def take(self, mask: NDArray[np.bool_]) -> BlendData:
        """Return the rows where the mask is true."""
        patients = None if self.patients_N is None else self.patients_N[mask]
        return replace(
            self,
            predictions_MNK=self.predictions_MNK[:, mask],
            targets_NK=self.targets_NK[mask],
            row_weights_N=self.row_weights_N[mask],
            patients_N=patients,
            own_N=self.own_N[mask],
            training_MN=None if self.training_MN is None else self.training_MN[:, mask],
        )

    def own(self) -> BlendData:
        """Return the rows to fit to.

        Raises:
            UsageError: there are none.
        """
        if not self.own_N.any():
            raise UsageError(
                "the blend is for records with many votes, and of these patients none has any; give more records, "
                "or fit to all"
            )
        return self.take(self.own_N)

    def prior(self, fitting: Fitting) -> PriorCorrection | None:
        """Return the correction from the priors of the members' training to that of the rows to fit to."""
        if fitting.prior_exponent is None:
            return None
        assert self.training_MN is not None
        empty = [
            name for name, counts_N in zip(self.names, self.training_MN, strict=True) if not counts_N.any()
        ]
        if empty:
            raise UsageError(
                f"{', '.join(empty)}: of these patients no record counted in training, so there is no class prior to "
                "correct; give more records, or leave the correction out"
            )
        trained = tuple(
            class_prior(self.targets_NK, counts_N * self.row_weights_N) for counts_N in self.training_MN
        )
        target = class_prior(self.targets_NK, self.own_N * self.row_weights_N)
        exponent = 1.0 if fitting.prior_exponent == "fit" else float(fitting.prior_exponent)
        return PriorCorrection(fitting.population, target, trained, exponent)

    def corrected(self, prior: PriorCorrection | None) -> BlendData:
        """Return the rows with the members corrected for their class priors."""
        return self if prior is None else replace(self, predictions_MNK=prior.apply(self.predictions_MNK))

    def terms(self, blend: Blend) -> Floats:
        """Return the competition's score of each row, (n,)."""
        stack_MNK = self.corrected(blend.prior).predictions_MNK
        return kl_terms(self.targets_NK, blend.finish(pool(stack_MNK, np.array(blend.weights), blend.space)))

    def corrected_terms(self, blend: Blend) -> Floats:
        """Return the score of each row, (n,), by the plain mean of the members, corrected for priors as in `blend`."""
        return kl_terms(self.targets_NK, self.corrected(blend.prior).predictions_MNK.mean(axis=0))
