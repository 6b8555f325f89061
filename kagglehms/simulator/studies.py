"""The plan of a simulated competition, before any signal: patients, studies, labels, truth and votes.

Structure and numbers follow the real train.csv: 106,624 of its rows, which are 20,125 records in 17,039 EEGs, 11,108
spectrograms and 1,946 patients. The numbers here were counted and fitted by `benchmarks/fit_votes.py`. Two tails are
cut off to limit the length of studies: spectrograms longer than half an hour, and EEGs longer than about six minutes
(1 % each). The records of an EEG follow each other; in the real table a quarter of them overlap. Test recordings have
ten or more votes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv, gammaincinv

from kagglehms.data.competition import (
    LABEL_S,
    SPECTROGRAM_ROWS,
    SPECTROGRAM_S,
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

SPECTROGRAMS_PER_PATIENT = (
    (0, 0.211, 0.460, 0.633, 0.738, 0.796, 0.820, 0.867, 0.900, 0.950, 0.990, 1),
    (0, 1, 2, 3, 4, 5, 6, 9, 15, 26, 44, 66),
)
EEGS_PER_SPECTROGRAM = ((0, 0.787, 0.906, 0.946, 0.965, 0.975, 0.990, 1), (0, 1, 2, 3, 4, 5, 8, 12))
RECORDS_PER_EEG = ((0, 0.894, 0.973, 0.985, 0.991, 1), (0, 1, 2, 3, 4, 7))
"""Cumulative distributions: the fraction of patients, spectrograms or EEGs that have at most a given number."""
BETWEEN_EEGS_S = ((0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1), (50, 54, 62, 92, 180, 342, 482, 540, 598))
"""Quantiles of the time from an EEG's last window to the first window of the next EEG of the spectrogram."""
BETWEEN_RECORDS_S = ((0, 0.45, 0.7, 0.88, 0.97, 1), (12, 14, 24, 38, 60, 118))
"""Quantiles of the time between records of an EEG that do not overlap."""
STEPS_S = {
    2: 41904, 4: 17985, 6: 9505, 8: 5660, 10: 3820, 12: 2450, 14: 1712, 16: 1254, 18: 927, 20: 739, 22: 582,
    24: 504, 26: 403, 28: 315, 30: 282, 32: 231, 34: 220, 36: 200, 38: 167, 40: 177, 42: 169, 44: 161,
}  # fmt: skip
"""Number of real pairs of neighbouring windows, by the seconds between them."""
SINGLE_WINDOW = {3: 0.51, 7: 0.27, 28: 0.21}
"""Fraction of records with a single window, by their largest number of votes."""
LOG_WINDOWS = (1.63, 0.80)
"""Mean and standard deviation of the logarithm of the number of windows in all other records."""
LAST_EEG_OFFSET_S = 300
LAST_SPECTROGRAM_OFFSET_S = 1200

PATIENT_CONCENTRATION = 0.3
"""Similarity of patients in the kinds of their windows; if it is large, they are all the same."""
SAME_AS_PATIENT, SAME_AS_STUDY, SAME_AS_EEG = 0.88, 1.0, 0.97
"""Probability that a study shows what is usual for its patient, an EEG what is usual for its study, and a record what
the previous one in its EEG shows."""
KIND_OF_STUDY = 0.4
"""Probability that a record is of the kinds that are frequent at its study's number of votes instead of at its own. The
four were chosen together so that two records have the same consensus about as often as in the table: 0.58 of the pairs
in two spectrograms of a patient, 0.64 in two EEGs of a spectrogram, 0.51 in one EEG; as means over patients,
spectrograms and EEGs 0.57, 0.76 and 0.63 (see docs/simulator.md)."""
MANY_BETA = (0.167, 0.37)
"""Beta distribution, over patients, of the fraction of studies with many votes."""
VOTES_OF_PATIENT, VOTES_OF_STUDY, MANY_LIKE_STUDY = 0.65, 0.78, 0.35
"""Probability that a study has its patient's usual number of votes, that the first record of an EEG has its study's,
and that a later record has many votes if its study has, and few otherwise. They were chosen in the same way: 0.37 and
0.54 of the pairs of records of a patient and of a spectrogram have the same number of votes, and in 0.66 of those of an
EEG both have many votes, or both few."""
LARGEST_PATIENT = 63
"""No patient has more than one in this many of all EEGs; in the real table the largest has 269 of 17,039. In small
competitions this cuts off the tail of the distributions above, and leaves enough patients for folds."""


@dataclass(frozen=True)
class Label:
    """One record: a run of sub-windows of an EEG with the same truth and votes.

    Attributes:
        offsets_s: offset of each sub-window in the EEG.
        probabilities: true probability of each class.
        votes: number of votes for each class.
    """

    offsets_s: tuple[int, ...]
    probabilities: tuple[float, ...]
    votes: tuple[int, ...]


@dataclass(frozen=True)
class Recording:
    """One EEG file.

    Attributes:
        eeg_id: id of the EEG.
        start_s: offset in the spectrogram of the label at offset 0 of the EEG.
        labels: records of the EEG, in order of time.
    """

    eeg_id: int
    start_s: int
    labels: tuple[Label, ...]

    @property
    def last_offset_s(self) -> int:
        """Offset of the last sub-window."""
        return self.labels[-1].offsets_s[-1]

    def segments(self) -> tuple[Segment, ...]:
        """Return the labelled segments, in seconds of the study."""
        centre = self.start_s + SPECTROGRAM_S / 2
        return tuple(
            Segment(
                centre + label.offsets_s[0] - LABEL_S / 2,
                centre + label.offsets_s[-1] + LABEL_S / 2,
                label.probabilities,
            )
            for label in self.labels
        )


@dataclass(frozen=True)
class Study:
    """One spectrogram file, and the EEGs cut from the same signal.

    Attributes:
        split: part of the competition, train or test.
        index: number of the study.
        spectrogram_id: id of the spectrogram.
        patient_id: id of the patient.
        patient_index: number of the patient.
        recordings: the EEGs, in order of time.
    """

    split: Split
    index: int
    spectrogram_id: int
    patient_id: int
    patient_index: int
    recordings: tuple[Recording, ...]

    @property
    def n_rows(self) -> int:
        """Number of rows of the spectrogram."""
        last = max(recording.start_s + recording.last_offset_s for recording in self.recordings)
        return SPECTROGRAM_ROWS + last // SPECTROGRAM_STEP_S


@dataclass(frozen=True)
class _Place:
    """A place among a patient's possible windows.

    Windows at the same place and with the same vote group have the same truth, and the same deviation of few raters;
    their votes differ.

    Attributes:
        kind: quantile of the window's kind.
        seed: seed of its truth and of the raters' deviation.
    """

    kind: float
    seed: int

    @classmethod
    def draw(cls, rng: np.random.Generator) -> _Place:
        """Draw a place."""
        return cls(rng.random(), int(rng.integers(2**63)))


@dataclass(frozen=True)
class _Habit:
    """What the recordings of one patient have in common.

    Attributes:
        kinds_GM: cumulative frequencies of the kinds in each vote group.
        many: fraction of studies with many votes.
        n_votes: usual number of votes.
        place: usual place of windows.
        easy: whether the plan is an easy one.
    """

    kinds_GM: F64
    many: float
    n_votes: int
    place: _Place
    easy: bool

    @classmethod
    def of(cls, start_M: F64, index: int, rng: np.random.Generator, easy: bool) -> _Habit:
        """Make the habit of one patient.

        A Kronecker sequence spreads patients evenly, so that a few of them already cover all classes. Gamma variables
        divided by their sum have a Dirichlet distribution, whose mean is that of the table; a patient is similar in
        all vote groups because these share one set of uniform numbers.

        Args:
            start_M: start of the Kronecker sequence.
            index: number of the patient.
            rng: random generator.
            easy: whether the plan is an easy one.
        """
        *uniform_M, studies, usual = (start_M + index * _KRONECKER_M) % 1
        gamma_GM = gammaincinv(np.maximum(PATIENT_CONCENTRATION * KIND_SHARES_GM, 1e-4), uniform_M)
        total_G = gamma_GM.sum(axis=1, keepdims=True)
        kinds_GM = np.where(total_G > 1e-9, gamma_GM / np.maximum(total_G, 1e-9), KIND_SHARES_GM)
        many = float(betaincinv(*MANY_BETA, studies))
        n_votes = draw_n_votes(bool(usual < many), rng)
        if easy:
            kinds_GM = np.tile(EASY_SHARES_M, (len(kinds_GM), 1))
        return cls(np.cumsum(kinds_GM, axis=1), many, n_votes, _Place.draw(rng), easy)


_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61)
_KRONECKER_M: F64 = np.sqrt(np.array(_PRIMES, np.float64)) % 1


def draw_studies(n_eegs: int, n_test: int, rng: np.random.Generator, easy: bool = False) -> list[Study]:
    """Draw the studies of a competition, those of the train set first.

    In an easy plan all classes are equally frequent, truths are mostly clear, all records have ten or more votes, and
    studies do not depend on their patient, so that something can be learnt from few recordings.

    Args:
        n_eegs: number of EEGs in the train set.
        n_test: number of EEGs in the test set.
        rng: random generator.
        easy: whether to make an easy plan.
    """
    n = n_eegs + n_test
    eeg_ids = iter(rng.choice(2**32 - 1, n, replace=False).tolist())
    spectrogram_ids = iter(rng.choice(2**31 - 1, n, replace=False).tolist())
    patient_ids = rng.choice(65535, n, replace=False).tolist() if n <= 65535 else list(range(n))
    start_M = rng.random(len(_PRIMES))
    studies: list[Study] = []
    for patient, (split, sizes) in enumerate(_patients(n_eegs, n_test, rng)):
        habit = _Habit.of(start_M, patient, rng, easy)
        for n_recordings in sizes:
            make = _test_recording if split == "test" else _recordings
            recordings = make(n_recordings, habit, eeg_ids, rng)
            studies.append(
                Study(split, len(studies), next(spectrogram_ids), patient_ids[patient], patient, recordings)
            )
    return studies


def usual_probabilities(studies: list[Study]) -> dict[int, F64]:
    """Return the mean (6,) class probabilities of each patient's records, by the number of the patient."""
    of_patient: dict[int, list[tuple[float, ...]]] = {}
    for study in studies:
        labels = [label.probabilities for recording in study.recordings for label in recording.labels]
        of_patient.setdefault(study.patient_index, []).extend(labels)
    return {patient: np.mean(found, axis=0) for patient, found in of_patient.items()}


def _draw(distribution: tuple[tuple[float, ...], tuple[float, ...]], rng: np.random.Generator) -> int:
    """Draw a whole number of at least 1 from a cumulative distribution."""
    return max(int(np.ceil(np.interp(rng.random(), *distribution))), 1)


def _patients(n_eegs: int, n_test: int, rng: np.random.Generator) -> Iterator[tuple[Split, list[int]]]:
    """Yield each patient's split, and the number of EEGs in each of the patient's studies."""
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
    return (
        Recording(
            next(eeg_ids), 0, (_label((0,), n_votes, vote_group(n_votes), habit, _Place.draw(rng), rng),)
        ),
    )


def _recordings(
    count: int, habit: _Habit, eeg_ids: Iterator[int], rng: np.random.Generator
) -> tuple[Recording, ...]:
    """Draw the EEGs of a study, in order of time."""
    recordings: list[Recording] = []
    n_votes, place, start_s = habit.n_votes, habit.place, 0
    if rng.random() >= VOTES_OF_PATIENT:
        n_votes = draw_n_votes(bool(rng.random() < habit.many), rng)
    if habit.easy or rng.random() >= SAME_AS_PATIENT:
        place = _Place.draw(rng)
    for _ in range(count):
        here = place if rng.random() < SAME_AS_STUDY else _Place.draw(rng)
        labels = _labels(habit, n_votes, here, rng)
        # If a study gets too long, its EEGs move closer together instead of being dropped.
        gap = BETWEEN_EEGS_S if start_s < LAST_SPECTROGRAM_OFFSET_S / 2 else ((0, 1), (12, 40))
        recordings.append(Recording(next(eeg_ids), start_s, labels))
        start_s += recordings[-1].last_offset_s + 2 * (int(np.interp(rng.random(), *gap)) // 2)
    return tuple(recordings)


def _labels(habit: _Habit, usual: int, place: _Place, rng: np.random.Generator) -> tuple[Label, ...]:
    """Draw the records of an EEG."""
    labels: list[Label] = []
    for number in range(_draw(RECORDS_PER_EEG, rng)):
        if number == 0:
            n_votes = usual if rng.random() < VOTES_OF_STUDY else draw_n_votes(None, rng)
        else:
            alike = rng.random() < MANY_LIKE_STUDY
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
        group = vote_group(usual if rng.random() < KIND_OF_STUDY else n_votes)
        labels.append(_label(offsets_s, n_votes, group, habit, place, rng))
    return tuple(labels)


def _offsets(first: int, n_votes: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Draw the offsets of a record's windows in its EEG; none if the record would begin too late."""
    single = next(share for most, share in SINGLE_WINDOW.items() if n_votes <= most)
    count = 1 if rng.random() < single else max(round(float(np.exp(rng.normal(*LOG_WINDOWS)))), 2)
    steps = rng.choice(list(STEPS_S), count - 1, p=np.array(list(STEPS_S.values())) / sum(STEPS_S.values()))
    offsets = first + np.concatenate([[0], np.cumsum(steps)]).astype(int)
    return tuple(offsets[offsets <= LAST_EEG_OFFSET_S].tolist())


def _label(
    offsets_s: tuple[int, ...],
    n_votes: int,
    group: int,
    habit: _Habit,
    place: _Place,
    rng: np.random.Generator,
) -> Label:
    kinds = habit.kinds_GM[group]
    kind = min(int(np.searchsorted(kinds, place.kind)), len(kinds) - 1)
    same = np.random.default_rng(place.seed)
    truth_K = draw_truth(kind, same)
    return Label(offsets_s, tuple(truth_K.tolist()), draw_votes(truth_K, n_votes, same, rng))
