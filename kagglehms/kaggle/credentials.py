"""Which credentials the official client would find on this machine, and why it could not use them.

No key or token is kept or shown; files are read only to see whether the client could read them.
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

_FILES = ("kaggle.json", "credentials.json", "access_token", "access_token.txt")
_MARKS = {
    codecs.BOM_UTF8: "begins with a byte order mark",
    codecs.BOM_UTF16_LE: "is in UTF-16",
    codecs.BOM_UTF16_BE: "is in UTF-16",
}
"""First bytes of files that editors on Windows save in encodings the client cannot read, each with its description."""


@dataclass(frozen=True)
class Found:
    """Credentials in one of the places where the client looks.

    Attributes:
        place: path of the file, or names of the environment variables.
        username: user name found there; None if there is none.
        fault: why the client cannot use the credentials; empty if it can.
        path: path of the file; None for environment variables.
    """

    place: str
    username: str | None = None
    fault: str = ""
    path: Path | None = field(default=None, compare=False)


def credentials() -> list[Found]:
    """Return all credentials in the places where the client (2.2) looks, in its order."""
    return [found for found in (*_variables(), *_token_files(), *configurations()) if found is not None]


def configurations() -> Iterator[Found]:
    """Yield the client's kaggle.json and the file that `kaggle auth login` writes, if they exist."""
    yield from _read_object(client_config(), ("username", "key"))
    if (folder := _own_folder()) is not None:
        yield from _read_object(folder / "credentials.json", ("username", "refresh_token"))


def secret_files() -> Iterator[Path]:
    """Yield every path at which the client could keep a key or a token, whether there is a file or not."""
    given = os.environ.get("KAGGLE_CONFIG_DIR")
    folders = [Path(given) if given else None, _own_folder()]
    if (config := client_config()) is not None:
        folders.append(config.parent)
    for folder in filter(None, folders):
        yield from (folder / name for name in _FILES)


def client_config() -> Path | None:
    """Return the path of the client's configuration; None for a user without a home."""
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
        # Not strictly: what the client accepts is accepted here, and so are encodings that it cannot read.
        fields: Any = json.loads(content)
    except (ValueError, RecursionError):
        fields, fault = None, fault or "is not JSON"
    if not isinstance(fields, dict):
        yield Found(str(path), None, fault or "is not a JSON object", path)
        return
    missing = [name for name in needed if not isinstance(fields.get(name), str) or not fields[name]]
    username = None if "username" in missing else fields["username"]
    yield Found(str(path), username, fault or (f"lacks {' and '.join(missing)}" if missing else ""), path)


def _read(path: Path) -> tuple[bytes | None, str]:
    """Return a file's content, None if there is no file, and the reason why the client could not read it."""
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None, ""
    except OSError as error:
        return b"", f"cannot be read ({error.strerror})"
    said = next((said for mark, said in _MARKS.items() if content.startswith(mark)), "")
    return content, f"{said}, so the client cannot read it" if said else ""
