"""The marker of a scored run: what its submission was made from, in a file beside it and as a line in the log.

Reading and writing one need only the standard library, because the supervisor does so even when nothing else works.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from kagglehms.errors import counted
from kagglehms.files import write_bytes
from kagglehms.strict_json import parse

MARKER = "scored-run.json"
PRIOR_SHARE = 0.05
"""Largest share of rows that may keep the prior without counting as a problem. Nothing is known about such a row, so
5 % of them cost about what one rung of the ladder gains."""
_MOST_LINES = 10


def _texts(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


_IS: dict[str, Callable[[Any], bool]] = {
    "int": lambda value: type(value) is int,
    "float": lambda value: type(value) in (int, float),
    "str | None": lambda value: value is None or isinstance(value, str),
    "list[str]": lambda value: isinstance(value, list) and _texts(value),
    "dict[str, str]": lambda value: isinstance(value, dict) and _texts(value.values()),
    "list[dict[str, Any]]": lambda value: (
        isinstance(value, list) and all(isinstance(item, dict) for item in value)
    ),
}
"""Whether a value that was read from JSON is of a type, by the type's name."""


@dataclass
class Marker:
    """What a scored run used.

    Attributes:
        rows: number of rows in the test set.
        models: names of the passes that predicted at least one row, in the order they ran.
        left_out: passes or recipes that did not take part, each with the reason.
        rows_with_prior: ids of rows that keep the class prior, each with the reason.
        rows_with_fewer_models: ids of rows that some recipes could not predict, each with the reason.
        bundle: digest of the bundle; None if it could not be read.
        device: device that computed, and why it was chosen.
        notes: oddities that the run coped with, such as duplicate ids or a time limit reached.
        problems: everything that failed.
        steps: name and seconds of every pass.
        seconds_before_first_step: seconds for verification, imports and planning.
        seconds: seconds of the whole run.
    """

    rows: int
    models: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    rows_with_prior: dict[str, str] = field(default_factory=dict)
    rows_with_fewer_models: dict[str, str] = field(default_factory=dict)
    bundle: str | None = None
    device: str | None = None
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    seconds_before_first_step: float = 0.0
    seconds: float = 0.0

    def judge(self) -> None:
        """Add a problem if no row, or too few rows, were predicted.

        Rows count, not passes that ran to their end. Calling this again adds nothing.
        """
        n_prior = len(self.rows_with_prior)
        problem = None
        if not self.rows:
            problem = "there is no row to predict"
        elif n_prior >= self.rows:
            problem = f"no row was predicted, all {self.rows} keep the prior"
        elif n_prior > PRIOR_SHARE * self.rows:
            problem = f"{n_prior} of {self.rows} rows keep the prior, more than {PRIOR_SHARE:.0%}"
        if problem and n_prior:
            row, reason = next(iter(self.rows_with_prior.items()))
            problem += f"; row {row}: {reason}"
        if problem and problem not in self.problems:
            self.problems.append(problem)

    @property
    def status(self) -> Literal["complete", "partial", "prior"]:
        """`complete` if every pass took part, `partial` if some did, `prior` if none did."""
        if not self.models:
            return "prior"
        return "partial" if self.left_out or self.problems else "complete"

    def write(self, folder: Path, seconds: float) -> None:
        """Write the marker file atomically.

        Args:
            folder: folder of the submission.
            seconds: seconds since the start of the run.

        Raises:
            RunError: the disk is full or the folder cannot be written.
        """
        self.seconds = round(seconds, 1)
        write_bytes(
            folder / MARKER, json.dumps({"status": self.status} | asdict(self), indent=1).encode() + b"\n"
        )

    @classmethod
    def read(cls, folder: Path) -> Marker | None:
        """Read the marker in `folder`; return None if there is none, or only one of another version."""
        try:
            content = parse((folder / MARKER).read_bytes())
            content.pop("status")
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        kinds = {field.name: str(field.type) for field in fields(cls)}
        if set(content) != set(kinds) or not all(_IS[kinds[name]](content[name]) for name in kinds):
            return None
        return cls(**content)

    @staticmethod
    def remove(folder: Path) -> None:
        """Delete the marker of an earlier run."""
        (folder / MARKER).unlink(missing_ok=True)

    def line(self) -> str:
        """Return one line of JSON for the log, with counts in place of row ids."""
        content = asdict(self) | {
            "rows_with_prior": len(self.rows_with_prior),
            "rows_with_fewer_models": len(self.rows_with_fewer_models),
        }
        return json.dumps({"event": "scored-run", "status": self.status} | content)

    def lines(self) -> list[str]:
        """Return lines for people: the rows that lack some or all models, and a summary."""
        listed = []
        for what, rows in (
            ("keeps the prior", self.rows_with_prior),
            ("does without some models", self.rows_with_fewer_models),
        ):
            listed += [f"  row {id_} {what}: {why}" for id_, why in list(rows.items())[:_MOST_LINES]]
            if len(rows) > _MOST_LINES:
                listed.append(f"  and {len(rows) - _MOST_LINES} more")
        passes = counted(len(self.models), "pass", "passes")
        done = f"finished ({self.status}): {passes}, {len(self.left_out)} left out, "
        return [*listed, f"{done}{len(self.rows_with_prior)} of {self.rows} rows prior"]
