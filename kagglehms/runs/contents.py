"""What the JSON files of a run folder say: one schema for each, to write and to read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, ConfigDict, Field

from kagglehms.runs.dataset import Identity
from kagglehms.runs.prior_correction import Shares
from kagglehms.training.first_weights import Origin

_SCHEMA = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)
"""Keys that another version wrote are ignored; those that it did not write yet have defaults."""


def _checked_origin(content: Any) -> Any:
    if content is not None:
        Origin.from_json(content)  # stricter than its fields are one by one
    return content


StoredOrigin = Annotated[Origin | None, BeforeValidator(_checked_origin)]
Scores = dict[str, float | None]
"""A score on `all` records, and on those with at least 10 votes (`votes10`; None where there are none)."""


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """Content of run.json.

    Attributes:
        recipe: name of the recipe, which is also that of the folder.
        n_folds: number of folds that the run is meant to have.
        fingerprint: digest of recipe, data, folds and first weights, see `identity.fingerprint`.
        identity: digests of the data and folds.
        first_weights: origin of the weights that all networks started from; None if an older version did not record
            it.
        records: number of labelled records.
        prior: class means of the records' targets.
        versions: versions of all packages that can change a result.
        scores: out-of-fold scores; None until all folds are finished.
        prior_scores: scores of the class prior on the same records.
        uniform_scores: scores of a uniform guess on the same records.
        files: sha256 of the run's other files by their names; of none that an older version wrote.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _SCHEMA

    recipe: str
    n_folds: int
    fingerprint: str
    identity: Identity
    first_weights: StoredOrigin = None
    records: int
    prior: Shares
    versions: dict[str, str]
    scores: Scores | None = None
    prior_scores: Scores | None = None
    uniform_scores: Scores | None = None
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FoldResult:
    """Content of result.json. Scores are those of the evaluation that was kept, see `evaluation.Evaluation`.

    Attributes:
        fold: number of the fold.
        fingerprint: that of the run; None if an older version did not record it.
        first_weights: origin of the weights that the network started from; None if not recorded.
        best_step: optimizer steps before the evaluation that was kept.
        kept: description of what was kept.
        n_records: number of held-out records.
        seconds: seconds of training.
        device: description of the device that trained.
        processes: number of processes that trained together.
        versions: versions of all packages that can change a result.
        files: sha256 of the fold's weights, predictions and evaluations by the names of their files; of none that an
            older version wrote.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _SCHEMA

    fold: int
    fingerprint: str | None = None
    first_weights: StoredOrigin = None
    score_all: float
    score_votes10: float | None
    score_stage: float | None = None
    prior_all: float | None = None
    prior_votes10: float | None = None
    uniform_all: float | None = None
    uniform_votes10: float | None = None
    best_step: int | None = None
    kept: str = ""
    n_records: int
    seconds: float
    device: str
    processes: int = 1
    versions: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    @property
    def scores(self) -> Scores:
        """Scores by name, as a bundle's manifest has them, with those of knowing nothing where they were recorded."""
        scores: Scores = {"all": self.score_all, "votes10": self.score_votes10}
        if self.prior_all is None:
            return scores
        names = ("prior_all", "prior_votes10", "uniform_all", "uniform_votes10")
        return scores | {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class StoredFolds:
    """Content of folds.json.

    Attributes:
        records: digest of the records.
        n_folds: number of folds.
        folds: fold number of each record.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _SCHEMA

    records: str
    n_folds: int
    folds: list[Annotated[int, Field(ge=0, le=127)]]
