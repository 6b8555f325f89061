"""What a synthetic competition consists of, before any signal: patients, sessions, labels, truth and votes.

Sources: votes per record and class means are those of the 20,125 records of the real train.csv; sub-windows per
EEG, EEGs per spectrogram, spectrograms per patient and offsets follow it roughly. Test votes are ten or more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kagglehms.data.competition import (
    CLASSES,
    LABEL_S,
    SPECTROGRAM_ROWS,
    SPECTROGRAM_STEP_S,
    Split,
)
from kagglehms.data.simulation import Segment

CLASS_MEANS = (0.184, 0.154, 0.102, 0.069, 0.103, 0.388)
"""Mean target of the real records."""
RECORDS_BY_VOTES = {
    1: 3442, 2: 2075, 3: 6246, 4: 747, 5: 1144, 6: 141, 7: 1,
    10: 116, 11: 382, 12: 725, 13: 1355, 14: 639, 15: 1441, 16: 683, 17: 304, 18: 307, 19: 73, 20: 209,
    21: 49, 22: 24, 23: 10, 24: 3, 25: 5, 26: 2, 27: 1, 28: 1,
}  # fmt: skip
"""Real records by their number of votes; there is none with 8 or 9."""
MANY_VOTES = 10
GOLDEN_RATIO = (5**0.5 - 1) / 2
LAST_OFFSET_S = 62
"""Largest offset of a window in its EEG here: the longest file has 112 s."""
CONFUSABLE = {0: (1, 2, 5), 1: (0, 2, 3, 5), 2: (0, 1, 4, 5), 3: (1, 4, 5), 4: (2, 3, 5), 5: (0, 1, 2, 3, 4)}
"""For each class, those that experts take it for."""


@dataclass(frozen=True)
class Label:
    """One run of sub-windows of an EEG that share truth and votes."""

    offsets_s: tuple[int, ...]
    probabilities: tuple[float, ...]
    votes: tuple[int, ...]


@dataclass(frozen=True)
class Recording:
    """One EEG file; its second 0 is labelled `start_s` after its spectrogram's."""

    eeg_id: int
    start_s: int
    labels: tuple[Label, ...]

    @property
    def last_offset_s(self) -> int:
        return self.labels[-1].offsets_s[-1]

    def segments(self) -> tuple[Segment, ...]:
        centre = self.start_s + SPECTROGRAM_ROWS * SPECTROGRAM_STEP_S / 2
        return tuple(
            Segment(
                centre + label.offsets_s[0] - LABEL_S / 2,
                centre + label.offsets_s[-1] + LABEL_S / 2,
                label.probabilities,
            )
            for label in self.labels
        )


@dataclass(frozen=True)
class Session:
    """One spectrogram file and the EEGs that were cut from the same signal."""

    split: Split
    index: int
    spectrogram_id: int
    patient_id: int
    patient_index: int
    recordings: tuple[Recording, ...]

    @property
    def n_rows(self) -> int:
        last = max(recording.start_s + recording.last_offset_s for recording in self.recordings)
        return SPECTROGRAM_ROWS + last // SPECTROGRAM_STEP_S


def plan_sessions(n_eegs: int, n_test: int, rng: np.random.Generator) -> list[Session]:
    """Draw `n_eegs` train and `n_test` test recordings, gathered into sessions; train sessions come first."""
    n = n_eegs + n_test
    eeg_ids = iter(rng.choice(2**32 - 1, n, replace=False).tolist())
    spectrogram_ids = iter(rng.choice(2**31 - 1, n, replace=False).tolist())
    patient_ids = rng.choice(65535, n, replace=False).tolist() if n <= 65535 else list(range(n))
    sessions: list[Session] = []
    # Steps of the golden ratio spread the patients' usual classes evenly, so few patients cover them all.
    start, bounds = rng.random(), np.cumsum(CLASS_MEANS)[:-1]
    for patient, (split, sizes) in enumerate(_patients(n_eegs, n_test, rng)):
        usual = int(np.searchsorted(bounds, (start + patient * GOLDEN_RATIO) % 1))
        for n_recordings in sizes:
            label = usual if rng.random() < 0.7 else int(rng.choice(len(CLASSES), p=CLASS_MEANS))
            recordings = _recordings(split, n_recordings, label, eeg_ids, rng)
            sessions.append(
                Session(
                    split, len(sessions), next(spectrogram_ids), patient_ids[patient], patient, recordings
                )
            )
    return sessions


def _patients(n_eegs: int, n_test: int, rng: np.random.Generator) -> Iterator[tuple[Split, list[int]]]:
    """For each patient the split, and for each of the patient's sessions the number of EEGs."""
    left = n_eegs
    while left:
        sizes: list[int] = []
        for _ in range(min(rng.geometric(0.6), 6)):
            size = min(int(rng.choice([1, 2, 3], p=[0.8, 0.13, 0.07])), left)
            left -= size
            if size:
                sizes.append(size)
        yield "train", sizes
    for _ in range(n_test):
        yield "test", [1]


def _recordings(
    split: Split, count: int, label: int, eeg_ids: Iterator[int], rng: np.random.Generator
) -> tuple[Recording, ...]:
    if split == "test":
        return (Recording(next(eeg_ids), 0, (_draw_label((0,), label, rng, MANY_VOTES),)),)
    recordings: list[Recording] = []
    start_s = 0
    for _ in range(count):
        labels: list[Label] = []
        for offsets in _offsets(rng):
            changed = bool(labels) and rng.random() < 0.4
            which = _confused(label, rng) if changed else label
            labels.append(_draw_label(offsets, which, rng))
        recordings.append(Recording(next(eeg_ids), start_s, tuple(labels)))
        start_s += recordings[-1].last_offset_s + 2 * int(rng.integers(10, 50))
    return tuple(recordings)


def _offsets(rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Offsets of an EEG's windows in s, split into runs of one label; new labels start at least 12 s later."""
    runs = [[0]]
    n_windows, n_runs = rng.geometric(0.22), rng.choice([1, 2, 3], p=[0.75, 0.18, 0.07])
    breaks = set(rng.integers(1, 8, n_runs - 1).tolist())
    for window in range(1, n_windows):
        new_run = window in breaks
        offset = runs[-1][-1] + 2 * int(rng.integers(6, 9) if new_run else rng.integers(1, 6))
        if offset > LAST_OFFSET_S:
            break
        if new_run:
            runs.append([])
        runs[-1].append(offset)
    return [tuple(run) for run in runs]


def _confused(label: int, rng: np.random.Generator) -> int:
    """Another class that `label` is taken for, the commoner the likelier."""
    weights = np.array([CLASS_MEANS[other] for other in CONFUSABLE[label]])
    return int(rng.choice(CONFUSABLE[label], p=weights / weights.sum()))


def _draw_label(
    offsets_s: tuple[int, ...], label: int, rng: np.random.Generator, min_votes: int = 1
) -> Label:
    """Truth (mostly one class, for a third of the labels two that can be taken for each other) and votes."""
    concentration = np.full(len(CLASSES), 0.15)
    if rng.random() < 0.3:
        concentration[label] += 2.5
        concentration[_confused(label, rng)] += 2
    else:
        concentration[label] += 7
    probabilities = rng.dirichlet(concentration)
    numbers = np.array([n for n in RECORDS_BY_VOTES if n >= min_votes])
    weights = np.array([RECORDS_BY_VOTES[n] for n in numbers.tolist()], np.float64)
    votes = rng.multinomial(rng.choice(numbers, p=weights / weights.sum()), probabilities)
    return Label(offsets_s, tuple(probabilities.tolist()), tuple(votes.tolist()))
