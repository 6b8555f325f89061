"""The scored run: test.csv and its recordings → submission.csv, whatever happens.

A valid submission, the class prior in every row, is written before any model is loaded, and replaced after each
model by the average so far. A recording that cannot be used costs its own row only: it keeps the prior, and is
counted and named.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kagglehms.data.competition import N_TIMES, SPECTROGRAM_ROWS, VOTE_COLUMNS, Competition
from kagglehms.data.recordings import read_eeg, read_spectrogram
from kagglehms.data.records import read_table
from kagglehms.errors import EXIT_FAILURE, EXIT_OK, DataError, HMSError
from kagglehms.features.images import Crop, Source
from kagglehms.inference.predictor import FoldMeans, LoadedModel, load_bundle
from kagglehms.learning.metric import check_probabilities
from kagglehms.runtime import available_cpus, progress, say, write_bytes

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

SUBMISSION = "submission.csv"
SUMMARY = "scored-run.json"
"""What the run used: models, rows, rows that kept the prior and why, seconds. Written last."""
ROWS_AT_A_TIME = 32


def run_scored(bundle: Path, competition: Path, out: Path, device: str | None = None) -> int:
    """Predict the test set of a competition folder with all models of a bundle.

    Args:
        bundle: a verified bundle's folder (it is verified again: reading it twice costs seconds).
        competition: the competition's folder; its test.csv names the rows.
        out: where submission.csv and scored-run.json are written.
        device: `cpu`, `cuda`, or None for the best that works.

    Returns:
        An exit code: 0 when every model took part; 1 when the run ended early. The submission on the disk is
        valid either way.

    Raises:
        BundleError: the bundle is not what its manifest says.
        DataError: test.csv cannot be used.
    """
    start = time.monotonic()
    predictor = load_bundle(bundle, device)
    folder = Competition(competition)
    test = read_test_table(folder.test_csv)
    prior_NK = np.tile(predictor.prior, (len(test), 1))
    write_submission(out / SUBMISSION, test["eeg_id"].to_list(), prior_NK)
    say(f"{len(test)} rows; a submission of the class prior is in place")
    say(predictor.device.reason)

    means, error = FoldMeans(predictor.blend), None
    used: list[str] = []
    failures: dict[int, str] = {}
    try:
        for model in predictor.models():
            name = f"{model.entry.recipe} fold {model.entry.fold}"
            probabilities_NK, failures = _predict_rows(model, folder, test, prior_NK, name)
            means.add(model.entry.recipe, probabilities_NK)
            write_submission(out / SUBMISSION, test["eeg_id"].to_list(), means.blended())
            used.append(name)
            say(f"{name}: done, submission replaced, {time.monotonic() - start:.0f} s since the start")
    except (HMSError, RuntimeError, MemoryError, OSError) as problem:
        error = f"{type(problem).__name__}: {problem}"
        say(f"stopped early, the last submission stands: {error}")
    for line in _failure_lines(failures):
        say(line)
    summary = {
        "models": used,
        "bundle": predictor.manifest.digest,
        "device": predictor.device.reason,
        "rows": len(test),
        "rows_with_prior": {str(eeg_id): reason for eeg_id, reason in failures.items()},
        "error": error,
        "seconds": round(time.monotonic() - start, 1),
    }
    write_bytes(out / SUMMARY, json.dumps(summary, indent=1).encode() + b"\n")
    say(
        f"finished: {len(used)} of {len(predictor.manifest.models)} models, {len(failures)} of {len(test)} rows prior"
    )
    return EXIT_OK if error is None else EXIT_FAILURE


def read_test_table(path: Path) -> pl.DataFrame:
    """Read test.csv: the rows to predict, in their order.

    Raises:
        DataError: unreadable, lacking a column, without rows, ids that are not whole numbers, an id twice.
    """
    import polars as pl

    table = read_table(path, ("eeg_id", "spectrogram_id"))
    if table.is_empty():
        raise DataError(path, "has no rows", "there is nothing to predict")
    for name in ("eeg_id", "spectrogram_id"):
        ids = table[name].cast(pl.Int64, strict=False)
        if ids.null_count():
            row = int(ids.is_null().arg_max() or 0)
            raise DataError(
                path, f"column {name} has no whole number in row {row}", "rows are counted from 0"
            )
        table = table.with_columns(ids)
    twice = table.filter(table["eeg_id"].is_duplicated())["eeg_id"]
    if len(twice):
        raise DataError(path, f"eeg_id {twice[0]} stands twice", "a submission has one row per eeg_id")
    return table


def write_submission(path: Path, eeg_ids: Sequence[int], probabilities_NK: NDArray[np.float64]) -> None:
    """Write a submission atomically, after checking what the competition would check.

    Raises:
        UsageError: values that are negative or not finite, or rows that do not sum to 1.
    """
    import polars as pl

    check_probabilities(probabilities_NK)
    columns = {name: probabilities_NK[:, k] for k, name in enumerate(VOTE_COLUMNS)}
    table = pl.DataFrame({"eeg_id": list(eeg_ids), **columns}, schema_overrides={"eeg_id": pl.Int64})
    write_bytes(path, table.write_csv().encode())


def read_submission(path: Path, eeg_ids: Sequence[int]) -> NDArray[np.float64]:
    """Read a submission back and refuse what the competition would refuse.

    Args:
        path: the file.
        eeg_ids: the test set, in any order.

    Returns:
        (n, 6) float64 in the order of `eeg_ids`.

    Raises:
        DataError: wrong columns or order, ids that are not the test set, values that are not probabilities.
    """
    table = read_table(path, ("eeg_id", *VOTE_COLUMNS))
    if table.columns != ["eeg_id", *VOTE_COLUMNS]:
        raise DataError(
            path, f"has columns {', '.join(table.columns)}", f"expected eeg_id, {', '.join(VOTE_COLUMNS)}"
        )
    place = {eeg_id: row for row, eeg_id in enumerate(table["eeg_id"].to_list())}
    if len(place) != len(table) or set(place) != set(eeg_ids):
        raise DataError(
            path, f"its {len(table)} ids are not the test set's {len(eeg_ids)}", "one row per eeg_id"
        )
    values_NK = (
        table.select(VOTE_COLUMNS).to_numpy().astype(np.float64)[[place[eeg_id] for eeg_id in eeg_ids]]
    )
    try:
        check_probabilities(values_NK)
    except HMSError as error:
        raise DataError(path, str(error), "it would be refused") from error
    return values_NK


def _predict_rows(
    model: LoadedModel, folder: Competition, test: pl.DataFrame, prior_NK: NDArray[np.float64], name: str
) -> tuple[NDArray[np.float64], dict[int, str]]:
    """(n, 6) probabilities of one model, the prior where there is no usable recording; and those rows' reasons."""
    probabilities_NK = prior_NK.copy()
    failures: dict[int, str] = {}
    n_batches = -(-len(test) // ROWS_AT_A_TIME)
    for start, crops in progress(_crops(folder, test, model.recipe.layout.sources), n_batches, name):
        good = [i for i, crop in enumerate(crops) if isinstance(crop, Crop)]
        for i, crop in enumerate(crops):
            if isinstance(crop, DataError):
                failures[test["eeg_id"][start + i]] = str(crop)
        if good:
            rows = np.array(good) + start
            probabilities_NK[rows] = model.predict([crops[i] for i in good])  # type: ignore[misc]
    bad = ~np.isfinite(probabilities_NK).all(axis=1)
    probabilities_NK[bad] = prior_NK[bad]
    failures |= {test["eeg_id"][int(row)]: "the model's output is not finite" for row in np.flatnonzero(bad)}
    return probabilities_NK, failures


def _crops(
    folder: Competition, test: pl.DataFrame, sources: Collection[Source]
) -> Iterator[tuple[int, list[Crop | DataError]]]:
    """Yield (first row, crops of a few rows), read by threads one batch ahead of the model."""
    eeg_ids, spectrogram_ids = test["eeg_id"].to_list(), test["spectrogram_id"].to_list()
    rows = list(zip(eeg_ids, spectrogram_ids, strict=True))
    with ThreadPoolExecutor(available_cpus(), "read") as pool:
        ahead = [
            pool.submit(_read_crop, folder, eeg_id, spectrogram_id, sources)
            for eeg_id, spectrogram_id in rows[:ROWS_AT_A_TIME]
        ]
        for start in range(0, len(rows), ROWS_AT_A_TIME):
            current = ahead
            following = rows[start + ROWS_AT_A_TIME : start + 2 * ROWS_AT_A_TIME]
            ahead = [
                pool.submit(_read_crop, folder, eeg_id, spectrogram_id, sources)
                for eeg_id, spectrogram_id in following
            ]
            yield start, [future.result() for future in current]


def _read_crop(
    folder: Competition, eeg_id: int, spectrogram_id: int, sources: Collection[Source]
) -> Crop | DataError:
    """The middle of a test recording; in the real test set the recordings are exactly as long as a crop."""
    try:
        log_power = eeg_uv = None
        if "kaggle" in sources:
            log_power = _middle(
                read_spectrogram(folder.spectrogram(spectrogram_id, "test"), SPECTROGRAM_ROWS),
                SPECTROGRAM_ROWS,
            )
        if "eeg" in sources:
            eeg_uv = _middle(read_eeg(folder.eeg(eeg_id, "test"), N_TIMES), N_TIMES)
        return Crop(log_power, eeg_uv)
    except DataError as error:
        return error


def _middle(values: NDArray[np.float16], length: int) -> NDArray[np.float16]:
    first = (len(values) - length) // 2
    return values[first : first + length]


def _failure_lines(failures: dict[int, str], most: int = 10) -> list[str]:
    lines = [f"  row {eeg_id} keeps the prior: {reason}" for eeg_id, reason in list(failures.items())[:most]]
    return lines + [f"  and {len(failures) - most} more"] * (len(failures) > most)
