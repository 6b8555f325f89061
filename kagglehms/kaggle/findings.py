"""A finding of preflight: what would go wrong on Kaggle, where, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that would go wrong.

    Attributes:
        where: path of the file or folder.
        what: what is wrong with it.
        fix: what to do about it.
        cause: name of what is behind it, where several findings may come from the same; empty if it stands alone.
    """

    where: str
    what: str
    fix: str
    cause: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.fix}"
