"""Small tables in the form of train.csv."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from kagglehms.data.competition import VOTE_COLUMNS

NAMES = ("Seizure", "LPD", "GPD", "LRDA", "GRDA", "Other")


def table_of(rows: list[tuple[int, int, float, float, tuple[int, ...]]]) -> pl.DataFrame:
    """Rows of (eeg_id, eeg_sub_id, EEG offset, spectrogram offset, votes); three EEGs to a patient."""
    return pl.DataFrame(
        {
            "eeg_id": [r[0] for r in rows],
            "eeg_sub_id": [r[1] for r in rows],
            "eeg_label_offset_seconds": [r[2] for r in rows],
            "spectrogram_id": [10_000 + r[0] for r in rows],
            "spectrogram_sub_id": [r[1] for r in rows],
            "spectrogram_label_offset_seconds": [r[3] for r in rows],
            "label_id": list(range(len(rows))),
            "patient_id": [r[0] // 3 for r in rows],
            "expert_consensus": [NAMES[int(np.argmax(r[4]))] for r in rows],
            **{name: [r[4][k] for r in rows] for k, name in enumerate(VOTE_COLUMNS)},
        }
    )


def written(table: pl.DataFrame, tmp_path: Path) -> Path:
    table.write_csv(tmp_path / "train.csv")
    return tmp_path / "train.csv"


GOOD = table_of(
    [
        (7, 0, 0.0, 40.0, (3, 0, 0, 0, 0, 0)),
        (7, 1, 2.0, 42.0, (0, 0, 0, 2, 0, 9)),
        (7, 2, 9.0, 49.0, (3, 0, 0, 0, 0, 0)),
        (1, 0, 1.0, 5.0, (0, 1, 0, 0, 0, 0)),
    ]
)
