"""A competition folder out of nothing: the real file formats, with a signal and labels whose truth is known.

`make_competition` first plans everything (patients, sessions, labels, votes: cheap, one thread), then simulates
each session by itself (many threads, one generator per session), so the bytes depend on the seed alone. The truth
of both tables is written to a folder beside the competition, never into it.

Shape suffixes: N row, K class, C channel, T time.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
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
    SPECTROGRAM_ROWS,
    SPECTROGRAM_STEP_S,
    VOTE_COLUMNS,
    WINDOW_S,
    Competition,
    truth_folder,
)
from kagglehms.environment import available_cpus
from kagglehms.errors import UsageError
from kagglehms.files import PARTIAL_SUFFIX, sweep_partials, write_bytes
from kagglehms.progress import progress
from kagglehms.simulator.recording_sessions import Recording, RecordingSession, draw_sessions
from kagglehms.simulator.scalp import F32
from kagglehms.simulator.signal import MARGIN_S, Patient, simulate_session, spectrogram
from kagglehms.simulator.spectrogram import rows_of
from kagglehms.strict_json import parse

GENERATOR = 2
"""Raised whenever the same seed would give other bytes, so that an older half-written folder is not completed."""

_STRUCTURE, _PATIENT, _SESSION = range(3)
_NOTE_NAME = "competition.json"


@dataclass(frozen=True)
class SimulatedTruth:
    """What the test set really is.

    Attributes:
        path: the table with the same content, beside the competition's folder.
        eeg_ids: (N,), in the order of test.csv.
        votes_NK: the experts' votes for each test EEG.
        probabilities_NK: the class probabilities that the votes were drawn from; rows sum to 1.
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
    threads: int | None = None,
    easy: bool = False,
) -> SimulatedTruth:
    """Write a simulated competition folder, or complete one that an interrupted call has left.

    Args:
        root: the folder; new, empty, or made by the same call before (then nothing is computed again).
        n_eegs: EEG files of the train set.
        n_test: EEG files of the test set.
        seed: decides every byte, together with the two numbers.
        threads: how many sessions are simulated at once; all cores if None.
        easy: quiet patients, mostly clear truths and many votes: not like real data, but little of it is enough to
            learn from.

    Returns:
        The test set's truth, which is also in test_truth.csv in `truth_folder(root)`, beside train_truth.csv.

    Raises:
        UsageError: `root` holds something else, or a number is out of range.
        RunError: a file cannot be written.
    """
    root = root.resolve()
    threads = available_cpus() if threads is None else threads
    if n_eegs < 1 or n_test < 1 or seed < 0 or threads < 1:
        raise UsageError(
            f"n_eegs {n_eegs}, n_test {n_test}, threads {threads}, seed {seed}: at least one EEG of each kind "
            "and one thread, and a seed of 0 or more are needed"
        )
    made_by = {"generator": GENERATOR, "n_eegs": n_eegs, "n_test": n_test, "seed": seed, "easy": int(easy)}
    sessions = draw_sessions(n_eegs, n_test, np.random.default_rng((seed, _STRUCTURE)), easy)
    competition = _folder(root)
    tables = _tables(competition, sessions)
    _claim(root, {*tables, *(path for session in sessions for path in _files(competition, session))}, made_by)
    missing = [s for s in sessions if not all(path.exists() for path in _files(competition, s))]
    _simulate(competition, missing, seed, threads, easy)
    for path, table in tables.items():
        if not path.exists():
            write_bytes(path, table.write_csv().encode())
    return _truth(truth_folder(root) / "test_truth.csv", sessions)


def _simulate(
    competition: Competition, sessions: list[RecordingSession], seed: int, threads: int, easy: bool
) -> None:
    pool = ThreadPoolExecutor(threads)
    # Threads that BLAS started by itself would only fight with these, and could add in another order.
    with threadpool_limits(limits=1, user_api="blas"):
        try:
            jobs = [pool.submit(_write_session, competition, session, seed, easy) for session in sessions]
            for job in progress(as_completed(jobs), len(jobs), "simulate"):
                job.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _folder(root: Path) -> Competition:
    if not root.name:
        raise UsageError(f"{root}: cannot be a competition's folder; give the name of a new one")
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{root}: cannot be made a folder ({error.strerror}); give another name") from error
    return Competition(root)


def _claim(root: Path, expected: set[Path], made_by: dict[str, int]) -> None:
    """Make `root` and its truth folder ours, or raise UsageError if either holds anything else.

    What was asked for is written down beside the folder before the first file in it, so files that this note
    does not vouch for are somebody else's. Nothing is deleted before that is settled.
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
        raise UsageError(f"{root}: holds a competition, but {note} does not vouch for it; give a new folder")
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
    """What lies in `folder`, except what an interrupted run was writing."""
    for path in folder.iterdir():
        if not (path.name.startswith(".") and path.name.endswith(PARTIAL_SUFFIX)):
            yield path


def _read_note(path: Path) -> object:
    try:
        return parse(path.read_bytes())
    except (OSError, ValueError):
        return None


def _files(competition: Competition, session: RecordingSession) -> list[Path]:
    eegs = [competition.eeg(recording.eeg_id, session.split) for recording in session.recordings]
    return [*eegs, competition.spectrogram(session.spectrogram_id, session.split)]


# ---- The files ----


def _write_session(
    competition: Competition, session: RecordingSession, seed: int, easy: bool = False
) -> None:
    """Simulate one session and write its files."""
    patient = Patient.draw(np.random.default_rng((seed, _PATIENT, session.patient_index)))
    patient = patient.quiet() if easy else patient
    rng = np.random.default_rng((seed, _SESSION, session.index))
    n_rows = session.n_rows
    segments = [recording.segments() for recording in session.recordings]
    uv_CT = simulate_session(n_rows * SPECTROGRAM_STEP_S, segments, patient, rng)
    power = spectrogram(uv_CT, n_rows)
    for first, last in _gaps(session, rng):
        uv_CT[:, first:last] = np.nan
        power[rows_of(first, last)] = np.nan
    time = np.arange(1, SPECTROGRAM_STEP_S * n_rows, SPECTROGRAM_STEP_S)
    columns = {"time": time.astype(np.int64 if session.split == "train" else np.int16)}
    columns |= dict(zip(SPECTROGRAM_COLUMNS, np.round(power, 2).T, strict=True))
    path = competition.spectrogram(session.spectrogram_id, session.split)
    _write_parquet(path, pl.DataFrame({name: np.ascontiguousarray(c) for name, c in columns.items()}))
    for recording in session.recordings:
        frame = pl.DataFrame(dict(zip(CHANNELS, _cut(uv_CT, recording, rng), strict=True)))
        _write_parquet(competition.eeg(recording.eeg_id, session.split), frame)


def _gaps(session: RecordingSession, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Stretches (samples) in which nothing was recorded: in every tenth session a short one in an EEG, in every
    25th a long one anywhere. A spectrogram has no row whose window touches one."""
    gaps = []
    if session.index % 10 == 3:
        first, n_times = _place(session.recordings[0])
        start = first + int(rng.integers(0, n_times - SFREQ_HZ))
        gaps.append((start, start + int(rng.integers(20, 3 * SFREQ_HZ))))
    if session.index % 25 == 7:
        start = int(rng.integers(0, 200 * SFREQ_HZ))
        gaps.append((start, start + int(rng.integers(1, 48 * SFREQ_HZ))))
    return gaps


def _place(recording: Recording) -> tuple[int, int]:
    """First sample of a recording in its session's signal, and its length."""
    centre_s = recording.start_s + SPECTROGRAM_ROWS * SPECTROGRAM_STEP_S // 2
    first = (MARGIN_S + centre_s - WINDOW_S // 2) * SFREQ_HZ
    return first, (WINDOW_S + recording.last_offset_s) * SFREQ_HZ


def _cut(uv_CT: F32, recording: Recording, rng: np.random.Generator) -> F32:
    """The recording's part of the session, with the amplifier's offsets and in its steps of 0.01 µV."""
    first, n_times = _place(recording)
    offsets_uv = rng.normal(-15, 20, (len(CHANNELS), 1)).astype(np.float32)
    return np.round(uv_CT[:, first : first + n_times] + offsets_uv, 2)


def _write_parquet(path: Path, frame: pl.DataFrame) -> None:
    content = io.BytesIO()  # written by polars itself, a full disk would be an error of its own kind
    frame.write_parquet(content, compression="lz4", statistics=False)
    write_bytes(path, content.getvalue())


# ---- The tables ----


def _tables(competition: Competition, sessions: list[RecordingSession]) -> dict[Path, pl.DataFrame]:
    """Every table of the competition and of its truth, by the path it belongs at."""
    train = [session for session in sessions if session.split == "train"]
    tests = [session for session in sessions if session.split == "test"]
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


def _train_table(sessions: list[RecordingSession]) -> pl.DataFrame:
    names = {index: name for name, index in CONSENSUS_NAMES.items()}
    rows: list[dict[str, object]] = []
    for session in sessions:
        windows = [(r, label, o) for r in session.recordings for label in r.labels for o in label.offsets_s]
        sub_ids: dict[int, int] = {}
        for spectrogram_sub_id, (recording, label, offset_s) in enumerate(windows):
            sub_id = sub_ids[recording.eeg_id] = sub_ids.get(recording.eeg_id, -1) + 1
            rows.append(
                {
                    "eeg_id": recording.eeg_id,
                    "eeg_sub_id": sub_id,
                    "eeg_label_offset_seconds": float(offset_s),
                    "spectrogram_id": session.spectrogram_id,
                    "spectrogram_sub_id": spectrogram_sub_id,
                    "spectrogram_label_offset_seconds": float(recording.start_s + offset_s),
                    "label_id": len(rows),
                    "patient_id": session.patient_id,
                    "expert_consensus": names[int(np.argmax(label.votes))],
                }
                | dict(zip(VOTE_COLUMNS, label.votes, strict=True))
            )
    # An odd multiplier permutes the numbers below 2³²: ids that are unique and look like the real ones.
    return pl.DataFrame(rows).with_columns((pl.col("label_id") + 1) * 2_654_435_761 % 2**32)


def _truth_table(sessions: list[RecordingSession]) -> pl.DataFrame:
    """One row per label: eeg_id, six votes, and `<class>_probability` six times."""
    labels = [(r.eeg_id, label) for s in sessions for r in s.recordings for label in r.labels]
    columns: dict[str, object] = {"eeg_id": [eeg_id for eeg_id, _ in labels]}
    for k, column in enumerate(VOTE_COLUMNS):
        columns[column] = [label.votes[k] for _, label in labels]
    for k, column in enumerate(PROBABILITY_COLUMNS):
        columns[column] = [label.probabilities[k] for _, label in labels]
    return pl.DataFrame(columns)


def _truth(path: Path, sessions: list[RecordingSession]) -> SimulatedTruth:
    recordings = [session.recordings[0] for session in sessions if session.split == "test"]
    return SimulatedTruth(
        path,
        np.array([recording.eeg_id for recording in recordings], np.int64),
        np.array([recording.labels[0].votes for recording in recordings], np.int64),
        np.array([recording.labels[0].probabilities for recording in recordings], np.float64),
    )
