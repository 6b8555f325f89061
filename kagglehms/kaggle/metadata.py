"""The rules that Kaggle and its client set for the two metadata files.

They come from the client (kaggle 2.2.4) and from reports on its issue tracker. The client does not check all of them
itself; the service then answers with an error that says nothing, or silently does something else.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from kagglehms.bundle.manifest import CARD
from kagglehms.data.competition import SLUG
from kagglehms.kaggle.dist import UNSCORED
from kagglehms.kaggle.findings import Finding
from kagglehms.kaggle.image import kaggle_image
from kagglehms.kaggle.stamping import KERNEL_METADATA, OWNER_NAME, is_placeholder

_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_CARD_KEYS = frozenset(
    [
        "id",
        "id_no",
        "title",
        "subtitle",
        "description",
        "isPrivate",
        "licenses",
        "keywords",
        "resources",
        "collaborators",
        "data",
        "expectedUpdateFrequency",
        "userSpecifiedSources",
        "image",
    ]
)
_KERNEL_KEYS = frozenset(
    [
        "id",
        "id_no",
        "title",
        "code_file",
        "language",
        "kernel_type",
        "is_private",
        "enable_gpu",
        "enable_tpu",
        "enable_internet",
        "machine_shape",
        "dataset_sources",
        "competition_sources",
        "kernel_sources",
        "model_sources",
        "keywords",
        "docker_image",
        "docker_image_pinning_type",
    ]
)
_FLAGS = ("is_private", "enable_gpu", "enable_tpu", "enable_internet")
_SOURCES = ("dataset_sources", "competition_sources", "kernel_sources", "model_sources")
_LANGUAGES = ("python", "r", "rmarkdown")
_KERNEL_TYPES = ("script", "notebook")
_PINNING = ("original", "latest")


def card_findings(card: Mapping[str, Any], folder: Path) -> Iterator[Finding]:
    """Yield what Kaggle would not accept in the dataset's card.

    Args:
        card: content of dataset-metadata.json.
        folder: folder to upload, which holds the card.
    """
    where = str(folder / CARD)

    def found(what: str, fix: str) -> Finding:
        return Finding(where, what, fix)

    yield from _unknown_keys(card, _CARD_KEYS, where)
    yield from _id(card, 6, where)
    title = card.get("title")
    if not isinstance(title, str) or not 6 <= len(title) <= 50:
        yield found(f"title {title!r} is not of 6 to 50 characters", "change its length")
    licenses = card.get("licenses")
    if (
        not isinstance(licenses, list)
        or len(licenses) != 1
        or not isinstance(licenses[0], dict)
        or not isinstance(licenses[0].get("name"), str)
        or not licenses[0]["name"]
    ):
        yield found(
            f"licenses {licenses!r} is not exactly one licence", 'write "licenses": [{"name": "apache-2.0"}]'
        )
    subtitle = card.get("subtitle")
    if subtitle and (not isinstance(subtitle, str) or not 20 <= len(subtitle) <= 80):
        yield found(f"subtitle {subtitle!r} is not of 20 to 80 characters", "change its length, or remove it")
    yield from _resources(card.get("resources") or [], folder, where)


def kernel_findings(metadata: Mapping[str, Any], folder: Path, bundle_id: str | None) -> Iterator[Finding]:
    """Yield what Kaggle would not accept in a kernel's metadata, or would silently change.

    Args:
        metadata: content of kernel-metadata.json.
        folder: folder of the kernel.
        bundle_id: owner/slug of the bundle that the kernel mounts; None leaves it unchecked.
    """
    where = str(folder / KERNEL_METADATA)
    yield from _unknown_keys(metadata, _KERNEL_KEYS, where)
    yield from _id(metadata, 5, where)
    yield from _title(metadata, where)
    for key, allowed in (("language", _LANGUAGES), ("kernel_type", _KERNEL_TYPES)):
        if metadata.get(key) not in allowed:
            yield Finding(where, f"{key} is {metadata.get(key)!r}", f"write one of {', '.join(allowed)}")
    pinning = metadata.get("docker_image_pinning_type")
    if pinning is not None and pinning not in _PINNING:
        yield Finding(
            where,
            f"docker_image_pinning_type is {pinning!r}",
            f"write one of {', '.join(_PINNING)}, or remove it",
        )
    yield from _code_file(metadata, folder, where)
    yield from _session(metadata, folder.name not in UNSCORED, where)
    yield from _sources(metadata, bundle_id, where)


def slug_of(metadata: Mapping[str, Any]) -> str:
    """Return the slug in a metadata file's `id`, in lower case; empty if there is none."""
    found = metadata.get("id")
    return found.rpartition("/")[2].lower() if isinstance(found, str) else ""


def _unknown_keys(content: Mapping[str, Any], known: Collection[str], where: str) -> Iterator[Finding]:
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            fix = f"did you mean {near[0]!r}?" if near else "remove it"
            yield Finding(where, f"the client ignores the unknown key {key!r}", fix)


def _id(content: Mapping[str, Any], shortest: int, where: str) -> Iterator[Finding]:
    given = content.get("id")
    owner, slash, slug = given.partition("/") if isinstance(given, str) else ("", "", "")
    if not slash or "/" in slug or not owner:
        yield Finding(where, f"id {given!r} is not of the form owner/slug", "build again")
        return
    if is_placeholder(owner) or not OWNER_NAME.fullmatch(owner):
        yield Finding(
            where,
            f"the owner is {owner!r}, which is not a Kaggle user name",
            "build again with --owner NAME, or set KAGGLE_USERNAME",
            cause=f"owner {owner}",
        )
    if not shortest <= len(slug) <= 50:
        yield Finding(
            where, f"slug {slug!r} is not of {shortest} to 50 characters", "choose another in the template"
        )
    if not _SLUG.fullmatch(slug):
        yield Finding(
            where, f"slug {slug!r} has other characters than a-z, 0-9 and single hyphens", "choose another"
        )


def _resources(resources: Any, folder: Path, where: str) -> Iterator[Finding]:
    if not isinstance(resources, list) or not all(isinstance(item, dict) for item in resources):
        yield Finding(where, "resources is not a list of objects", 'write [{"path": "FILE"}], or remove it')
        return
    paths = [item.get("path") for item in resources]
    for path in dict.fromkeys(paths):
        if not isinstance(path, str) or not (folder / path).is_file():
            yield Finding(
                where, f"resource {path!r} is not a file of the dataset", "remove it from resources"
            )
        if paths.count(path) > 1:
            yield Finding(where, f"resource {path!r} is listed {paths.count(path)} times", "list it once")


def _title(metadata: Mapping[str, Any], where: str) -> Iterator[Finding]:
    from slugify import slugify  # the client uses the same

    title = metadata.get("title")
    if not isinstance(title, str) or not 5 <= len(title) <= 50:
        # The service answers a longer title with "internal server error".
        yield Finding(where, f"title {title!r} is not of 5 to 50 characters", "change its length")
    if isinstance(title, str) and slugify(title) != slug_of(metadata):
        yield Finding(
            where,
            f"title {title!r} resolves to the slug {slugify(title)!r}, but the id says {slug_of(metadata)!r}",
            "make them equal, or the kernel is pushed to another place than the one that is watched",
        )


def _code_file(metadata: Mapping[str, Any], folder: Path, where: str) -> Iterator[Finding]:
    name = metadata.get("code_file")
    if not isinstance(name, str) or not name or Path(name).name != name or not (folder / name).is_file():
        yield Finding(where, f"code_file {name!r} is not a file beside it", "name the script")
        return
    if metadata.get("kernel_type") == "script" and not name.endswith((".py", ".r", ".R", ".rmd", ".Rmd")):
        yield Finding(
            where, f"code_file {name!r} is not a script", "name a .py file, or set kernel_type to notebook"
        )
    size, most = (folder / name).stat().st_size, kaggle_image().limits.code_bytes
    if size > most:
        yield Finding(
            str(folder / name),
            f"{size:,} bytes, and Kaggle takes {most:,} of a kernel's source",
            "put code and data into the bundle",
        )


def _session(metadata: Mapping[str, Any], scored: bool, where: str) -> Iterator[Finding]:
    for flag in _FLAGS:
        if flag in metadata and not isinstance(metadata[flag], bool):
            yield Finding(where, f"{flag} is {metadata[flag]!r}", "write true or false, without quotes")
    internet = metadata.get("enable_internet")
    if internet is None:
        yield Finding(
            where, "enable_internet is missing, and the client's default is true", "write true or false"
        )
    elif scored and internet is not False:
        yield Finding(
            where,
            "the internet is on, and the competition accepts no submission from such a kernel",
            'write "enable_internet": false',
        )
    shape, wanted = metadata.get("machine_shape"), kaggle_image().machine_shape
    if metadata.get("enable_gpu") is True and shape != wanted:
        yield Finding(
            where,
            f"machine_shape is {shape!r}: the GPU can be a P100, which the image's torch does not support",
            f'write "machine_shape": "{wanted}"',
        )
    if metadata.get("enable_gpu") is not True and shape:
        yield Finding(where, f"machine_shape is {shape!r} without enable_gpu", "set both or neither")


def _sources(metadata: Mapping[str, Any], bundle_id: str | None, where: str) -> Iterator[Finding]:
    for key in _SOURCES:
        listed = metadata.get(key, [])
        if not isinstance(listed, list) or not all(isinstance(source, str) for source in listed):
            yield Finding(where, f"{key} is not a list of strings", 'write ["owner/slug"], or []')
            return
    datasets, kernels = metadata.get("dataset_sources", []), metadata.get("kernel_sources", [])
    for key, listed, shortest in (("dataset_sources", datasets, 1), ("kernel_sources", kernels, 5)):
        for source in listed:
            parts = source.split("/")
            if len(parts) not in {2, 3} or not all(parts) or len(parts[1]) < shortest:
                yield Finding(where, f"{key} has {source!r}", "write owner/slug or owner/slug/version")
            elif is_placeholder(parts[0]):
                yield Finding(
                    where,
                    f"{key} has {source!r}, whose owner is a placeholder",
                    "build again with --owner NAME",
                    cause=f"owner {parts[0]}",
                )
    for source in metadata.get("model_sources", []):
        if len(source.split("/")) != 5 or not all(source.split("/")):
            yield Finding(
                where, f"model_sources has {source!r}", "write owner/model/framework/variation/version"
            )
    if bundle_id is not None and bundle_id not in datasets:
        yield Finding(where, f"dataset_sources lacks the bundle {bundle_id}", "build again", cause="bundle")
    if SLUG not in metadata.get("competition_sources", []):
        yield Finding(where, f"competition_sources lacks {SLUG}", "add it")
