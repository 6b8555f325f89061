"""Batches hold each record once, with the image that plain NumPy makes of the files."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from kagglehms.data.competition import VOTE_COLUMNS, Competition
from kagglehms.data.readers import read_spectrogram
from kagglehms.data.records import Records
from kagglehms.data.store import Store
from kagglehms.features import ZoomSpec, zoomed_image
from kagglehms.inputs.crops import crop_of
from kagglehms.inputs.drawing import mirrored, stack
from kagglehms.inputs.kinds import Zoomed
from kagglehms.inputs.layouts import KAGGLE_AND_EEG, PANELS_BY_THEMSELVES, Crop, Normaliser
from kagglehms.training.batches import shuffled
from kagglehms.training.feed import Feed, drawing_threads
from kagglehms.training.feed_draws import FeedDraws, Work
from kagglehms.training.options import BandPass

NORMALISER = Normaliser({"kaggle": (1.0, 2.0)})


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
    sizes = [len(b.index_B) for b in batches]
    assert len(sizes) == -(-len(order) // 4)
    assert max(sizes) <= 4
    assert max(sizes) - min(sizes) <= 1
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


def test_the_nearest_windows_are_seen_in_training_and_evaluation_alike(
    records: Records, store: Store
) -> None:
    everything = np.arange(len(records))
    rows, samples = records.places("nearest")
    assert (samples != records.places()[1]).any()
    feed = Feed(store, records, KAGGLE_AND_EEG, windows="nearest", normaliser=NORMALISER)
    drawn = [
        np.concatenate([batch.images_BCHW.numpy() for batch in feed.draw([Work(everything, epoch)])])
        for epoch in (None, 3)
    ]
    expected = stack(
        [
            Crop(
                store.spectrogram(spectrogram_id)[row : row + 300],
                store.eeg(eeg_id)[sample : sample + 10_000],
            )
            for spectrogram_id, eeg_id, row, sample in zip(
                records.spectrogram_ids.tolist(), records.eeg_ids.tolist(), rows, samples, strict=True
            )
        ],
        KAGGLE_AND_EEG,
        NORMALISER,
    )
    for images in drawn:
        np.testing.assert_array_equal(images, expected)
    position = int(np.flatnonzero(samples != records.places()[1])[0])
    crop = crop_of(store, records, position, {"eeg"}, "nearest")
    first = int(samples[position])
    eeg = store.eeg(int(records.eeg_ids[position]))
    np.testing.assert_array_equal(crop.of("eeg"), eeg[first : first + 10_000])


def test_half_of_the_records_are_mirrored_by_seed_epoch_and_record(records: Records, store: Store) -> None:
    layout, everything = KAGGLE_AND_EEG, np.arange(len(records))
    feed = Feed(store, records, layout, NORMALISER, seed=3)
    plain = next(feed.draw([Work(everything)])).images_BCHW
    swapped = np.stack(
        [
            stack([mirrored(crop_of(store, records, i, layout.sources))], layout, NORMALISER)[0]
            for i in everything.tolist()
        ]
    )
    patterns = []
    for epoch in range(20):
        images = next(feed.draw([Work(everything, epoch, mirror=0.5)])).images_BCHW.numpy()
        is_mirrored = [np.array_equal(images[i], swapped[i]) for i in everything.tolist()]
        assert all(m or np.array_equal(images[i], plain[i]) for i, m in enumerate(is_mirrored))
        some = next(feed.draw([Work(everything[2:4], epoch, mirror=0.5)])).images_BCHW.numpy()
        np.testing.assert_array_equal(some, images[2:4])  # whatever batch a record is in
        patterns.append(tuple(is_mirrored))
    assert len(set(patterns)) > 1
    n = 20 * len(everything)
    assert abs(np.sum(patterns) - n / 2) < 4 * np.sqrt(n / 4)


class Cut:
    """A recording of so many rows, that notes where it is cut."""

    def __init__(self, n_rows: int, n_columns: int, starts: list[int]) -> None:
        self.shape, self.starts = (n_rows, n_columns), starts

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice) -> np.ndarray:
        self.starts.append(part.start)
        assert 0 <= part.start <= part.stop <= self.shape[0]
        return np.ones((part.stop - part.start, self.shape[1]), np.float16)


class Long:
    """EEGs of 100 s, and spectrograms of 16 minutes; of record 1 there are only the 50 s and the ten minutes."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.samples: list[int] = []

    def spectrogram(self, spectrogram_id: int) -> Cut:
        return Cut(300 if spectrogram_id == 1 else 480, 400, self.rows)

    def eeg(self, eeg_id: int) -> Cut:
        return Cut(10_000 if eeg_id == 1 else 20_000, 20, self.samples)


def starts_of(work: Work, seed: int = 0) -> tuple[list[int], list[int]]:
    """Where the spectrograms and the EEGs of three records are cut: the middle 50 s of 100 s, all, the first 50 s."""
    columns = dict.fromkeys(VOTE_COLUMNS, [1] * 3)
    eeg_s, spectrogram_s = [25.0, 0.0, 0.0], [180.0, 0.0, 180.0]
    offsets = {
        f"{what}_offset_{end}_s": values
        for what, values in (("eeg", eeg_s), ("spectrogram", spectrogram_s))
        for end in ("min", "max")
    }
    frame = pl.DataFrame(columns | offsets | {"eeg_id": [0, 1, 2], "spectrogram_id": [0, 1, 2]})
    recordings = Long()
    feed = Feed(recordings, Records(frame), KAGGLE_AND_EEG, NORMALISER, seed=seed, threads=1)  # type: ignore[arg-type]
    list(feed.draw([work]))
    return recordings.rows, recordings.samples


def test_windows_are_moved_as_far_as_there_is_a_recording() -> None:
    everything = np.arange(3)
    seen = []
    for epoch in range(200):
        rows, samples = starts_of(Work(everything, epoch, shift_s=50 / 3))
        seen.append(samples)
        assert rows[1] == samples[1] == 0  # nothing lies beyond
        for record, (first_row, first) in ((0, (90, 5_000)), (2, (90, 0))):
            moved_s = (samples[record] - first) / 200
            assert abs((rows[record] - first_row) * 2 - moved_s) <= 1  # both recordings move together
            assert abs(moved_s) <= 50 / 3 + 0.0025
    moved = np.array(seen)[:, 0] - 5_000
    assert moved.min() < -0.95 * 10_000 / 3
    assert moved.max() > 0.95 * 10_000 / 3
    assert abs(moved.mean()) < 4 * 10_000 / 3 / np.sqrt(3 * 200)  # of a uniform draw
    at_the_start = [samples[2] for samples in seen]
    assert min(at_the_start) == 0
    assert 70 < at_the_start.count(0) < 130  # half of the shifts would lead out of the recording


def test_shifts_depend_on_seed_epoch_and_record_and_are_for_training_alone() -> None:
    everything = np.arange(3)
    rows, samples = starts_of(Work(everything, 4, shift_s=10))
    assert starts_of(Work(everything, 4, shift_s=10)) == (rows, samples)
    assert starts_of(Work(everything[[2, 0]], 4, shift_s=10)) == (
        [rows[2], rows[0]],
        [samples[2], samples[0]],
    )
    assert starts_of(Work(everything, 5, shift_s=10))[1] != samples
    assert starts_of(Work(everything, 4, shift_s=10), seed=1)[1] != samples
    for still in (Work(everything, 4), Work(everything, None, shift_s=10)):
        assert starts_of(still) == ([90, 0, 90], [5_000, 0, 0])


def test_some_records_pass_a_band_before_their_spectra_are_made(
    records: Records, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By seed, epoch and record, in training alone, and the images are those of the filtered recordings."""
    layout, everything = Zoomed(ZoomSpec(n_mels=2)), np.arange(len(records))
    band = BandPass(0.5, low_hz=(0.5, 2.0), high_hz=(10.0, 20.0))
    seen: list[list[tuple[float, float] | None]] = []

    class Spied(FeedDraws):
        def bands_hz(self, work: Work) -> list[tuple[float, float] | None]:
            seen.append(super().bands_hz(work))
            return seen[-1]

    monkeypatch.setattr("kagglehms.training.feed.FeedDraws", Spied)
    feed = Feed(store, records, layout, seed=3)
    for epoch in range(30):
        images = next(feed.draw([Work(everything, epoch, band=band)])).images_BCHW.numpy()
        for position, band_hz in enumerate(seen[-1][:3]):
            eeg_uv = crop_of(store, records, position, {"eeg"}).of("eeg")
            wanted = zoomed_image(eeg_uv, spec=layout.zoom, band_hz=band_hz)
            np.testing.assert_array_equal(images[position], wanted)
    drawn = [edges for edges_B in seen for edges in edges_B]
    filtered = np.array([edges for edges in drawn if edges is not None])
    assert abs(len(filtered) - len(drawn) / 2) < 4 * np.sqrt(len(drawn) / 4)
    for edges, (least, most) in zip(filtered.T, (band.low_hz, band.high_hz), strict=True):
        assert least <= edges.min() < least + 0.1 * (most - least)
        assert most - 0.1 * (most - least) < edges.max() <= most
    next(feed.draw([Work(everything[[5, 2]], 7, band=band)]))
    assert seen[-1] == [seen[7][5], seen[7][2]]  # whatever batch a record is in
    next(feed.draw([Work(everything, None, band=band)]))
    assert seen[-1] == [None] * len(everything)
    next(Feed(store, records, layout, seed=4).draw([Work(everything, 7, band=band)]))
    assert seen[-1] != seen[7]


@pytest.mark.parametrize(
    ("n_cpus", "alone", "beside_gpu"), [(1, 1, 1), (2, 2, 1), (4, 4, 3), (5, 5, 4), (64, 64, 4)]
)
def test_a_gpus_loop_has_a_cpu_of_its_own(n_cpus: int, alone: int, beside_gpu: int) -> None:
    assert drawing_threads(n_cpus, beside_gpu=False) == alone
    assert drawing_threads(n_cpus, beside_gpu=True) == beside_gpu
