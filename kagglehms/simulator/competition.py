"""Make a simulated competition folder, in the real file formats, with signals and labels whose truth is known.

`make_competition` first plans patients, studies, labels and votes, which is cheap, and then simulates many studies at a
time, each with its own random generator, so that the bytes depend on the seed alone. The truth of both tables is
written to a folder beside the competition, never into it.

Shape suffixes: N row, K class, C channel, T time.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from kagglehms.data.competition import (
    CHANNELS,
    CLASSES,
    CONSENSUS_NAMES,
    PROBABILITY_COLUMNS,
    SFREQ_HZ,
    SPECTROGRAM_COLUMNS,
    SPECTROGRAM_S,
    SPECTROGRAM_STEP_S,
    VOTE_COLUMNS,
    WINDOW_S,
    Competition,
    truth_folder,
)
from kagglehms.data.workers import Workers, in_order
from kagglehms.environment import available_cpus
from kagglehms.errors import UsageError
from kagglehms.files import PARTIAL_SUFFIX, sweep_partials, write_bytes
from kagglehms.progress import progress
from kagglehms.simulator.scalp import F32
from kagglehms.simulator.signal import MARGIN_S, Patient, simulate_study, spectrogram
from kagglehms.simulator.spectrogram import rows_of
from kagglehms.simulator.studies import Recording, Study, draw_studies, usual_probabilities
from kagglehms.strict_json import parse

GENERATOR = 3
"""Version of the simulator; a folder that another version has left unfinished is not completed, as its bytes differ."""

_MOST_THREADS = 2
"""More jobs than this are processes, since threads wait for the interpreter's lock: 16 on 16 CPUs were as fast as 2."""
_STUDIES_A_PROCESS = 8
"""Fewer studies are simulated sooner than a process starts."""
_PLAN, _PATIENT, _STUDY = range(3)
_NOTE_NAME = "competition.json"


@dataclass(frozen=True)
class SimulatedTruth:
    """The truth of the test set.

    Attributes:
        path: table with the same content, beside the competition's folder.
        eeg_ids: (N,) ids of the EEGs, in the order of test.csv.
        votes_NK: number of votes of each EEG.
        probabilities_NK: class probabilities that the votes were drawn from; rows sum to 1.
    """

    path: Path
    eeg_ids: NDArray[np.int64]
    votes_NK: NDArray[np.int64]
    probabilities_NK: NDArray[np.float64]


def make_competition(
    root: Path,
    n_eegs: int = 160,
    n_test: int = 40,
    seed: int = 0,
    jobs: int | None = None,
    easy: bool = False,
) -> SimulatedTruth:
    """Write a simulated competition folder, or complete one that an interrupted call has left.

    Args:
        root: path of the folder. It may be new, empty, or the result of the same call, in which case existing files
            are kept.
        n_eegs: number of EEG files in the train set.
        n_test: number of EEG files in the test set.
        seed: seed, which together with the two numbers decides every byte.
        jobs: number of studies simulated at a time; by default the number of available CPUs.
        easy: whether to make an easy competition with quiet patients, mostly clear truths and many votes. It is not
            like real data, but a little of it is enough to learn from.

    Returns:
        The truth of the test set, which is also written to test_truth.csv in `truth_folder(root)`, beside
        train_truth.csv.

    Raises:
        UsageError: `root` contains other files, or a number is out of range.
        RunError: a file cannot be written.
    """
    root = root.resolve()
    jobs = available_cpus() if jobs is None else jobs
    if n_eegs < 1 or n_test < 1 or seed < 0 or jobs < 1:
        raise UsageError(
            f"n_eegs {n_eegs}, n_test {n_test}, jobs {jobs}, seed {seed}: at least one EEG of each kind and one job, "
            "and a seed of 0 or more are needed"
        )
    made_by = {"generator": GENERATOR, "n_eegs": n_eegs, "n_test": n_test, "seed": seed, "easy": int(easy)}
    studies = draw_studies(n_eegs, n_test, np.random.default_rng((seed, _PLAN)), easy)
    competition = _folder(root)
    tables = _tables(competition, studies)
    _claim(root, {*tables, *(path for study in studies for path in _files(competition, study))}, made_by)
    missing = [s for s in studies if not all(path.exists() for path in _files(competition, s))]
    _simulate(competition, missing, usual_probabilities(studies), seed, jobs, easy)
    for path, table in tables.items():
        if not path.exists():
            write_bytes(path, table.write_csv().encode())
    return _truth(truth_folder(root) / "test_truth.csv", studies)


def _simulate(
    competition: Competition,
    studies: list[Study],
    usual: dict[int, NDArray[np.float64]],
    seed: int,
    jobs: int,
    easy: bool,
) -> None:
    processes = min(jobs, len(studies) // _STUDIES_A_PROCESS)
    workers = Workers("loky", jobs=processes) if processes > _MOST_THREADS else Workers(jobs=jobs)
    tasks = [(study, usual[study.patient_index]) for study in studies]
    write = partial(_write_one, competition, seed, easy)
    # Threads of BLAS would compete with these, and could change the order of additions.
    with threadpool_limits(limits=1, user_api="blas"), in_order(write, tasks, workers) as written:
        for _ in progress(written, len(tasks), "simulate"):
            pass


def _write_one(
    competition: Competition, seed: int, easy: bool, task: tuple[Study, NDArray[np.float64]]
) -> None:
    # The caller's limit does not hold in a process of its own.
    with threadpool_limits(limits=1, user_api="blas"):
        _write_study(competition, *task, seed, easy)


def _folder(root: Path) -> Competition:
    if not root.name:
        raise UsageError(f"{root}: cannot be a competition's folder; give the name of a new one")
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{root}: cannot be made a folder ({error.strerror}); give another name") from error
    return Competition(root)


def _claim(root: Path, expected: set[Path], made_by: dict[str, int]) -> None:
    """Prepare `root` and its truth folder for writing.

    The arguments of the call are written to a note beside the folder before the first file in it, so that files
    without such a note belong to others. Nothing is deleted before this has been checked.

    Raises:
        UsageError: one of the folders contains files of others.
    """
    truth = truth_folder(root)
    note = truth / _NOTE_NAME
    made_before = _read_note(note)
    folders = {path.parent for path in expected} - {root, truth}
    found = set(_files_in(root)) - folders
    if not found - expected:
        found.update(path for folder in folders if folder.is_dir() for path in _files_in(folder))
    strangers = sorted(found - expected)
    if strangers:
        raise UsageError(
            f"{root}: holds files that are not of this simulated competition ({strangers[0].name}, "
            f"{len(strangers)} in all); give a new or empty folder"
        )
    if found and made_before != made_by:
        raise UsageError(f"{root}: holds a competition that {note} does not describe; give a new folder")
    if made_before is None and truth.is_dir() and any(_files_in(truth)):
        raise UsageError(f"{truth}: the truth would be written there, but it holds other files; move them")
    for folder in (root, truth, *folders):
        sweep_partials(folder)
    if made_before != made_by:
        for path in expected:
            if path.parent == truth:
                path.unlink(missing_ok=True)
        write_bytes(note, (json.dumps(made_by) + "\n").encode())


def _files_in(folder: Path) -> Iterator[Path]:
    """Yield the contents of a folder, except files that an interrupted run was writing."""
    for path in folder.iterdir():
        if not (path.name.startswith(".") and path.name.endswith(PARTIAL_SUFFIX)):
            yield path


def _read_note(path: Path) -> object:
    try:
        return parse(path.read_bytes())
    except (OSError, ValueError):
        return None


def _files(competition: Competition, study: Study) -> list[Path]:
    eegs = [competition.eeg(recording.eeg_id, study.split) for recording in study.recordings]
    return [*eegs, competition.spectrogram(study.spectrogram_id, study.split)]


# ---- The files ----


def _write_study(
    competition: Competition, study: Study, usual_K: NDArray[np.float64], seed: int, easy: bool = False
) -> None:
    """Simulate one study and write its files."""
    rng = np.random.default_rng((seed, _STUDY, study.index))
    patient = Patient.draw(np.random.default_rng((seed, _PATIENT, study.patient_index)), usual_K)
    patient = (patient.quiet() if easy else patient).in_study(rng)
    n_rows = study.n_rows
    segments = [recording.segments() for recording in study.recordings]
    uv_CT = simulate_study(n_rows * SPECTROGRAM_STEP_S, segments, patient, rng)
    power = spectrogram(uv_CT, n_rows)
    for first, last in _gaps(study, rng):
        uv_CT[:, first:last] = np.nan
        power[rows_of(first, last)] = np.nan
    time = np.arange(1, SPECTROGRAM_STEP_S * n_rows, SPECTROGRAM_STEP_S)
    columns = {"time": time.astype(np.int64 if study.split == "train" else np.int16)}
    columns |= dict(zip(SPECTROGRAM_COLUMNS, np.round(power, 2).T, strict=True))
    path = competition.spectrogram(study.spectrogram_id, study.split)
    _write_parquet(path, pl.DataFrame({name: np.ascontiguousarray(c) for name, c in columns.items()}))
    for recording in study.recordings:
        frame = pl.DataFrame(dict(zip(CHANNELS, _cut(uv_CT, recording, rng), strict=True)))
        _write_parquet(competition.eeg(recording.eeg_id, study.split), frame)


def _gaps(study: Study, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Return the gaps in a study's recording, as first and last samples.

    Every tenth study has a short gap in an EEG, and every 25th a long one anywhere. Rows of the spectrogram whose
    windows overlap a gap are missing.
    """
    gaps = []
    if study.index % 10 == 3:
        first, n_times = _place(study.recordings[0])
        start = first + int(rng.integers(0, n_times - SFREQ_HZ))
        gaps.append((start, start + int(rng.integers(20, 3 * SFREQ_HZ))))
    if study.index % 25 == 7:
        start = int(rng.integers(0, 200 * SFREQ_HZ))
        gaps.append((start, start + int(rng.integers(1, 48 * SFREQ_HZ))))
    return gaps


def _place(recording: Recording) -> tuple[int, int]:
    """Return the first sample of a recording in its study's signal, and the recording's length."""
    centre_s = recording.start_s + SPECTROGRAM_S // 2
    first = (MARGIN_S + centre_s - WINDOW_S // 2) * SFREQ_HZ
    return first, (WINDOW_S + recording.last_offset_s) * SFREQ_HZ


def _cut(uv_CT: F32, recording: Recording, rng: np.random.Generator) -> F32:
    """Cut a recording out of its study, with offsets of the amplifier and in steps of 0.01 µV."""
    first, n_times = _place(recording)
    offsets_uv = rng.normal(-15, 20, (len(CHANNELS), 1)).astype(np.float32)
    return np.round(uv_CT[:, first : first + n_times] + offsets_uv, 2)


def _write_parquet(path: Path, frame: pl.DataFrame) -> None:
    content = io.BytesIO()  # if Polars wrote the file, a full disk would raise an error of its own kind
    frame.write_parquet(content, compression="lz4", statistics=False)
    write_bytes(path, content.getvalue())


# ---- The tables ----


def _tables(competition: Competition, studies: list[Study]) -> dict[Path, pl.DataFrame]:
    """Return every table of the competition and of its truth, by its path."""
    train = [study for study in studies if study.split == "train"]
    tests = [study for study in studies if study.split == "test"]
    test = pl.DataFrame(
        {
            "spectrogram_id": [s.spectrogram_id for s in tests],
            "eeg_id": [s.recordings[0].eeg_id for s in tests],
            "patient_id": [s.patient_id for s in tests],
        }
    )
    uniform = [pl.lit(1 / len(CLASSES)).alias(column) for column in VOTE_COLUMNS]
    truth = truth_folder(competition.root)
    return {
        competition.train_csv: _train_table(train),
        competition.test_csv: test,
        competition.sample_submission_csv: test.select("eeg_id", *uniform),
        truth / "train_truth.csv": _truth_table(train),
        truth / "test_truth.csv": _truth_table(tests),
    }


def _train_table(studies: list[Study]) -> pl.DataFrame:
    names = {index: name for name, index in CONSENSUS_NAMES.items()}
    rows: list[dict[str, object]] = []
    for study in studies:
        windows = [(r, label, o) for r in study.recordings for label in r.labels for o in label.offsets_s]
        sub_ids: dict[int, int] = {}
        for spectrogram_sub_id, (recording, label, offset_s) in enumerate(windows):
            sub_id = sub_ids[recording.eeg_id] = sub_ids.get(recording.eeg_id, -1) + 1
            rows.append(
                {
                    "eeg_id": recording.eeg_id,
                    "eeg_sub_id": sub_id,
                    "eeg_label_offset_seconds": float(offset_s),
                    "spectrogram_id": study.spectrogram_id,
                    "spectrogram_sub_id": spectrogram_sub_id,
                    "spectrogram_label_offset_seconds": float(recording.start_s + offset_s),
                    "label_id": len(rows),
                    "patient_id": study.patient_id,
                    "expert_consensus": names[int(np.argmax(label.votes))],
                }
                | dict(zip(VOTE_COLUMNS, label.votes, strict=True))
            )
    # An odd multiplier permutes the numbers below 2³²: the ids are unique and look like real ones.
    return pl.DataFrame(rows).with_columns((pl.col("label_id") + 1) * 2_654_435_761 % 2**32)


def _truth_table(studies: list[Study]) -> pl.DataFrame:
    """Return a table with one row per label: eeg_id, six votes and six probabilities."""
    labels = [(r.eeg_id, label) for s in studies for r in s.recordings for label in r.labels]
    columns: dict[str, object] = {"eeg_id": [eeg_id for eeg_id, _ in labels]}
    for k, column in enumerate(VOTE_COLUMNS):
        columns[column] = [label.votes[k] for _, label in labels]
    for k, column in enumerate(PROBABILITY_COLUMNS):
        columns[column] = [label.probabilities[k] for _, label in labels]
    return pl.DataFrame(columns)


def _truth(path: Path, studies: list[Study]) -> SimulatedTruth:
    recordings = [study.recordings[0] for study in studies if study.split == "test"]
    return SimulatedTruth(
        path,
        np.array([recording.eeg_id for recording in recordings], np.int64),
        np.array([recording.labels[0].votes for recording in recordings], np.int64),
        np.array([recording.labels[0].probabilities for recording in recordings], np.float64),
    )
