"""Fills the owner's name, the bundle's slug and its digest into the templates of the card and the kernels."""

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
"""The owner in the templates, and in a build for which no owner is known."""
KERNEL_METADATA = "kernel-metadata.json"
STAMPS = ("OWNER", "BUNDLE", "DIGEST")
"""Variables to which every kernel's script assigns a string exactly once."""

OWNER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
"""The form of a Kaggle user name."""
_PLACEHOLDERS = frozenset(
    {PLACEHOLDER_OWNER, "your-kaggle-name", "your-name", "your-username", "your-kaggle-username"}
)
"""Names used in templates and examples, in lower case; none of them belongs to a user."""


def find_owner(given: str | None = None) -> tuple[str, str]:
    """Find the Kaggle user name to stamp.

    Places are tried in this order: `given`, the variable KAGGLE_USERNAME, the Kaggle client's kaggle.json, and the
    credentials left by `kaggle auth login`. No key or token is kept or shown.

    Args:
        given: name to use in place of any other; None looks for one.

    Returns:
        The name and its source in words. Without a name these are `PLACEHOLDER_OWNER` and the reasons why none of the
        places gave one.

    Raises:
        UsageError: the name cannot be a Kaggle user name, or was copied from an example.
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
                    f"owner {name!r} (from {source}) is not a Kaggle user name; give yours with --owner"
                )
            if is_placeholder(name):
                raise UsageError(
                    f"owner {name!r} (from {source}) is the placeholder of an example; replace it with your own name"
                )
            return name, source
    return PLACEHOLDER_OWNER, "; ".join(["nowhere", *(f"{one.place} {one.fault}" for one in found)])


def is_placeholder(owner: str) -> bool:
    """Return whether a name is a placeholder used in templates and examples."""
    return owner.lower().replace("_", "-") in _PLACEHOLDERS


def read_template(path: Path) -> dict[str, Any]:
    """Return the metadata in the JSON file at `path`.

    Raises:
        RunError: the file is missing, is not a JSON object, or has no id of the form owner/slug.
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
    """Return the bundle's slug, and the bytes of its card with the owner filled in."""
    card = read_template(template)
    slug = card["id"].partition("/")[2]
    card["id"] = f"{owner}/{slug}"
    return slug, _json_bytes(card)


def stamp_kernel(template: Path, owner: str, slug: str, digest: str) -> dict[str, bytes]:
    """Make the files of one kernel, ready to push.

    Args:
        template: folder of the kernel in `kernels/`.
        owner: Kaggle user name that owns kernel and bundle.
        slug: slug of the bundle.
        digest: digest of the bundle; the kernel will refuse any other.

    Returns:
        The content of each file by its name.

    Raises:
        RunError: the template lacks the lines to fill in, or does not mount the bundle.
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
            raise RunError(f'{script}: has {count} lines that begin with `{name} = "`; it needs exactly one')
    return {script.name: text.encode(), KERNEL_METADATA: _json_bytes(metadata)}


def _json_bytes(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"
