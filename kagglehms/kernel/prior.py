"""The answer where there is no better one: the rows to predict, the class prior, and both as a submission.

The first thing that a scored run does, so it needs nothing but the standard library and believes nothing: whatever
is wrong with test.csv or with the bundle, some valid submission comes out, and notes say what was wrong.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kagglehms.data.competition import CLASSES, VOTE_COLUMNS, Competition
from kagglehms.data.whole import BLANKS, whole_number
from kagglehms.files import write_bytes
from kagglehms.strict_json import parse

SUBMISSION = "submission.csv"

TRAIN_PRIOR = (0.052, 0.189, 0.123, 0.083, 0.088, 0.465)
"""Class means of the 6,329 records of train.csv with at least ten votes, of which the leaderboard seems to be made;
used only where the bundle cannot say."""


@dataclass(frozen=True)
class Rows:
    """The rows of a submission, and which recordings belong to them.

    Attributes:
        eeg_ids: as the table spells them, each once, in its order; the submission repeats them letter by letter.
        spectrogram_ids: one a row; None where the table has no usable one.
        source: the table they were read from.
        notes: what was wrong with the tables.
    """

    eeg_ids: tuple[str, ...]
    spectrogram_ids: tuple[int | None, ...]
    source: Path
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.eeg_ids)

    def eeg_id(self, row: int) -> int | None:
        """The id as a number; None if it is none, so that there can be no recording of it."""
        return whole_number(self.eeg_ids[row])


def read_rows(competition: Competition) -> Rows:
    """Read the rows to predict from test.csv, or from sample_submission.csv where that cannot be used.

    An id that stands twice gives one row, also where it is spelled in two ways; a line without an id gives none; an id
    that is no number keeps its row. Numbers are read as in train.csv: `853520.0` is the recording 853520, and the row
    keeps its spelling. Nothing is raised: two tables that cannot be used give no rows.
    """
    notes: list[str] = []
    for path in (competition.test_csv, competition.sample_submission_csv):
        try:
            lines = _read_lines(path)
        except (OSError, ValueError, csv.Error) as error:
            notes.append(f"{path.name} cannot be used: {error}")
            continue
        found: dict[str, int | None] = {}
        seen: set[int | str] = set()
        twice: list[str] = []
        for line in lines:
            eeg_id = (line.get("eeg_id") or "").strip(BLANKS)
            number = whole_number(eeg_id)
            if not eeg_id:
                notes.append(f"{path.name} has a line without an eeg_id, which gives no row")
            elif (eeg_id if number is None else number) in seen:
                twice.append(eeg_id)
            else:
                seen.add(eeg_id if number is None else number)
                found[eeg_id] = whole_number(line.get("spectrogram_id") or "")
        if twice:
            notes.append(f"{path.name} has {len(twice)} eeg_id(s) again: {_some(twice)}; each gets one row")
        unknown = [eeg_id for eeg_id in found if whole_number(eeg_id) is None]
        if unknown:
            notes.append(f"{path.name} has {len(unknown)} eeg_id(s) that are no number: {_some(unknown)}")
        if found:
            return Rows(tuple(found), tuple(found.values()), path, tuple(notes))
        notes.append(f"{path.name} has no rows")
    return Rows((), (), competition.test_csv, tuple(notes))


def read_prior(bundle: Path) -> tuple[tuple[float, ...], str]:
    """Return the class prior and where it comes from: the bundle's manifest, as far as it can be read."""
    try:
        prior = tuple(float(p) for p in parse((bundle / "manifest.json").read_bytes())["prior"])
        if len(prior) == len(CLASSES) and min(prior) >= 0 and math.isclose(sum(prior), 1, abs_tol=1e-6):
            return prior, "the bundle's records"
        reason = "it is no distribution"
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
    return TRAIN_PRIOR, f"train.csv's records with at least ten votes, as the bundle has none ({reason})"


def submission_csv(eeg_ids: Sequence[str | int], rows: Iterable[Sequence[float]]) -> bytes:
    """Return a submission as text: one row an id, the six probabilities in full precision."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["eeg_id", *VOTE_COLUMNS])
    for eeg_id, values in zip(eeg_ids, rows, strict=True):
        writer.writerow([eeg_id, *(repr(float(value)) for value in values)])
    return out.getvalue().encode()


def write_prior(path: Path, rows: Rows, prior: Sequence[float]) -> None:
    """Write the submission that has the prior in every row, atomically."""
    write_bytes(path, submission_csv(rows.eeg_ids, [prior] * len(rows)))


def submission_ids(path: Path) -> list[str] | None:
    """Return the ids of a submission on the disk; None if it is not there or not whole."""
    try:
        lines = _read_lines(path)
        whole = all(math.isfinite(float(line[name])) for line in lines for name in VOTE_COLUMNS)
        return [line["eeg_id"] for line in lines] if whole else None
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return None


def _read_lines(path: Path) -> list[dict[str, str]]:
    """The lines of a table with a column eeg_id, but for blank ones.

    Raises OSError, csv.Error, or ValueError for another table.
    """
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.DictReader(file, restval="")
        names = [name.strip(BLANKS) for name in reader.fieldnames or ()]
        if "eeg_id" not in names:
            raise ValueError(f"it has no column eeg_id but {', '.join(names) or 'nothing'}")
        reader.fieldnames = names
        return [line for line in reader if any((line[name] or "").strip(BLANKS) for name in names)]


def _some(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (" …" if len(names) > most else "")
