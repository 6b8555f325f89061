"""Teachers: predictions of folds that held the patient out, and nothing else; every other run is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from runs_folder import edit, forget_digests, make_run, oof_table
from stand_ins import stand_in

from kagglehms.data.competition import PROBABILITY_COLUMNS, VOTE_COLUMNS, Competition
from kagglehms.data.folds import assign_folds
from kagglehms.data.preparing import prepare, recordings_of
from kagglehms.data.records import Records, read_records
from kagglehms.device import choose_device
from kagglehms.errors import EXIT_UNFINISHED, RunError, Stopped
from kagglehms.runs.cross_validation import cross_validate
from kagglehms.runs.dataset import Dataset
from kagglehms.runs.folder import RunFolder
from kagglehms.runs.prior_correction import training_weights
from kagglehms.runs.teachers import with_teachers
from kagglehms.runs.training import TrainingOptions, _train, train_recipes
from kagglehms.training.distributed import Team
from kagglehms.training.options import PseudoLabels
from kagglehms.training.pseudo_labels import pseudo_targets
from kagglehms.training.recipes import Recipe, Stage, get_recipe
from kagglehms.training.session import Session

TABLE = oof_table()
RECORDS = Records(TABLE.drop("record", "fold", *PROBABILITY_COLUMNS))


def dataset_of(folds: NDArray[np.integer] | None = None, store: str = "5" * 64) -> Dataset:
    folds = TABLE["fold"].to_numpy() if folds is None else folds
    return Dataset(SimpleNamespace(fingerprint=store), RECORDS, folds.astype(np.int8))  # type: ignore[arg-type]


def student(*teachers: str) -> Recipe:
    return replace(
        get_recipe("baseline"), name="student", stages=(Stage(pseudo_labels=PseudoLabels(teachers)),)
    )


def teach(runs: Path, name: str, dataset: Dataset, seed: int = 0, **how: Any) -> pl.DataFrame:
    """Write a finished run on a dataset; returns its predictions."""
    table = oof_table(seed=seed).with_columns(pl.Series("fold", dataset.folds))
    _write(runs, name, how.pop("table", table), dataset.identity.of_data, **how)
    return table


def _write(
    runs: Path, recipe: str | Recipe, table: pl.DataFrame, identity: dict[str, str], **how: Any
) -> None:
    """Write a run whose folds say that they are of it."""
    folder = make_run(runs, recipe, table=table, identity=identity, **how)
    for result in folder.glob("fold*/result.json"):
        edit(result, fingerprint=f"of {folder.name}")


def test_a_recipe_without_teachers_needs_none(tmp_path: Path) -> None:
    dataset = dataset_of()
    assert with_teachers(dataset, get_recipe("baseline"), tmp_path) is dataset
    assert dataset.identity.parts == dataset.identity.of_data


def test_predictions_are_those_of_the_fold_that_held_the_record_out(tmp_path: Path) -> None:
    dataset = dataset_of()
    tables = {name: teach(tmp_path, name, dataset, seed) for seed, name in enumerate(("one", "two"))}
    taught = with_teachers(dataset, student("two", "one"), tmp_path)
    assert list(taught.teachers) == ["two", "one"]
    for name, table in tables.items():
        wanted = table.sort("record").select(PROBABILITY_COLUMNS).to_numpy()
        np.testing.assert_array_equal(taught.teachers[name], wanted)


def test_the_identity_holds_a_digest_of_each_teachers_predictions(tmp_path: Path) -> None:
    dataset = dataset_of()
    for seed, name in enumerate(("one", "two")):
        teach(tmp_path / "runs", name, dataset, seed)
        teach(tmp_path / "again", name, dataset, seed + (name == "two"))
    before = with_teachers(dataset, student("one", "two"), tmp_path / "runs").identity.parts
    after = with_teachers(dataset, student("one", "two"), tmp_path / "again").identity.parts
    assert before.keys() == {"store", "records", "folds", "predictions of one", "predictions of two"}
    assert [name for name in before if before[name] != after[name]] == ["predictions of two"]


# ---- planted leaks


def memorised(dataset: Dataset) -> pl.DataFrame:
    """Predictions of a network that knows nothing but the votes of the patients that it learned from."""
    patients, folds = dataset.records.patients, dataset.folds
    predictions_NK = np.full((len(patients), 6), 1 / 6)
    for record, (patient, fold) in enumerate(zip(patients, folds, strict=True)):
        seen = (patients == patient) & (folds != fold)
        if seen.any():
            predictions_NK[record] = dataset.records.targets_NK[seen].mean(axis=0)
    return TABLE.with_columns(
        pl.Series("fold", folds),
        *(pl.Series(name, p) for name, p in zip(PROBABILITY_COLUMNS, predictions_NK.T, strict=True)),
    )


def test_a_teacher_that_only_remembers_patients_tells_nothing(tmp_path: Path) -> None:
    dataset = dataset_of()
    teach(tmp_path, "one", dataset, table=memorised(dataset))
    taught = with_teachers(dataset, student("one"), tmp_path)
    np.testing.assert_array_equal(taught.teachers["one"], 1 / 6)
    labels = PseudoLabels(("one",), share=1.0, most_votes=20)
    np.testing.assert_allclose(pseudo_targets(RECORDS, labels, taught.teachers), 1 / 6)


def test_where_it_had_seen_them_it_would_tell_and_is_refused_by_patient(tmp_path: Path) -> None:
    """Folds that are cut by record: half of the patients are in both."""
    leaky = dataset_of(np.arange(len(RECORDS)) % 2)
    table = memorised(leaky)
    assert (table.select(PROBABILITY_COLUMNS).to_numpy() != 1 / 6).any(axis=1).mean() > 0.5  # it would tell
    teach(tmp_path, "one", leaky, table=table)
    with pytest.raises(
        RunError, match=r"student cannot have teachers: records of patient \d+ are in folds 0 and 1"
    ):
        with_teachers(leaky, student("one"), tmp_path)
    # Of a student whose folds are cut by patient the same run is no teacher either.
    with pytest.raises(RunError, match="one: cannot teach student, because it was trained on other folds"):
        with_teachers(dataset_of(), student("one"), tmp_path)


def _moved(table: pl.DataFrame) -> pl.DataFrame:
    """One record of fold 1 predicted by fold 0, which learned from it."""
    first = table.filter(pl.col("fold") == 1)["record"][0]
    return table.with_columns(
        pl.when(pl.col("record") == first).then(0).otherwise("fold").alias("fold").cast(pl.Int8)
    )


def _of_another(table: pl.DataFrame) -> pl.DataFrame:
    """One record said to be of another patient."""
    first = table["record"] == table.filter(pl.col("fold") == 0)["record"][0]
    return table.with_columns(pl.when(first).then(999).otherwise("patient_id").alias("patient_id"))


def _shortened(table: pl.DataFrame) -> pl.DataFrame:
    return table.filter(pl.col("record") != table.filter(pl.col("fold") == 1)["record"][0])


def _longer(table: pl.DataFrame) -> pl.DataFrame:
    """A record that nobody knows."""
    return pl.concat([table, table[:1].with_columns(pl.lit(10_000).alias("record").cast(pl.Int64))])


PLANTED: dict[str, tuple[Callable[[pl.DataFrame], pl.DataFrame], str]] = {
    "seen": (
        _moved,
        r"fold0: predicts record \d+ of patient \d+, which it learned from and did not hold out",
    ),
    "patient": (_of_another, r"fold0: record \d+ is of patient 999 there, and of \d+ in train.csv"),
    "missing": (_shortened, r"fold1: predicts \d+ of the \d+ records that it held out"),
    "unknown": (_longer, "predicts record 10000, which it learned from"),
}


@pytest.mark.parametrize(("damage", "message"), PLANTED.values(), ids=PLANTED.keys())
def test_a_prediction_by_a_fold_that_did_not_hold_the_patient_out_is_refused(
    damage: Callable[[pl.DataFrame], pl.DataFrame], message: str, tmp_path: Path
) -> None:
    dataset = dataset_of()
    teach(tmp_path, "fine", dataset)
    teach(tmp_path, "one", dataset, table=damage(TABLE))
    with pytest.raises(RunError, match=message) as caught:
        with_teachers(dataset, student("fine", "one"), tmp_path)
    assert str(tmp_path / "one") in str(caught.value)


# ---- other refusals


@pytest.mark.parametrize("part", ["store", "records", "folds"])
def test_a_teacher_of_other_data_is_refused(part: str, tmp_path: Path) -> None:
    dataset = dataset_of()
    _write(tmp_path, "one", TABLE, dataset.identity.of_data | {part: "e" * 64})
    with pytest.raises(
        RunError, match=f"one: cannot teach student, because it was trained on other {part} and may"
    ):
        with_teachers(dataset, student("one"), tmp_path)


def test_a_teacher_that_is_missing_is_named_with_what_is_there(tmp_path: Path) -> None:
    teach(tmp_path, "raw-fold", dataset_of())
    with pytest.raises(RunError, match=r"raw-fild: no such run.*'raw-fold'.*kagglehms train raw-fild"):
        with_teachers(dataset_of(), student("raw-fild"), tmp_path)


def test_a_teacher_has_to_be_finished(tmp_path: Path) -> None:
    teach(tmp_path, "one", dataset_of(), finished=[1])
    with pytest.raises(RunError, match="one: 1 of 2 folds are not trained.*kagglehms train one"):
        with_teachers(dataset_of(), student("one"), tmp_path)


def test_a_student_teaches_nobody(tmp_path: Path) -> None:
    dataset = dataset_of()
    pupil = replace(student("one"), name="pupil")
    _write(tmp_path, pupil, TABLE, dataset.identity.of_data)
    with pytest.raises(RunError, match="pupil: cannot teach student, because it learned from one"):
        with_teachers(dataset, student("pupil"), tmp_path)


def test_a_teacher_is_looked_for_in_one_folder_after_the_other(tmp_path: Path) -> None:
    dataset = dataset_of()
    (tmp_path / "now").mkdir()
    table = teach(tmp_path / "earlier", "one", dataset, seed=3)
    taught = with_teachers(dataset, student("one"), tmp_path / "now", tmp_path / "earlier")
    wanted = table.sort("record").select(PROBABILITY_COLUMNS).to_numpy()
    np.testing.assert_array_equal(taught.teachers["one"], wanted)


def test_class_priors_of_pseudo_labels_are_not_corrected_by_votes() -> None:
    with pytest.raises(RunError, match="student: its last stage learned from pseudo labels"):
        training_weights(student("one"), RECORDS)
    assert training_weights(
        get_recipe("raw-fold-pseudo"), RECORDS
    ).any()  # whose last stage learns from votes


# ---- training


@pytest.fixture(scope="module")
def dataset(competition_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    competition = Competition(competition_folder)
    records = read_records(competition.train_csv)
    store = prepare(recordings_of(competition, records), tmp_path_factory.mktemp("store")).store
    return Dataset.of(store, records, 2)


def test_a_student_is_trained_and_never_continued_with_other_teachers(
    dataset: Dataset, tmp_path: Path
) -> None:
    cpu = choose_device("cpu")
    teacher = replace(stand_in("raw-fold"), stages=(Stage(epochs=1),))
    pupil = replace(
        teacher, name="pupil", stages=(Stage(epochs=1, pseudo_labels=PseudoLabels(("raw-fold",), share=1.0)),)
    )
    with pytest.raises(RunError, match="raw-fold: no such run, and pupil learns from its predictions"):
        cross_validate(pupil, dataset, tmp_path, cpu, only_folds=[0])
    assert not (tmp_path / "pupil").exists()
    cross_validate(teacher, dataset, tmp_path, cpu)
    cross_validate(pupil, dataset, tmp_path, cpu, only_folds=[0])
    info = RunFolder(tmp_path / "pupil").info()
    assert list(info.identity.teachers) == ["raw-fold"]
    again = cross_validate(pupil, dataset, tmp_path, cpu, only_folds=[0])
    assert again.finished == (0,)
    folder = RunFolder(tmp_path / "raw-fold")
    table = folder.fold_predictions(1)
    other = table.with_columns(pl.Series(PROBABILITY_COLUMNS[0], table[PROBABILITY_COLUMNS[1]]))
    other = other.with_columns(pl.Series(PROBABILITY_COLUMNS[1], table[PROBABILITY_COLUMNS[0]]))
    folder.write_predictions(other, 1)
    forget_digests(folder.path)
    with pytest.raises(RunError, match=r"pupil: holds another run \(other predictions of raw-fold\)"):
        cross_validate(pupil, dataset, tmp_path, cpu)


def test_what_a_student_learns_from_are_the_predictions_and_not_the_votes(
    dataset: Dataset, tmp_path: Path
) -> None:
    """With a share of 1 and no records of many votes, votes of training records change nothing."""
    cpu = choose_device("cpu")
    labels = PseudoLabels(("raw-fold",), share=1.0, most_votes=1000)
    recipe = replace(stand_in("raw-fold"), name="pupil", stages=(Stage(epochs=1, pseudo_labels=labels),))
    predictions_NK = np.random.default_rng(0).dirichlet(np.ones(6), len(dataset.records))
    weights = []
    for number, rolled in enumerate((False, True)):
        frame = dataset.records.frame
        train = dataset.folds != 0
        votes_NK = dataset.records.votes_NK.copy()
        if rolled:
            votes_NK[train] = np.roll(votes_NK[train], 1, axis=1)
        records = Records(
            frame.with_columns(pl.Series(n, v) for n, v in zip(VOTE_COLUMNS, votes_NK.T, strict=True))
        )
        runs = tmp_path / str(number)
        data = Dataset(dataset.store, records, dataset.folds)
        table = records.frame.with_columns(
            pl.Series("record", np.arange(len(records))),
            pl.Series("fold", dataset.folds),
            *(pl.Series(n, p) for n, p in zip(PROBABILITY_COLUMNS, predictions_NK.T, strict=True)),
        )
        _write(runs, "raw-fold", table, data.identity.of_data)
        cross_validate(recipe, data, runs, cpu, only_folds=[0])
        weights.append((runs / "pupil" / "fold0" / "weights.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_a_new_student_takes_the_folds_of_its_teacher(dataset: Dataset, tmp_path: Path) -> None:
    """Another release of scikit-learn cuts other folds: those of the teacher stand."""
    cpu, other = choose_device("cpu"), replace(dataset, folds=1 - dataset.folds)
    teacher = replace(stand_in("raw-fold"), stages=(Stage(epochs=1),))
    cross_validate(teacher, other, tmp_path, cpu)
    pupil = replace(
        teacher, name="pupil", stages=(Stage(epochs=1, pseudo_labels=PseudoLabels(("raw-fold",))),)
    )
    cross_validate(pupil, dataset, tmp_path, cpu, only_folds=[1])
    stored = RunFolder(tmp_path / "pupil").stored_folds()
    assert stored is not None
    assert stored.folds == other.folds.tolist()
    assert (dataset.folds == assign_folds(dataset.records, 2)).all()


def test_a_teacher_of_an_earlier_session_teaches_in_every_process_of_this_one(
    dataset: Dataset, competition_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that does not lead copies nothing, and needs the teacher as well."""
    teacher = replace(stand_in("raw-fold"), stages=(Stage(epochs=1),))
    earlier, now = tmp_path / "earlier", tmp_path / "now"
    cross_validate(teacher, dataset, earlier, choose_device("cpu"))
    labels = PseudoLabels(("raw-fold",))
    pupil = replace(teacher, name="pupil", stages=(Stage(epochs=1, pseudo_labels=labels),))
    (tmp_path / "pupil.json").write_bytes(pupil.to_json())
    options = TrainingOptions(
        data=competition_folder,
        store=dataset.store.path,
        runs=now,
        folds=2,
        fold=(0,),
        device="cpu",
        weights="none",
        resume_from=earlier,
    )
    (outcome,) = train_recipes([str(tmp_path / "pupil.json")], options).outcomes
    assert outcome.finished == (0,)
    assert not (now / "raw-fold").exists()
    looked: list[tuple[Path, ...]] = []
    monkeypatch.setattr(
        "kagglehms.runs.cross_validation.with_teachers",
        lambda data, _, *folders: looked.append(folders) or data,
    )
    monkeypatch.setattr("kagglehms.runs.cross_validation._first_weights", _stopped)
    with pytest.raises(Stopped):
        _train(pupil, options, dataset, choose_device("cpu"), Session(team=_Follower(1, 2)))
    assert looked == [(now, earlier)]


class _Follower(Team):
    """A process that does not lead, and is not waited for."""

    def wait(self) -> None:
        """Return at once."""


def _stopped(*_: Any) -> None:
    raise Stopped("far enough", EXIT_UNFINISHED)
