"""The owner, and the templates in which the owner's name, the bundle's slug and its digest are stamped."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from kagglehms.errors import RunError, UsageError
from kagglehms.kaggle.credentials import configurations
from kagglehms.strict_json import JSONError, parse_object

PLACEHOLDER_OWNER = "your-kaggle-username"
"""Stands for the owner in the templates, and in what is built where no owner is known."""
KERNEL_METADATA = "kernel-metadata.json"
STAMPS = ("OWNER", "BUNDLE", "DIGEST")
"""Variables that stand once in every kernel's script, with a string behind them."""

OWNER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
"""A user name as Kaggle gives them."""
_PLACEHOLDERS = frozenset(
    {PLACEHOLDER_OWNER, "your-kaggle-name", "your-name", "your-username", "your-kaggle-username"}
)
"""What stands in templates and examples for a name, in small letters; in no case is it somebody's."""


def find_owner(given: str | None = None) -> tuple[str, str]:
    """Return the Kaggle user name to stamp and where it comes from.

    Looked for in this order: `given`, the variable KAGGLE_USERNAME, the Kaggle client's kaggle.json and what its
    `kaggle auth login` left (of neither is a key or token kept or shown). With none it is `PLACEHOLDER_OWNER`, and what
    there was instead of a name stands in place of where it comes from.

    Raises:
        UsageError: a name that Kaggle cannot have given, or one that was copied from an example.
    """
    found = list(configurations())
    for name, source in (
        (given, "--owner"),
        (os.environ.get("KAGGLE_USERNAME"), "KAGGLE_USERNAME"),
        *((one.username, one.place) for one in found),
    ):
        if name:
            if not OWNER_NAME.fullmatch(name):
                raise UsageError(
                    f"owner {name!r} (from {source}) is no Kaggle user name; give it with --owner"
                )
            if is_placeholder(name):
                raise UsageError(
                    f"owner {name!r} (from {source}) stands for a Kaggle user name in examples; put your own there"
                )
            return name, source
    return PLACEHOLDER_OWNER, "; ".join(["nowhere", *(f"{one.place} {one.fault}" for one in found)])


def is_placeholder(owner: str) -> bool:
    """Whether a name is one of those that only stand for a name."""
    return owner.lower().replace("_", "-") in _PLACEHOLDERS


def read_template(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`.

    Raises:
        RunError: missing, or not an object.
    """
    try:
        content = parse_object(path.read_bytes())
    except (OSError, JSONError) as error:
        raise RunError(
            f"{path}: cannot be read as JSON ({error}); take it from the project's checkout"
        ) from error
    if not isinstance(content.get("id"), str) or content["id"].count("/") != 1:
        raise RunError(f"{path}: has no id of the form owner/slug; take it from the project's checkout")
    return content


def stamp_card(template: Path, owner: str) -> tuple[str, bytes]:
    """Return the bundle's slug and its card with the owner in it."""
    card = read_template(template)
    slug = card["id"].partition("/")[2]
    card["id"] = f"{owner}/{slug}"
    return slug, _json_bytes(card)


def stamp_kernel(template: Path, owner: str, slug: str, digest: str) -> dict[str, bytes]:
    """Return the files of one kernel, ready to be pushed.

    Args:
        template: a folder of `kernels/`.
        owner: Kaggle user name of kernel and bundle.
        slug: of the bundle.
        digest: of the bundle; the kernel will refuse any other.

    Raises:
        RunError: a template without the lines to stamp, or one that does not mount the bundle.
    """
    metadata = read_template(template / KERNEL_METADATA)
    metadata["id"] = f"{owner}/{metadata['id'].partition('/')[2]}"
    for key in ("dataset_sources", "kernel_sources"):
        sources = [str(source) for source in metadata.get(key, [])]
        metadata[key] = [source.replace(f"{PLACEHOLDER_OWNER}/", f"{owner}/") for source in sources]
    if f"{owner}/{slug}" not in metadata["dataset_sources"]:
        raise RunError(
            f"{template / KERNEL_METADATA}: dataset_sources lacks {PLACEHOLDER_OWNER}/{slug}; add it"
        )
    script = template / str(metadata.get("code_file"))
    try:
        text = script.read_text(encoding="utf-8")
    except OSError as error:
        raise RunError(
            f"{script}: cannot be read ({error.strerror}); name the script in code_file"
        ) from error
    for name, value in zip(STAMPS, (owner, slug, digest), strict=True):
        text, count = re.subn(rf'^{name} = "[^"]*"', f'{name} = "{value}"', text, flags=re.MULTILINE)
        if count != 1:
            raise RunError(f'{script}: has {count} lines that begin with `{name} = "`, it needs exactly one')
    return {script.name: text.encode(), KERNEL_METADATA: _json_bytes(metadata)}


def _json_bytes(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"
