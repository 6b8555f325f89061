"""How records are drawn depends on (seed, epoch, record) alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kagglehms.data.records import Records, read_records
from kagglehms.training.feed_draws import FeedDraws, Work


@pytest.fixture(scope="module")
def records(competition_folder: Path) -> Records:
    return read_records(competition_folder / "train.csv")


def test_random_windows_lie_between_the_first_and_the_last_and_change_by_epoch(records: Records) -> None:
    seen: dict[int, list[tuple[int, int]]] = {}
    draws = FeedDraws(records, 5, "random")
    everything = np.arange(len(records))
    for epoch in range(40):
        rows, samples = draws.starts(Work(everything, epoch))
        again, _ = FeedDraws(records, 5, "random").starts(Work(everything, epoch))
        np.testing.assert_array_equal(rows, again)
        some, _ = draws.starts(Work(everything[3:5], epoch))
        np.testing.assert_array_equal(some, rows[3:5])  # whatever batch a record is in
        for i in everything.tolist():
            seen.setdefault(i, []).append((int(rows[i]), int(samples[i])))
    frame = records.frame
    for i, starts in seen.items():
        low, high = frame["eeg_offset_min_s"][i], frame["eeg_offset_max_s"][i]
        first = frame["spectrogram_offset_min_s"][i]
        assert all(low * 200 <= sample <= high * 200 for _, sample in starts)
        # Both recordings move together: rows are 2 s apart, samples 1 / 200 s.
        assert all(abs((2 * row - first) - (sample / 200 - low)) <= 2 for row, sample in starts)
        assert len(set(starts)) > 30 if high - low > 10 else len(set(starts)) <= 11 * 200
    assert any(frame["eeg_offset_max_s"][i] - frame["eeg_offset_min_s"][i] > 10 for i in seen)
    middle, _ = draws.starts(Work(everything, None))
    np.testing.assert_array_equal(middle, records.places()[0])
