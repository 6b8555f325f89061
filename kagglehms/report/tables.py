"""Records, runs, scores and submissions as frames of pandas or polars, for notebooks: `from kagglehms import tables`.

Frames that are given go by the names of their columns, in any order. Frames that are returned are of pandas unless
`library="polars"` asks for the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kagglehms.data.competition import CLASSES, PROBABILITY_COLUMNS, VOTE_COLUMNS, Competition
from kagglehms.data.frames import Frame, Library, as_table, is_frame, to_library
from kagglehms.data.records import read_records, vote_fractions
from kagglehms.data.tables import read_table
from kagglehms.errors import UsageError, closest, counted
from kagglehms.files import write_bytes
from kagglehms.kernel.prior import submission_csv
from kagglehms.kernel.submission import read_submission_table
from kagglehms.runs import ladder as ladders
from kagglehms.runs.folder import RunFolder, joined, require_runs
from kagglehms.training.logs import HISTORY
from kagglehms.training.metric import kl_score

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "history",
    "ladder",
    "out_of_fold",
    "read_submission",
    "records",
    "score",
    "submission",
    "write_submission",
]
_NAMINGS = (PROBABILITY_COLUMNS, VOTE_COLUMNS, CLASSES)
"""How probabilities are named in tables of out-of-fold predictions, in submissions, and in those of `predict`."""


def records(train: Path | str | Frame, library: Library = "pandas") -> Frame:
    """Return the records of a competition: one row for each EEG and vote vector.

    Args:
        train: the competition's folder, its train.csv, or a frame of that.
        library: whose frame to return.

    Raises:
        DataError: the table is missing or cannot be used.
    """
    if isinstance(train, str | Path):
        path = Path(train)
        train = path if path.is_file() and path.suffix != ".zip" else Competition(path).train_csv
    return to_library(read_records(train).frame, library)


def out_of_fold(runs: Path | str, name: str, library: Library = "pandas") -> Frame:
    """Return the out-of-fold predictions of a run's finished folds: one row per record, with its votes.

    Args:
        runs: folder of all runs.
        name: name of the run.
        library: whose frame to return.

    Raises:
        UsageError: there is no such run, or none of its folds is finished.
        RunError: a table is missing or broken.
    """
    run = _run(runs, name)
    return _given(run, run.finished_predictions(), "no fold of it is finished", library)


def history(runs: Path | str, name: str, library: Library = "pandas") -> Frame:
    """Return the evaluations of all folds of a run, also of unfinished ones: losses and scores as it trained.

    Args:
        runs: folder of all runs.
        name: name of the run.
        library: whose frame to return.

    Raises:
        UsageError: there is no such run, or nothing of it has been evaluated.
        RunError: a table is missing or broken.
    """
    run = _run(runs, name)
    table = joined([run.history(fold) for fold in run.folds(HISTORY)])
    return _given(run, table, "nothing of it has been evaluated yet", library)


def ladder(runs: Path | str = "runs", library: Library = "pandas") -> Frame:
    """Return every recipe and every ensemble, published and trained: the table of `kagglehms ladder`, unrounded.

    Args:
        runs: folder of all runs.
        library: whose frame to return.
    """
    import polars as pl

    rows = [asdict(row) for row in ladders.ladder(Path(runs))]
    return to_library(pl.DataFrame(rows, infer_schema_length=None), library)


def read_submission(source: Path | str | Frame, library: Library = "pandas") -> Frame:
    """Read a submission, and refuse one that the competition would refuse whatever its test set is.

    Args:
        source: path of submission.csv, or a frame.
        library: whose frame to return.

    Returns:
        `eeg_id` as text, and the six columns of votes.

    Raises:
        DataError: the columns or their order are wrong, an id stands twice, or the values are not probabilities.
    """
    return to_library(read_submission_table(Path(source) if isinstance(source, str) else source), library)


def submission(
    eeg_ids: Iterable[int | str], probabilities: ArrayLike | Frame, library: Library = "pandas"
) -> Frame:
    """Make a submission of probabilities.

    Args:
        eeg_ids: N ids of the test set.
        probabilities: what `predict` returns, an (N, 6) array in the order of `competition.CLASSES`, or a frame with
            the columns of six classes, in the order of the ids.
        library: whose frame to return.

    Raises:
        UsageError: there are not as many rows as ids, or no columns of six classes.
        DataError: an id stands twice, or the values are not probabilities.
    """
    import polars as pl

    ids = [str(eeg_id) for eeg_id in eeg_ids]
    if is_frame(probabilities):
        values_NK = _probabilities(as_table("probabilities", probabilities))
    else:
        values_NK = np.atleast_2d(np.asarray(probabilities, dtype=np.float64))
    if values_NK.shape != (len(ids), len(CLASSES)):
        raise UsageError(f"{len(ids)} ids need ({len(ids)}, 6) probabilities, but got {values_NK.shape}")
    table = pl.DataFrame({"eeg_id": ids}).hstack(pl.DataFrame(values_NK, schema=list(VOTE_COLUMNS)))
    return to_library(read_submission_table(table), library)


def write_submission(path: Path | str, frame: Frame) -> None:
    """Write a submission as a whole or not at all, after the checks of `read_submission`.

    Args:
        path: file to write.
        frame: `eeg_id` and the six columns of votes, in any order.

    Raises:
        DataError: an id stands twice, or the values are not probabilities.
        RunError: the disk is full or the folder cannot be written.
    """
    table = as_table("the frame", frame)
    given = [name for name in ("eeg_id", *VOTE_COLUMNS) if name in table.columns]
    table = read_submission_table(table.select(given))
    write_bytes(Path(path), submission_csv(table["eeg_id"].to_list(), table.select(VOTE_COLUMNS).rows()))


def score(votes: Frame, predictions: Frame, key: str = "eeg_id") -> float:
    """Score predictions as the competition does, each row with the votes of its key.

    Args:
        votes: the key and six columns of votes, counts or fractions, as in train.csv and out-of-fold tables.
        predictions: the key and the probabilities of six classes, named as in submissions, in out-of-fold tables, or
            after the classes alone.
        key: column that says which rows belong together, each value once; `record` for out-of-fold tables.

    Returns:
        Mean Kullback–Leibler divergence in nats; lower is better.

    Raises:
        DataError: a column is missing, or a cell has no usable value.
        UsageError: the keys of the two are not the same, one stands twice, a row has no votes, or the values are not
            probabilities.
    """
    truth = read_table(votes, {key: "text", **dict.fromkeys(VOTE_COLUMNS, "number")})
    found = read_table(predictions, {key: "text"})
    for name, table in (("votes", truth), ("predictions", found)):
        if table[key].n_unique() < len(table):
            raise UsageError(f"{name}: a value of column {key} stands twice; give one row for each")
    places = {value: row for row, value in enumerate(found[key])}
    if set(places) != set(truth[key]):
        n_other = len(set(places) ^ set(truth[key]))
        raise UsageError(
            f"votes and predictions differ in {counted(n_other, 'value')} of column {key}; give the same rows"
        )
    votes_NK = truth.select(VOTE_COLUMNS).to_numpy()
    if (votes_NK < 0).any() or not votes_NK.any(axis=1).all():
        raise UsageError("votes: a row has none, or negative ones")
    rows = [places[value] for value in truth[key]]
    return kl_score(vote_fractions(votes_NK), _probabilities(found)[rows])


def _probabilities(table: pl.DataFrame) -> NDArray[np.float64]:
    """(n, 6) values of the columns of six classes, whichever way they are named."""
    for names in _NAMINGS:
        if set(names) <= set(table.columns):
            return read_table(table.select(names), dict.fromkeys(names, "number")).to_numpy()
    named = " or ".join(f"{names[0]} … {names[-1]}" for names in _NAMINGS)
    raise UsageError(f"probabilities: no columns {named} among {', '.join(table.columns)}")


def _run(runs: Path | str, name: str) -> RunFolder:
    there = {folder.name: folder for folder in require_runs(Path(runs))}
    if name not in there:
        raise UsageError(f"{runs}: no run of recipe {name!r}; {closest(name, there)}")
    return there[name]


def _given(run: RunFolder, table: pl.DataFrame | None, missing: str, library: Library) -> Frame:
    if table is None:
        raise UsageError(f"{run.name}: {missing}; finish it with `{run.finishing}`")
    return to_library(table, library)
