"""The official Kaggle client as a child process, believed for what it says and not for its exit code.

The client ends with code 0 after "Kernel push error", after invalid sources and, before release 2.2.5, after an upload
that it dropped; and with code 1 it may say no more than a word. So every call here looks for the sentence that means
success, and a known failure is an error that carries the client's own words. Sentences change from release to release:
where neither is found after an upload, what Kaggle lists decides (see `publish.py`).
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from kagglehms.bundle.manifest import MANIFEST
from kagglehms.environment import safe_environment
from kagglehms.errors import HMSError, RunError
from kagglehms.strict_json import parse_beginning, parse_object

COMMAND = (sys.executable, "-P", "-m", "kaggle")

_TRANSIENT = re.compile(
    r"\b(429|500|502|503|504)\b|too many requests|rate limit|server error|timed? ?out|connection|temporarily",
    re.I,
)
_LIMITED = re.compile(r"\b429\b|too many requests|rate limit", re.I)
_UNKNOWN = re.compile(r"\b(403|404)\b|not found|denied|forbidden", re.I)
_FAILED = re.compile(r"\berror\b|\bfailed\b|unsuccessful|could not", re.I)
_ROUTINE = re.compile(
    r"^\s*(Starting upload for file|Upload successful: |If this is unexpected, you can re-run|traceback\. If you think)"
)
_NOISE = re.compile(r"^(Warning: |Looks like you're using|\s*$)|^\s*\d+%\||it/s\]|B/s\]")
_STATUS = re.compile(r'has status "(?:\w+\.)?(\w+)"')
_PUSHED = re.compile(r"Kernel version (\d+) successfully pushed\.\s+Please check progress at (\S+)")
"""The client says the same without a number after an answer that says nothing."""


class ClientError(HMSError):
    """The client did not do what it was asked.

    Attributes:
        said: its words.
        transient: whether the same call may work later.
        limited: whether it was refused for there having been too many, so that nothing has been done.
        unknown: whether what was asked for is not there, or may not be seen, which is told in the same words.
    """

    def __init__(self, message: str, said: str = "") -> None:
        super().__init__(message)
        self.said = said
        self.transient = bool(_TRANSIENT.search(said))
        self.limited = bool(_LIMITED.search(said))
        self.unknown = bool(_UNKNOWN.search(said)) and not self.limited


@dataclass(frozen=True)
class DatasetState:
    """A dataset as Kaggle sees it.

    Attributes:
        status: such as `ready`; `absent` where there is none.
        version: the current one, 0 where there is none.
    """

    status: str
    version: int


@dataclass(frozen=True)
class Pushed:
    """A kernel's new version, which Kaggle runs at once."""

    version: int
    url: str


@dataclass(frozen=True)
class KernelState:
    """A kernel's latest session.

    Attributes:
        status: such as `RUNNING`.
        failure: why it failed; empty where nothing is said.
    """

    status: str
    failure: str

    @property
    def ended(self) -> bool:
        return self.status in {"COMPLETE", "ERROR", "CANCEL_ACKNOWLEDGED"}


@dataclass(frozen=True)
class _Answer:
    code: int
    text: str

    @property
    def reason(self) -> str:
        """What it said, without progress bars and reminders, on one line."""
        if "Authentication required" in self.text:
            return "Authentication required; log in with `kaggle auth login`, or see https://www.kaggle.com/settings"
        lines = self.telling.splitlines()
        if any(line.startswith("Traceback (most recent call last)") for line in lines):
            lines = lines[-1:]
        return " | ".join(lines[-4:]) or f"nothing, exit code {self.code}"

    @property
    def complains(self) -> bool:
        """Whether it said that something failed, in words that are known."""
        return _FAILED.search(self.telling) is not None

    @property
    def telling(self) -> str:
        """What it said, without what it says of every file and call."""
        lines = [line for line in self.text.splitlines() if not _NOISE.search(line)]
        return "\n".join(line.strip() for line in lines if not _ROUTINE.search(line))


class KaggleClient:
    """The client, found beside this Python; its credentials are its own business.

    Args:
        say: told what a transfer is doing, line by line.
        call_s: longest time for a call that only asks.
        transfer_s: longest time for one that moves files.
    """

    def __init__(
        self, say: Callable[[str], None] | None = None, call_s: float = 300.0, transfer_s: float = 6 * 3600.0
    ) -> None:
        self._say = say
        self._call_s = call_s
        self._transfer_s = transfer_s

    def dataset(self, ref: str) -> DatasetState:
        """Ask for a dataset's state.

        Args:
            ref: owner/slug.

        Raises:
            ClientError: it cannot be told.
        """
        answer = self._call("datasets", "status", ref, "--format", "json")
        if answer.code:
            error = _error(f"the state of dataset {ref} cannot be told", answer)
            if error.unknown:
                return DatasetState("absent", 0)
            raise error
        try:
            found = parse_object(answer.text[answer.text.index("{") :])
            return DatasetState(str(found["status"]), int(found["current_version_number"] or 0))
        except (ValueError, KeyError, TypeError) as problem:
            raise _error(f"the state of dataset {ref} cannot be told", answer) from problem

    def dataset_files(self, ref: str) -> dict[str, int]:
        """Sizes of the files of a dataset's current version.

        Raises:
            ClientError: they cannot be listed.
        """
        files: dict[str, int] = {}
        token: list[str] = []
        while True:
            answer = self._call("datasets", "files", ref, "--format", "json", "--page-size", "200", *token)
            try:
                files |= {item["name"]: int(item["size"]) for item in _json_list(answer)}
            except (ValueError, KeyError, TypeError) as error:
                raise _error(f"the files of dataset {ref} cannot be listed", answer) from error
            following = re.search(r"^Next Page Token = (\S+)$", answer.text, flags=re.MULTILINE)
            if following is None:
                return files
            token = ["--page-token", following[1]]

    def dataset_manifest(self, ref: str) -> bytes:
        """The manifest in a dataset's current version.

        Raises:
            ClientError: there is none, or it cannot be fetched.
        """
        with tempfile.TemporaryDirectory() as folder:
            answer = self._call(
                "datasets", "download", ref, "-f", MANIFEST, "-p", folder, "--force", "--quiet"
            )
            files = [path for path in Path(folder).rglob("*") if path.is_file()]
            if answer.code or len(files) != 1:
                raise _error(f"{MANIFEST} of dataset {ref} cannot be fetched", answer)
            if zipfile.is_zipfile(files[0]):  # Kaggle packs some files for the way
                with zipfile.ZipFile(files[0]) as archive:
                    return archive.read(archive.namelist()[0])
            return files[0].read_bytes()

    def upload(self, folder: Path, note: str | None, names: Collection[str]) -> bool:
        """Upload a dataset.

        Args:
            folder: with the card and the files.
            note: of a further version; None creates the dataset.
            names: of the files that have to arrive.

        Returns:
            Whether the client said that a version is being made of the files. Without a word of success or failure that
            is known, what Kaggle lists has to be looked at.

        Raises:
            ClientError: it was not created, or not with all of its files.
        """
        words = ["create"] if note is None else ["version", "-m", note]
        command = ["datasets", *words, "-p", str(folder)]
        answer = self._call(*command, transfer=True)
        if answer.code and not _error("", answer).transient:
            # The client goes on with uploads that it began in an earlier call, for days, even where Kaggle has given
            # them up. A temporary folder of its own makes it begin anew.
            with tempfile.TemporaryDirectory() as fresh:
                answer = self._call(*command, transfer=True, temporary=Path(fresh))
        refused, created = _refused(answer, names), "is being created" in answer.text
        if answer.code or (not created and answer.complains):
            lost = f": {', '.join(refused)} did not arrive" if refused else ""
            raise _error(
                f"the dataset was not uploaded{lost}; mend what is named, or push again later", answer
            )
        if refused:
            raise _error(
                f"the new version lacks {', '.join(refused)}: the client dropped {len(refused)} upload(s) and went on; "
                "push again, an incomplete version is not taken for this bundle",
                answer,
            )
        return created

    def push_kernel(self, folder: Path, limit_s: int | None = None) -> Pushed:
        """Push a kernel, which starts it.

        Args:
            folder: with its metadata and script.
            limit_s: seconds after which Kaggle stops the session.

        Raises:
            ClientError: it was not pushed, or without some of its inputs.
        """
        limit = [] if limit_s is None else ["-t", str(limit_s)]
        answer = self._call("kernels", "push", "-p", str(folder), *limit)
        pushed = _PUSHED.search(answer.text)
        invalid = re.search(r"The following are not valid (\w+) sources.*", answer.text)
        if invalid is not None:
            raise _error(
                f"kernel {folder.name} was pushed without some of its inputs ({invalid[0]}); add them or mend "
                "kernel-metadata.json, and stop the session that has begun",
                answer,
            )
        if pushed is None and not answer.code and not answer.complains:
            raise _error(
                f"it cannot be told whether kernel {folder.name} was pushed; look at its page before you push again, "
                "so that no second session is started",
                answer,
            )
        if pushed is None or answer.code:
            raise _error(f"kernel {folder.name} was not pushed", answer)
        return Pushed(int(pushed[1]), pushed[2])

    def kernel(self, ref: str) -> KernelState:
        """Ask for the state of a kernel's latest session.

        Raises:
            ClientError: it cannot be told.
        """
        answer = self._call("kernels", "status", ref)
        status = _STATUS.search(answer.text)
        if status is None:
            raise _error(f"the state of kernel {ref} cannot be told", answer)
        failure = re.search(r'Failure message: "(.*)"', answer.text, flags=re.DOTALL)
        return KernelState(status[1].upper(), " ".join(failure[1].split()) if failure else "")

    def kernel_output(self, ref: str, folder: Path) -> list[Path]:
        """Fetch what a kernel's latest session left, and its log.

        Returns:
            The files, in `folder`.

        Raises:
            ClientError: nothing came.
        """
        answer = self._call("kernels", "output", ref, "-p", str(folder), "--page-size", "200", transfer=True)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if answer.code or not files:
            raise _error(f"the output of kernel {ref} cannot be fetched", answer)
        return files

    def _call(self, *arguments: str, transfer: bool = False, temporary: Path | None = None) -> _Answer:
        """Run the client once; raises only if it is not there, cannot be started or does not end."""
        if COMMAND[0] == sys.executable and importlib.util.find_spec("kaggle") is None:
            raise RunError(f"the Kaggle client is not installed for {sys.executable}; pip install kaggle")
        command = [*COMMAND, "-W", *arguments]
        environment = safe_environment() | {"PYTHONIOENCODING": "utf-8"}
        environment.pop("PYTHONWARNINGS", None)
        if temporary is not None:
            environment |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary))
        limit_s, late = self._transfer_s if transfer else self._call_s, threading.Event()
        lines: list[str] = []
        try:
            child = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace",
            )  # fmt: skip
        except OSError as error:
            raise RunError(f"{COMMAND[0]}: the Kaggle client cannot be started ({error})") from error

        def stop() -> None:
            late.set()
            child.kill()

        timer = threading.Timer(limit_s, stop)
        with child:
            timer.start()
            try:
                assert child.stdout is not None
                for line in child.stdout:
                    lines.append(line)
                    if transfer and self._say is not None and not _NOISE.search(line):
                        self._say(f"  kaggle: {line.rstrip()}")
                code = child.wait()
            finally:
                timer.cancel()
                child.kill()
        if late.is_set():
            raise ClientError(
                f"`kaggle {' '.join(arguments[:2])}` did not end within {limit_s:.0f} s; try again",
                "timed out",
            )
        return _Answer(code, "".join(lines))


def _json_list(answer: _Answer) -> Iterator[dict[str, str]]:
    if answer.code or "[" not in answer.text:
        raise ValueError("no list")
    yield from parse_beginning(answer.text[answer.text.index("[") :])


def _refused(answer: _Answer, names: Collection[str]) -> list[str]:
    """Which of the files the client says did not arrive."""
    lines = [line for line in answer.text.splitlines() if "unsuccessful" in line.lower()]
    return sorted(name for name in names if any(line.rstrip().endswith(f" {name}") for line in lines))


def _error(what: str, answer: _Answer) -> ClientError:
    return ClientError(f"{what}; the client says: {answer.reason}", answer.telling)
