"""Statistics for global normalisation are the means of the training records' own, against loops in float64."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

from kagglehms.data.competition import VOTE_COLUMNS
from kagglehms.data.records import Records
from kagglehms.data.store import Store
from kagglehms.errors import RunError
from kagglehms.features import mel_images
from kagglehms.inputs.measuring import measure


def test_statistics_are_those_of_the_windows_that_are_seen(records: Records, store: Store) -> None:
    positions, (rows, _) = np.arange(len(records)), records.places("nearest")
    power = [
        store.spectrogram(int(id_))[row : row + 300].astype(np.float64)
        for id_, row in zip(records.spectrogram_ids, rows, strict=True)
    ]
    expected = np.mean([(np.nanmean(part), np.nanstd(part)) for part in power], axis=0)
    measured = measure(store, records, positions, {"kaggle"}, "nearest").statistics["kaggle"]
    np.testing.assert_allclose(measured, expected, rtol=1e-9)


class Uneven:
    """Recordings as unlike each other as can be: loud and quiet, with gaps, and one without any value."""

    def spectrogram(self, spectrogram_id: int) -> np.ndarray:
        draw = np.random.default_rng(spectrogram_id)
        log_power = draw.normal(spectrogram_id - 2, 0.3 * (1 + spectrogram_id), (300, 400)).astype(np.float16)
        log_power[: 40 * spectrogram_id] = np.nan
        log_power[:, 5 * spectrogram_id :: 50] = np.nan
        return np.full_like(log_power, np.nan) if spectrogram_id == EMPTY else log_power

    def eeg(self, eeg_id: int) -> np.ndarray:
        draw = np.random.default_rng(eeg_id)
        return draw.normal(0, 10 * (1 + eeg_id), (10_000, 20)).astype(np.float16)


EMPTY = 4


def uneven_records(n: int) -> Records:
    zeros = ("eeg_offset_min_s", "eeg_offset_max_s", "spectrogram_offset_min_s", "spectrogram_offset_max_s")
    columns = dict.fromkeys(VOTE_COLUMNS, [1] * n) | dict.fromkeys(zeros, [0.0] * n)
    return Records(pl.DataFrame(columns | {"eeg_id": list(range(n)), "spectrogram_id": list(range(n))}))


def test_global_statistics_are_the_means_of_the_training_records_own() -> None:
    """As the source measured them: record by record, then the mean. Against loops in float64."""
    train = [0, 2, 3, 4, 5]
    means, deviations, everything = [], [], []
    for i in train:
        values = [float(v) for v in Uneven().spectrogram(i).ravel() if not math.isnan(v)]
        if values:
            means.append(math.fsum(values) / len(values))
            squares = [(v - means[-1]) ** 2 for v in values]
            deviations.append(math.sqrt(math.fsum(squares) / len(values)))
            everything += values
    measured = measure(Uneven(), uneven_records(6), np.array(train), {"kaggle"}).statistics
    assert measured["kaggle"] == pytest.approx((np.mean(means), np.mean(deviations)), rel=1e-9)
    assert measured["kaggle"][1] < 0.9 * np.std(everything)  # the pooled one is another number
    assert measure(Uneven(), uneven_records(2), np.arange(2), set()).statistics == {}


def test_global_statistics_of_the_eeg_are_those_of_its_mel_images() -> None:
    images = [mel_images(Uneven().eeg(i)[None])[0].astype(np.float64) for i in (0, 3)]
    expected = np.mean([image.mean() for image in images]), np.mean([image.std() for image in images])
    measured = measure(Uneven(), uneven_records(4), np.array([0, 3]), {"eeg"}).statistics
    assert measured["eeg"] == pytest.approx(expected, rel=1e-6)


def test_records_without_any_value_cannot_be_measured() -> None:
    with pytest.raises(RunError, match="none of 1 training records has a single kaggle value"):
        measure(Uneven(), uneven_records(6), np.array([EMPTY]), {"kaggle"})
