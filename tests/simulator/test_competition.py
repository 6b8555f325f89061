"""The simulated competition: real formats, real conventions, truth apart, the same bytes for any number of jobs."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from oracles_spectrogram import spectrogram_rows

from kagglehms.data.competition import (
    CHANNELS,
    CLASSES,
    CONSENSUS_NAMES,
    FREQUENCIES_HZ,
    SPECTROGRAM_COLUMNS,
    VOTE_COLUMNS,
    Competition,
    truth_folder,
)
from kagglehms.errors import UsageError
from kagglehms.simulator import competition
from kagglehms.simulator.competition import SimulatedTruth, make_competition
from kagglehms.simulator.signal import Patient, Segment, simulate_study, spectrogram
from kagglehms.simulator.studies import LAST_EEG_OFFSET_S, Study, draw_studies
from kagglehms.simulator.votes import CLASS_MEANS, RECORDS_BY_VOTES

N_EEGS, N_TEST, SEED = 12, 2, 0
TRAIN_SCHEMA = {
    "eeg_id": pl.Int64,
    "eeg_sub_id": pl.Int64,
    "eeg_label_offset_seconds": pl.Float64,
    "spectrogram_id": pl.Int64,
    "spectrogram_sub_id": pl.Int64,
    "spectrogram_label_offset_seconds": pl.Float64,
    "label_id": pl.Int64,
    "patient_id": pl.Int64,
    "expert_consensus": pl.String,
} | dict.fromkeys(VOTE_COLUMNS, pl.Int64)


def digests(root: Path) -> dict[str, str]:
    """sha256 of every file below the competition's folder and its truth's."""
    paths = [path for base in (root, truth_folder(root)) for path in base.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(root.parent)).replace(root.name, "", 1): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in paths
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SimulatedTruth]:
    root = tmp_path_factory.mktemp("simulated") / "hms"
    return root, make_competition(root, N_EEGS, N_TEST, SEED, jobs=2)


@pytest.fixture(scope="module")
def root(made: tuple[Path, SimulatedTruth]) -> Path:
    return made[0]


@pytest.fixture(scope="module")
def train(root: Path) -> pl.DataFrame:
    return pl.read_csv(root / "train.csv")


@pytest.fixture(scope="module")
def large_plan() -> list[Study]:
    return draw_studies(3000, 500, np.random.default_rng(0))


# ---- formats ----


def test_tables_have_the_real_columns_and_types(root: Path, train: pl.DataFrame) -> None:
    assert dict(train.schema) == TRAIN_SCHEMA
    assert train["eeg_id"].n_unique() == N_EEGS
    assert train["label_id"].n_unique() == len(train)
    votes = train.select(VOTE_COLUMNS).to_numpy()
    consensus = [CONSENSUS_NAMES[name] for name in train["expert_consensus"]]
    assert (votes[np.arange(len(votes)), consensus] == votes.max(axis=1)).all()

    test = pl.read_csv(root / "test.csv")
    assert test.columns == ["spectrogram_id", "eeg_id", "patient_id"]
    assert len(test) == N_TEST
    submission = pl.read_csv(root / "sample_submission.csv")
    assert submission.columns == ["eeg_id", *VOTE_COLUMNS]
    assert submission["eeg_id"].to_list() == test["eeg_id"].to_list()
    assert (submission.select(VOTE_COLUMNS).to_numpy() == 1 / 6).all()
    assert (root / "sample_submission.csv").read_text().splitlines()[1].endswith(",0.16666666666666666")


def test_every_recording_of_the_tables_exists_and_no_other(root: Path, train: pl.DataFrame) -> None:
    test = pl.read_csv(root / "test.csv")
    for split, table in (("train", train), ("test", test)):
        for kind in ("eeg", "spectrogram"):
            files = {int(path.stem) for path in (root / f"{split}_{kind}s").iterdir()}
            assert files == set(table[f"{kind}_id"].to_list())


def test_eeg_files(root: Path, train: pl.DataFrame) -> None:
    competition = Competition(root)
    last = train.group_by("eeg_id").agg(pl.col("eeg_label_offset_seconds").max())
    lost = 0
    for eeg_id, last_offset_s in last.rows():
        frame = pl.read_parquet(competition.eeg(eeg_id))
        assert dict(frame.schema) == dict.fromkeys(CHANNELS, pl.Float32)
        assert len(frame) == 200 * (50 + last_offset_s)
        uv = frame.to_numpy()
        lost += int(np.isnan(uv).any())
        assert np.count_nonzero(np.nanstd(uv[:, :19], axis=0) < 3) <= 2  # electrodes that lie flat
        assert 3 < np.nanmedian(np.nanstd(uv[:, :19], axis=0)) < 200
    assert 1 <= lost < N_EEGS
    for eeg_id in pl.read_csv(root / "test.csv")["eeg_id"]:
        frame = pl.read_parquet(competition.eeg(eeg_id, "test"))
        assert dict(frame.schema) == dict.fromkeys(CHANNELS, pl.Float32)
        assert len(frame) == 10_000


def test_spectrogram_files(root: Path, train: pl.DataFrame) -> None:
    competition = Competition(root)
    last = train.group_by("spectrogram_id").agg(pl.col("spectrogram_label_offset_seconds").max())
    expected = {"time": pl.Int64} | dict.fromkeys(SPECTROGRAM_COLUMNS, pl.Float32)
    lost = 0
    for spectrogram_id, last_offset_s in last.rows():
        frame = pl.read_parquet(competition.spectrogram(spectrogram_id))
        assert dict(frame.schema) == expected
        assert len(frame) == 300 + last_offset_s // 2
        assert frame["time"].to_list() == list(range(1, 2 * len(frame), 2))
        power = frame.select(SPECTROGRAM_COLUMNS).to_numpy()
        gone = np.isnan(power)
        assert (gone.any(axis=1) == gone.all(axis=1)).all()
        lost += int(gone.any())
        assert np.nanmin(power) >= 0
        assert 0.1 < np.nanmedian(power) < 30
    assert lost >= 1
    for spectrogram_id in pl.read_csv(root / "test.csv")["spectrogram_id"]:
        frame = pl.read_parquet(competition.spectrogram(spectrogram_id, "test"))
        assert dict(frame.schema) == expected | {"time": pl.Int16}
        assert len(frame) == 300


# ---- conventions ----


def test_sub_windows_are_numbered_in_order_of_time(train: pl.DataFrame) -> None:
    for unit in ("eeg", "spectrogram"):
        for _, group in train.group_by(f"{unit}_id", maintain_order=True):
            assert group[f"{unit}_sub_id"].to_list() == list(range(len(group)))
            offsets = group[f"{unit}_label_offset_seconds"]
            assert offsets[0] == 0
            assert (offsets.diff().drop_nulls() > 0).all()


def test_an_eeg_lies_at_one_place_of_its_spectrogram(train: pl.DataFrame) -> None:
    shift = pl.col("spectrogram_label_offset_seconds") - pl.col("eeg_label_offset_seconds")
    places = train.group_by("eeg_id").agg(
        shift.n_unique().alias("shifts"), pl.col("spectrogram_id").n_unique().alias("spectrograms")
    )
    assert places["shifts"].to_list() == [1] * N_EEGS
    assert places["spectrograms"].to_list() == [1] * N_EEGS
    assert train.group_by("spectrogram_id").agg(pl.col("eeg_id").n_unique())["eeg_id"].max() > 1


def test_the_spectrogram_is_the_eegs_at_the_right_rows(root: Path, train: pl.DataFrame) -> None:
    """SciPy's multitaper of each stored EEG equals the stored rows, and those of no other place."""
    competition = Competition(root)
    checked = shared = 0
    for row in train.filter(pl.col("eeg_sub_id") == 0).iter_rows(named=True):
        uv_TC = pl.read_parquet(competition.eeg(row["eeg_id"])).to_numpy()
        stored = pl.read_parquet(competition.spectrogram(row["spectrogram_id"])).drop("time").to_numpy()
        # The window at EEG offset 0 is centred 300 s after its spectrogram offset; it starts 25 s earlier.
        start_s = row["spectrogram_label_offset_seconds"] + 300 - 25
        if np.isnan(uv_TC).any():
            continue
        rows, power = spectrogram_rows(uv_TC, start_s)
        there, beside = stored[rows], stored[rows + 1]
        if np.isnan(there).any():
            continue
        assert np.abs(np.log((power + 0.05) / (there + 0.05))).mean() < 0.02
        assert np.abs(np.log((power + 0.05) / (beside + 0.05))).mean() > 0.2
        checked += 1
        shared += int(start_s != 275)
    assert checked >= N_EEGS - 3
    assert shared >= 1


def test_rows_are_lost_just_where_samples_are(root: Path, train: pl.DataFrame) -> None:
    competition = Competition(root)
    lost = 0
    for row in train.filter(pl.col("eeg_sub_id") == 0).iter_rows(named=True):
        gone = np.isnan(pl.read_parquet(competition.eeg(row["eeg_id"])).to_numpy())
        assert (gone.any(axis=1) == gone.all(axis=1)).all()
        stored = pl.read_parquet(competition.spectrogram(row["spectrogram_id"])).drop("time").to_numpy()
        start_s = int(row["spectrogram_label_offset_seconds"]) + 275
        for number in range((start_s + 2) // 2, (start_s + len(gone) // 200 - 3) // 2):
            first = (2 * number + 1 - start_s - 2) * 200
            window = gone[first : first + 800]
            assert np.isnan(stored[number]).any() == window.any()
            lost += int(window.any())
    assert lost > 0


def test_a_seizure_shows_in_its_segment_of_eeg_and_spectrogram() -> None:
    patient = Patient(level_uv=20)
    certain = Segment(290, 320, (1, 0, 0, 0, 0, 0))
    uv_CT = simulate_study(620, [(certain,)], patient, np.random.default_rng(1))
    power = spectrogram(uv_CT, 310).reshape(310, 4, 100)
    hz = np.array(FREQUENCIES_HZ)
    theta = power[:, :, (hz > 3) & (hz < 8)].mean(axis=(1, 2))
    quiet = np.concatenate([theta[:125], theta[190:]])
    assert np.median(theta[145:160]) > 1.5 * np.quantile(quiet, 0.95)
    std_uv = uv_CT[:19, 4 * 200 :].reshape(19, -1, 200).std(axis=2).max(axis=0)
    assert std_uv[290:320].mean() > 1.3 * std_uv[:250].mean()


@pytest.mark.parametrize(
    ("name", "lateral"), [("lpd", True), ("gpd", False), ("lrda", True), ("grda", False)]
)
def test_patterns_are_on_one_side_or_on_both(name: str, lateral: bool) -> None:
    patient = Patient(level_uv=20)
    truth = tuple(float(known == name) for known in CLASSES)
    none = tuple(float(known == "other") for known in CLASSES)
    hz = np.array(FREQUENCIES_HZ)
    excess = []
    for seed in range(2):
        for probabilities in (truth, none):
            segments = [(Segment(50, 250, probabilities),)]
            uv_CT = simulate_study(300, segments, patient, np.random.default_rng(seed))
            power = spectrogram(uv_CT, 150)[25:125].reshape(100, 2, 2, 100)[..., hz < 4]
            excess.append(power.mean(axis=(0, 1, 3)))
    ratio = np.array(excess).reshape(2, 2, 2)
    ratio = np.sort(ratio[:, 0] / ratio[:, 1], axis=1)
    weak, strong = ratio.T
    assert (strong > 1.3).all()
    assert ((strong - 1) > 3 * (weak - 1)).all() if lateral else (weak > 1.3).all()


# ---- labels ----


def test_votes_follow_the_real_distribution(large_plan: list[Study]) -> None:
    labels = [(s.split, r, label) for s in large_plan for r in s.recordings for label in r.labels]
    counts = np.array([sum(label.votes) for split, _, label in labels if split == "train"])
    assert set(counts.tolist()) <= set(RECORDS_BY_VOTES)
    assert not {8, 9} & set(counts.tolist())
    assert np.mean(counts <= 3) == pytest.approx(11_763 / 20_125, abs=0.03)
    assert np.mean((counts >= 4) & (counts <= 7)) == pytest.approx(2_033 / 20_125, abs=0.02)
    assert np.mean(counts >= 10) == pytest.approx(6_329 / 20_125, abs=0.03)
    assert min(sum(label.votes) for split, _, label in labels if split == "test") >= 10
    truth = np.array([label.probabilities for _, _, label in labels])
    np.testing.assert_allclose(truth.sum(axis=1), 1)
    np.testing.assert_allclose(truth.mean(axis=0), CLASS_MEANS, atol=0.05)
    # Votes are draws from the truth: their mean is the truth's mean, within four standard errors.
    fractions = np.array([np.array(label.votes) / sum(label.votes) for _, _, label in labels])
    difference = fractions - truth
    error = difference.std(axis=0) / np.sqrt(len(difference))
    assert (np.abs(difference.mean(axis=0)) < 4 * error).all()
    # Some truths are clear and some are not.
    assert np.mean(truth.max(axis=1) > 0.9) > 0.2
    assert np.mean(truth.max(axis=1) < 0.6) > 0.1


def test_structure_of_a_large_plan(large_plan: list[Study]) -> None:
    recordings = [r for s in large_plan if s.split == "train" for r in s.recordings]
    assert len(recordings) == 3000
    assert sum(s.split == "test" for s in large_plan) == 500
    assert len({r.eeg_id for s in large_plan for r in s.recordings}) == 3500
    assert len({s.spectrogram_id for s in large_plan}) == len(large_plan)
    assert {len(r.labels) for r in recordings} >= {1, 2, 3}
    assert max(r.last_offset_s for r in recordings) <= LAST_EEG_OFFSET_S
    assert max(s.n_rows for s in large_plan) < 1800
    patients = {split: {s.patient_id for s in large_plan if s.split == split} for split in ("train", "test")}
    assert not patients["train"] & patients["test"]
    assert len(patients["train"]) < 3000 / 1.5
    assert [s.index for s in large_plan] == list(range(len(large_plan)))


def test_the_default_size_has_every_class() -> None:
    for seed in range(20):
        studies = draw_studies(160, 40, np.random.default_rng(seed))
        votes = np.array(
            [v.votes for s in studies if s.split == "train" for r in s.recordings for v in r.labels]
        )
        assert set(votes.argmax(axis=1).tolist()) == set(range(6))


def test_an_easy_plan_is_clear_and_balanced() -> None:
    studies = draw_studies(600, 40, np.random.default_rng(0), easy=True)
    labels = [label for s in studies for r in s.recordings for label in r.labels]
    assert min(sum(label.votes) for label in labels) >= 10
    truth = np.array([label.probabilities for label in labels])
    assert np.bincount(truth.argmax(axis=1), minlength=6).min() > 0.08 * len(labels)
    usual = draw_studies(600, 40, np.random.default_rng(0))
    usual_truth = np.array([label.probabilities for s in usual for r in s.recordings for label in r.labels])
    assert np.mean(truth.max(axis=1) > 0.8) > np.mean(usual_truth.max(axis=1) > 0.8) + 0.2


def test_an_easy_competition_is_another_one(tmp_path: Path) -> None:
    make_competition(tmp_path / "hms", 1, 1, easy=True)
    note = json.loads((truth_folder(tmp_path / "hms") / "competition.json").read_text())
    assert note["easy"] == 1
    with pytest.raises(UsageError, match="give a new"):
        make_competition(tmp_path / "hms", 1, 1)


# ---- truth ----


def test_truth_is_beside_the_folder_and_not_in_it(made: tuple[Path, SimulatedTruth]) -> None:
    root, truth = made
    assert truth.path.parent == root.with_name("hms-truth")
    table = pl.read_csv(truth.path)
    assert table.columns == ["eeg_id", *VOTE_COLUMNS, *(f"{name}_probability" for name in CLASSES)]
    assert table["eeg_id"].to_list() == pl.read_csv(root / "test.csv")["eeg_id"].to_list()
    assert table["eeg_id"].to_list() == truth.eeg_ids.tolist()
    np.testing.assert_array_equal(table[:, 1:7].to_numpy(), truth.votes_NK)
    np.testing.assert_array_equal(table[:, 7:].to_numpy(), truth.probabilities_NK)
    np.testing.assert_allclose(truth.probabilities_NK.sum(axis=1), 1)
    assert sorted(path.name for path in root.iterdir()) == [
        "sample_submission.csv", "test.csv", "test_eegs", "test_spectrograms",
        "train.csv", "train_eegs", "train_spectrograms",
    ]  # fmt: skip
    assert not list(root.rglob(".*"))


def test_train_truth_has_the_votes_of_the_table(root: Path, train: pl.DataFrame) -> None:
    key = ["eeg_id", *VOTE_COLUMNS]
    truth = pl.read_csv(truth_folder(root) / "train_truth.csv")
    assert truth.select(key).unique().sort(key).equals(train.select(key).unique().sort(key))


# ---- one seed, one competition ----


def test_same_bytes_for_any_number_of_jobs(root: Path, tmp_path: Path) -> None:
    make_competition(tmp_path / "again", N_EEGS, N_TEST, SEED, jobs=1)
    assert digests(tmp_path / "again") == digests(root)


def test_same_bytes_in_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_competition(tmp_path / "threads", 2, 1, SEED)
    monkeypatch.setattr(competition, "_MOST_THREADS", 1)
    monkeypatch.setattr(competition, "_STUDIES_A_PROCESS", 1)
    make_competition(tmp_path / "processes", 2, 1, SEED, jobs=2)
    assert digests(tmp_path / "processes") == digests(tmp_path / "threads")


def test_another_seed_is_another_competition(tmp_path: Path) -> None:
    first = make_competition(tmp_path / "a", 1, 1, seed=0)
    second = make_competition(tmp_path / "b", 1, 1, seed=1)
    assert not set(digests(tmp_path / "a").values()) & set(digests(tmp_path / "b").values()) - {
        hashlib.sha256(b"").hexdigest()
    }
    assert first.eeg_ids.tolist() != second.eeg_ids.tolist()


def test_a_finished_competition_is_left_alone(
    made: tuple[Path, SimulatedTruth], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, truth = made

    def refuse(*_: object) -> None:
        raise AssertionError("nothing is missing, so nothing is to be simulated")

    monkeypatch.setattr(competition, "_write_study", refuse)
    again = make_competition(root, N_EEGS, N_TEST, SEED)
    np.testing.assert_array_equal(again.votes_NK, truth.votes_NK)
    assert again.path == truth.path


def test_an_interrupted_run_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    make_competition(whole, 2, 1, SEED)
    write, calls = competition._write_study, []

    def fail_at_the_second(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(competition, "_write_study", fail_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        make_competition(broken, 2, 1, SEED, jobs=1)
    monkeypatch.undo()
    assert not (broken / "train.csv").exists()
    (broken / "train_eegs" / ".1.parquet.0123abcd.partial").write_bytes(b"half")
    make_competition(broken, 2, 1, SEED)
    assert digests(broken) == digests(whole)


# ---- refusals ----


def test_a_foreign_folder_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "hms" / "train_eegs").mkdir(parents=True)
    mine = tmp_path / "hms" / "train_eegs" / "thesis.txt"
    mine.write_text("mine")
    with pytest.raises(UsageError, match=r"hms: holds files .*thesis\.txt"):
        make_competition(tmp_path / "hms", 1, 1)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine]
    assert mine.read_text() == "mine"


def test_a_file_added_to_a_simulated_folder_is_a_foreign_one(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "hms"
    shutil.copytree(root, copy)
    shutil.copytree(truth_folder(root), truth_folder(copy))
    (copy / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"notes\.txt, 1 in all"):
        make_competition(copy, N_EEGS, N_TEST, SEED)


@pytest.mark.parametrize("numbers", [(N_EEGS, N_TEST, SEED + 1), (N_EEGS + 1, N_TEST, SEED)])
def test_another_simulated_competition_is_refused(root: Path, numbers: tuple[int, int, int]) -> None:
    before = digests(root)
    with pytest.raises(UsageError, match="give a new"):
        make_competition(root, *numbers)
    assert digests(root) == before


def test_files_that_no_note_vouches_for_are_refused(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "hms")
    with pytest.raises(UsageError, match="does not describe"):
        make_competition(tmp_path / "hms", N_EEGS, N_TEST, SEED)


def test_a_foreign_truth_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hms-truth").mkdir()
    (tmp_path / "hms-truth" / "test_truth.csv").write_text("mine")
    with pytest.raises(UsageError, match="holds other files"):
        make_competition(tmp_path / "hms", 1, 1)
    assert (tmp_path / "hms-truth" / "test_truth.csv").read_text() == "mine"


def test_a_deleted_folder_can_be_made_anew_with_another_seed(tmp_path: Path) -> None:
    make_competition(tmp_path / "hms", 1, 1, seed=0)
    shutil.rmtree(tmp_path / "hms")
    truth = make_competition(tmp_path / "hms", 1, 1, seed=1)
    assert pl.read_csv(truth.path)["eeg_id"].to_list() == truth.eeg_ids.tolist()
    assert json.loads((truth.path.parent / "competition.json").read_text())["seed"] == 1


@pytest.mark.parametrize("bad", [{"n_eegs": 0}, {"n_test": 0}, {"seed": -1}, {"jobs": 0}])
def test_numbers_out_of_range_are_refused(tmp_path: Path, bad: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="at least one EEG"):
        make_competition(tmp_path / "hms", **bad)
    assert not (tmp_path / "hms").exists()


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hms").write_text("mine")
    with pytest.raises(UsageError, match="cannot be made a folder"):
        make_competition(tmp_path / "hms", 1, 1)
