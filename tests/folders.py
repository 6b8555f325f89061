"""Competition folders that a test may damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl

from kagglehms.data.competition import CHANNELS, SPECTROGRAM_COLUMNS, Competition
from kagglehms.data.records import Records


def copied(source: Path, target: Path) -> Path:
    """Copy a competition folder, so that the original stays whole."""
    return Path(shutil.copytree(source, target))


def eeg_frame(n_times: int = 10_000, seed: int = 0) -> pl.DataFrame:
    """A valid EEG file's table."""
    values = np.random.default_rng(seed).normal(0, 50, (n_times, len(CHANNELS))).astype(np.float32)
    return pl.DataFrame(values, schema=list(CHANNELS))


def spectrogram_frame(
    n_rows: int = 300, seed: int = 0, time_type: type[pl.DataType] = pl.Int64
) -> pl.DataFrame:
    """A valid spectrogram file's table."""
    values = (
        np.random.default_rng(seed).lognormal(1, 2, (n_rows, len(SPECTROGRAM_COLUMNS))).astype(np.float32)
    )
    time = pl.Series("time", 1 + 2 * np.arange(n_rows)).cast(time_type)
    return pl.DataFrame(values, schema=list(SPECTROGRAM_COLUMNS)).insert_column(0, time)


def power_of_record(folder: Path, records: Records, position: int) -> np.ndarray:
    """The raw power of a record's ten minutes, as a notebook would cut it out."""
    table = pl.read_parquet(Competition(folder).spectrogram(int(records.spectrogram_ids[position]))).drop(
        "time"
    )
    first = int(records.places()[0][position])
    return table.to_numpy()[first : first + 300]
