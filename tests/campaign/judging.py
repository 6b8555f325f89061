"""Whether a fault was handled, judged from outside: exit codes, what was printed, every byte of the folder.

Handled is a fault after which the result is right, byte by byte, or the command has ended with a documented exit code
and a clear line that is no traceback; its inputs are what they were, nothing is half-written, and the same command
without the fault then gives the right result. A damaged file of ours whose bytes have a checksum must also be noticed,
unless what the command says and writes is the same; damaged files of others must be refused, or give results that are
whole.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from runs_folder import tree

from campaign.child import ERRNOS
from campaign.faults import KINDS, Fault, Kind, available, bring_about, impossible, later
from campaign.subjects import Subject, copy, run_child
from kagglehms.data.store import Store
from kagglehms.errors import HMSError
from kagglehms.files import PARTIAL_SUFFIX

DOCUMENTED = {0, 1, 2, 3, 130, 141, 143}
"""Exit codes, as docs/architecture.md has them."""
KILLED = {-signal.SIGKILL, -signal.SIGPROF}
MOST_TRIES = 20
"""How often a system call is chosen anew that the kernel would not let fail."""
FINDINGS = {"verify", "preflight"}
"""Commands whose list of findings is their result, with exit code 1 or 2."""
UNEXPLAINED = re.compile(r"kagglehms: error: (\w+): .*\(--debug shows where\)")
SYSTEM_ERRORS = {
    "OSError",
    "PermissionError",
    "FileNotFoundError",
    "NotADirectoryError",
    "IsADirectoryError",
    "MemoryError",
}
"""Whose own words say what is the matter: the operating system's."""


@dataclass(frozen=True)
class Outcome:
    """How a case went.

    Attributes:
        number: number of the case, which repeats it together with the campaign's seed.
        kind: class of the fault.
        subject: command.
        fault: what happened.
        codes: exit codes.
        wrong: why it was not handled; empty if it was.
        log: what was printed, if it was not handled.
    """

    number: int
    kind: str
    subject: str
    fault: str
    codes: Sequence[int | None]
    wrong: str
    log: str


def run_case(
    seed: int, number: int, subjects: Sequence[Subject], where: Path, kind: str | None = None
) -> Outcome:
    """Run one case; seed and number decide all of it but for what the operating system does."""
    rng = np.random.default_rng((seed, number))
    kinds = {name: k for name, k in KINDS.items() if available(name) and any(map(k.fits, subjects))}
    shares = np.array([k.share for k in kinds.values()])
    kind = kind or str(rng.choice(list(kinds), p=shares / shares.sum()))
    fitting = [subject for subject in subjects if KINDS[kind].fits(subject)]
    weights = np.array([subject.weight for subject in fitting])
    subject = fitting[int(rng.choice(len(fitting), p=weights / weights.sum()))]
    work, log = where / f"case-{number}", where / f"case-{number}.log"
    copy(subject.master, work)
    before = tree(work)
    fault = KINDS[kind].make(rng, subject, work)
    if fault.damaged:
        before[fault.damaged] = (work / fault.damaged).read_bytes()
    codes = bring_about(fault, subject, work, log)
    for _ in range(MOST_TRIES):
        if not impossible(log):
            break
        fault = later(fault)
        copy(subject.master, work)
        codes = bring_about(fault, subject, work, log)
    fault.undo()
    text = log.read_text(errors="replace") if log.is_file() else ""
    wrong = judge(subject, KINDS[kind], fault, codes, text, before, work, log)
    if not wrong:
        text = ""
        shutil.rmtree(work)
        for path in where.glob(f"case-{number}.*"):
            path.unlink()
    return Outcome(number, kind, subject.name, fault.text, codes, wrong, text)


def judge(
    subject: Subject, kind: Kind, fault: Fault, codes: Sequence[int | None], text: str,
    before: dict[str, bytes], work: Path, log: Path,
) -> str:  # fmt: skip
    """Return why the fault was not handled; empty if it was."""
    after = tree(work)
    problem = _ending(subject, fault, codes, text) or _inputs(before, after)
    if problem:
        return problem
    if kind.damages:
        return _unnoticed(subject, fault, codes[0], text, after, work) if codes[0] == 0 else ""
    killed = any(code in KILLED for code in codes)
    if not killed and any(name.endswith(PARTIAL_SUFFIX) for name in after):
        return "leaves partial files"
    different = _differing(_finished(after), subject.results)
    if 0 in codes and different and not _told(text, {name: after.get(name, b"") for name in different}):
        return f"other results: {different}"
    if all(code == 0 for code in codes) and not different:
        return ""
    code = run_child(subject, work, log)
    again = _finished(tree(work))
    if code != 0:
        return f"cannot go on: exit code {code}: {log.read_text()[-500:]}"
    return (
        "" if again == subject.results else f"other results afterwards: {_differing(again, subject.results)}"
    )


def _ending(subject: Subject, fault: Fault, codes: Sequence[int | None], text: str) -> str:
    """Return what is wrong with exit codes and messages."""
    allowed = set(DOCUMENTED)
    inside = fault.inside
    if "KILL" in fault.call or (inside and inside.operation is not None and inside.error is None):
        allowed.add(-signal.SIGKILL)
    if inside and inside.cpu_s is not None:
        allowed |= {-signal.SIGPROF, -inside.number}
    if fault.denies_memory:
        allowed |= {-signal.SIGABRT}  # how libraries written in Rust end where there is no memory
    for code in codes:
        if code is None:
            return "hangs"
        if code not in allowed:
            return f"ends with {code}"
    if "Traceback (most recent call last)" in text:
        return "prints a traceback"
    aborted = fault.denies_memory and -signal.SIGABRT in codes
    if "panicked at" in text and not aborted:
        return "prints a panic"
    refused = any(code in {1, 2} for code in codes) and subject.name not in FINDINGS
    mute = fault.call.startswith("write:") or (inside and len(text) >= (inside.file_bytes or len(text) + 1))
    if refused and not mute and "kagglehms: error: " not in text:
        return "says nothing"
    unexplained = UNEXPLAINED.search(text)
    if unexplained and unexplained[1] not in SYSTEM_ERRORS and not fault.call and not fault.denies_memory:
        return "does not explain the error"
    return ""


def _inputs(before: dict[str, bytes], after: dict[str, bytes]) -> str:
    """Return what happened to files that were only to be read."""
    changed = [name for name, content in before.items() if after.get(name) != content]
    return f"changes what it reads: {changed[:3]}" if changed else ""


def _told(text: str, different: dict[str, bytes]) -> bool:
    """Whether a command that leaves something out says what the system answered."""
    said = text.encode() + b"".join(different.values())
    return any(os.strerror(number).encode() in said for number in ERRNOS)


def _finished(found: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in found.items() if not name.endswith(PARTIAL_SUFFIX)}


def _differing(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))[:5]


def _unnoticed(
    subject: Subject, fault: Fault, code: int | None, text: str, after: dict[str, bytes], work: Path
) -> str:
    """Return what is wrong with the results of a command that has read a damaged file and succeeded."""
    sealed = fault.damaged.split("/")[0] in subject.seals
    if subject.name in FINDINGS:
        return "damage unnoticed" if sealed and not _same(fault.damaged, after, subject) else ""
    results = {name: content for name, content in after.items() if name not in subject.inputs}
    expected = {name: content for name, content in subject.results.items() if name not in subject.inputs}
    if results == expected:
        return ""
    if sealed:
        said = text.encode() + b"".join(results.values())
        return "" if Path(fault.damaged).name.encode() in said else "damage unnoticed, and other results"
    if subject.name == "prepare":
        try:
            Store(work / "store").verify()
        except HMSError as error:
            return f"makes a store that is broken: {error}"
    return ""


def _same(name: str, after: dict[str, bytes], subject: Subject) -> bool:
    """Whether a file says what it said before it was damaged, with its checksum or as older versions wrote it."""
    original = (subject.master / name).read_bytes()
    if after[name] == original:
        return True
    if not name.endswith(".json"):
        return False
    expected = json.loads(original)
    unsealed = {key: value for key, value in expected.items() if key != "sha256"}
    try:
        return json.loads(after[name]) in (expected, unsealed)
    except ValueError:
        return False
