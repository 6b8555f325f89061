"""What `gpu.py` finds, written down as soon as it is found: JSON lines, and the same as Markdown for people.

Several processes write to the same two files, each a whole piece at a time.
"""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _measure import table

LINES, PAGE, LOG = "gpu.jsonl", "gpu.md", "gpu.log"


@dataclass(frozen=True)
class Book:
    """Where a part writes.

    Attributes:
        folder: of the two files.
        part: what writes.
        ends: `time.monotonic()` at which the part should be done.
    """

    folder: Path
    part: str
    ends: float

    @property
    def left_s(self) -> float:
        """Seconds that the part still has."""
        return self.ends - time.monotonic()

    def note(self, what: str, **figures: Any) -> None:
        """Add one JSON line."""
        line = {"part": self.part, "what": what, "at": round(time.time(), 1)} | figures
        self._append(LINES, json.dumps(line, default=_plain, ensure_ascii=False) + "\n")

    def lines(self, what: str) -> list[dict[str, Any]]:
        """All JSON lines of that kind so far, of whatever part."""
        path = self.folder / LINES
        found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [line for line in found if line["what"] == what]

    def text(self, text: str) -> None:
        """Add a paragraph to the page."""
        self._append(PAGE, f"\n{text}\n")

    def table(self, title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Add a table under a line of text to the page."""
        self.text(f"{title}\n\n{table(header, rows)}".strip())

    def row(self, cells: Sequence[object]) -> None:
        """Add a line to the table that was written last."""
        self._append(PAGE, f"| {' | '.join(map(str, cells))} |\n")

    @contextmanager
    def guarded(self, what: str) -> Iterator[None]:
        """Write down what goes wrong inside, and go on behind it."""
        start = time.monotonic()
        try:
            yield
        except Exception as error:
            said = f"{type(error).__name__}: {error}".strip()[:2000]
            self.note("failed", of=what, error=said, trace=traceback.format_exc()[-4000:])
            self.text(
                f"**{what} failed** after {time.monotonic() - start:.0f} s: `{said.splitlines()[0][:300]}`"
            )
            traceback.print_exc()

    def has_time(self, what: str, seconds: float) -> bool:
        """Whether so many seconds are left; if not, it is written down that `what` was left out."""
        if self.left_s >= seconds:
            return True
        self.note("left out", of=what, needed_s=round(seconds, 1), left_s=round(self.left_s, 1))
        self.text(f"{what}: left out, about {seconds:.0f} s needed and {max(0, self.left_s):.0f} s left.")
        return False

    def _append(self, name: str, content: str) -> None:
        with (self.folder / name).open("a") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def figure(value: float | None, form: str = ".0f", otherwise: str = "–") -> str:
    """A number for a table, or a dash."""
    return otherwise if value is None else format(value, form)


def _plain(value: object) -> object:
    return value.item() if hasattr(value, "item") else str(value)
