"""What a simulated competition consists of, before any signal: patients, sessions, labels, truth and votes.

Structure and numbers follow the real train.csv: 106,624 of its rows, which are 20,125 records in 17,039 EEGs, 11,108
spectrograms and 1,946 patients. `benchmarks/fit_votes.py` counts and fits what stands here. Two tails are cut, so
that sessions stay simulable: spectrograms longer than half an hour, EEGs longer than about six minutes (1 % each).
Records of one EEG follow each other here; in the real table a quarter of them overlap. Test votes are ten or more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv, gammaincinv

from kagglehms.data.competition import (
    LABEL_S,
    SPECTROGRAM_ROWS,
    SPECTROGRAM_STEP_S,
    Split,
)
from kagglehms.data.records import MANY_VOTES
from kagglehms.simulator.signal import Segment
from kagglehms.simulator.votes import (
    EASY_SHARES_M,
    F64,
    KIND_SHARES_GM,
    draw_n_votes,
    draw_truth,
    draw_votes,
    vote_group,
)

CLASS_MEANS = (0.184, 0.154, 0.102, 0.069, 0.103, 0.388)
"""Mean target of the real records."""

SPECTROGRAMS_PER_PATIENT = (
    (0, 0.211, 0.460, 0.633, 0.738, 0.796, 0.820, 0.867, 0.900, 0.950, 0.990, 1),
    (0, 1, 2, 3, 4, 5, 6, 9, 15, 26, 44, 66),
)
EEGS_PER_SPECTROGRAM = ((0, 0.787, 0.906, 0.946, 0.965, 0.975, 0.990, 1), (0, 1, 2, 3, 4, 5, 8, 12))
RECORDS_PER_EEG = ((0, 0.894, 0.973, 0.985, 0.991, 1), (0, 1, 2, 3, 4, 7))
"""Cumulative distributions: the share of patients, spectrograms, EEGs that have at most so many."""
BETWEEN_EEGS_S = ((0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1), (50, 54, 62, 92, 180, 342, 482, 540, 598))
"""Quantiles of the time from an EEG's last window to the first of the spectrogram's next."""
BETWEEN_RECORDS_S = ((0, 0.45, 0.7, 0.88, 0.97, 1), (12, 14, 24, 38, 60, 118))
"""The same between an EEG's records, where they do not overlap."""
STEPS_S = {
    2: 41904, 4: 17985, 6: 9505, 8: 5660, 10: 3820, 12: 2450, 14: 1712, 16: 1254, 18: 927, 20: 739, 22: 582,
    24: 504, 26: 403, 28: 315, 30: 282, 32: 231, 34: 220, 36: 200, 38: 167, 40: 177, 42: 169, 44: 161,
}  # fmt: skip
"""Real pairs of neighbouring windows by the seconds between them."""
SINGLE_WINDOW = {3: 0.51, 7: 0.27, 28: 0.21}
"""Share of records of one window, by their most votes; of the others ln(windows) has this mean and deviation:"""
LOG_WINDOWS = (1.63, 0.80)
LAST_EEG_OFFSET_S = 300
LAST_SPECTROGRAM_OFFSET_S = 1200

PATIENT_CONCENTRATION = 0.5
"""How alike patients are in the kinds of their windows (large: all the same)."""
SAME_AS_PATIENT, SAME_AS_SESSION, SAME_AS_EEG = 0.8, 0.97, 0.7
"""How often a session shows what its patient usually does, an EEG what its session does, a record what the one
before in its EEG does. Chosen to bring near the table's how often two records have the same consensus: 0.56 in two
spectrograms of a patient, 0.75 in two EEGs of a spectrogram, 0.59 in one EEG (docs/simulator.md says how near)."""
MANY_BETA = (0.167, 0.37)
"""Distribution over patients of the share of sessions on which many voted."""
VOTES_OF_PATIENT, VOTES_OF_SESSION, MANY_LIKE_SESSION = 0.65, 0.78, 0.35
"""How often a session has its patient's usual number of votes, an EEG's first record its session's, and how often a
later record has at least as many, or few, as its session. Chosen likewise: 0.37 and 0.54 of pairs of a patient, of
a spectrogram, have the same number of votes, and 0.66 of those of one EEG are both of many, or of few."""
LARGEST_PATIENT = 63
"""No patient has more than this part of all EEGs: the real table's largest has 269 of 17,039. In small competitions
this cuts the tail of the distributions above, and leaves patients enough for folds."""


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
class RecordingSession:
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


@dataclass(frozen=True)
class _Place:
    """Where among a patient's windows one lies. Windows of one place and vote group have one truth, and the same
    few raters see the same in them; their votes differ."""

    kind: float
    seed: int

    @classmethod
    def draw(cls, rng: np.random.Generator) -> _Place:
        return cls(rng.random(), int(rng.integers(2**63)))


@dataclass(frozen=True)
class _Habit:
    """What one patient's recordings have in common: shares of kinds by vote group, and how often many voted."""

    kinds_GM: F64
    many: float
    n_votes: int
    place: _Place
    easy: bool

    @classmethod
    def of(cls, start_M: F64, index: int, rng: np.random.Generator, easy: bool) -> _Habit:
        """The patient number `index`. Steps of a Kronecker sequence spread patients evenly over what they can be,
        so few patients cover all classes; gamma variables divided by their sum are Dirichlet, whose mean is the
        table's, and one set of uniform numbers for all groups makes a patient alike in all of them."""
        *uniform_M, sessions, usual = (start_M + index * _KRONECKER_M) % 1
        gamma_GM = gammaincinv(np.maximum(PATIENT_CONCENTRATION * KIND_SHARES_GM, 1e-4), uniform_M)
        total_G = gamma_GM.sum(axis=1, keepdims=True)
        kinds_GM = np.where(total_G > 1e-9, gamma_GM / np.maximum(total_G, 1e-9), KIND_SHARES_GM)
        many = float(betaincinv(*MANY_BETA, sessions))
        n_votes = draw_n_votes(bool(usual < many), rng)
        if easy:
            kinds_GM = np.tile(EASY_SHARES_M, (len(kinds_GM), 1))
        return cls(np.cumsum(kinds_GM, axis=1), many, n_votes, _Place.draw(rng), easy)


_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61)
_KRONECKER_M: F64 = np.sqrt(np.array(_PRIMES, np.float64)) % 1


def draw_sessions(
    n_eegs: int, n_test: int, rng: np.random.Generator, easy: bool = False
) -> list[RecordingSession]:
    """Draw `n_eegs` train and `n_test` test recordings, gathered into sessions; train sessions come first.

    Easy sessions have all classes alike, mostly clear truths, ten and more votes everywhere, and do not depend on their
    patient: something can be learnt from few recordings.
    """
    n = n_eegs + n_test
    eeg_ids = iter(rng.choice(2**32 - 1, n, replace=False).tolist())
    spectrogram_ids = iter(rng.choice(2**31 - 1, n, replace=False).tolist())
    patient_ids = rng.choice(65535, n, replace=False).tolist() if n <= 65535 else list(range(n))
    start_M = rng.random(len(_PRIMES))
    sessions: list[RecordingSession] = []
    for patient, (split, sizes) in enumerate(_patients(n_eegs, n_test, rng)):
        habit = _Habit.of(start_M, patient, rng, easy)
        for n_recordings in sizes:
            make = _test_recording if split == "test" else _recordings
            recordings = make(n_recordings, habit, eeg_ids, rng)
            sessions.append(
                RecordingSession(
                    split, len(sessions), next(spectrogram_ids), patient_ids[patient], patient, recordings
                )
            )
    return sessions


def _draw(distribution: tuple[tuple[float, ...], tuple[float, ...]], rng: np.random.Generator) -> int:
    """A whole number, at least 1, of a cumulative distribution."""
    return max(int(np.ceil(np.interp(rng.random(), *distribution))), 1)


def _patients(n_eegs: int, n_test: int, rng: np.random.Generator) -> Iterator[tuple[Split, list[int]]]:
    """For each patient the split, and for each of the patient's sessions the number of EEGs."""
    left = n_eegs
    while left:
        most = min(max(n_eegs // LARGEST_PATIENT, 2), left)
        sizes: list[int] = []
        for _ in range(_draw(SPECTROGRAMS_PER_PATIENT, rng)):
            size = min(_draw(EEGS_PER_SPECTROGRAM, rng), most - sum(sizes))
            if size:
                sizes.append(size)
        left -= sum(sizes)
        yield "train", sizes
    for _ in range(n_test):
        yield "test", [1]


def _test_recording(
    _: int, habit: _Habit, eeg_ids: Iterator[int], rng: np.random.Generator
) -> tuple[Recording, ...]:
    n_votes = draw_n_votes(True, rng)
    return (Recording(next(eeg_ids), 0, (_label((0,), n_votes, habit, _Place.draw(rng), rng),)),)


def _recordings(
    count: int, habit: _Habit, eeg_ids: Iterator[int], rng: np.random.Generator
) -> tuple[Recording, ...]:
    """The EEGs of a session, one after the other."""
    recordings: list[Recording] = []
    n_votes, place, start_s = habit.n_votes, habit.place, 0
    if rng.random() >= VOTES_OF_PATIENT:
        n_votes = draw_n_votes(bool(rng.random() < habit.many), rng)
    if habit.easy or rng.random() >= SAME_AS_PATIENT:
        place = _Place.draw(rng)
    for _ in range(count):
        here = place if rng.random() < SAME_AS_SESSION else _Place.draw(rng)
        labels = _labels(habit, n_votes, here, rng)
        # A session that grows too long keeps its EEGs close together rather than losing them.
        gap = BETWEEN_EEGS_S if start_s < LAST_SPECTROGRAM_OFFSET_S / 2 else ((0, 1), (12, 40))
        recordings.append(Recording(next(eeg_ids), start_s, labels))
        start_s += recordings[-1].last_offset_s + 2 * (int(np.interp(rng.random(), *gap)) // 2)
    return tuple(recordings)


def _labels(habit: _Habit, usual: int, place: _Place, rng: np.random.Generator) -> tuple[Label, ...]:
    """The records of one EEG: their windows, and the truth and votes of each."""
    labels: list[Label] = []
    for number in range(_draw(RECORDS_PER_EEG, rng)):
        if number == 0:
            n_votes = usual if rng.random() < VOTES_OF_SESSION else draw_n_votes(None, rng)
        else:
            alike = rng.random() < MANY_LIKE_SESSION
            n_votes = draw_n_votes(usual >= MANY_VOTES if alike else None, rng)
        if habit.easy:
            n_votes = draw_n_votes(True, rng)
        first = 0
        if labels:
            first = labels[-1].offsets_s[-1] + 2 * (int(np.interp(rng.random(), *BETWEEN_RECORDS_S)) // 2)
            place = place if rng.random() < SAME_AS_EEG else _Place.draw(rng)
        offsets_s = _offsets(first, n_votes, rng)
        if not offsets_s:
            break
        labels.append(_label(offsets_s, n_votes, habit, place, rng))
    return tuple(labels)


def _offsets(first: int, n_votes: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Offsets of a record's windows in its EEG, in s; none if it would begin too late."""
    single = next(share for most, share in SINGLE_WINDOW.items() if n_votes <= most)
    count = 1 if rng.random() < single else max(round(float(np.exp(rng.normal(*LOG_WINDOWS)))), 2)
    steps = rng.choice(list(STEPS_S), count - 1, p=np.array(list(STEPS_S.values())) / sum(STEPS_S.values()))
    offsets = first + np.concatenate([[0], np.cumsum(steps)]).astype(int)
    return tuple(offsets[offsets <= LAST_EEG_OFFSET_S].tolist())


def _label(
    offsets_s: tuple[int, ...], n_votes: int, habit: _Habit, place: _Place, rng: np.random.Generator
) -> Label:
    kinds = habit.kinds_GM[vote_group(n_votes)]
    kind = min(int(np.searchsorted(kinds, place.kind)), len(kinds) - 1)
    same = np.random.default_rng(place.seed)
    truth_K = draw_truth(kind, same)
    return Label(offsets_s, tuple(truth_K.tolist()), draw_votes(truth_K, n_votes, same, rng))
