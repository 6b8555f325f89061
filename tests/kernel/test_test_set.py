"""Recordings become images as everywhere else; each is read once, and what is kept of them has a bound."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from folders import copied, eeg_frame, spectrogram_frame

from kagglehms.data.competition import CHANNELS, SPECTROGRAM_COLUMNS, Competition
from kagglehms.inputs.drawing import stack
from kagglehms.inputs.layouts import KAGGLE_AND_EEG, LAYOUTS, PANELS_BY_THEMSELVES, Crop, Normaliser
from kagglehms.kernel.prior import read_rows
from kagglehms.kernel.test_set import CropCache, Missing, Reader, batches, slot_bytes

BOTH = ("kaggle", "eeg")


@pytest.fixture
def folder(competition_folder: Path, tmp_path: Path) -> Path:
    return copied(competition_folder, tmp_path / "competition")


def test_a_cache_that_fails_costs_time_only(folder: Path, tmp_path: Path) -> None:
    expected = images(reader_of(folder))
    cache = CropCache(tmp_path, 4, BOTH)
    reader = reader_of(folder, cache)
    np.testing.assert_array_equal(images(reader), expected)
    with Path(os.devnull).open("wb") as nothing:
        for descriptor in cache._files.values():
            os.dup2(nothing.fileno(), descriptor)  # which cannot be read
    np.testing.assert_array_equal(images(reader), expected)
    assert reader.files_read == 16
    assert reader.failures == {"kaggle": {}, "eeg": {}}
    cache.close()


def test_a_system_whose_threads_cannot_share_a_file_reads_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = images(reader_of(folder))
    monkeypatch.delattr(os, "preadv")
    monkeypatch.delattr(os, "pwrite")
    cache = CropCache(tmp_path, 4, BOTH)
    reader = reader_of(folder, cache)
    for _ in range(2):
        np.testing.assert_array_equal(images(reader), expected)
    assert reader.files_read == 16
    assert not list(tmp_path.glob("crops-*"))


def test_a_cache_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    for source in BOTH:
        (tmp_path / source).mkdir()
        (tmp_path / source / f"crops-{source}.f16").mkdir()
        with pytest.raises(OSError, match="Is a directory"):
            CropCache(tmp_path / source, 4, BOTH)
        assert [path.name for path in (tmp_path / source).iterdir()] == [f"crops-{source}.f16"]


def reader_of(folder: Path, cache: CropCache | None = None) -> Reader:
    competition = Competition(folder)
    return Reader(competition, read_rows(competition), cache or CropCache(None, 4, BOTH))


def images(reader: Reader, layout: str = "kaggle+eeg", **options: object) -> np.ndarray:
    drawn = batches(reader, range(len(reader.rows)), LAYOUTS[layout], _normaliser(), **options)  # type: ignore[arg-type]
    return np.concatenate([images.copy() for _, images in drawn])


def _normaliser() -> Normaliser:
    return Normaliser({"kaggle": (0.5, 2.0), "eeg": (0.0, 1.0)})


def test_images_are_those_of_the_recordings(folder: Path) -> None:
    test = pl.read_csv(folder / "test.csv")
    from kagglehms.data.readers import encode_eeg, encode_spectrogram

    crops = [
        Crop(
            encode_spectrogram(
                pl.read_parquet(Competition(folder).spectrogram(s, "test")).drop("time").to_numpy()
            ),
            encode_eeg(pl.read_parquet(Competition(folder).eeg(e, "test")).to_numpy()),
        )
        for s, e in test.select("spectrogram_id", "eeg_id").iter_rows()
    ]
    expected = stack(crops, KAGGLE_AND_EEG, _normaliser())
    for rows in (1, 3, 4, 99):
        np.testing.assert_array_equal(images(reader_of(folder), batch_rows=rows), expected)


@pytest.mark.parametrize("kept", [0, 2, 4])
def test_what_fits_the_budget_is_read_once_and_the_rest_again(
    folder: Path, tmp_path: Path, kept: int
) -> None:
    budget = kept * sum(map(slot_bytes, BOTH))
    reader = reader_of(folder, CropCache(tmp_path, 4, BOTH, budget))
    first = images(reader)
    assert reader.files_read == 8
    on_disk = sum(path.stat().st_blocks * 512 for path in tmp_path.glob("crops-*"))
    assert budget <= on_disk <= budget + 16_384
    np.testing.assert_array_equal(images(reader), first)
    assert reader.files_read == 8 + 2 * (4 - kept)
    reader.cache.close()
    assert not list(tmp_path.glob("crops-*"))


def test_a_disk_that_is_full_ends_the_keeping_and_not_the_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    reader = reader_of(folder, CropCache(tmp_path, 4, BOTH, 1 << 30))
    assert len(images(reader)) == 4
    assert reader.cache.rows == 0
    monkeypatch.setattr("os.pwrite", lambda fd, content, at: len(content) - 1)
    reader = reader_of(folder, CropCache(tmp_path, 4, BOTH, 1 << 30))
    np.testing.assert_array_equal(images(reader), images(reader))


def test_a_disk_with_little_room_keeps_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil
    from types import SimpleNamespace

    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: SimpleNamespace(free=(1 << 30) + 10 * slot_bytes("eeg"))
    )
    assert CropCache(tmp_path, 1000, ("eeg",)).rows == 10
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    assert CropCache(tmp_path, 1000, ("eeg",)).rows == 0


def test_recordings_that_cannot_be_used_are_left_out_and_named(folder: Path) -> None:
    test = pl.read_csv(folder / "test.csv")
    paths = [Competition(folder).spectrogram(i, "test") for i in test["spectrogram_id"].to_list()]
    paths[0].write_bytes(b"PAR1")
    middle_missing = spectrogram_frame(340).with_columns(pl.all().exclude("time").replace(0.0, 0.0))
    values = middle_missing.drop("time").to_numpy().copy()
    values[20:320] = np.nan
    middle_missing.select("time").hstack(
        pl.DataFrame(values, schema=list(SPECTROGRAM_COLUMNS))
    ).write_parquet(paths[1])
    eeg_frame(9_999).write_parquet(Competition(folder).eeg(test["eeg_id"][2], "test"))
    reader = reader_of(folder)
    got = [
        (rows.tolist(), len(found))
        for rows, found in batches(reader, range(4), KAGGLE_AND_EEG, _normaliser())
    ]
    assert got == [([3], 1)]
    assert set(reader.failures["kaggle"]) == {0, 1}
    assert "cannot be read" in reader.failures["kaggle"][0]
    assert "nothing but NaN in the part that models look at" in reader.failures["kaggle"][1]
    assert "9999 samples where at least 10000" in reader.failures["eeg"][2]
    read = reader.files_read
    assert [rows.tolist() for rows, _ in batches(reader, range(4), PANELS_BY_THEMSELVES)] == [[2, 3]]
    assert reader.files_read == read + 2, "a file that cannot be used is not read again"


def test_an_electrocardiogram_alone_is_no_eeg(folder: Path) -> None:
    """Images show differences of neighbouring electrodes: of these there is none, and a model would see zeros."""
    ids = pl.read_csv(folder / "test.csv")["eeg_id"].to_list()
    gone = pl.lit(None, pl.Float32)
    for eeg_id, kept in zip(ids, (("EKG",), ("Fz", "Cz", "F7", "O1"), ("Fp2", "F8")), strict=False):
        frame = eeg_frame().with_columns(gone.alias(name) for name in CHANNELS if name not in kept)
        frame.write_parquet(Competition(folder).eeg(eeg_id, "test"))
    reader = reader_of(folder)
    assert [rows.tolist() for rows, _ in batches(reader, range(4), LAYOUTS["eeg-summaries"])] == [[2, 3]]
    assert set(reader.failures["eeg"]) == {0, 1}


def test_whatever_goes_wrong_with_a_file_costs_its_row(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kagglehms.kernel import test_set

    real = test_set.read_spectrogram
    bad = pl.read_csv(folder / "test.csv")["spectrogram_id"][1]

    def fails(path: Path, rows: int) -> np.ndarray:
        if path.stem == str(bad):
            raise MemoryError
        return real(path, rows)

    monkeypatch.setattr(test_set, "read_spectrogram", fails)
    reader = reader_of(folder)
    assert [rows.tolist() for rows, _ in batches(reader, range(4), PANELS_BY_THEMSELVES)] == [[0, 2, 3]]
    assert reader.failures["kaggle"] == {1: "MemoryError"}


def test_an_image_that_cannot_be_drawn_is_no_fault_of_the_recordings(folder: Path) -> None:
    """Statistics are missing for one layout: others are drawn from the same recordings, and so is it with them."""
    reader, missing = reader_of(folder), list[Missing]()
    without = batches(reader, range(4), KAGGLE_AND_EEG, Normaliser(), missing=missing)
    assert [rows.tolist() for rows, _ in without] == [[]]
    assert sorted(row for row, _ in missing) == [0, 1, 2, 3]
    assert all(reason.startswith("cannot be drawn (") for _, reason in missing)
    assert reader.failures == {"kaggle": {}, "eeg": {}}
    for layout in ("eeg-summaries", "kaggle+eeg"):
        np.testing.assert_array_equal(images(reader, layout), images(reader_of(folder), layout))


def test_batches_that_nobody_wants_any_more_are_not_drawn(folder: Path) -> None:
    reader = reader_of(folder)
    drawn = batches(reader, [0] * 40, PANELS_BY_THEMSELVES, batch_rows=1)
    next(drawn)
    drawn.close()  # type: ignore[attr-defined]
    assert reader.files_read < 8


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_mirrored_image_differs_exactly_where_sides_can_be_seen(folder: Path, name: str) -> None:
    plain, other = images(reader_of(folder), name), images(reader_of(folder), name, mirror=True)
    assert LAYOUTS[name].sees_sides is not np.allclose(plain, other, atol=1e-4)
    if name == "panels":
        np.testing.assert_array_equal(
            other.reshape(4, 4, 100, 300)[:, [1, 0, 3, 2]], plain.reshape(4, 4, 100, 300)
        )
