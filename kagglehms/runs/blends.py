"""Blends: several models' probabilities → one prediction, with weights fitted on out-of-fold predictions.

Shapes: M members, N rows, K classes (always the six). A blend pools its members, then calibrates the pool:

    z = ln Σ_M w·p  (space "probability")   or   z = Σ_M w·ln p  (space "logit")
    prediction = softmax_K(z / temperature + biases)

Before that, where asked for, each member's p is corrected for the class prior that it was trained with, see
`prior_correction`. Weights are ≥ 0 and sum to 1. The mean of forecasts is too timid even where every forecast is
calibrated (Ranjan and Gneiting 2010, "Combining probability forecasts"), which the temperature corrects.
`shrinkage` λ pulls everything at once towards the plain mean: the fit minimises the competition's score plus
½λ·(M·Σ(w − 1/M)²) for the weights, then, with these held, plus ½λ·((1/temperature − 1)² + Σ biases²) for the
calibration. Both are convex problems. See docs/blending.md for what that gives on real predictions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kagglehms.data.competition import CLASSES
from kagglehms.errors import DataError, UsageError
from kagglehms.runs.prior_correction import MOST, PriorCorrection, Target
from kagglehms.strict_json import JSONError, opened, sealed, validate
from kagglehms.training.metric import CLIP, check_probabilities

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Space = Literal["probability", "logit"]
Floats = NDArray[np.float64]
Stack = NDArray[Any] | Sequence[ArrayLike]

_STRICT = {"extra": "forbid", "strict": True, "allow_inf_nan": False}


@dataclass(frozen=True)
class Fitting:
    """How weights are fitted.

    Attributes:
        space: whether probabilities or their logarithms are averaged; `auto` lets inner cross-validation choose.
        temperature: whether the pool is sharpened or softened.
        biases: whether each class gets a bias.
        shrinkage: strength of the pull towards the plain mean, ≥ 0; None lets inner cross-validation, grouped by
            patient, choose from `blend_fitting.SHRINKAGES`.
        n_folds: number of folds of the inner cross-validation.
        population: records that the blend is for and is fitted to; the others are only scored.
        prior_exponent: exponent of the members' correction to the class prior of that population, see
            `prior_correction`; `fit` fits it, and pulls it towards 1; None corrects nothing.
    """

    space: Literal["probability", "logit", "auto"] = "probability"
    temperature: bool = True
    biases: bool = False
    shrinkage: float | None = None
    n_folds: int = 5
    population: Target = "all"
    prior_exponent: float | Literal["fit"] | None = None

    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        if self.shrinkage is not None and not 0 <= self.shrinkage < np.inf:
            raise UsageError(f"shrinkage must be a number ≥ 0, but got {self.shrinkage}")
        if self.n_folds < 2:
            raise UsageError(f"n_folds must be at least 2, but got {self.n_folds}")
        if isinstance(self.prior_exponent, int):
            object.__setattr__(self, "prior_exponent", float(self.prior_exponent))
        if isinstance(self.prior_exponent, float) and not 0 <= self.prior_exponent <= MOST:
            raise UsageError(
                f"prior_exponent must be a number from 0 to {MOST:g}, or fit, but got {self.prior_exponent}"
            )

    @property
    def chooses(self) -> bool:
        """Whether inner cross-validation has something to choose."""
        return self.shrinkage is None or self.space == "auto"


@dataclass(frozen=True)
class Blend:
    """A weighted combination of models that can be applied.

    Attributes:
        name: name by which commands and bundles refer to the blend.
        members: names of the recipes.
        weights: one weight a member, ≥ 0; they sum to 1.
        space: whether probabilities or their logarithms are averaged.
        temperature: divisor of the pool's logarithm; below 1 it sharpens.
        biases: one bias a class, added before the softmax; None adds none.
        fitting: how the blend was fitted, with the space and shrinkage that were chosen; None if weights were given.
        n_rows: number of rows that the blend was fitted to.
        scores: scores by name, such as `nested` (on patients that it was not fitted to), `in_sample`, `plain_mean`,
            `corrected` (mean of the members with only their priors corrected), and the floors `prior` and `uniform`;
            with `_votes10` after the name, on the rows with at least 10 votes.
        prior: correction of the members for the class priors that they were trained with, before they are pooled; None
            corrects nothing.
    """

    name: str
    members: tuple[str, ...]
    weights: tuple[float, ...]
    space: Space = "probability"
    temperature: float = 1.0
    biases: tuple[float, float, float, float, float, float] | None = None
    fitting: Fitting | None = None
    n_rows: int = 0
    scores: dict[str, float] = field(default_factory=dict)
    prior: PriorCorrection | None = None

    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        check_members(self.name, self.members, self.weights)
        if not 0 < self.temperature < np.inf:
            raise UsageError(f"blend {self.name}: temperature must be above 0, but got {self.temperature}")
        if self.biases is not None and (
            len(self.biases) != len(CLASSES) or not np.isfinite(self.biases).all()
        ):
            raise UsageError(f"blend {self.name}: biases must be six finite numbers, but got {self.biases}")
        if self.prior is not None and len(self.prior.trained) != len(self.members):
            raise UsageError(
                f"blend {self.name}: {len(self.members)} members, but the prior correction is of "
                f"{len(self.prior.trained)}"
            )

    @property
    def active(self) -> tuple[str, ...]:
        """Members with a weight above 0; the others need not be computed."""
        return tuple(m for m, weight in zip(self.members, self.weights, strict=True) if weight > 0)

    def apply(self, predictions: Mapping[str, ArrayLike]) -> Floats:
        """Blend the members' probabilities.

        Args:
            predictions: (n, 6) probabilities by name of the member; members of weight 0 may be left out, and other
                names are ignored.

        Returns:
            (n, 6) float64 probabilities.

        Raises:
            UsageError: a member is missing, shapes differ, or values are no probabilities.
        """
        missing = [name for name in self.active if name not in predictions]
        if missing:
            raise UsageError(f"blend {self.name} needs predictions of {', '.join(missing)}")
        stack_MNK = check_stack([predictions[name] for name in self.active], self.active)
        weights = np.array([weight for weight in self.weights if weight > 0])
        prior = self._prior_of(self.active)
        corrected_MNK = stack_MNK if prior is None else prior.apply(stack_MNK)
        return self.finish(pool(corrected_MNK, weights, self.space))

    def _prior_of(self, names: Sequence[str]) -> PriorCorrection | None:
        """Return the correction of these members, in this order."""
        return None if self.prior is None else self.prior.only([self.members.index(name) for name in names])

    def finish(self, pool_NK: Floats) -> Floats:
        """Return the (n, 6) probabilities that temperature and biases make of what `pool` returned."""
        scores = pool_NK / self.temperature + (0.0 if self.biases is None else np.array(self.biases))
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def only(self, names: Sequence[str]) -> Blend:
        """Return the blend of those members that are among `names`.

        Weights are scaled up. Temperature and biases belong to the whole blend and are dropped, unless every member
        with a weight above 0 is there; the correction for class priors belongs to each member, and stays.

        Raises:
            UsageError: none of the members is among them.
        """
        if set(self.active) <= set(names):
            return self
        kept = [(m, w) for m, w in zip(self.members, self.weights, strict=True) if m in names]
        if not kept:
            raise UsageError(f"blend {self.name} has none of the members {', '.join(names) or '(none)'}")
        weights = np.array([w for _, w in kept])
        weights = weights / weights.sum() if weights.sum() > 0 else np.full(len(kept), 1 / len(kept))
        names = tuple(m for m, _ in kept)
        return Blend(self.name, names, tuple(weights.tolist()), self.space, prior=self._prior_of(names))

    def to_json(self) -> bytes:
        """Return strict JSON with a checksum of its values, the same bytes for the same blend."""
        return sealed(_adapter().dump_python(self, mode="json"), indent=1) + b"\n"


def score_name(name: str) -> str:
    """Return a name of `Blend.scores` as people write it."""
    words = name.removesuffix("_votes10").replace("_", " ").replace("prior", "class prior")
    words = words.replace("corrected", "corrected for class priors alone")
    return f"{words} (many votes)" if name.endswith("_votes10") else words


def blend_from_json(content: bytes, path: Path | str = "blend") -> Blend:
    """Read a blend back.

    Args:
        content: JSON that `Blend.to_json` wrote; without its checksum, it may have been written by hand.
        path: file that the content came from, for the error.

    Raises:
        DataError: the content is not JSON, was changed after it was written, has unknown or missing keys, or values
            that no blend can have.
    """
    try:
        return validate(_adapter(), opened(content))
    except JSONError as error:
        raise DataError(path, f"is no blend of this version: {error}", "fit it again") from error


@cache
def _adapter() -> TypeAdapter[Blend]:
    from pydantic import TypeAdapter

    return TypeAdapter(Blend)


def check_members(name: str, members: Sequence[str], weights: Sequence[float] | None) -> None:
    """Raise `UsageError` unless members are different, and weights are one a member, ≥ 0 and of sum 1."""
    if not members or len(set(members)) != len(members):
        raise UsageError(f"blend {name}: members must be different names, but got {list(members)}")
    if weights is None:
        return
    if len(weights) != len(members):
        raise UsageError(f"blend {name}: {len(members)} members, but {len(weights)} weights")
    values = np.asarray(weights, dtype=np.float64)
    if (
        not np.isfinite(values).all()
        or (values < 0).any()
        or not np.isclose(values.sum(), 1, rtol=0, atol=1e-9)
    ):
        raise UsageError(f"blend {name}: weights must be ≥ 0 and sum to 1, but got {list(weights)}")


def check_stack(predictions: Stack, names: Sequence[str]) -> Floats:
    """Return predictions as (members, rows, 6) float64.

    Raises:
        UsageError: shapes differ or values are no probabilities; the message names the member.
    """
    arrays = [np.asarray(values, dtype=np.float64) for values in predictions]
    if len(arrays) != len(names):
        raise UsageError(f"{len(names)} members are named, but there are predictions of {len(arrays)}")
    for name, array in zip(names, arrays, strict=True):
        if array.ndim != 2 or array.shape[1] != len(CLASSES) or len(array) != len(arrays[0]):
            expected = f"({len(arrays[0]) if arrays[0].ndim else 'n'}, {len(CLASSES)})"
            raise UsageError(f"{name}: predictions must be {expected}, but are {array.shape}")
        try:
            check_probabilities(array)
        except UsageError as error:
            raise UsageError(f"{name}: {error}") from error
    return np.stack(arrays)


def pool(predictions_MNK: Floats, weights_M: Floats, space: Space) -> Floats:
    """Return the logarithm of the members' pool, (rows, 6)."""
    if space == "probability":
        return np.log(np.maximum(np.einsum("m,mnk->nk", weights_M, predictions_MNK), CLIP))
    return np.einsum("m,mnk->nk", weights_M, np.log(np.maximum(predictions_MNK, CLIP)))
