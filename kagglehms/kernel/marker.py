"""The end marker of a scored run: what its submission is made of, in a file beside it and as a line in the log.

Only the standard library, since the supervisor writes one even where nothing else works.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from kagglehms.files import write_bytes
from kagglehms.strict_json import parse

MARKER = "scored-run.json"
PRIOR_SHARE = 0.05
"""So many rows may keep the prior; more is a problem. Nothing is known of such a row, so a twentieth of them costs
about what a rung of the ladder gains."""
_MOST_LINES = 10


@dataclass
class Marker:
    """What a scored run used.

    Attributes:
        rows: of the test set.
        models: passes that took part, which is that they predicted at least one row, in their order.
        left_out: passes or recipes that did not, and why.
        rows_with_prior: rows that keep the class prior, and why.
        rows_with_fewer_models: rows that some recipes could not predict, and why.
        bundle: its digest; None if it could not even be read.
        device: where it was computed and why.
        notes: what was odd and is dealt with: ids that stand twice, time that was up.
        problems: what failed.
        steps: name and seconds of every pass.
        seconds_before_first_step: verification, imports, planning.
        seconds: of the whole.
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
        """Add what the rows say to the problems: nothing was predicted, or too little of it.

        What counts is rows, not passes that came to their end. Calling it again adds nothing.
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
            problem += (
                f"; row {next(iter(self.rows_with_prior))}: {next(iter(self.rows_with_prior.values()))}"
            )
        if problem and problem not in self.problems:
            self.problems.append(problem)

    @property
    def status(self) -> Literal["complete", "partial", "prior"]:
        """`complete`: every pass took part. `partial`: some did. `prior`: none did."""
        if not self.models:
            return "prior"
        return "partial" if self.left_out or self.problems else "complete"

    def write(self, folder: Path, seconds: float) -> None:
        """Write the file, atomically.

        Raises:
            RunError: the disk is full or the folder cannot be written.
        """
        self.seconds = round(seconds, 1)
        write_bytes(
            folder / MARKER, json.dumps({"status": self.status} | asdict(self), indent=1).encode() + b"\n"
        )

    @classmethod
    def read(cls, folder: Path) -> Marker | None:
        """Read it back; None if there is none, or none of this version."""
        try:
            content = parse((folder / MARKER).read_bytes())
            content.pop("status")
            names = {field.name for field in fields(cls)}
            return cls(**content) if set(content) == names else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    @staticmethod
    def remove(folder: Path) -> None:
        """Delete the marker of an earlier run."""
        (folder / MARKER).unlink(missing_ok=True)

    def line(self) -> str:
        """One line of JSON for the log, with counts where the file has names."""
        content = asdict(self) | {
            "rows_with_prior": len(self.rows_with_prior),
            "rows_with_fewer_models": len(self.rows_with_fewer_models),
        }
        return json.dumps({"event": "scored-run", "status": self.status} | content)

    def lines(self) -> list[str]:
        """The rows that do not have all models, and the sum of it all, for a person."""
        listed = []
        for what, rows in (
            ("keeps the prior", self.rows_with_prior),
            ("does without some models", self.rows_with_fewer_models),
        ):
            listed += [f"  row {id_} {what}: {why}" for id_, why in list(rows.items())[:_MOST_LINES]]
            listed += [f"  and {len(rows) - _MOST_LINES} more"] * (len(rows) > _MOST_LINES)
        done = f"finished ({self.status}): {len(self.models)} passes, {len(self.left_out)} left out, "
        return [*listed, f"{done}{len(self.rows_with_prior)} of {self.rows} rows prior"]
