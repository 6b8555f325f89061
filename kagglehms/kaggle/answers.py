"""What the Kaggle client prints, and what that means.

The client ends with code 0 after "Kernel push error", after invalid sources and, before release 2.2.5, after an upload
that it dropped; and with code 1 it may print no more than a word. So the printed text decides, and errors quote it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from kagglehms.errors import HMSError

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
_NOT_INSTALLED = re.compile(r": No module named kaggle(\.__main__;.*)?$", re.M)
"""What Python prints in place of a client that it does not find."""


class ClientError(HMSError):
    """A call of the client that failed.

    Attributes:
        said: the client's own words.
        transient: whether the same call may succeed later.
        limited: whether Kaggle refused the call because there were too many, so that nothing was done.
        unknown: whether the thing asked for does not exist or may not be seen; Kaggle does not tell the two apart.
    """

    def __init__(self, message: str, said: str = "") -> None:
        super().__init__(message)
        self.said = said
        self.transient = bool(_TRANSIENT.search(said))
        self.limited = bool(_LIMITED.search(said))
        self.unknown = bool(_UNKNOWN.search(said)) and not self.limited


@dataclass(frozen=True)
class Answer:
    """Everything that one call of the client printed.

    Attributes:
        code: exit code.
        text: standard output and standard error together.
    """

    code: int
    text: str

    @property
    def message(self) -> str:
        """The lines that say how the call went: no progress bars, reminders or lines printed for every file."""
        lines = [line for line in self.text.splitlines() if not is_noise(line)]
        return "\n".join(line.strip() for line in lines if not _ROUTINE.search(line))

    @property
    def reason(self) -> str:
        """The last lines of `message` on a single line, for an error."""
        if "Authentication required" in self.text:
            return "Authentication required; log in with `kaggle auth login`, or see https://www.kaggle.com/settings"
        lines = self.message.splitlines()
        if any(line.startswith("Traceback (most recent call last)") for line in lines):
            lines = lines[-1:]
        return " | ".join(lines[-4:]) or f"nothing, exit code {self.code}"

    @property
    def complains(self) -> bool:
        """Whether the client said, in words that are known here, that something failed."""
        return _FAILED.search(self.message) is not None

    @property
    def not_installed(self) -> bool:
        """Whether Python found no client to run."""
        return self.code != 0 and _NOT_INSTALLED.search(self.text) is not None

    def error(self, what: str) -> ClientError:
        """Make an error that quotes the client.

        Args:
            what: what failed, and what to do about it.
        """
        return ClientError(f"{what}; the client says: {self.reason}", self.message)

    def refused(self, names: Collection[str]) -> list[str]:
        """Return those of the files in `names` that the client says did not arrive."""
        lines = [line for line in self.text.splitlines() if "unsuccessful" in line.lower()]
        return sorted(name for name in names if any(line.rstrip().endswith(f" {name}") for line in lines))


def is_noise(line: str) -> bool:
    """Return whether a line is a progress bar, a reminder of a new release, or blank."""
    return _NOISE.search(line) is not None
