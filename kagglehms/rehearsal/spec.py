"""What the launcher is to run, and what it reports. Only the standard library, like everything the launcher imports."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Bind:
    """A folder to mount for the kernel.

    Attributes:
        source: path of the folder on this machine.
        target: path at which the kernel sees it.
        writable: whether the kernel may write to it.
    """

    source: str
    target: str
    writable: bool = False


@dataclass(frozen=True)
class Spec:
    """What to run, and how.

    Attributes:
        argv: the command, with paths as the kernel sees them.
        environment: the kernel's whole environment; nothing is inherited.
        folder: folder to start in.
        timeout_s: seconds after which the kernel is killed.
        new_root: empty folder in which to build the kernel's view of the machine; None for no isolation.
        binds: folders of `/kaggle` and `/tmp`, in the order in which they are mounted.
        kept: folders that the kernel needs although they are below one that it gets for itself (`/tmp`, `/dev/shm`).
        hidden: folders and files that the kernel must find empty.
        disk_bytes: size of `folder` at which the kernel is killed; None for no limit.
    """

    argv: list[str]
    environment: dict[str, str]
    folder: str
    timeout_s: float
    new_root: str | None = None
    binds: tuple[Bind, ...] = ()
    kept: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    disk_bytes: int | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Spec:
        content: dict[str, Any] = json.loads(text)
        content["binds"] = tuple(Bind(**bind) for bind in content["binds"])
        return cls(**content)


@dataclass(frozen=True)
class Outcome:
    """What happened to a kernel.

    Attributes:
        exit_code: exit code of the kernel; negative if a signal ended it.
        seconds: seconds from its start to its end.
        peak_memory_bytes: largest resident size of all its processes together.
        peak_disk_bytes: largest size of the folder that it started in.
        timed_out: whether it was killed because its time was up.
        disk_full: whether that folder outgrew its limit.
        lacking: what this machine could not isolate the kernel from; empty if nothing, or if nothing was asked for.
    """

    exit_code: int
    seconds: float
    peak_memory_bytes: int
    peak_disk_bytes: int
    timed_out: bool
    disk_full: bool
    lacking: str = ""


class IsolationUnavailableError(Exception):
    """This machine does not allow the namespaces or mounts; the message names the step that it refused."""


def dump_report(result: Outcome | IsolationUnavailableError) -> bytes:
    """Return the launcher's report as JSON."""
    if isinstance(result, Outcome):
        return json.dumps(asdict(result)).encode()
    return json.dumps({"unavailable": str(result)}).encode()


def read_report(content: bytes) -> Outcome:
    """Read the launcher's report.

    Raises:
        IsolationUnavailableError: the report says that the kernel could not be isolated.
        ValueError: there is no report.
    """
    report = json.loads(content)
    if "unavailable" in report:
        raise IsolationUnavailableError(report["unavailable"])
    return Outcome(**report)
