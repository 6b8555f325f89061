"""Out-of-fold predictions of several runs, side by side, for blends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kagglehms.data.competition import PROBABILITY_COLUMNS, VOTE_COLUMNS
from kagglehms.data.records import Records
from kagglehms.errors import RunError, UsageError, closest
from kagglehms.runs.blend_data import BlendData
from kagglehms.runs.blends import check_members
from kagglehms.runs.contents import RunInfo
from kagglehms.runs.folder import OOF, RunFolder, find_runs

if TYPE_CHECKING:
    import polars as pl

_PARTS = {"records": "records", "folds": "folds", "store": "data (store)"}
"""What must be the same in all runs: part of their identity → its name in messages."""


@dataclass(frozen=True)
class OofSet:
    """Out-of-fold predictions of runs on the same records, folds and data.

    Attributes:
        names: names of the runs.
        predictions_MNK: (runs, n, 6) float64 probabilities.
        records: the n records, in ascending order of their numbers.
        numbers_N: (n,) record numbers.
        fingerprints: fingerprints of the runs, as their run.json states them.
    """

    names: tuple[str, ...]
    predictions_MNK: NDArray[np.float64]
    records: Records
    numbers_N: NDArray[np.int64]
    fingerprints: tuple[str, ...]

    def rows(self, training_MN: NDArray[np.float64] | None = None) -> BlendData:
        """Return the rows to fit a blend to; for `training_MN` see `load_training_weights`."""
        records = self.records
        return BlendData.of(
            self.predictions_MNK,
            records.targets_NK,
            self.names,
            records.patients,
            many_N=records.many,
            training_MN=training_MN,
        )

    @property
    def by_name(self) -> dict[str, NDArray[np.float64]]:
        """(n, 6) probabilities by run, as `Blend.apply` takes them."""
        return dict(zip(self.names, self.predictions_MNK, strict=True))


def load_oof(runs: Path, names: Sequence[str], min_votes: int = 1) -> OofSet:
    """Load the out-of-fold predictions of finished runs, aligned by record.

    Args:
        runs: folder of all runs.
        names: names of the runs to load.
        min_votes: smallest number of votes of a record to load. A run that predicts only records with many votes can
            be joined with others on those.

    Raises:
        RunError: a run is missing, unfinished or broken, is of other records, folds or data than the others, or lacks
            records that another one has.
        UsageError: there are no names, a name stands twice, or no record has so many votes.
    """
    check_members("of runs", names, None)
    infos = [_finished(runs, name) for name in names]
    for name, info in zip(names[1:], infos[1:], strict=True):
        first, other = asdict(infos[0].identity), asdict(info.identity)
        different = [word for part, word in _PARTS.items() if other[part] != first[part]]
        if different:
            raise RunError(
                f"{runs / name}: was trained on other {' and '.join(different)} than {names[0]}; "
                f"blend runs of the same, or train one of the two again"
            )
    tables = [_predictions(runs, name, min_votes) for name in names]
    _refuse_missing_records(runs, names, tables)
    _refuse_other_votes(runs, names, tables)
    if tables[0].is_empty():
        raise UsageError(f"no record of {names[0]} has at least {min_votes} votes")
    return OofSet(
        names=tuple(names),
        predictions_MNK=np.stack([table.select(PROBABILITY_COLUMNS).to_numpy() for table in tables]),
        records=Records(tables[0]),
        numbers_N=tables[0]["record"].to_numpy(),
        fingerprints=tuple(info.fingerprint for info in infos),
    )


def load_training_weights(runs: Path, oof: OofSet) -> NDArray[np.float64]:
    """Return what each record counts in the last stage of each run, as its recipe.json says.

    Args:
        runs: folder of all runs.
        oof: out-of-fold predictions of all records of the runs.

    Returns:
        (runs, n) weights ≥ 0, see `prior_correction.training_weights`.

    Raises:
        RunError: a recipe cannot be read, or its last stage has none of the records.
    """
    from kagglehms.runs.prior_correction import training_weights

    return np.stack([training_weights(RunFolder(runs / name).recipe(), oof.records) for name in oof.names])


def _finished(runs: Path, name: str) -> RunInfo:
    """Read what a finished run says about itself."""
    folder = RunFolder(runs / name)
    if not folder.begun:
        there = [run.name for run in find_runs(runs)]
        listed = closest(name, there) if there else "there is none at all"
        raise RunError(f"{folder.path}: no such run; {listed}; train it first: kagglehms train {name}")
    info = folder.info()
    folder.origin()  # raises where the folds are not of one run
    if info.scores is None or not (folder.path / OOF).is_file():
        raise RunError(f"{folder.path}: not all folds are trained; finish it: {folder.finishing}")
    return info


def _predictions(runs: Path, name: str, min_votes: int) -> pl.DataFrame:
    import polars as pl

    table = RunFolder(runs / name).predictions()
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
