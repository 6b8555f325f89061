"""Runs the Kaggle client in a subprocess and collects what it prints."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from kagglehms.environment import safe_environment
from kagglehms.errors import RunError
from kagglehms.kaggle.answers import Answer, ClientError

COMMAND = (sys.executable, "-P", "-m", "kaggle")


_NEEDED = frozenset("""
    PATH HOME USER LOGNAME USERNAME LANG LANGUAGE TZ TMPDIR TEMP TMP LD_LIBRARY_PATH DYLD_LIBRARY_PATH
    HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE
    PYTHONPATH PYTHONSAFEPATH PYTHONHOME PYTHONNOUSERSITE PYTHONUSERBASE PYTHONDONTWRITEBYTECODE PYTHONUTF8
    VIRTUAL_ENV SYSTEMROOT SYSTEMDRIVE WINDIR COMSPEC PATHEXT USERPROFILE HOMEDRIVE HOMEPATH APPDATA LOCALAPPDATA
    PROGRAMDATA
""".split())  # fmt: skip  # noqa: SIM905  a list of words reads better than one of strings
_NEEDED_FAMILIES = ("KAGGLE_", "XDG_", "LC_")


def _needed(environment: dict[str, str]) -> dict[str, str]:
    """Return what the client needs of an environment: its own settings, the way to the network, Python, the user."""
    return {
        name: value
        for name, value in environment.items()
        if name.upper() in _NEEDED or name.upper().startswith(_NEEDED_FAMILIES)
    }


def run_client(
    arguments: Sequence[str],
    timeout_s: float,
    watch: Callable[[str], object] = lambda line: None,
    temporary: Path | None = None,
) -> Answer:
    """Run the client once.

    Args:
        arguments: words after `kaggle`.
        timeout_s: seconds after which the client is killed.
        watch: called with each line as soon as it is printed.
        temporary: folder for the client's temporary files; None for the usual one.

    Raises:
        RunError: the client is not installed or cannot be started.
        ClientError: it did not end in time.
    """
    environment = _needed(safe_environment()) | {"PYTHONIOENCODING": "utf-8"}
    if temporary is not None:
        environment |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary))
    try:
        child = subprocess.Popen(
            [*COMMAND, "-W", *arguments], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace",
        )  # fmt: skip
    except OSError as error:
        raise RunError(f"{COMMAND[0]}: the Kaggle client cannot be started ({error})") from error
    late = threading.Event()

    def stop() -> None:
        late.set()
        child.kill()

    timer = threading.Timer(timeout_s, stop)
    lines: list[str] = []
    with child:
        timer.start()
        try:
            assert child.stdout is not None
            for line in child.stdout:
                lines.append(line)
                watch(line)
            code = child.wait()
        finally:
            timer.cancel()
            child.kill()
    if late.is_set():
        what = f"`kaggle {' '.join(arguments[:2])}` did not end within {timeout_s:.0f} s; try again"
        raise ClientError(what, "timed out")
    answer = Answer(code, "".join(lines))
    if (
        answer.not_installed
    ):  # the child's own finding, because it imports from other folders than this process
        raise RunError(f"the Kaggle client is not installed for {COMMAND[0]}; pip install kaggle")
    return answer
