"""Facts of the competition, each stated once, and the layout of its folder.

Source: the data page of "HMS - Harmful Brain Activity Classification" (Kaggle, 2024) and its files. Only the standard
library is imported, so that every other module can use these names.
"""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from kagglehms.errors import DataError

SLUG = "hms-harmful-brain-activity-classification"
"""The competition's name in Kaggle's addresses and mounts."""

CLASSES = ("seizure", "lpd", "gpd", "lrda", "grda", "other")
"""The six classes, in the order of the submission's columns and of all arrays in this project."""
VOTE_COLUMNS = tuple(f"{name}_vote" for name in CLASSES)
PROBABILITY_COLUMNS = tuple(f"{name}_probability" for name in CLASSES)
"""Columns of predicted or true probabilities, in every table of this project that has both votes and probabilities."""
CONSENSUS_NAMES = {"Seizure": 0, "LPD": 1, "GPD": 2, "LRDA": 3, "GRDA": 4, "Other": 5}
"""`expert_consensus` as train.csv spells it → index of the class."""

SFREQ_HZ = 200
WINDOW_S = 50
"""Seconds of EEG around a label, whose 10 s are in the middle."""
LABEL_S = 10
LEAD_S = (WINDOW_S - LABEL_S) // 2
"""Seconds of a window before the labelled ones, and after them."""
N_TIMES = SFREQ_HZ * WINDOW_S

CHANNELS = (
    "Fp1", "F3", "C3", "P3", "F7", "T3", "T5", "O1", "Fz", "Cz", "Pz",
    "Fp2", "F4", "C4", "P4", "F8", "T4", "T6", "O2", "EKG",
)  # fmt: skip
"""Columns of an EEG file, in order: 19 electrodes (µV, common reference) and the electrocardiogram."""

PANELS = ("LL", "RL", "LP", "RP")
"""Left lateral, right lateral, left parasagittal and right parasagittal: the order of the panels in spectrogram files
and in all four-panel arrays of this project."""
CHAINS = {
    "LL": ("Fp1", "F7", "T3", "T5", "O1"),
    "RL": ("Fp2", "F8", "T4", "T6", "O2"),
    "LP": ("Fp1", "F3", "C3", "P3", "O1"),
    "RP": ("Fp2", "F4", "C4", "P4", "O2"),
}
"""Electrodes of each chain of the double banana montage, in which neighbours are subtracted."""
DIFFERENCES = tuple(pair for panel in PANELS for pair in pairwise(CHAINS[panel]))
"""Pairs of electrodes of the sixteen differences, four from each chain, in the order of the panels."""
MIDLINE_DIFFERENCES = (("Fz", "Cz"), ("Cz", "Pz"))
"""Two more differences, which follow the sixteen in some inputs."""
OTHER_SIDE = {"LL": "RL", "RL": "LL", "LP": "RP", "RP": "LP"}
"""Panel of the other hemisphere for each panel."""

SPECTROGRAM_STEP_S = 2
"""Seconds between two rows of a spectrogram file, whose `time` runs 1, 3, 5 …"""
SPECTROGRAM_ROWS = 300
"""Rows of a crop: ten minutes with the 50 s window in the middle."""
SPECTROGRAM_S = SPECTROGRAM_ROWS * SPECTROGRAM_STEP_S
N_BINS = 100
"""Number of frequency bins in a panel."""
BIN_HZ = 200 / 1024
FREQUENCIES_HZ = tuple(math.floor(100 * k * BIN_HZ + 0.5) / 100 for k in range(3, 3 + N_BINS))
"""0.59 … 19.92 Hz, rounded as in the column names (halves up: 3.125 is 3.13)."""
SPECTROGRAM_COLUMNS = tuple(f"{panel}_{hz}" for panel in PANELS for hz in FREQUENCIES_HZ)

LOG_CLIP = (-4.0, 8.0)
"""Spectrogram power is clipped to [e⁻⁴, e⁸] before taking the natural logarithm."""

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Competition:
    """The competition's folder, as Kaggle mounts it and as its download unpacks.

    Attributes:
        root: path of the folder with train.csv, test.csv, sample_submission.csv and the four folders of recordings.

    Raises:
        DataError: there is no such folder; the message says how to unpack an archive that lies nearby.
    """

    root: Path

    def __post_init__(self) -> None:
        if not self.root.is_dir():
            archive = self.root.suffix == ".zip" and self.root.is_file()
            raise DataError(
                self.root,
                "is an archive and no folder" if archive else "no such folder",
                unpacking(self.root, self.root)
                or "give the folder that holds train.csv or test.csv; `kagglehms doctor` says how to get it",
            )

    @property
    def train_csv(self) -> Path:
        return self.root / "train.csv"

    @property
    def test_csv(self) -> Path:
        return self.root / "test.csv"

    @property
    def sample_submission_csv(self) -> Path:
        return self.root / "sample_submission.csv"

    def eeg(self, eeg_id: int, split: Split = "train") -> Path:
        """Return the path of an EEG file."""
        return self.root / f"{split}_eegs" / f"{eeg_id}.parquet"

    def spectrogram(self, spectrogram_id: int, split: Split = "train") -> Path:
        """Return the path of a spectrogram file."""
        return self.root / f"{split}_spectrograms" / f"{spectrogram_id}.parquet"


def unpacking(path: Path, root: Path) -> str | None:
    """Say how to unpack a missing file or folder.

    Kaggle's client downloads the competition as one archive, and a single file as an archive of its own.

    Args:
        path: path of the missing file or folder.
        root: path of the competition's folder.

    Returns:
        A hint with a command, or None if there is no archive nearby that may contain it.
    """
    archives = [(path.with_name(f"{path.name}.zip"), path.parent)] if path != root else []
    folder = path.parent.with_name(f"{path.parent.name}.zip") if path.parent.name else root / f"{SLUG}.zip"
    archives += [(folder, root)] if path.parent != root else []
    archives += [(root / f"{SLUG}.zip", root), (root.parent / f"{SLUG}.zip", root)]
    archives += [(root.with_name(f"{root.name}.zip"), root)] if root.name else []
    archives += [(root, root.with_suffix(""))] if root.suffix == ".zip" else []
    for archive, target in archives:
        if archive.is_file():
            command = shlex.join(["python", "-m", "zipfile", "-e", str(archive), str(target)])
            return (
                f"unpack it: {command}" if archive == root else f"{archive} has not been unpacked: {command}"
            )
    return None


def truth_folder(root: Path) -> Path:
    """Return the folder of a simulated competition's true probabilities, which is beside `root` and never in it."""
    return root.with_name(root.name + "-truth")
