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
from kagglehms.runs.blends import Blend, Fitting, Floats, Stack, check_members, check_stack, pool
from kagglehms.runs.prior_correction import PriorCorrection, class_prior
from kagglehms.training.metric import check_probabilities, kl_terms


@dataclass(frozen=True)
class BlendData:
    """Checked rows to fit a blend to and to score it on, without those of weight 0; made by `of`.

    Attributes:
        names: names of the members.
        predictions_MNK: (members, n, 6) probabilities.
        targets_NK: (n, 6) vote fractions.
        row_weights_N: (n,) weights above 0.
        patients_N: (n,) patients numbered from 0; None if they are not known.
        many_N: (n,) mask of the rows with many votes; None if they are not known.
        training_MN: (members, n) weight of each row in each member's training; None if it is not known.
    """

    names: tuple[str, ...]
    predictions_MNK: Floats
    targets_NK: Floats
    row_weights_N: Floats
    patients_N: NDArray[np.intp] | None
    many_N: NDArray[np.bool_] | None
    training_MN: Floats | None

    @classmethod
    def of(
        cls,
        predictions_MNK: Stack,
        targets_NK: ArrayLike,
        names: Sequence[str],
        patients_N: ArrayLike | None = None,
        sample_weights_N: ArrayLike | None = None,
        many_N: ArrayLike | None = None,
        training_MN: ArrayLike | None = None,
    ) -> BlendData:
        """Check arrays and leave out rows of weight 0.

        Args:
            predictions_MNK: (members, n, 6) probabilities by models that have not seen the rows.
            targets_NK: (n, 6) vote fractions.
            names: names of the members.
            patients_N: (n,) patient of each row; needed for cross-validation.
            sample_weights_N: (n,) weights ≥ 0 of the rows, or a mask; None weighs all alike.
            many_N: (n,) mask of the rows with many votes; needed where the blend is for those, or scored on them.
            training_MN: (members, n) weight of each row in the last stage of each member's training, see
                `prior_correction.training_weights`; needed where members are corrected for its class prior.

        Raises:
            UsageError: arrays do not fit together, there are no rows, or a name stands twice.
        """
        check_members("of runs", names, None)
        stack = check_stack(predictions_MNK, names)
        n = stack.shape[1]
        targets = np.asarray(targets_NK, dtype=np.float64)
        rows = np.ones(n) if sample_weights_N is None else np.asarray(sample_weights_N, dtype=np.float64)
        patients = None if patients_N is None else np.unique(np.asarray(patients_N), return_inverse=True)[1]
        many = None if many_N is None else np.asarray(many_N, dtype=bool)
        training = None if training_MN is None else np.asarray(training_MN, dtype=np.float64)
        for what, values, shape in (
            ("targets", targets, (n, len(CLASSES))),
            ("sample weights", rows, (n,)),
            ("patients", patients, (n,)),
            ("rows with many votes", many, (n,)),
            ("rows' weights in training", training, (len(stack), n)),
        ):
            if values is not None and values.shape != shape:
                raise UsageError(f"{what} must be {shape} to fit the predictions, but are {values.shape}")
        if not np.isfinite(rows).all() or (rows < 0).any() or not rows.any():
            raise UsageError("sample weights must be finite, ≥ 0 and not all 0")
        try:
            check_probabilities(targets)
        except UsageError as error:
            raise UsageError(f"targets: {str(error).replace('the predictions', 'the targets')}") from error
        return cls(tuple(names), stack, targets, rows, patients, many, training).take(rows > 0)

    def take(self, mask: NDArray[np.bool_]) -> BlendData:
        """Return the rows where the mask is true."""
        return replace(
            self,
            predictions_MNK=self.predictions_MNK[:, mask],
            targets_NK=self.targets_NK[mask],
            row_weights_N=self.row_weights_N[mask],
            patients_N=None if self.patients_N is None else self.patients_N[mask],
            many_N=None if self.many_N is None else self.many_N[mask],
            training_MN=None if self.training_MN is None else self.training_MN[:, mask],
        )

    def own_N(self, fitting: Fitting) -> NDArray[np.bool_]:
        """Return the mask of the rows to fit to, (n,); the others are only scored."""
        if fitting.population == "all":
            return np.ones(len(self.targets_NK), bool)
        if self.many_N is None:
            raise UsageError("to fit to the rows with many votes, say which they are")
        return self.many_N

    def own(self, fitting: Fitting) -> BlendData:
        """Return the rows to fit to.

        Raises:
            UsageError: there are none, or they are not known.
        """
        own_N = self.own_N(fitting)
        if not own_N.any():
            raise UsageError(
                "the blend is for records with many votes, and of these patients none has any; give more records, "
                "or fit to all"
            )
        return self.take(own_N)

    def prior(self, fitting: Fitting) -> PriorCorrection | None:
        """Return the correction from the priors of the members' training to that of the rows to fit to.

        Raises:
            UsageError: the training of a member is not known, or none of these rows counted in it.
        """
        if fitting.prior_exponent is None:
            return None
        if self.training_MN is None:
            raise UsageError(
                "to correct for class priors, say what each row counts in each member's training"
            )
        empty = [name for name, n in zip(self.names, self.training_MN, strict=True) if not n.any()]
        if empty:
            raise UsageError(
                f"{', '.join(empty)}: of these patients no record counted in training, so there is no class prior to "
                "correct; give more records, or leave the correction out"
            )
        trained = tuple(class_prior(self.targets_NK, n * self.row_weights_N) for n in self.training_MN)
        target = class_prior(self.targets_NK, self.own_N(fitting) * self.row_weights_N)
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
