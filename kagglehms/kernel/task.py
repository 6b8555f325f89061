"""What a scored run is told to do, and what its processes tell each other. Only the standard library."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

EXIT_DEVICE_LOST = 70
"""The GPU has failed in a way that only a new process can get out of."""
UNDER_WAY = "under-way.json"
"""In the scratch folder: which step is being computed, on what. Whoever finds it after a crash knows the culprit.

Its time of change is the worker's sign of life."""
TIME_LIMIT_S = 8.5 * 3600
"""Half an hour less than the competition allows."""


@dataclass(frozen=True)
class Task:
    """What a scored run is to do.

    Attributes:
        bundle: folder of the bundle.
        competition: folder of the competition.
        out: where submission.csv and the marker go.
        digest: of the bundle that is expected; None takes any.
        device: `cpu`, `cuda`, `mps`, or None for the best that works.
        limit_s: seconds from now, at which the best so far stands.
        scratch: for decoded crops and finished passes; None keeps neither.
        mirror: whether test-time augmentation is wanted.
        skip: names of steps that are not to be tried (they have ended a process).
        cache_bytes: at most so many for decoded crops; None takes what the disk has.
    """

    bundle: str
    competition: str
    out: str
    digest: str | None = None
    device: str | None = None
    limit_s: float = TIME_LIMIT_S
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
