"""What the official client would find of credentials on this machine, and why it cannot use what it finds.

Nothing of a key or token is kept or shown: they are looked at only as far as the client's own reading of them goes.
"""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kagglehms.files import home

_MARKS = {
    codecs.BOM_UTF8: "begins with a byte order mark",
    codecs.BOM_UTF16_LE: "is in UTF-16",
    codecs.BOM_UTF16_BE: "is in UTF-16",
}
"""How editors on Windows save text: what they put first, and what that says."""


@dataclass(frozen=True)
class Found:
    """One place where the client looks.

    Attributes:
        place: a file, or the names of variables.
        username: that stands there; None where there is none.
        fault: why the client cannot use it, in words; empty where it can.
        path: the file; None for variables.
    """

    place: str
    username: str | None = None
    fault: str = ""
    path: Path | None = field(default=None, compare=False)


def credentials() -> list[Found]:
    """Look wherever the client (2.2) looks for credentials, in its order."""
    return [found for found in (*_variables(), *_token_files(), *configurations()) if found is not None]


def configurations() -> Iterator[Found]:
    """The client's kaggle.json and what its `kaggle auth login` left, as far as they are there."""
    yield from _read_object(client_config(), ("username", "key"))
    if (folder := _own_folder()) is not None:
        yield from _read_object(folder / "credentials.json", ("username", "refresh_token"))


def client_config() -> Path | None:
    """Return where the client keeps its configuration; None for a user without a home."""
    if given := os.environ.get("KAGGLE_CONFIG_DIR"):
        return Path(given) / "kaggle.json"
    folder, at_home = _own_folder(), home()
    if folder is not None and folder.exists():
        return folder / "kaggle.json"
    general = os.environ.get("XDG_CONFIG_HOME") or (at_home / ".config" if at_home is not None else None)
    return None if general is None else Path(general) / "kaggle" / "kaggle.json"


def _own_folder() -> Path | None:
    at_home = home()
    return None if at_home is None else at_home / ".kaggle"


def _variables() -> Iterator[Found]:
    if os.environ.get("KAGGLE_API_TOKEN"):
        yield Found("KAGGLE_API_TOKEN")
    if os.environ.get("KAGGLE_USERNAME") and os.environ.get("KAGGLE_KEY"):
        yield Found("KAGGLE_USERNAME and KAGGLE_KEY", os.environ["KAGGLE_USERNAME"])


def _token_files() -> Iterator[Found]:
    folder = _own_folder()
    for path in () if folder is None else (folder / "access_token", folder / "access_token.txt"):
        content, fault = _read(path)
        if content is not None:
            yield Found(str(path), None, fault or ("" if content.strip() else "is empty"), path)


def _read_object(path: Path | None, needed: tuple[str, ...]) -> Iterator[Found]:
    content, fault = (None, "") if path is None else _read(path)
    if path is None or content is None:
        return
    try:
        # Not strictly: what the client takes is taken here, and encodings that it cannot read as well.
        fields: Any = json.loads(content)
    except (ValueError, RecursionError):
        fields, fault = None, fault or "is no JSON"
    if not isinstance(fields, dict):
        yield Found(str(path), None, fault or "is no JSON object", path)
        return
    missing = [name for name in needed if not isinstance(fields.get(name), str) or not fields[name]]
    username = None if "username" in missing else fields["username"]
    yield Found(str(path), username, fault or (f"lacks {' and '.join(missing)}" if missing else ""), path)


def _read(path: Path) -> tuple[bytes | None, str]:
    """The content of a file, None where there is none, and why the client could not read it."""
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None, ""
    except OSError as error:
        return b"", f"cannot be read ({error.strerror})"
    said = next((said for mark, said in _MARKS.items() if content.startswith(mark)), "")
    return content, f"{said}, with which the client cannot read it" if said else ""
