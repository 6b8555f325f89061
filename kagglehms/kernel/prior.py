"""The fallback of a scored run: the rows to predict, the class prior, and a submission made from the two.

This is the first thing that a scored run does, so it needs only the standard library and trusts no input: whatever is
wrong with test.csv or the bundle, a valid submission comes out, and notes say what was wrong.
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
from kagglehms.errors import counted
from kagglehms.files import require_regular, write_bytes
from kagglehms.strict_json import parse

_MAX_BYTES = 1 << 28
"""256 MiB, far beyond any table of ids."""
SUBMISSION = "submission.csv"
SUBMISSION_COLUMNS = ("eeg_id", *VOTE_COLUMNS)

TRAIN_PRIOR = (0.052, 0.189, 0.123, 0.083, 0.088, 0.465)
"""Class means of the 6,329 records of train.csv with at least ten votes, which the leaderboard seems to consist of;
used only if the bundle does not name its own."""


@dataclass(frozen=True)
class Rows:
    """The rows of a submission and the recordings that belong to them.

    Attributes:
        eeg_ids: ids as the table spells them, each once, in its order; the submission repeats them letter by letter.
        spectrogram_ids: one id for each row; None where the table has no usable one.
        source: path of the table that the rows were read from.
        notes: everything that was wrong with the tables.
    """

    eeg_ids: tuple[str, ...]
    spectrogram_ids: tuple[int | None, ...]
    source: Path
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.eeg_ids)

    def eeg_id(self, row: int) -> int | None:
        """Return a row's EEG id as a number; None if it is not a number, so there can be no recording."""
        return whole_number(self.eeg_ids[row])


def read_rows(competition: Competition) -> Rows:
    """Read the rows to predict from test.csv, or from sample_submission.csv if that cannot be used.

    A repeated id gives one row, even if it is spelled in two ways; a line without an id gives none; an id that is not a
    number keeps its row. Numbers are read as in train.csv: `853520.0` is recording 853520, and the row keeps its
    spelling. Nothing is raised: if neither table can be used, there are no rows.

    Args:
        competition: folder of the competition.
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
            notes.append(
                f"{path.name} has {counted(len(twice), 'eeg_id')} again: {_some(twice)}; each gets one row"
            )
        unknown = [eeg_id for eeg_id in found if whole_number(eeg_id) is None]
        if unknown:
            notes.append(
                f"{path.name} has {counted(len(unknown), 'eeg_id')} not written as a number: {_some(unknown)}"
            )
        if found:
            return Rows(tuple(found), tuple(found.values()), path, tuple(notes))
        notes.append(f"{path.name} has no rows")
    return Rows((), (), competition.test_csv, tuple(notes))


def read_prior(bundle: Path) -> tuple[tuple[float, ...], str]:
    """Return the class prior from the bundle's manifest, or else `TRAIN_PRIOR`, and in words where it comes from."""
    try:
        prior = tuple(float(p) for p in parse((bundle / "manifest.json").read_bytes())["prior"])
        if len(prior) == len(CLASSES) and min(prior) >= 0 and math.isclose(sum(prior), 1, abs_tol=1e-6):
            return prior, "the bundle's records"
        reason = "it is not a distribution"
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
    return TRAIN_PRIOR, f"train.csv's records with at least ten votes, as the bundle has none ({reason})"


def submission_csv(eeg_ids: Sequence[str | int], rows: Iterable[Sequence[float]]) -> bytes:
    """Return the bytes of a submission: one row per id, with the six probabilities in full precision."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(SUBMISSION_COLUMNS)
    for eeg_id, values in zip(eeg_ids, rows, strict=True):
        writer.writerow([eeg_id, *(repr(float(value)) for value in values)])
    return out.getvalue().encode()


def write_prior(path: Path, rows: Rows, prior: Sequence[float]) -> None:
    """Write a submission that has the prior in every row, atomically."""
    write_bytes(path, submission_csv(rows.eeg_ids, [prior] * len(rows)))


@dataclass(frozen=True)
class PriorSubmission:
    """A submission of the class prior.

    Attributes:
        rows: the rows to predict.
        prior: probabilities of the six classes.
        source: where the prior comes from, in words.
    """

    rows: Rows
    prior: tuple[float, ...]
    source: str

    @property
    def sentence(self) -> str:
        """What was submitted, in one line."""
        made = f"{counted(len(self.rows), 'row')} from {self.rows.source.name}"
        return f"{made}; submitted the class prior first ({self.source})"

    def write(self, out: Path) -> None:
        """Write submission.csv into the folder `out`, atomically."""
        write_prior(out / SUBMISSION, self.rows, self.prior)


def submit_prior(competition: Path, bundle: Path, out: Path) -> PriorSubmission:
    """Submit the class prior, which every scored run does before anything that can fail.

    Args:
        competition: folder of the competition.
        bundle: folder of the bundle, which may be damaged or absent.
        out: folder for submission.csv.

    Raises:
        DataError: there is no such competition folder.
        RunError: the output folder cannot be written.
    """
    submission = PriorSubmission(read_rows(Competition(competition)), *read_prior(bundle))
    submission.write(out)
    return submission


def submission_ids(path: Path) -> list[str] | None:
    """Return the ids of the submission at `path`; None if it is missing or damaged."""
    try:
        lines = _read_lines(path)
        whole = all(math.isfinite(float(line[name])) for line in lines for name in VOTE_COLUMNS)
        return [line["eeg_id"] for line in lines] if whole else None
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return None


def _read_lines(path: Path) -> list[dict[str, str]]:
    """Return the lines of a table that has a column eeg_id, without blank ones.

    Raises:
        OSError, csv.Error: the file cannot be read.
        ValueError: it has no such column, is no file, or is far larger than a table of ids.
    """
    require_regular(path, _MAX_BYTES)
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.DictReader(file, restval="")
        names = [name.strip(BLANKS) for name in reader.fieldnames or ()]
        if not names:
            raise ValueError("it is empty")
        if "eeg_id" not in names:
            raise ValueError(f"it has no column eeg_id, only {', '.join(names)}")
        reader.fieldnames = names
        return [line for line in reader if any((line[name] or "").strip(BLANKS) for name in names)]


def _some(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (" …" if len(names) > most else "")
