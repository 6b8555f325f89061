"""What the supervisor of a scored run and its workers tell each other.

The supervisor hands a `Task` down on the worker's command line. The worker reports back through a file in the scratch
folder (`Pulse`) and through its exit code. Needs only the standard library.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

EXIT_DEVICE_LOST = 70
"""A worker's exit code when the GPU has failed in a way that only a new process can recover from."""
UNDER_WAY = "under-way.json"
"""File in the scratch folder that names what is computed and its device; see `Pulse`."""
TIME_LIMIT_S = 8.5 * 3600
"""Half an hour less than the competition allows a run."""


@dataclass(frozen=True)
class Task:
    """Everything a scored run needs to know.

    Attributes:
        bundle: folder of the bundle.
        competition: folder of the competition.
        out: folder for submission.csv and the marker.
        digest: digest that the bundle must have; None accepts any.
        device: `cpu`, `cuda`, `mps`, or None for the best device that works.
        time_limit_s: seconds from now until the run must end with the best submission so far.
        scratch: folder for decoded crops, finished passes and the pulse; None keeps none of them.
        mirror: whether to predict mirrored recordings as well (test-time augmentation).
        skip: names of what is not to be attempted, because each of these has ended a process: steps, which
            are then not attempted on mirrored recordings either, and the compiling of a layout, which its recipes need.
        cache_bytes: most bytes of decoded crops to keep; None uses whatever space the disk has.
    """

    bundle: str
    competition: str
    out: str
    digest: str | None = None
    device: str | None = None
    time_limit_s: float = TIME_LIMIT_S
    scratch: str | None = None
    mirror: bool = True
    skip: tuple[str, ...] = ()
    cache_bytes: int | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Task:
        content = json.loads(text)
        return cls(**(content | {"skip": tuple(content["skip"])}))


class Pulse:
    """A file whose content says what a worker is computing, and whose modification time says that it is alive.

    After a crash the supervisor reads there which step was to blame.

    Args:
        scratch: folder of the file; None turns every method of the worker's side into a no-op.
    """

    def __init__(self, scratch: Path | None) -> None:
        self._path = None if scratch is None else scratch / UNDER_WAY

    def reset(self) -> None:
        """Start afresh for the next worker, as far as the disk allows."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
                self._path.write_text("{}")

    def begin(self, step: str, device: str) -> None:
        """Record that the worker is computing `step` on `device`: loading and running a model, or compiling.

        Raises:
            OSError: the file cannot be written.
        """
        self._write({"step": step, "device": device})

    def end(self) -> None:
        """Record that the worker is computing no step.

        Raises:
            OSError: the file cannot be written.
        """
        self._write({})

    def beat(self) -> None:
        """Show that this process is alive."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                os.utime(self._path)

    def last_beat_ns(self) -> int | None:
        """Return the time of the last sign of life; None if the file cannot be looked at."""
        try:
            return None if self._path is None else self._path.stat().st_mtime_ns
        except OSError:
            return None

    def interrupted(self) -> tuple[str, str]:
        """Return step and device of the computation that was never finished; empty strings if there was none."""
        try:
            content = json.loads("{}" if self._path is None else self._path.read_text())
            return str(content.get("step", "")), str(content.get("device", ""))
        except (OSError, ValueError, AttributeError):
            return "", ""

    def _write(self, content: dict[str, str]) -> None:
        if self._path is not None:
            self._path.write_text(json.dumps(content))
