"""A bundle in a model repository of the Hugging Face hub: fetched from there by `hf:owner/name`."""

from __future__ import annotations

import logging
from pathlib import Path

from kagglehms.bundle.manifest import MANIFEST, read_manifest
from kagglehms.errors import BundleError, UsageError, first_line

PREFIX = "hf:"
"""Beginning of the name of a bundle that is on the hub."""


def is_on_hub(name: Path | str) -> bool:
    """Return whether this names a bundle on the hub rather than a folder."""
    return str(name).startswith(PREFIX)


def fetch_bundle(name: str) -> Path:
    """Fetch a bundle from the hub into the cache of the hub's client, or find it there without a network.

    Whether the files are those of the manifest is not checked here; see `manifest.verify`.

    Args:
        name: `hf:owner/name`, followed by `@` and a branch, tag or commit for another one than `main`.

    Returns:
        The folder with the bundle's files, all of one commit.

    Raises:
        UsageError: this cannot be the name of a repository.
        BundleError: the hub does not answer or has no such repository, or what is there is no bundle.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError

    repository, _, revision = name.removeprefix(PREFIX).partition("@")
    if repository.count("/") != 1:
        raise UsageError(f"{name}: a bundle on the hub is named {PREFIX}owner/name")
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # it reports each of its retries; what becomes of them is told below
    try:
        manifest = Path(hf_hub_download(repository, MANIFEST, revision=revision or None))
        folder = manifest.parent  # named after the commit, so that all files are of the same
        for file in read_manifest(folder).files:
            hf_hub_download(repository, file, revision=folder.name)
    except HFValidationError as error:
        raise UsageError(f"{name}: {first_line(error)}") from error
    except BundleError:
        raise
    except Exception as error:  # depending on its release, the client raises errors of three HTTP libraries
        raise BundleError(
            f"{name}: the hub gave no bundle ({first_line(error)}); check the name and the network, and log in with "
            "`hf auth login` if the repository is private"
        ) from error
    finally:
        logger.setLevel(level)
    return folder


def published_card(card: bytes, repository: str, digest: str) -> bytes:
    """Return the repository's README.md: the bundle's model card below what the hub reads and a line that loads it.

    Args:
        card: the bundle's model card.
        repository: owner/name on the hub.
        digest: digest of the bundle.
    """
    begin = f"""\
---
license: apache-2.0
library_name: kagglehms
tags: [eeg, kagglehms]
---

    from kagglehms import load_bundle
    predictor = load_bundle("{PREFIX}{repository}", expected_digest="{digest}")

"""
    return begin.encode() + card
