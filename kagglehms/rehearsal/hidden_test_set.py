"""A stand-in for the hidden test set: many rows, made from simulated or given recordings.

The visible test set has one row, and the hidden one is swapped in for the scored run, so a run on one row says nothing
about time. Reading and predicting a recording takes the same time under any name, so a few distinct recordings linked
under many names do as well as many distinct ones, and take no space on the disk.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from kagglehms.data.competition import CLASSES, Competition
from kagglehms.errors import UsageError
from kagglehms.files import write_bytes
from kagglehms.kernel.prior import read_rows, submission_csv

HIDDEN_ROWS = 4000
"""Assumed number of rows of the hidden test set; the competition does not give it."""
DISTINCT = 32
"""Number of distinct simulated recordings."""

_FIRST_ID = 1_000_000_000
"""First id for rows that repeat a recording; ids that the competition uses are skipped."""


def make_hidden(
    folder: Path, n_rows: int, given: Path | None = None, distinct: int = DISTINCT
) -> Competition:
    """Make a competition folder that holds only a test set.

    Args:
        folder: new or empty folder.
        n_rows: number of rows in the test set.
        given: competition folder whose test recordings are used in their order, and again from the start until there
            are enough; None simulates recordings.
        distinct: largest number of recordings to simulate.

    Returns:
        The competition in `folder`.

    Raises:
        UsageError: `n_rows` is below 1, or the given folder has no test set with recordings.
    """
    if n_rows < 1:
        raise UsageError(f"a hidden test set needs at least one row, but got {n_rows}")
    with tempfile.TemporaryDirectory(prefix="kagglehms-hidden-", dir=folder.parent) as scratch:
        if given is None:
            from kagglehms.simulator.competition import make_competition

            given = Path(scratch) / "simulated"
            make_competition(given, n_eegs=1, n_test=min(n_rows, distinct))
        return _repeated(folder, n_rows, Competition(given))


def _repeated(folder: Path, n_rows: int, source: Competition) -> Competition:
    rows = read_rows(source)
    pairs = [
        (eeg_id, spectrogram_id)
        for row, spectrogram_id in enumerate(rows.spectrogram_ids)
        if (eeg_id := rows.eeg_id(row)) is not None and spectrogram_id is not None
    ]
    if not pairs:
        raise UsageError(f"{source.root}: has no test set to make a hidden one from; give another folder")
    for name in ("test_eegs", "test_spectrograms"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    target = Competition(folder)
    used = {id_ for pair in pairs for id_ in pair}
    fresh = (id_ for id_ in range(_FIRST_ID, _FIRST_ID + 2 * (n_rows + len(used))) if id_ not in used)
    lines = []
    for row in range(n_rows):
        eeg_id, spectrogram_id = pairs[row % len(pairs)]
        names = (eeg_id, spectrogram_id) if row < len(pairs) else (next(fresh), next(fresh))
        _link(source.eeg(eeg_id, "test"), target.eeg(names[0], "test"))
        _link(source.spectrogram(spectrogram_id, "test"), target.spectrogram(names[1], "test"))
        lines.append((names[1], names[0]))
    test = "".join(f"{spectrogram_id},{eeg_id},1\n" for spectrogram_id, eeg_id in lines)
    write_bytes(target.test_csv, f"spectrogram_id,eeg_id,patient_id\n{test}".encode())
    uniform = [1 / len(CLASSES)] * len(CLASSES)
    sample = submission_csv([eeg_id for _, eeg_id in lines], [uniform] * len(lines))
    write_bytes(target.sample_submission_csv, sample)
    return target


def _link(source: Path, target: Path) -> None:
    """Make a hard link to a file, or a copy where the file system has no hard links; do nothing for a missing file."""
    if target.exists() or not source.exists():
        return
    try:
        os.link(source.resolve(), target)  # a hard link to a symbolic link would be a symbolic link
    except OSError:
        shutil.copyfile(source, target)
