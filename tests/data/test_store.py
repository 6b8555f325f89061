"""A store returns what its files hold, and refuses files that have changed."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
from folders import copied

from kagglehms.data.competition import Competition
from kagglehms.data.preparing import prepare, recordings_of
from kagglehms.data.readers import read_eeg, read_spectrogram
from kagglehms.data.records import read_records
from kagglehms.data.store import Store
from kagglehms.errors import DataError, DataErrors, UsageError


@pytest.fixture(scope="module")
def made(competition_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    competition, path = Competition(competition_folder), tmp_path_factory.mktemp("store")
    prepare(recordings_of(competition, read_records(competition.train_csv)), path)
    return path


def test_it_holds_what_the_files_hold(competition_folder: Path, made: Path) -> None:
    store, competition = Store(made), Competition(competition_folder)
    records = read_records(competition.train_csv)
    for eeg_id in records.eeg_ids.tolist():
        np.testing.assert_array_equal(store.eeg(eeg_id), read_eeg(competition.eeg(eeg_id)))
    for spectrogram_id in records.spectrogram_ids.tolist():
        expected = read_spectrogram(competition.spectrogram(spectrogram_id))
        np.testing.assert_array_equal(store.spectrogram(spectrogram_id), expected)
    assert {entry.id for entry in store.entries} == {*records.eeg_ids, *records.spectrogram_ids}
    store.verify()


def test_damage_to_a_finished_store_is_found(made: Path, tmp_path: Path) -> None:
    store = copied(made, tmp_path / "store")
    index, data = store / "store.json", store / "spectrogram.f16"
    whole = data.read_bytes()
    data.write_bytes(whole[:4000] + bytes([whole[4000] ^ 1]) + whole[4001:])
    with pytest.raises(DataErrors, match=r"recording \d+ has changed"):
        Store(store).verify()
    data.write_bytes(whole[:-2])
    with pytest.raises(DataError, match="where the index says"):
        Store(store)
    data.unlink()
    with pytest.raises(DataError, match="is missing"):
        Store(store)
    data.write_bytes(whole)
    index.write_bytes(index.read_bytes().replace(b'"length": 1', b'"length": 2', 1))
    with pytest.raises(DataError, match="fingerprint"):
        Store(store)
    index.write_bytes(b"{}")
    with pytest.raises(DataError, match="no index of a store"):
        Store(store)


def test_every_flipped_bit_is_found_by_the_first_use_and_by_a_check(made: Path, tmp_path: Path) -> None:
    draw, store = random.Random(0), copied(made, tmp_path / "store")
    for kind in ("eeg", "spectrogram"):
        data = store / f"{kind}.f16"
        whole = data.read_bytes()
        for _ in range(20):
            at, bit = draw.randrange(len(whole)), 1 << draw.randrange(8)
            data.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
            opened, used = Store(store), 0
            with pytest.raises(DataErrors, match=f"{kind}.f16: recording .* has changed"):
                opened.verify()
            for entry in opened.entries:
                try:
                    opened._recording(entry.kind, entry.id)
                except DataError:
                    continue
                used += 1
            assert used == len(opened.entries) - 1
        data.write_bytes(whole)
    Store(store).verify()


def test_a_checksum_is_compared_once_and_the_size_every_time(made: Path, tmp_path: Path) -> None:
    store = copied(made, tmp_path / "store")
    opened = Store(store)
    first, *_, last = [entry.id for entry in opened.entries if entry.kind == "eeg"]
    opened.eeg(first)
    os.truncate(store / "eeg.f16", 4096)
    for eeg_id in (first, last):
        with pytest.raises(
            DataError, match="eeg.f16: was cut short while it was in use: 4096 bytes are left"
        ):
            opened.eeg(eeg_id)


@pytest.mark.parametrize("key", ["id", "length", "source_bytes", "crc32", "kind", "source_crc32"])
@pytest.mark.parametrize("value", ["text", [], {}, 1.5, True, None, "no such key"])
def test_an_index_with_values_of_other_types_is_refused(
    made: Path, tmp_path: Path, key: str, value: object
) -> None:
    content = json.loads((made / "store.json").read_bytes())
    content["entries"][1][key] = value
    if value == "no such key":
        del content["entries"][1][key]
    (tmp_path / "store.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"store.json: is no index of a store"):
        Store(tmp_path)


def test_what_is_not_in_it_is_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no eeg 5"):
        Store(made).eeg(5)
    with pytest.raises(UsageError, match="no store; run `kagglehms prepare"):
        Store(tmp_path)
