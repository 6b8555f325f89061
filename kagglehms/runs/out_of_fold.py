"""Out-of-fold predictions of several runs, side by side, for blends. See `crossval` for the files of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import PROBABILITY_COLUMNS, VOTE_COLUMNS
from kagglehms.data.records import vote_fractions
from kagglehms.errors import RunError, UsageError, closest, first_line
from kagglehms.runs.blends import check_members, check_stack
from kagglehms.runs.folder import RECIPE, origin_of, read_json
from kagglehms.training.recipes import recipe_from_json

if TYPE_CHECKING:
    import polars as pl

_PARTS = {"records": "records", "folds": "folds", "store": "data (store)"}
"""What must be the same in all runs: key of run.json's identity → the word for it."""


@dataclass(frozen=True)
class OofSet:
    """Out-of-fold predictions of runs on the same records, folds and data.

    Attributes:
        names: of the runs.
        predictions_MNK: (runs, n, 6) float64 probabilities.
        votes_NK: (n, 6) vote counts.
        patients_N: (n,) patient ids.
        records_N: (n,) ascending record numbers.
        fingerprints: of the runs, as run.json states them.
    """

    names: tuple[str, ...]
    predictions_MNK: NDArray[np.float64]
    votes_NK: NDArray[np.int64]
    patients_N: NDArray[np.int64]
    records_N: NDArray[np.int64]
    fingerprints: tuple[str, ...]

    @property
    def n_votes_N(self) -> NDArray[np.int64]:
        """(n,) votes per record."""
        return self.votes_NK.sum(axis=1)

    @property
    def targets_NK(self) -> NDArray[np.float64]:
        """(n, 6) vote fractions."""
        return vote_fractions(self.votes_NK)

    @property
    def by_name(self) -> dict[str, NDArray[np.float64]]:
        """(n, 6) probabilities by run, as `Blend.apply` takes them."""
        return dict(zip(self.names, self.predictions_MNK, strict=True))


def load_oof(runs: Path, names: Sequence[str], min_votes: int = 1) -> OofSet:
    """Load the out-of-fold predictions of finished runs, aligned by record.

    Args:
        runs: the folder of all runs.
        names: which runs.
        min_votes: leave records with fewer votes out. A run that predicts only records with many votes can be
            joined with others on those.

    Raises:
        RunError: a run that is missing, unfinished or broken; runs of different records, folds or data; a run that
            lacks records which another has.
        UsageError: no names, a name twice, or no record with so many votes.
    """
    check_members("of runs", names, None)
    infos = [_read_info(runs, name) for name in names]
    for name, (identity, _) in zip(names[1:], infos[1:], strict=True):
        different = [word for key, word in _PARTS.items() if identity[key] != infos[0][0][key]]
        if different:
            raise RunError(
                f"{runs / name}: was trained on other {' and '.join(different)} than {names[0]}; "
                f"blend runs of the same, or train one of the two again"
            )
    tables = [_read_table(runs / name / "oof.parquet", min_votes) for name in names]
    _refuse_missing_records(runs, names, tables)
    _refuse_other_votes(runs, names, tables)
    if tables[0].is_empty():
        raise UsageError(f"no record of {names[0]} has at least {min_votes} votes")
    try:
        stack = check_stack([t.select(PROBABILITY_COLUMNS).to_numpy() for t in tables], names)
    except UsageError as error:
        raise RunError(f"{runs}: {error}; train it again") from error
    return OofSet(
        names=tuple(names),
        predictions_MNK=stack,
        votes_NK=tables[0].select(VOTE_COLUMNS).to_numpy().astype(np.int64),
        patients_N=tables[0]["patient_id"].to_numpy(),
        records_N=tables[0]["record"].to_numpy(),
        fingerprints=tuple(fingerprint for _, fingerprint in infos),
    )


def load_training_weights(runs: Path, oof: OofSet) -> NDArray[np.float64]:
    """What each record counts in the last stage of each run, as its recipe.json says.

    Args:
        runs: the folder of all runs.
        oof: the runs' out-of-fold predictions of all their records.

    Returns:
        (runs, n) weights ≥ 0, see `prior_correction.training_weights`.

    Raises:
        RunError, DataError: a recipe that cannot be read, or whose last stage has none of the records.
    """
    from kagglehms.runs.prior_correction import training_weights

    weights = []
    for name in oof.names:
        path = runs / name / RECIPE
        try:
            recipe = recipe_from_json(path.read_bytes(), path)
        except OSError as error:
            raise RunError(f"{path}: cannot be read ({error.strerror}); train {name} again") from error
        weights.append(training_weights(recipe, oof.votes_NK))
    return np.stack(weights)


def _read_info(runs: Path, name: str) -> tuple[dict[str, str], str]:
    """Identity and fingerprint of a finished run."""
    folder = runs / name
    if not (folder / "run.json").is_file():
        there = sorted(path.parent.name for path in runs.glob("*/run.json"))
        listed = closest(name, there) if there else "there is none at all"
        raise RunError(f"{folder}: no such run; {listed}; train it first: kagglehms train {name}")
    run = read_json(folder / "run.json")
    origin_of(folder)  # raises where the folds are not of one run
    if run.get("scores") is None or not (folder / "oof.parquet").is_file():
        raise RunError(f"{folder}: not all folds are trained; finish it: kagglehms train {name}")
    try:
        return {key: str(run["identity"][key]) for key in _PARTS}, str(run["fingerprint"])
    except (KeyError, TypeError) as error:
        raise RunError(f"{folder / 'run.json'}: lacks {error}; train it again") from error


def _read_table(path: Path, min_votes: int) -> pl.DataFrame:
    import polars as pl

    try:
        table = pl.read_parquet(path)
        table = table.select("record", "patient_id", *VOTE_COLUMNS, *PROBABILITY_COLUMNS)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise RunError(f"{path}: cannot be read ({first_line(error)}); train it again") from error
    if table["record"].n_unique() < len(table) or any(table.null_count().row(0)):
        raise RunError(f"{path}: has a record twice or missing values; train it again")
    return table.filter(pl.sum_horizontal(VOTE_COLUMNS) >= min_votes).sort("record")


def _refuse_missing_records(runs: Path, names: Sequence[str], tables: Sequence[pl.DataFrame]) -> None:
    all_records = np.unique(np.concatenate([table["record"].to_numpy() for table in tables]))
    for name, table in zip(names, tables, strict=True):
        n_missing = len(all_records) - len(table)
        if n_missing:
            raise RunError(
                f"{runs / name}: has no predictions of {n_missing} of the {len(all_records)} records that the "
                f"others have; leave it out, or blend on records with more votes (min_votes)"
            )


def _refuse_other_votes(runs: Path, names: Sequence[str], tables: Sequence[pl.DataFrame]) -> None:
    key = ["record", "patient_id", *VOTE_COLUMNS]
    for name, table in zip(names, tables, strict=True):
        if not table.select(key).equals(tables[0].select(key)):
            raise RunError(f"{runs / name}: has other votes or patients than {names[0]}; train it again")
