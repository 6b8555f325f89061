"""Batches hold each record once, with the image that plain NumPy makes of the files."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from kagglehms.data.competition import Competition
from kagglehms.data.recordings import read_spectrogram
from kagglehms.data.records import Records, make_records, read_train_table
from kagglehms.data.store import Store, plan, prepare
from kagglehms.features.images import PANELS_BY_THEMSELVES
from kagglehms.learning.feed import Feed, shuffled


@pytest.fixture(scope="module")
def records(competition_folder: Path) -> Records:
    return make_records(read_train_table(competition_folder / "train.csv"))


@pytest.fixture(scope="module")
def store(competition_folder: Path, records: Records, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return prepare(plan(Competition(competition_folder), records), tmp_path_factory.mktemp("store")).store


def expected_image(folder: Path, records: Records, position: int) -> np.ndarray:
    """The baseline's image in float64: each panel normalised by itself, stacked."""
    row = records.frame.row(position, named=True)
    first = int((row["spectrogram_offset_min_s"] + row["spectrogram_offset_max_s"]) // 4)
    log_power = read_spectrogram(Competition(folder).spectrogram(row["spectrogram_id"])).astype(np.float64)
    panels = []
    for p in range(4):
        panel = log_power[first : first + 300, 100 * p : 100 * p + 100].T
        panel = (panel - np.nanmean(panel)) / (np.nanstd(panel) + 1e-6)
        panels.append(np.where(np.isnan(panel), 0, panel))
    return np.concatenate(panels)


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_hold_what_the_files_say(
    competition_folder: Path, records: Records, store: Store, threads: int
) -> None:
    feed = Feed(store, records, PANELS_BY_THEMSELVES, threads=threads)
    order = shuffled(np.arange(len(records)), seed=3, epoch=0)
    batches = list(feed.batches(order, batch_size=4))
    assert torch.cat([b.index_B for b in batches]).tolist() == order.tolist()
    assert [len(b.index_B) for b in batches[:-1]] == [4] * (len(batches) - 1)
    for batch in batches:
        assert batch.images_BCHW.shape[1:] == (1, 400, 300)
        for image_CHW, target_K, n, i in zip(
            batch.images_BCHW, batch.targets_BK, batch.n_votes_B, batch.index_B.tolist(), strict=True
        ):
            np.testing.assert_allclose(
                image_CHW[0], expected_image(competition_folder, records, i), atol=2e-5
            )
            np.testing.assert_allclose(target_K, records.targets_NK[i], rtol=1e-6)
            assert n == records.n_votes[i]


def test_an_epochs_order_depends_on_seed_and_epoch_alone() -> None:
    positions = np.arange(100)
    first = shuffled(positions, seed=1, epoch=0)
    assert sorted(first.tolist()) == positions.tolist()
    np.testing.assert_array_equal(first, shuffled(positions, seed=1, epoch=0))
    assert not np.array_equal(first, shuffled(positions, seed=1, epoch=1))
    assert not np.array_equal(first, shuffled(positions, seed=2, epoch=0))


def test_leaving_early_leaves_no_threads(records: Records, store: Store) -> None:
    before = threading.active_count()
    batches = Feed(store, records, PANELS_BY_THEMSELVES, threads=2).batches(np.arange(len(records)), 1)
    next(batches)
    assert threading.active_count() > before
    batches.close()
    assert threading.active_count() == before


def test_a_failing_recording_reaches_the_loop(records: Records, store: Store) -> None:
    class Broken:
        def spectrogram(self, spectrogram_id: int) -> np.ndarray:
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(Feed(Broken(), records, PANELS_BY_THEMSELVES).batches(np.arange(3), 2))
