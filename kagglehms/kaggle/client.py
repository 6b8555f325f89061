"""The calls of the Kaggle client that this project makes, and what came of them.

Runs the client in a subprocess and checks its output, because it exits with 0 even after errors. A call has succeeded
only if the client printed the sentence that says so. The wording changes from release to release: if an upload prints
neither a known success nor a known failure, the files that Kaggle lists decide (see `upload.py`).
"""

from __future__ import annotations

import re
import tempfile
import zipfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from kagglehms.bundle.manifest import MANIFEST
from kagglehms.errors import counted
from kagglehms.kaggle.answers import Answer, is_noise
from kagglehms.kaggle.command import run_client
from kagglehms.strict_json import parse_beginning, parse_object

_STATUS = re.compile(r'has status "(?:\w+\.)?(\w+)"')
_FAILURE = re.compile(r'Failure message: "(.*)"', re.DOTALL)
_PUSHED = re.compile(r"Kernel version (\d+) successfully pushed\.\s+Please check progress at (\S+)")
"""Without a version number the client prints the same after an answer that says nothing."""
_INVALID = re.compile(r"The following are not valid (\w+) sources.*")
_NEXT_PAGE = re.compile(r"^Next Page Token = (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class DatasetState:
    """A dataset as Kaggle sees it.

    Attributes:
        status: Kaggle's word for it, such as `ready`; `absent` if there is no such dataset.
        version: number of the current version, 0 if there is none.
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
        status: Kaggle's word for it, such as `RUNNING`.
        failure: Kaggle's reason for a failure; empty if it gives none.
    """

    status: str
    failure: str

    @property
    def ended(self) -> bool:
        return self.ended_well or self.status in {"ERROR", "CANCEL_ACKNOWLEDGED"}

    @property
    def ended_well(self) -> bool:
        return self.status == "COMPLETE"


class KaggleClient:
    """The official client, as installed for this Python, with the credentials that it finds by itself.

    Args:
        say: called with each line that a transfer prints; None shows nothing.
        call_s: seconds that a call without a transfer may take.
        transfer_s: seconds that an upload or download may take.
    """

    def __init__(
        self, say: Callable[[str], None] | None = None, call_s: float = 300.0, transfer_s: float = 6 * 3600.0
    ) -> None:
        self._say = say
        self._call_s = call_s
        self._transfer_s = transfer_s

    def dataset(self, ref: str) -> DatasetState:
        """Return a dataset's state.

        Args:
            ref: owner/slug of the dataset.

        Raises:
            ClientError: the state cannot be determined.
        """
        answer = self._ask("datasets", "status", ref, "--format", "json")
        unclear = answer.error(f"cannot determine the state of dataset {ref}")
        if answer.code:
            if unclear.unknown:
                return DatasetState("absent", 0)
            raise unclear
        try:
            found = parse_object(answer.text[answer.text.index("{") :])
            return DatasetState(str(found["status"]), int(found["current_version_number"] or 0))
        except (ValueError, KeyError, TypeError) as problem:
            raise unclear from problem

    def dataset_files(self, ref: str) -> dict[str, int]:
        """Return the sizes in bytes of the files in a dataset's current version, by name.

        Args:
            ref: owner/slug of the dataset.

        Raises:
            ClientError: the files cannot be listed.
        """
        files: dict[str, int] = {}
        token: list[str] = []
        while True:
            answer = self._ask("datasets", "files", ref, "--format", "json", "--page-size", "200", *token)
            try:
                files |= {item["name"]: int(item["size"]) for item in _json_list(answer)}
            except (ValueError, KeyError, TypeError) as error:
                raise answer.error(f"cannot list the files of dataset {ref}") from error
            following = _NEXT_PAGE.search(answer.text)
            if following is None:
                return files
            token = ["--page-token", following[1]]

    def dataset_manifest(self, ref: str) -> bytes:
        """Return the content of the manifest in a dataset's current version.

        Args:
            ref: owner/slug of the dataset.

        Raises:
            ClientError: there is no manifest, or it cannot be fetched.
        """
        with tempfile.TemporaryDirectory() as folder:
            answer = self._ask(
                "datasets", "download", ref, "-f", MANIFEST, "-p", folder, "--force", "--quiet"
            )
            files = [path for path in Path(folder).rglob("*") if path.is_file()]
            if answer.code or len(files) != 1:
                raise answer.error(f"{MANIFEST} of dataset {ref} cannot be fetched")
            if zipfile.is_zipfile(files[0]):  # Kaggle compresses some files for the download
                with zipfile.ZipFile(files[0]) as archive:
                    return archive.read(archive.namelist()[0])
            return files[0].read_bytes()

    def upload(self, folder: Path, note: str | None, names: Collection[str]) -> bool:
        """Upload a dataset.

        Args:
            folder: folder of the card and the files.
            note: version note of a further version; None creates the dataset.
            names: names of the files that must arrive.

        Returns:
            Whether the client said that a version is being made from the files. If it said neither that nor anything
            known to be a failure, only Kaggle's list of files can tell.

        Raises:
            ClientError: the dataset was not created, or not with all of its files.
        """
        words = ["create"] if note is None else ["version", "-m", note]
        command = ["datasets", *words, "-p", str(folder)]
        answer = self._transfer(*command)
        if answer.code and not answer.error("").transient:
            # The client resumes uploads that an earlier call began, for days, even if Kaggle has given them up. A
            # temporary folder of its own makes it start over.
            with tempfile.TemporaryDirectory() as fresh:
                answer = self._transfer(*command, temporary=Path(fresh))
        refused, created = answer.refused(names), "is being created" in answer.text
        if answer.code or (not created and answer.complains):
            lost = f": {', '.join(refused)} did not arrive" if refused else ""
            raise answer.error(f"the dataset was not uploaded{lost}; fix what is named, or push again later")
        if refused:
            raise answer.error(
                f"the new version lacks {', '.join(refused)}: the client dropped {counted(len(refused), 'upload')} and "
                "went on; push again, an incomplete version is not mistaken for this bundle"
            )
        return created

    def push_kernel(self, folder: Path, time_limit_s: float | None = None) -> Pushed:
        """Push a kernel, which starts a session of it.

        Args:
            folder: folder of the kernel's metadata and script.
            time_limit_s: seconds after which Kaggle stops the session; None for Kaggle's own limit.

        Raises:
            ClientError: the kernel was not pushed, or was pushed without some of its inputs.
        """
        limit = [] if time_limit_s is None else ["-t", str(round(time_limit_s))]
        answer = self._ask("kernels", "push", "-p", str(folder), *limit)
        pushed, invalid = _PUSHED.search(answer.text), _INVALID.search(answer.text)
        if invalid is not None:
            raise answer.error(
                f"kernel {folder.name} was pushed without some of its inputs ({invalid[0]}); add them or correct "
                "kernel-metadata.json, and stop the session that has started"
            )
        if pushed is None and not answer.code and not answer.complains:
            raise answer.error(
                f"cannot tell whether kernel {folder.name} was pushed; look at its page before you push again, so that "
                "no second session is started"
            )
        if pushed is None or answer.code:
            raise answer.error(f"kernel {folder.name} was not pushed")
        return Pushed(int(pushed[1]), pushed[2])

    def kernel(self, ref: str) -> KernelState:
        """Return the state of a kernel's latest session.

        Args:
            ref: owner/slug of the kernel.

        Raises:
            ClientError: the state cannot be determined.
        """
        answer = self._ask("kernels", "status", ref)
        status = _STATUS.search(answer.text)
        if status is None:
            raise answer.error(f"cannot determine the state of kernel {ref}")
        failure = _FAILURE.search(answer.text)
        return KernelState(status[1].upper(), " ".join(failure[1].split()) if failure else "")

    def kernel_output(self, ref: str, folder: Path) -> list[Path]:
        """Download the output of a kernel's latest session, and its log.

        Args:
            ref: owner/slug of the kernel.
            folder: folder to download into.

        Returns:
            Paths of the files in `folder`.

        Raises:
            ClientError: nothing arrived.
        """
        answer = self._transfer("kernels", "output", ref, "-p", str(folder), "--page-size", "200")
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if answer.code or not files:
            raise answer.error(f"the output of kernel {ref} cannot be fetched")
        return files

    def _ask(self, *arguments: str) -> Answer:
        return run_client(arguments, self._call_s)

    def _transfer(self, *arguments: str, temporary: Path | None = None) -> Answer:
        return run_client(arguments, self._transfer_s, self._show, temporary)

    def _show(self, line: str) -> None:
        if self._say is not None and not is_noise(line):
            self._say(f"  kaggle: {line.rstrip()}")


def _json_list(answer: Answer) -> Iterator[dict[str, str]]:
    if answer.code or "[" not in answer.text:
        raise ValueError("no list")
    yield from parse_beginning(answer.text[answer.text.index("[") :])
